# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Gemma, show your work
#
# Stock Gemma learns to show its reasoning first, `<reasoning>…</reasoning><answer>…</answer>`: by a LoRA warm start on worked examples (SFT) and reinforcement learning on its own answers (GRPO), in Google's [Tunix](https://github.com/google/tunix), made for one session on a TPU v5e-8.
#
# <!-- include: data/first_screen.md -->
#
# **How to run it.** (1) *Settings › Accelerator*: TPU v5e-8, *Internet*: on. (2) *Add Input › Models*: `google/gemma-3/flax/gemma3-1b-it`. (3) *Save Version › Save & Run All*: nine hours; with `MINUTES = 30` in the cell below, a trial. (4) The submission is `outputs/checkpoints/actor/<highest step>/model_params`. On a laptop `bash scripts/run.sh` runs the same cells with the tiny Gemma in 10 to 15 minutes.
#
# [Strategy](#Your-overall-training-and-evaluation-strategy) · [Data](#How-your-finetuning-dataset-is-created) · [Training](#Your-Tunix-finetuning-code) · [Results](#Results) · [Limits](#Other-things-you-want-the-judges-to-know)

# %% tags=["parameters"]
# What a run is told. An environment variable of the same name wins over a value here.
PROFILE = ""  # "tiny", "small" or "kaggle"; empty: kaggle on a TPU, else tiny
MODEL = ""  # "gemma3_1b_it" or "gemma2_2b_it"; empty: the profile's
RECIPE = "warm_start_grpo"
MINUTES = None  # a time limit, from the first cell on; None: the profile's `hours`
RUN_SEED = 0
RESUME = ""  # "1": go on or fail, "0": start anew; empty: go on with an unfinished run
OUT = "outputs"
START_FROM = ""  # for the recipe "continue": the folder of an earlier run
PUBLISH_AS = ""  # "user/model": upload the result to Kaggle

# %% tags=["folded", "setup"]
import os
import pathlib
import time
import warnings

NOTEBOOK_START = globals().get("NOTEBOOK_START", time.monotonic())  # run again, it moves nothing
tpu_devices = [*pathlib.Path("/dev").glob("accel*"), *pathlib.Path("/dev/vfio").glob("[0-9]*")]
shows_tpu = bool(tpu_devices) or any(name.startswith(("TPU_", "ISTPUVM")) for name in os.environ)
on_kaggle = "KAGGLE_KERNEL_RUN_TYPE" in os.environ
if on_kaggle and not shows_tpu and not (PROFILE or os.environ.get("PROFILE")):
    raise RuntimeError(
        "This session has no TPU: choose 'Settings' > 'Accelerator' > 'TPU v5e-8'. (The tiny Gemma "
        'needs none, but the repository\'s folder data/ beside the notebook: PROFILE = "tiny".)'
    )
if not shows_tpu and not on_kaggle:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # JAX would look for a TPU at length
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")  # its downloads have hung for ever on such hosts
# Tunix would ask for W&B.
os.environ.setdefault("WANDB_MODE", "online" if os.environ.get("WANDB_PROJECT") else "disabled")
# Tunix reads the mesh from `with mesh:` and from nowhere else.
warnings.filterwarnings("ignore", r"`with mesh:` context manager", DeprecationWarning)
warnings.filterwarnings("ignore", "IProgress not found")

# install: requirements.txt

import absl.logging
import jax
from IPython.display import HTML, Markdown, display

absl.logging.set_verbosity(absl.logging.ERROR)  # Tunix and Orbax report every detail

# %% [markdown]
# ## Your overall training and evaluation strategy
#
# ![One example on its way](attachment:data/pipeline.svg)
#
# **The idea.** Stock Gemma answers at once, or reasons in whatever form it likes. A warm start on examples (SFT) shows it one form. Reinforcement learning (GRPO) lets it write a group of answers to each prompt, and makes those more likely that earn more than their group. What is out of format earns nothing. In format, an exact checker decides; a story, which none can check, gets a score of named parts. Asked which of three values is right, the tiny model guesses a letter after SFT. In three seeds of four GRPO finds that the value itself is paid as well.
#
# **The words.** LoRA freezes the matrices and adds to each a product of two thin ones: the *adapter*. The *policy* is the model that learns; a frozen copy, the *reference*, can hold it near. A *trace* is written reasoning, a *gold* answer the row's own. A *rollout* is the writing of completions, a *group* those of one prompt. The *advantage* of a completion is how far its reward lies above the mean of its group, in standard deviations.
#
# **The prompt** is the question in Gemma's turn format and nothing else: `<start_of_turn>user↵`*question*`<end_of_turn>↵<start_of_turn>model↵`. There is no system text and no description of the tags: SFT alone shows them.
#
# **Evaluation** is greedy decoding of held-out rows with the judges' own sampler, before, between and after. Stock Gemma has never seen the format, so a gain counts only against its *lenient* accuracy, the format forgiven.
#
# ### What the essay stands on
#
# Six parts, folded, made of the modules in `scripts/submission/bench/`, where their prose and examples are.

