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
# This notebook teaches a stock, instruction-tuned Gemma to answer with its reasoning first:
# `<reasoning>…</reasoning><answer>…</answer>`. A LoRA adapter is warm-started on worked
# examples (SFT) and then improved by reinforcement learning on its own answers (GRPO), both
# in Google's Tunix, in one session. What comes out is a checkpoint in
# `checkpoints/actor/<step>/model_params`, as the judges load it.
#
# The same cells run in two places. On a Kaggle TPU v5e-8 they train Gemma 3 1B or Gemma 2 2B. On a
# laptop's CPU they train a Gemma of 1.2 million parameters in a few minutes, so that everything
# below can be checked by anyone. That little model was pre-trained by this project, on problems of
# the kinds that it is asked here, and stands in for the stock one. **As committed, the outputs are
# from such a run on a CPU** (profile `tiny`); the table near the end names its profile. Nothing is
# simulated: the tables and plots are printed from what the run measured. What the text says of a
# TPU is what its compiler says, and is marked so. Long cells are folded; their prose stands above
# them.

# %% tags=["folded"]
# install: requirements.txt

# %%
import os
import pathlib
import warnings

NOTEBOOK_RECIPE = "warm_start_grpo"  # the environment's RECIPE overrides it
# Where there is no TPU, JAX would look for one at length, and Tunix would ask for W&B.
tpu_devices = [*pathlib.Path("/dev").glob("accel*"), *pathlib.Path("/dev/vfio").glob("[0-9]*")]
if not tpu_devices and not any(name.startswith(("TPU_", "KAGGLE_")) for name in os.environ):
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("WANDB_MODE", "online" if os.environ.get("WANDB_PROJECT") else "disabled")
# Tunix reads the mesh from `with mesh:` and from nowhere else.
warnings.filterwarnings("ignore", r"`with mesh:` context manager", DeprecationWarning)
warnings.filterwarnings("ignore", "IProgress not found")

import absl.logging
import jax
from flax import nnx

absl.logging.set_verbosity(absl.logging.ERROR)  # Tunix and Orbax report every detail

# %%
# bench

# %%
# inline: essay/profiles

# %% [markdown]
# ## Your overall training and evaluation strategy
#
# **The idea in five sentences.** Stock Gemma answers at once, or reasons in whatever form it
# likes. A short warm start on examples (SFT) shows it one form, and leaves open how much work to
# show. Reinforcement learning (GRPO) lets it write a group of answers to each prompt, and makes
# those more likely that earn more than their group. What is out of format earns nothing, and what
# is in format earns what an exact checker says, and a story, which nothing exact can check, earns a
# score of its parts. On the tiny model that moves the policy to its most careful style of working,
# which it had seen before; the last section has the controls that do as well.
#
# **The words.** LoRA (low-rank adaptation) freezes the model and trains two thin factors beside
# each weight: the *adapter*. GRPO is group-relative policy optimisation. The *policy* is the model
# that learns, the *reference* a frozen copy that it is held near to; how far it is from it is
# measured by the KL divergence. A *rollout* is the writing of completions, and a *group* those of
# one prompt. The *advantage* of a completion is how far its reward lies above the mean of its
# group.
#
# **The prompt** is the question in Gemma's turn format and nothing else. A completion is
# `<reasoning>…</reasoning><answer>…</answer>`, ended by the tokenizer's EOS, where the judges'
# sampler stops.
#
# **Evaluation** is greedy decoding of held-out rows with the judges' own sampler, before, between
# and after. Since stock Gemma fails a format that it has never seen, its accuracy is reported
# leniently too, and a gain counts only against that.

# %%
draw_idea()

# %% [markdown]
# This is how nine hours of a TPU v5e-8 are to be spent on Gemma 3 1B. It is a plan, not a
# measurement: the TPU's compiler was asked for the programs of the run, and half of the speed that
# it allows is assumed, and three seconds an update for the host (`scripts/preflight.py` in the
# repository). It holds 106 million tokens of SFT (at most 20,000 examples, so five or six times
# each) and 1,184 updates of GRPO, 1,024 completions each.

# %%
draw_plan(PLAN_HOURS)

