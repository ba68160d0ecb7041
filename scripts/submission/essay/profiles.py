# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# ### The settings
#
# A **profile** says where we run: `tiny` is a laptop's CPU and a Gemma of 1.2 million parameters,
# `kaggle` a TPU v5e-8 and stock Gemma. Between them, `small` is a CPU and Gemma 3 270M ([terms](https://ai.google.dev/gemma/terms)). A **recipe** says what is taught, from which rows.

# %% tags=["modules-only"]
from submission.bench.settings.config import (
    Adapter,
    Chip,
    Curriculum,
    Evaluation,
    Generation,
    Grpo,
    Lengths,
    Optimizer,
    Profile,
    Recipe,
    Rewards,
    Sft,
    Source,
    StockModel,
    run_asked_for,
    switched_on,
)
from submission.bench.settings.more_sources import SOURCES_OFF
from submission.bench.settings.small import small_profile

# %%
import dataclasses
import functools
import os

# %%
STOCK_MODELS = {
    model.name: model
    for model in (
        StockModel(
            "gemma3_1b_it", "gemma3", "gemma3-1b-it", handle="google/gemma-3/flax/gemma3-1b-it/1"
        ),
        StockModel(
            "gemma2_2b_it", "gemma2", "gemma2-2b-it", handle="google/gemma-2/flax/gemma2-2b-it/1"
        ),
        StockModel(
            "gemma3_tiny_it", "gemma3", "gemma3-tiny-it", folder="data/tiny_gemma",
            # Five local layers to one global: with six, both kinds of attention exist.
            shape=dict(num_layers=6, num_embed=640, embed_dim=128, hidden_dim=384, num_heads=4,
                       head_dim=32, num_kv_heads=1, sliding_window_size=64,
                       local_base_frequency=10_000, global_base_frequency=1_000_000),
            dtype="float32",  # CPUs are slow in bfloat16
        ),
        StockModel(  # pre-trained, not tuned to instructions: SFT shows it the turns as well
            "gemma3_270m", "gemma3", "gemma3-270m", folder="gemma3-270m",
            script="scripts/get_small_gemma.py", dtype="float32",
        ),
    )
}  # fmt: skip

# %% [markdown]
# Public rows are streamed from the hub, and a reader turns each into ours. Where a licence is
# non-commercial, or none is stated, a source is off until it is switched on by name.

# %%
SOURCES = SOURCES_OFF | {
    "glaive": Source(
        "glaive", "glaiveai/reasoning-v1-20m", rows=20_000, minutes=12.0, domain="other"),
    "gsm8k": Source(
        "gsm8k", "openai/gsm8k", subset="main", domain="math", checker="number", licence="MIT",
        revision="740312add88f781978c0658806c59bc2815b9866"),
    "mbpp": Source(
        "mbpp", "google-research-datasets/mbpp", subset="full", domain="code", checker="code",
        licence="CC-BY-4.0"),
    "arc_easy": Source(
        "arc", "allenai/ai2_arc", subset="ARC-Easy", domain="science", checker="choice",
        licence="CC-BY-SA-4.0"),
    "arc_challenge": Source(
        "arc", "allenai/ai2_arc", subset="ARC-Challenge", domain="science", checker="choice",
        licence="CC-BY-SA-4.0"),
    "strategyqa": Source(
        "strategyqa", "ChilleD/StrategyQA", domain="logic", checker="boolean", licence="MIT"),
    "writingprompts": Source(
        "writingprompts", "euclaise/writingprompts", domain="creative", rows=3_000, licence="MIT",
        revision="35f0aa359452ba8147b34d925684fccee26679cc"),
    "dolly": Source(
        "dolly", "databricks/databricks-dolly-15k", rows=6_000, licence="CC-BY-SA-3.0"),
}  # fmt: skip
SWITCHED_ON = switched_on(os.environ.get("SWITCHED_ON", ""), SOURCES)  # "sciq,xsum", say


def sources_named(*names: str) -> tuple[Source, ...]:
    """The sources of these names that are on, or have been switched on by name."""
    return tuple(SOURCES[name] for name in names if SOURCES[name].on or name in SWITCHED_ON)


# Evaluation has rows of each kind, from splits that training does not read.
HELD_OUT_SOURCES = tuple(
    dataclasses.replace(SOURCES[name], split=split, rows=100)
    for name, split in (
        ("gsm8k", "test"),
        ("mbpp", "test"),
        ("arc_challenge", "test"),
        ("strategyqa", "test"),
        ("dolly", "train"),  # it has no other; these rows are kept out of training
    )
)

# %% [markdown]
# The rates of `tiny` are 150 (SFT) and 400 (GRPO) times those of `kaggle`, which are untried.

# %%
BUNDLED = "data/train.jsonl"
CAREFUL = Source("bundled", BUNDLED, ("tasks/sft/steps",))  # digit by digit
WORKED = Source("bundled", BUNDLED, ("tasks/sft/short", "tasks/sft/steps"))