# %%
# bench

# %%
# inline: essay/profiles

# %%
# inline: essay/recipes (recipes: zero_cost, zero_cost_continue, curriculum, generalist, scaffolded, medical, chemistry, legal, robotics, distilled, trace_model, judged, preferred)

# %%
# inline: essay/domains (recipes: medical, chemistry, legal)

# %%
# inline: essay/robotics (recipes: robotics)

# %% [markdown]
# **The run that was asked for**, by the cell of parameters, the environment, or the hardware:

# %%
asked = dict(PROFILE=PROFILE, MODEL=MODEL, RECIPE=RECIPE, MINUTES=MINUTES, RUN_SEED=RUN_SEED,
             RESUME=RESUME, OUT=OUT, START_FROM=START_FROM, PUBLISH_AS=PUBLISH_AS)  # fmt: skip
asked = {name: "" if value is None else str(value) for name, value in asked.items()}
asked |= {name: os.environ[name] for name in asked if os.environ.get(name)}
run = read_run(asked, free_platform(shows_tpu))
profile, lengths = run.profile, run.profile.lengths
require_memory(profile.host_gib, f"The profile {profile.name}")
print(f"profile {profile.name}, model {run.model.name}, seed {run.seed}")
print(f"recipe {run.recipe}: {RECIPES[run.recipe].about}")
print(f"{jax.device_count()} × {jax.devices()[0].device_kind}, JAX {jax.__version__}")
if profile.compilation_cache:
    jax.config.update("jax_compilation_cache_dir", profile.compilation_cache)

# %% [markdown]
# **The plan of nine hours** for Gemma 3 1B is a plan, not a measurement. The TPU's compiler says how fast each program can be at most; how much of that is reached, and all else, is assumed from logs of such sessions that others published (`scripts/tpu/assumptions.py`).
#
# <!-- include: data/plan.md -->

# %% [markdown]
# ## How your finetuning dataset is created
#
# One row of SFT, as the model sees it. It ends with the tokenizer's EOS, where the judges' sampler stops.

# %%
stock_folder = locate(run.model, profile.download_minutes)
tokenizer = load_tokenizer(stock_folder)
shown = Example("What is 17 + 25?", "42", "number", "17+25: 7+5=12, 1+2+1=4, so 42.")
display(HTML(row_in_colour(render_prompt(shown.question), render_target(shown), "<eos>")))

# %% [markdown]
# Names that the judges' code uses. Nothing here reads the greedy `INF_` settings or `SEED`.

# %%
TEMPERATURE, TOP_K, TOP_P = profile.grpo.temperature, profile.grpo.top_k, profile.grpo.top_p
MAX_PROMPT_LENGTH, MAX_GENERATION_STEPS = lengths.prompt, lengths.completion
INF_TEMPERATURE, INF_TOP_K, INF_TOP_P, SEED = 0, 1, None, 42

# %% [markdown]
# ### Add your dataset
#
# A row is a JSON object with `question`, `answer` and `checker` (number, choice, boolean, text, code or open), and for SFT a `trace`. A choice has `choices`, and a letter as its answer; code has `tests`. Uploads lie under `/kaggle/input/`.

# %%
MY_SFT_ROWS = [
    # Source("bundled", "my_traces.jsonl"),
]
MY_GRPO_ROWS = [
    # Source("bundled", "my_rows.jsonl", weight=2.0),
    # Source("sciq", "allenai/sciq", domain="science", checker="choice"),
]
run = with_rows(run, MY_SFT_ROWS, MY_GRPO_ROWS)