# %% [markdown]
# The run that was asked for:

# %%
run = read_run({"RECIPE": NOTEBOOK_RECIPE, **os.environ}, jax.default_backend())
profile, lengths = run.profile, run.profile.lengths
print(f"profile {profile.name}, model {run.model.name}, seed {run.seed}")
print(f"recipe {run.recipe}: {RECIPES[run.recipe].about}")
print(f"{jax.device_count()} × {jax.devices()[0].device_kind}, JAX {jax.__version__}")
if profile.compilation_cache:
    jax.config.update("jax_compilation_cache_dir", profile.compilation_cache)

# %% [markdown]
# The settings that matter, of both profiles. Each stands once, in the folded cells above.

# %%
from IPython.display import HTML, Markdown, display

side_by_side = [RECIPES[run.recipe].applied(each) for each in PROFILES.values()]
display(Markdown(settings_table(side_by_side)))

# %% [markdown]
# Where the rows come from. Sources whose licence is non-commercial or not stated are off.

# %%
display(Markdown(sources_table(side_by_side)))

# %% [markdown]
# The names that the judges use. The greedy `INF_` settings are theirs, the others are this
# run's; the tags and the template follow with the prompt. Nothing below reads `SEED` or `INF_`.

# %%
TEMPERATURE, TOP_K, TOP_P = profile.grpo.temperature, profile.grpo.top_k, profile.grpo.top_p
MAX_PROMPT_LENGTH, MAX_GENERATION_STEPS = lengths.prompt, lengths.completion
INF_TEMPERATURE, INF_TOP_K, INF_TOP_P, SEED = 0, 1, None, 42

# %% [markdown]
# ## How your finetuning dataset is created

# %% [markdown]
# ## Your Tunix finetuning code

# %%
# inline: essay/rewards

# %%
# inline: essay/more_rewards (recipes: shaped)

# %%
# inline: essay/sft

# %%
# inline: essay/grpo

# %% [markdown]
# ### Getting ready
#
# Everything that can fail for a reason outside this notebook is tried before any training:
# the folder, the model's files, the rows, the room on the disk.

# %%
deadline = Deadline(NOTEBOOK_START + 60 * (run.minutes or 60 * profile.hours))
deadline = deadline.before(profile.closing_seconds)
require_parts(profile.rewards)
folder = open_run_folder(run)
CKPT_DIR = str(folder.checkpoints)
stock_folder = locate(run.model, profile.download_minutes)
tokenizer = load_tokenizer(stock_folder)

# %%
rows = rows_of_run(run, tokenizer)
held_out = rows["held_out"].examples

# %% [markdown]
# What each stage draws from: a source's share of the mixture is its rows to the power of a half,
# within limits, so that no source drowns the others. Lengths are medians.

# %%
display(Markdown(mixture_table(rows, tokenizer)))

# %% [markdown]
# Stock Gemma, with an adapter that does nothing yet: LoRA's second factor starts at zero.

# %%
memory_plan = plan_memory(run, jax.device_count())
mesh = make_mesh(memory_plan.replicated)
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
evaluation_sampler = make_sampler(lora_policy, tokenizer, run.cache_length)
answers, stages = {}, []


def evaluate_now(name: str) -> None:
    """Evaluates the policy as it is now, under a name in the results.

    In a run that goes on, what has been evaluated before is not evaluated again.
    """
    kept = folder.answers / f"{name}.json"
    if (before := read_answers(kept, held_out)) is not None:
        answers[name], session.evaluation_seconds = before
    else:
        start = time.monotonic()
        evaluation_sampler.transformer_state = nnx.variables(lora_policy)
        with mesh, session.stop.heard():
            answers[name] = answer_greedily(
                evaluation_sampler,
                held_out,
                memory_plan.evaluation_rows,
                MAX_PROMPT_LENGTH,
                MAX_GENERATION_STEPS,
                deadline,
            )
        session.stop.check()
        session.evaluation_seconds = time.monotonic() - start
        write_answers(kept, answers[name], session.evaluation_seconds)
    numbers = summarise(answers[name])
    print(
        f"{name}: format {numbers['format']:.3f}, accuracy {numbers['accuracy']:.3f}, "
        f"lenient {numbers['accuracy_lenient']:.3f}, stopped {numbers['stopped']:.3f} "
        f"(n = {numbers['n']})"
    )