TINY = Profile(
    name="tiny",
    model=STOCK_MODELS["gemma3_tiny_it"],
    lengths=Lengths(prompt=48, completion=80),
    adapter=Adapter(rank=4, alpha=8.0),  # at GRPO's rate, 16 breaks the words
    sft=Sft(
        steps=600, rows=4, length=216, shortest=216,  # a row holds three or four examples
        optimizer=Optimizer(peak_rate=3e-3), save_every=100, minimum_kept=0.9,
    ),
    grpo=Grpo(
        steps=300, prompts=16, generations=8, save_every=50,
        optimizer=Optimizer(peak_rate=2e-3),
        beta=0.0,  # no KL term: no reference pass, and flat groups are left out of updates
        micro_prompts=1,  # small passes: rows that repeat others or teach nothing need none
    ),
    rewards=Rewards(shortest=2, longest=30, slope=15),  # words of a trace
    evaluation=Evaluation((Source("bundled", "data/held_out.jsonl"),), rows=600, batch_size=200),
    sft_sources={"warm_start_grpo": (CAREFUL,), "worked_only": (WORKED,)},
    grpo_sources=(Source("bundled", BUNDLED, ("tasks/grpo",)),),
    generation=Generation(segment=40, prompt_step=48, completion_step=20),
    chip=Chip(memory_gib=4.0),
    hours=24.0,  # its steps end it, on a slow machine too: the same run wherever the clock stands
)  # fmt: skip

# %%
KAGGLE = Profile(
    name="kaggle",
    model=STOCK_MODELS["gemma3_1b_it"],
    lengths=Lengths(prompt=256, completion=768),  # the judges read about 1,000
    adapter=Adapter(rank=64, alpha=64.0),
    sft=Sft(
        steps=900, rows=64, length=3072, shortest=2048, save_every=200,
        optimizer=Optimizer(peak_rate=2e-5),
        minimum_kept=0.002,  # of glaive's rows, 1 to 5 % fit 1,024 tokens, fewer 256 + 768
    ),
    grpo=Grpo(
        steps=4000, generations=8, save_every=25,  # nine hours hold fewer: the clock ends the stage
        prompts=128,  # a decode step reads all weights, however many sequences there are
        optimizer=Optimizer(peak_rate=5e-6),  # lower than that of SFT: it moves on noise
        beta=0.04,
        temperature=0.9,  # and no top-k, no top-p: what is sampled is what is trained
    ),
    rewards=Rewards(
        shortest=20, longest=400, slope=150,
        encoder="sentence-transformers/all-MiniLM-L6-v2",  # 90 MB; it reads what open answers mean
    ),
    evaluation=Evaluation(HELD_OUT_SOURCES, rows=100, batch_size=256),
    sft_sources={"warm_start_grpo": sources_named("glaive", "mixture_of_thoughts")},
    sft_fallback=(SOURCES["gsm8k"], WORKED),  # the format can be learned from worked solutions too
    grpo_sources=sources_named(
        "gsm8k", "mbpp", "arc_easy", "arc_challenge", "sciq", "strategyqa", "writingprompts",
        "dolly", "xsum", "rar_science",
    ),
    generation=Generation(segment=128, prompt_step=128, completion_step=256),
    chip=Chip(memory_gib=15.75),  # TPU v5e
    # A notebook that is started again does not compile again. (On CPUs it gains little.)
    compilation_cache=os.path.expanduser("~/.cache/compiled_programs"),
    hours=9.0,
    preparation_share=0.1,  # a trial of half an hour reads rows for three minutes
    # Seconds of the likely plan (`data/plan.json`), for the lines of progress. Other models have none.
    planned={"gemma3_1b_it": {"sft": dict(step=1.4),
                              "grpo": dict(rollout=7.5, update=11.1, step=20.7)}},
    closing_seconds=60.0,  # tables and plots
    upload_seconds=540.0,  # 4 GB of outputs at 8 MB/s, in case Kaggle counts their upload
    remat=True,  # recompute activations in training
)  # fmt: skip
SMALL = small_profile(TINY, STOCK_MODELS["gemma3_270m"], SOURCES)
PROFILES = {profile.name: profile for profile in (TINY, SMALL, KAGGLE)}

# %%
RECIPES = {
    "warm_start_grpo": Recipe("SFT, then GRPO"),
    "worked_only": Recipe("SFT on traces in two styles, then the same GRPO", {"warm_start": "worked_only"}),
    "learnability": Recipe("prompts drawn by the variance of their rewards",
                           {"grpo": {"curriculum": Curriculum("learnability")}}),
    "phases": Recipe("easy prompts first, hard ones last", {"grpo": {"curriculum": Curriculum("phases")}}),
    "shaped": Recipe("further reward parts: trace structure, stated confidence, teacher's words",
                     {"rewards": {"extras": dict(structure=0.05, confidence=0.05, teacher=0.05)}}),
    "continue": Recipe("GRPO only, from an earlier run and with fresh rows",
                       continues="grpo", slower=0.3),
}  # fmt: skip
read_run = functools.partial(run_asked_for, profiles=PROFILES, recipes=RECIPES, models=STOCK_MODELS)