# %% [markdown]
# ### From rows to a mixture
#
# Every row fits the token limits whole, its gold answer passes its own checker, and what is dropped is counted with the reason. A stage draws from a source in proportion to the square root of its rows.
# **Decontamination.** A row that is trained on is dropped if it asks the same as a held-out row, has one inside it, shares a passage with one, or has nearly the same words and numbers.

# %%
rows = rows_of_run(run, tokenizer)
held_out = rows["held_out"].examples

# %%
display(Markdown(mixture_table(rows, tokenizer)))
display(Markdown(domain_rows(rows)))

# %% [markdown]
# ## Your Tunix finetuning code

# %%
# inline: essay/rewards

# %%
# inline: essay/more_rewards (recipes: shaped, curriculum, scaffolded)

# %%
# inline: essay/curriculum (recipes: curriculum)

# %%
# inline: essay/scaffolded (recipes: scaffolded)

# %%
# inline: essay/distilled (recipes: distilled)

# %%
# inline: essay/trace_model (recipes: trace_model)

# %%
# inline: essay/judged (recipes: judged)

# %%
# inline: essay/preferred (recipes: preferred)

# %% [markdown]
# ### Change the reward
#
# A further part is a function with the signature that Tunix calls: one number in [0, 1] for each completion. `prompts` are the questions, `columns` the fields of the rows, a list each. It pays in format only.


# %%
def has_a_number(prompts, completions, **columns):
    """1 where the trace has a digit in it."""
    return [float(any(map(str.isdigit, parse(text).reasoning))) for text in completions]


MY_REWARDS = {
    # "has_a_number": (0.05, has_a_number),
}
run = with_rewards(run, MY_REWARDS)
profile = run.profile

# %% [markdown]
# ### The model and its adapter
#
# LoRA's second factor starts at zero, so the policy begins as stock Gemma.

# %%
require_chapters(run, tokenizer)
folder = open_run_folder(run)
deadline = session_deadline(run, folder, NOTEBOOK_START).before(profile.closing_seconds)
CKPT_DIR = str(folder.checkpoints)
chips = policy_devices(run)
memory_plan = plan_memory(run_of_this_host(run), len(chips))
mesh = make_mesh(memory_plan.replicated, chips)
print(memory_plan)
lora_policy = add_adapter(
    load_stock(run.model, stock_folder, mesh), profile.adapter, run.seed, mesh
)
model_config = lora_policy.config
trained, whole = adapter_size(lora_policy)
print(f"{trained:,} of {whole:,} parameters are trained ({trained / whole:.1%})")
require_space(folder, 4 * 4 * trained * (profile.keep_checkpoints + 2))
session = Session(run, mesh, folder, deadline, listeners=boards(run, folder))

# %%
examiner = Examiner(lora_policy, tokenizer, held_out, session, memory_plan.evaluation_rows)
stages, answers = [], examiner.answers


examiner.evaluate("stock")

# %%
# inline: essay/sft

# %%
if run.start_from:
    session.earlier = restore_earlier(lora_policy, pathlib.Path(run.start_from))
sft_deadline = deadline.before(2 * session.evaluation_seconds).share(profile.sft_share)
stages.append(train_sft(lora_policy, tokenizer, rows["sft"], session, sft_deadline))
save_first_submission(lora_policy, session)

# %%
examiner.evaluate("after_sft")
plot_sft(stages[0]["history"], folder.plots / "sft.png")

# %%
# inline: essay/grpo

# %% [markdown]
# `flat_groups` is the share of groups whose completions all earn the same, which teaches nothing. Prompts are drawn as the mixture has them. Drawn by the variance of their rewards (the recipe `learnability`), fewer groups are flat, and no more is gained: yes/no, a coin's throw, is then drawn most.

# %%
grpo_deadline = deadline.before(1.5 * (2 * session.evaluation_seconds + session.save_seconds))
for name in profile.stages:  # of a recipe that has further ones
    stages.append(MORE_STAGES[name](lora_policy, tokenizer, rows, session, grpo_deadline))
stages.append(train_grpo(lora_policy, tokenizer, rows["grpo"], session, grpo_deadline))

# %%
plot_grpo(stages[-1]["history"], folder.plots / "learning.png")