evaluate_now("stock")

# %% [markdown]
# ### Stage 1 runs

# %%
if run.start_from:
    session.earlier = restore_earlier(lora_policy, pathlib.Path(run.start_from))
sft_deadline = deadline.before(2 * session.evaluation_seconds).share(profile.sft_share)
stages.append(train_sft(lora_policy, tokenizer, rows["sft"], session, sft_deadline))
save_first_submission(lora_policy, session)

# %%
evaluate_now("after_sft")

# %% [markdown]
# ### Stage 2 runs
#
# `in_format` and `right` are shares of the sampled completions, at the sampling temperature;
# `flat_groups` is the share of groups whose completions all earn the same. What has to come
# afterwards, two evaluations at most and a save, is given the time that they took before, and half
# as much again.

# %%
grpo_deadline = deadline.before(1.5 * (2 * session.evaluation_seconds + session.save_seconds))
stages.append(train_grpo(lora_policy, tokenizer, rows["grpo"], session, grpo_deadline))

# %% [markdown]
# What is evaluated is what was saved: the highest step is read back first, as the judges
# will do it. It has to be a good one, too. What SFT had left is compared with it on the same rows,
# and so is a save on the way whose rewards were higher than those at the end; if one of them is
# better by more than chance, it is saved again as the last step.

# %%
actor = folder.checkpoints / "actor"
submitted, submission = restore_submission(lora_policy, actor), "after_grpo"
print(f"checkpoints/actor/{submitted} is the last step")
evaluate_now(submission)
earlier = {"after_sft": 0}
if (step := stages[-1]["better_save"]) is not None:
    restore_adapter(lora_policy, actor / str(step))
    earlier["better_save"] = step
    evaluate_now("better_save")
if name := better_one({name: answers[name] for name in earlier}, answers["after_grpo"]):
    submitted, submission = save_again(actor, earlier[name], lora_policy), name
    print(f"step {earlier[name]} ({name}) was better than the last one, and is saved again")
print(f"checkpoints/actor/{submitted}/model_params is the submission")

# %% [markdown]
# ### Results

# %%
results = {
    "profile": profile.name,
    "recipe": run.recipe,
    "model": run.model.name,
    "seed": run.seed,
    "wall_seconds": round(time.monotonic() - NOTEBOOK_START, 1),
    "submitted_step": submitted,
    "submission": submission,  # the evaluation below that is the submission's
    "stages": [
        {key: stage[key] for key in ("name", "steps", "planned", "seconds", "tokens", "skipped")}
        for stage in stages
    ],
    "evaluation": {name: summarise(rows) for name, rows in answers.items()},
}
display(Markdown(results_table(results)))
display(Markdown(domain_table(results)))

# %%
plots = [folder.plots / "before_after.png", folder.plots / "learning.png"]
plot_before_after(results, plots[0])

# %%
plot_learning({stage["name"]: stage["history"] for stage in stages}, plots[1])

# %% [markdown]
# What became of the answers, by kind:

# %%
display(Markdown(kinds_table(answers)))

# %% [markdown]
# The first held-out rows, in the order of the file, with what the model made of them. ↵ is a
# newline; `<cut>` marks a completion that did not stop by itself.

# %%
samples = profile.evaluation.samples
display(HTML(samples_table(answers, samples)))

# %% [markdown]
# And the first that it still gets wrong:

# %%
display(HTML(samples_table(first_failures(answers, samples), samples // 2)))

# %%
for stage_name in ("after_sft", "after_grpo"):
    print(f"{stage_name}: words in the trace {trace_lengths(answers[stage_name])}")
write_json(folder.results, results)
write_page(folder.path / "report.html", results, answers, plots, samples)
close_boards(session.listeners)
folder.release()

# %% [markdown]
# ## [Optional 15pts] unrestricted mode
#
# One session is not the end.

# %%
unrestricted_kaggle_model = publish(run, actor / str(submitted), results_table(results))

# %% [markdown]
# ## Other things you want the judges to know
#
# **Where the gain comes from, on the `tiny` profile.** Compare the two lines above: after GRPO the
# traces are longer than after SFT. The warm start shows three levels of detail (a bare guess, one
# equation a step, digit by digit) and leaves the choice open; GRPO finds that the careful ones are
# right more often. That is most of the gain, and it is what we set out to teach. The model had seen
# such working when it was pre-trained. It is not a gain everywhere: sorting and yes/no (`logic`)
# and reversing words (`other`) end below the stock model's lenient accuracy. The control recipe
# `worked_only` leaves the guesses out of the warm start, and ends as well: 0.718 with one seed,
# against 0.699 ± 0.033 with three, both after 30 steps of GRPO. 60 steps end like 30 (0.700 in the
# run above). So GRPO finds the style that pays; it has not been shown to teach one that is new.
#
# **What each choice is worth there.** `scripts/ablate.py` in the repository trains the tiny model
# again and again, each time without one of the choices; `data/ablations.md` has the table with its
# intervals, and how many seeds each row has: three, but for the two controls without guesses. Two
# choices decide. Without the warm start GRPO learns nothing: no completion is in format, so none
# earns anything. And GRPO takes the accuracy from 0.43 to 0.70. Nothing else makes a difference of
# more than 0.012 in 30 steps of so small a model: without the EOS, with the same noise at every
# step, with Tunix's KL estimator and a stock reference, without a reward for the length, without
# the format gate (better by 0.011 ± 0.010, the one interval that misses 0), in bfloat16 without
# master weights, and even with Tunix's defaults for all of these at once, the accuracy stays
# between 0.69 and 0.71. So the table below is not about this small gain. It is about what a longer
# run and a larger model would suffer from, and what it says is shown by tests, one thing at a time.
#
# **Traps in Tunix 0.1.7, not gains.** Each of these changes the result, or the memory or time it
# takes, without an error. How it is known stands beside it: from a *test* in the repository, most
# of them beside stock behaviour, or from the TPU's *compiler*.
#
# | stock behaviour | what it costs | remedy here | known from |
# |---|---|---|---|
# | the adapter is trained in bfloat16 | most updates round away | `with_master_weights` | test |
# | hyper-parameters in the adapter's dtype | NaN from step 1 | `injected_adamw` | test |
# | a NaN in one pass stays in the sum | no more updates | `with_emptied_sum` | test |
# | the default KL estimator has no expected gradient | β does nothing | `low_var_kl` | test |
# | sampled tokens come without their EOS | the policy forgets to stop | `PolicyRollout` | test |
# | no seed means the same noise at every step | draws that repeat | a fresh key per call | test |
# | old log-probabilities at temperature 1 | biased ratios later | `PolicyRollout` | test |
# | a NaN reward counts as 0 | silently wrong rewards | counted; too many stop the run | test |
# | the reference is whatever is handed over | a pull back to before SFT | `frozen_copy` | test |
# | the jitted step returns the base | a second copy of the base | `use_adapter_only_step` | test |
# | weights in slices, gathered each step | traffic over the links | `make_mesh` | compiler |
# | `fsdp` written into one weight | a gather in every layer | `make_mesh` | compiler |
# | all logits at once | 64 × 2,048 tokens of SFT do not fit | `token_log_probs` | compiler |
# | the whole cache travels through the decode loop | it is copied | `Decoder` | compiler |
# | a prompt is read once for each of its completions | G times the work | `Decoder` | test |
# | everything padded to the limit | work on padding | `packing`, `trimming` | test |
# | no deadline, no guard against NaN | a session lost | `Stage`, `Pace` | test |
# | the sampler's cache begins on one chip | 26 GiB, 256 rows of the 2B | `plan_memory` | compiler |
# | the last save passes no metadata | a resumed run counts its steps from 0 | `write_step` | test |
#
# **What only a TPU can show** is speed and the scores of the stock models. Those are not
# claimed here. What the TPU's *compiler* says of these programs (that they fit, what they move
# and compute, and what nine hours would then hold) can be had on any Linux machine:
# `scripts/preflight.py` in the repository compiles them for a v5e-8. README has its table.
