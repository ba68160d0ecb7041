# %% [markdown]
# ### Further recipes
#
# Each has a chapter of its own below, and a control that must gain nothing.

# %%
import dataclasses

# %% tags=["modules-only"]
from submission.bench.settings.config import (
    Adapter,
    Curriculum,
    Optimizer,
    Recipe,
    Source,
    StockModel,
)
from submission.bench.settings.stages import Helper, Pairs, Rubrics, TraceModel
from submission.essay.profiles import BUNDLED, RECIPES, STOCK_MODELS, TINY

# %%
STYLES = Source("bundled", BUNDLED, ("tasks/sft/",))  # careful, short and guessed traces, mixed
SHORT = {  # leaves room: the strongest warm start alone is the row to compare with
    "sft": {"steps": 150, "save_every": 150},
    "sft_sources": {"warm_start_grpo": (STYLES,)},
    "grpo": {"steps": 40, "save_every": 40},
}
LARGER = StockModel(
    "gemma3_4b_it", "gemma3", "gemma3-4b-it", handle="google/gemma-3/flax/gemma3-4b-it/1"
)
UNIFORM = Curriculum("uniform")  # what is learnable would be known by the gold answers
BY_TEACHER = {"reference": "helper", "estimator": "none", "kl_loss": "mse_kl", "beta": 1.0,
              "aggregation": "token-mean", "temperature": 1.0, "curriculum": UNIFORM}  # fmt: skip
FAR = {"kl": (1e9, 1e9)}  # from the teacher it is far at first
TEACHERS = {
    "tiny": SHORT | {
        "helper": Helper(STOCK_MODELS["gemma3_tiny_it"], TINY.adapter, "data/teacher")},
    "kaggle": {"helper": Helper(LARGER)},
}  # fmt: skip
NO_GOLD = {"in_format": 0.1, "right": 0.0, "length": 0.0, "open": 0.0}
RUBRICS = Rubrics({
    "": (("Is the answer right, and does the reasoning lead to it?", 1.0),),
    "creative": (
        ("Is it a story, as asked for, in words of its own?", 0.6),
        ("Does the reasoning plan what is then written?", 0.4)),
    "summarization": (
        ("Does it say what matters in the text, and nothing else?", 0.7),
        ("Is it shorter than the text?", 0.3)),
}, only_open=True)  # fmt: skip
JUDGES = {
    "tiny": SHORT | {
        "helper": Helper(STOCK_MODELS["gemma3_tiny_it"], Adapter(rank=8, alpha=16.0), "data/judge",
                         Rubrics({"": (("Right?", 1.0),)}))},
    "kaggle": {  # the judge reads what nothing exact can check
        "helper": Helper(LARGER, rubrics=RUBRICS), "rewards": {"right": 0.8, "length": 0.1},
        "grpo": {"curriculum": Curriculum()}},
}  # fmt: skip


def scored_by(part: str) -> dict[str, dict]:
    """The reward is one further part, and no gold answer is read."""
    return {
        "grpo": {"curriculum": UNIFORM},
        "rewards": {**NO_GOLD, "extras": {part: 0.9}},
    }


BY_PAIRS = {
    "tiny": Pairs(prompts=512, steps=60, pairs=32, save_every=30, optimizer=Optimizer(5e-4)),
    "kaggle": Pairs(prompts=2048, steps=120, pairs=32, save_every=30, optimizer=Optimizer(1e-5)),
}


def by_pairs(**more: bool) -> tuple[dict, dict]:
    """What a recipe with pairs changes: everywhere, and on `kaggle`."""
    found = {name: dataclasses.replace(pairs, **more) for name, pairs in BY_PAIRS.items()}
    return {"stages": {"pairs": found["tiny"]}}, {"kaggle": {"stages": {"pairs": found["kaggle"]}}}


RECIPES.update({
    "distilled": Recipe(
        "a teacher's log-probabilities on the policy's own completions",
        {"grpo": BY_TEACHER, "guards": FAR}, TEACHERS),
    "distilled_control": Recipe(
        "the same with an estimator that has no gradient",
        {"grpo": BY_TEACHER | {"kl_loss": "kl"}, "guards": FAR}, TEACHERS),
    "trace_model": Recipe(
        "a reward model of the trace, trained on the policy's own samples",
        {"stages": {"trace_model": TraceModel()}, **scored_by("trace_model")},
        {"tiny": SHORT}),
    "trace_model_control": Recipe(
        "the same, trained on shuffled labels",
        {"stages": {"trace_model": TraceModel(shuffled=True)}, **scored_by("trace_model")},
        {"tiny": SHORT}),
    "judged": Recipe(
        "a larger Gemma reads what was written and says whether it holds",
        scored_by("judge"), JUDGES),
    "judged_control": Recipe(
        "the same, a judge that answers at random",
        scored_by("coin"), JUDGES),
    "preferred": Recipe(
        "pairs of the policy's own completions (SimPO), then GRPO",
        *by_pairs()),
    "preferred_control": Recipe(
        "the same, the pairs swapped at random",
        *by_pairs(shuffled=True)),
})  # fmt: skip
CHOSEN_WHEN = {  # to choose which
    "distilled": "a larger model of the same family is at hand, and no answers are.",
    "trace_model": "answers are known for some rows, and GRPO is to go on where they are not.",
    "judged": "rows have neither answers nor a checker, and a larger model can tell good from bad.",
    "preferred": "rollouts are dear: pairs are sampled once, and used for many updates.",
}