# %% [markdown]
# **What gets better, and what does not.** How often a *sampled* completion is right, by kind of answer (`text`: sorting, words). At the start a choice of three is right in a third of the cases, yes or no in half: SFT has taught the words, and chance decides. Choices get better because the answers change: from a letter, *B*, to the value, *82*, which the checker takes as well.

# %%
plot_kinds(stages[-1]["history"], folder.plots / "kinds.png")

# %% [markdown]
# **One group, worked by hand**: the completions of one prompt, their rewards, mean and spread. The advantage is what the update multiplies each completion's log-probability with, and is compared with Tunix's.

# %%
for group in [g for g in read_groups(folder.groups) if any(g["advantages"])][:1]:
    group_rewards = np.array(group["rewards"])
    mean, spread = group_rewards.mean(), group_rewards.std(ddof=1)
    group_advantages = (group_rewards - mean) / (spread + 1e-6)
    print(f"mean {mean:.3f}, spread {spread:.3f}")
    print("as in Tunix:", np.allclose(group_advantages, group["advantages"], atol=1e-3))
    display(HTML(group_table(group, group_advantages)))

# %% [markdown]
# ### Which step is submitted
#
# What is evaluated is what was saved: the highest step is read back, as the judges will do it. What SFT had left is compared with it on the same rows (McNemar's test), and so is a save on the way whose rewards were higher; one that is better by more than chance is saved again as the last step. (The rows are those shown.)

# %%
actor = folder.checkpoints / "actor"
submitted, submission = restore_submission(lora_policy, actor), "after_grpo"
examiner.evaluate(submission)
earlier = {"after_sft": 0}
if (step := stages[-1]["better_save"]) is not None:
    restore_adapter(lora_policy, actor / str(step))
    earlier["better_save"] = step
    examiner.evaluate("better_save")
if name := better_one({name: answers[name] for name in earlier}, answers["after_grpo"]):
    submitted, submission = save_again(actor, earlier[name], lora_policy), name
    print(f"step {earlier[name]} ({name}) was better than the last one, and is saved again")
print(f"checkpoints/actor/{submitted}/model_params is the submission")

# %% [markdown]
# ### Results

# %%
results = results_of(
    run,
    answers,
    stages,
    data=what_was_read(rows),
    wall_seconds=round(time.monotonic() - NOTEBOOK_START, 1),
    submitted_step=submitted,
    submission=submission,  # the evaluation that is the submission's
)
display(Markdown(results_table(results)))
display(Markdown(kind_table(results)))
plot_before_after(results, folder.plots / "before_after.png")

# %% [markdown]
# The first held-out rows, in the order of the file: ✓ right, ✓ right but out of format, ✗ wrong.

# %%
samples = profile.evaluation.samples
display(HTML(samples_table(answers, samples)))
display(Markdown(kinds_table(answers)))

# %% [markdown]
# What GRPO has won and lost against the warm start, row by row. No checker reads the trace: *C 83 yes*, then *82*, is paid.

# %%
told, chosen = wins_and_losses(answers, "after_sft", "after_grpo", samples // 3)
print(told)
display(HTML(samples_table(chosen, samples)))

# %%
# inline: essay/final_results (recipes: curriculum)

# %%
drop_optimizers(folder.checkpoints)
write_json(folder.results, results)
close_boards(session.listeners)
folder.release()

# %% [markdown]
# ### Ask it something


# %%
def ask(question: str) -> None:
    """Shows what the policy answers, decoded as in the evaluation."""
    (answer,) = examiner.answer([Example(question, "", "open")])
    display(HTML(f"{question}<br>{coloured(answer.completion.text)}"))


ask("What is 17 + 25?")

# %% [markdown]
# ## [Optional 15pts] unrestricted mode
#
# One session is not the end. With `RECIPE = "continue"` and `START_FROM` naming the folder of an earlier run, GRPO goes on from its adapter, at 0.3 of the rate, with rows that have not been drawn yet. With `PUBLISH_AS = "user/model"` the result is uploaded in the layout from which the judges restore it.

# %%
unrestricted_kaggle_model = publish(
    run, actor / str(submitted), results_table(results), deadline.left + profile.closing_seconds
)

# %% [markdown]
# ## Other things you want the judges to know
#
# ### Controls, and what each choice is worth
#
# **Where the gain comes from.** The baseline is SFT on the most careful traces; twice the updates make 0.740. It learns to write *so 59. A 58 no, B 59 yes, C 49 no*, and leaves to chance where the *yes* stands. GRPO does not teach it to choose. It finds that *59* is as right an answer as *B*; no row of SFT shows that. In this run 78 of 79 choices end so, and none after SFT. To be rewarded it must first be sampled: four seeds add 0.048, 0.062, 0.072 and −0.008 to 0.753, 0.752, 0.735 and 0.748: 0.043 ± 0.057. Yes/no (*is 49 less than 45?*) stays a coin's throw, and ends below the stock model. SFT on 8,000 traces instead of 775 makes 0.793, GRPO's mean is 0.790.
#
# **Tried**: 300 steps, SFT → GRPO of 600 rows; \* on rows for tuning. Rank 4, 1e-3: \*0.767 → 0.778, \*0.755 → 0.825, \*0.742 → 0.842.
#
# | adapter, rate | prompts drawn as the mixture has them | by learnability |
# |---|---|---|
# | rank 16, 1e-3 | 0.753 → 0.745 | \*0.782 → 0.842, \*0.773 → 0.880, 0.760 → 0.767 |
# | rank 16, 2e-3 | \*0.745 → 0.815, 0.753 → 0.708 | stopped: words broke |
# | rank 4, 2e-3 | the four above | \*0.757 → 0.855, \*0.760 → 0.828, 0.753 → 0.817, 0.752 → 0.722, 0.735 → 0.837 |
#
# **One choice at a time**, in a shorter experiment: rank 16, a warm start in three styles, 30 steps, three seeds, ± half a 95 % interval (`scripts/ablate.py`). GRPO goes from 0.430 ± 0.011 to 0.699 ± 0.033 by moving to the careful style, on which SFT alone makes 0.730 ± 0.017. Four choices decide. Without a warm start, or with one whose targets end with `<end_of_turn>`, nothing is in format, and nothing is learned: 0. With `top_p=None` the completions of a group are all alike: 0.426 ± 0.033. At a tenth of the rate, as one would take without LoRA, it is 0.469 ± 0.079. Of the others only one can be told from chance, and it speaks against us: without the format gate, +0.011 ± 0.010. Tunix's other defaults all at once: −0.012 ± 0.037.
#
# ![What each choice is worth](attachment:data/ablations.png)
#
# **Traps in Tunix 0.1.7, not gains.** Most go without an error; a test, or the compiler, shows what each does.
#
# | stock behaviour | what it costs | remedy here | known from |
# |---|---|---|---|
# | the adapter is trained in bfloat16 | at a rate of 3e-6 fewer than 5 % of its entries move | `with_master_weights` | test |
# | optax injects hyper-parameters in the adapter's dtype | NaN from step 1 | `injected_adamw` | test |
# | a NaN in one pass of an update stays in their sum | no update any more | `with_emptied_sum` | test |
# | the default KL has no gradient in expectation | β does nothing | `low_var_kl` | test |
# | sampled tokens come without EOS; old log-probabilities at temperature 1 | EOS is not trained; biased ratios | `PolicyRollout` | test |
# | no seed means the same noise at every step | draws that repeat | a fresh key per call | test |
# | the jitted step returns the base | a second copy of it | `use_adapter_only_step` | test |
# | weights in slices; `fsdp` written into one of them | gathers in every layer and step | `make_mesh` | compiler |
# | all logits at once | 64 × 2,048 tokens of SFT do not fit | `token_log_probs` | compiler |
# | the cache is copied at each step; a prompt is read G times | work, traffic | `Decoder` | compiler, test |
# | examples and completions padded to the limit | work on padding | `packing`, `trimming` | test |
# | the sampler makes its cache on one chip | 26 GiB for 256 rows of the 2B | `plan_memory` | compiler |
# | the last save passes no metadata | a resumed run counts from 0 | `write_step` | test |
#
# **What a killed session loses**: the steps since its last save, ten minutes at most; it goes on with the same bits (52 of 52 kills, `tests/faults/`). **Limits.** No cell has run on a TPU: speed and the scores of the stock models are not claimed. What its *compiler* says of these programs can be had on any Linux machine (`scripts/preflight.py`). No checker reads a trace, and the score of open answers does not know what is true. Cite as: *Gemma, show your work: SFT and GRPO with Tunix in one TPU session*, 2026, Apache-2.0.
