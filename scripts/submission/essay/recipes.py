# %% [markdown]
# ### Further recipes
#
# What is special to each stands in a chapter of its own below. Each has a control: the same run
# without what is its own.

# %%
import dataclasses

# %% tags=["modules-only"]
from submission.bench.settings.config import (
    Adapter,
    Curriculum,
    MixtureShares,
    Optimizer,
    Recipe,
    Source,
    StockModel,
)
from submission.bench.settings.stages import Helper, Pairs, Rubrics, TraceModel
from submission.essay.profiles import (
    BUNDLED,
    RECIPES,
    SOURCES,
    STOCK_MODELS,
    TINY,
    WORKED,
)

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
BY_TEACHER = {"reference": "helper", "estimator": "none", "kl_loss": "mse_kl", "beta": 1.0,
              "aggregation": "token-mean", "temperature": 1.0}  # fmt: skip
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
        "helper": Helper(LARGER, rubrics=RUBRICS), "rewards": {"right": 0.8, "length": 0.1}},
}  # fmt: skip


def scored_by(part: str) -> dict[str, dict]:
    """The reward is one further part, and no gold answer is read."""
    return {"rewards": {**NO_GOLD, "extras": {part: 0.9}}}


LEARNABLE = Curriculum("learnability")
BY_PAIRS = {
    "tiny": Pairs(prompts=512, steps=60, pairs=32, save_every=30, optimizer=Optimizer(5e-4)),
    "kaggle": Pairs(prompts=2048, steps=120, pairs=32, save_every=30, optimizer=Optimizer(1e-5)),
}


def by_pairs(**more: bool) -> tuple[dict, dict]:
    """What a recipe with pairs changes: everywhere, and on `kaggle`."""
    found = {name: dataclasses.replace(pairs, **more) for name, pairs in BY_PAIRS.items()}
    everywhere = {"stages": {"pairs": found["tiny"]}, "grpo": {"curriculum": LEARNABLE}}
    return everywhere, {"kaggle": {"stages": {"pairs": found["kaggle"]}}}


# %% [markdown]
# **SFT alone**, on the rows that are named and no others: the first of glaive's in the hub's order.

# %%
NO_GRPO = {"grpo": {"steps": 0}, "grpo_sources": (), "sft_share": 1.0}
FOUR_TIMES = {"steps": 100_000, "epochs": 4.0, "save_every": 200}


def sft_alone(skip: int, look: int, tiny_skip: int, tiny_look: int, style: str = "") -> tuple:
    """What a recipe of SFT alone changes: everywhere, and by profile."""
    glaive = dataclasses.replace(SOURCES["glaive"], rows=look, skip=skip, look=look, minutes=45.0)
    bundled = Source("bundled", BUNDLED, ("tasks/sft/" + style,), skip=tiny_skip, look=tiny_look)
    return NO_GRPO, {
        "tiny": {"sft": FOUR_TIMES, "sft_sources": {"warm_start_grpo": (bundled,)}},
        "kaggle": {
            # 24 packed rows of 2,048 tokens hold about 32 examples.
            "sft": FOUR_TIMES | {"rows": 24, "length": 2048, "shortest": 2048},
            "sft_sources": {"warm_start_grpo": (glaive,)}, "sft_fallback": (),
            "lengths": {"prompt": 256, "completion": 1792}, "preparation_minutes": 50.0,
        },
    }  # fmt: skip


# %% [markdown]
# **A curriculum**, and weights that move with it; an **outline**; all domains without a warm start.

# %%
BY_DIFFICULTY = Curriculum("phases", borders=(0.3, 0.7))
ANNEALED = {  # a right answer from 0.40 to 0.60, the form of its trace from 0.45 to 0.25
    "in_format": 0.0, "right": 0.40, "length": 0.0, "open": 0.40,
    "extras": {"structure": 0.45, "confidence": 0.15, "brief": 0.05},
    "late": {"right": 0.60, "open": 0.60, "structure": 0.25},
}  # fmt: skip
EASY_TO_HARD = {
    "tiny": SHORT,
    "kaggle": {"adapter": {"rank": 16, "alpha": 16.0}, "grpo": {"generations": 4, "beta": 0.03}},
}
OUTLINE = "Work: {trace} Check: {answer}."
LONG_OUTLINE = (  # the question is not said again: it stands right above
    "Identify: what is asked, and what is given.\nDevelop: {trace}\n"
    "Evaluate: it answers what was asked.\nSo: {answer}"
)


def outlined_rows(outline: str) -> dict[str, dict]:
    """By profile, the rows of SFT with their traces in an outline, and rows of GRPO with traces."""
    worked = dataclasses.replace(WORKED, outline=outline and OUTLINE)
    glaive = dataclasses.replace(SOURCES["glaive"], outline=outline)
    tiny = SHORT | {"sft_sources": {"warm_start_grpo": (worked,)}, "grpo_sources": (WORKED,)}
    return {"tiny": tiny, "kaggle": {"sft_sources": {"warm_start_grpo": (glaive,)},
                                     "sft_fallback": ()}}  # fmt: skip


WITHOUT_SFT = {
    "sft": {"steps": 0}, "adapter": {"rank": 16, "alpha": 16.0},
    "grpo": {"generations": 4, "temperature": 0.7, "beta": 0.04},
    "mixture": MixtureShares(temperature=0.5, cap=1.0),  # of p^0.5, as domains are in DISCO
}  # fmt: skip

FEW_STEPS = {"tiny": {"grpo": SHORT["grpo"]}}

# %% [markdown]
# **One domain.** On the tiny profile, which cannot read them, these are the default's rows. Where
# a set has one split, its first rows are held out and the others trained on. LegalBench's rows are
# those of its tests: who trains on them cannot compare with its published scores.

# %%
BOOKS = ("atkins", "chemmc", "matter", "quan")  # of SciBench: chemistry
LEGAL_TASKS = {  # by their own READMEs CC-BY-4.0 or CC-BY-SA-4.0; others are non-commercial
    "hearsay": "CC-BY-4.0", "personal_jurisdiction": "CC-BY-4.0", "proa": "CC-BY-4.0",
    "telemarketing_sales_rule": "CC-BY-4.0", "overruling": "CC-BY-4.0",
    "legal_reasoning_causality": "CC-BY-4.0", "definition_classification": "CC-BY-SA-4.0",
}  # fmt: skip
MEDQA = Source("medqa", "GBaker/MedQA-USMLE-4-options", domain="medical", checker="choice",
               licence="CC-BY-4.0")  # fmt: skip
PUBMEDQA = Source("pubmedqa", "qiaojin/PubMedQA", subset="pqa_labeled", domain="medical",
                  checker="choice", licence="MIT")  # fmt: skip
SCIBENCH = Source("scibench", "xw27/scibench", select=BOOKS, domain="chemistry", checker="number",
                  licence="MIT")  # fmt: skip
LEGALBENCH = tuple(
    Source("legalbench", "nguha/legalbench", subset=task, split="test", domain="legal",
           checker="boolean", licence=licence)
    for task, licence in LEGAL_TASKS.items()
)  # fmt: skip
ROBOTS = "data/robots.jsonl"
FOR_ROBOTS = {  # the tiny Gemma has never seen one: that takes more updates, and more ranks
    "tiny": {
        "lengths": {"completion": 100}, "adapter": {"rank": 32, "alpha": 64.0},
        "sft": {"steps": 400},  # 1,200 make .860, and GRPO nothing more
        "grpo": {"steps": 100, "save_every": 50, "optimizer": {"peak_rate": 2e-4},
                 "curriculum": LEARNABLE}},
    "kaggle": {  # 1,500 rows of 60 tokens: short sequences, and few passes
        "lengths": {"prompt": 128, "completion": 256},
        "sft": {"rows": 8, "length": 512, "shortest": 512, "epochs": 4.0}},
}  # fmt: skip


def parted(source: Source, held_out: int) -> tuple[Source, Source]:
    """The first rows, held out, and the others."""
    return dataclasses.replace(source, look=held_out), dataclasses.replace(source, skip=held_out)


def of_domain(*parts: tuple[Source, Source], **changes: dict) -> dict[str, dict]:
    """On `kaggle`: rows to evaluate, rows to train on, and what else changes."""
    held_out, trained = zip(*parts, strict=True)
    return {"kaggle": {"evaluation": {"sources": held_out}, "grpo_sources": trained,
                       "lengths": {"prompt": 512, "completion": 512}, **changes}}  # fmt: skip


def of_robots(**changes: dict) -> dict:
    """Everywhere: rows of SFT, of GRPO, and held out."""
    return {
        "sft_sources": {"warm_start_grpo": (Source("bundled", ROBOTS, ("robots/sft",)),)},
        "grpo_sources": (Source("bundled", ROBOTS, ("robots/grpo",)),),
        "evaluation": {"sources": (Source("bundled", ROBOTS, ("robots/held_out",)),)},
        "sft_fallback": (), **changes,
    }  # fmt: skip


# %%
RECIPES.update({
    "zero_cost": Recipe(
        "SFT alone, four times on the first 180,000 rows of glaive (`tiny`: on 2,000 of ours)",
        *sft_alone(0, 180_000, 0, 2_000)),
    "zero_cost_continue": Recipe(
        "the next 100,000 (1,000) rows, from an earlier run, at a quarter of the rate",
        *sft_alone(180_000, 100_000, 2_000, 1_000), continues="sft", slower=0.25),
    "zero_cost_control": Recipe(
        "the same on as many rows whose traces only guess (`tiny`)",
        *sft_alone(0, 180_000, 0, 2_000, style="guess")),
    "curriculum": Recipe(
        "from easy to hard; a right answer comes to count for more, the form of its trace for less",
        {"grpo": {"curriculum": BY_DIFFICULTY}, "rewards": ANNEALED}, EASY_TO_HARD),
    "curriculum_control": Recipe(
        "the same with prompts as the mixture has them, and weights that stay",
        {"rewards": {**ANNEALED, "late": {}}}, EASY_TO_HARD),
    "generalist": Recipe(
        "GRPO without SFT on all domains; a part of the tags pays a little",
        WITHOUT_SFT | {"rewards": {"partly": 0.2}}, FEW_STEPS),
    "generalist_control": Recipe(
        "the same, where a part of the tags pays nothing",
        WITHOUT_SFT, FEW_STEPS),
    "scaffolded": Recipe(
        "traces in a fixed outline, like the teacher's, easy prompts first",
        {"grpo": {"curriculum": BY_DIFFICULTY},
         "rewards": {"extras": {"outline": 0.1, "teacher": 0.2}}},
        outlined_rows(LONG_OUTLINE)),
    "scaffolded_control": Recipe(
        "the same without outline, teacher and phases",
        in_profile=outlined_rows("")),
    "medical": Recipe(
        "MedQA and PubMedQA",
        in_profile=of_domain(
            (dataclasses.replace(MEDQA, split="test"), MEDQA), parted(PUBMEDQA, 200))),
    "chemistry": Recipe("SciBench's books of chemistry", in_profile=of_domain(parted(SCIBENCH, 200))),
    "legal": Recipe(
        "LegalBench's tasks of yes and no, where their licence lets it",
        in_profile=of_domain(*(parted(source, 40) for source in LEGALBENCH))),
    "robotics": Recipe(
        "plans for a robot, which the checker executes",
        of_robots(), FOR_ROBOTS),
    "robotics_control": Recipe(
        "the same, where only the format pays",
        of_robots(rewards={"right": 0.0, "length": 0.0}), FOR_ROBOTS),
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
    "zero_cost": "there are good traces, and no time to write rewards.",
    "zero_cost_continue": "there is another session, and there are rows that were not seen.",
    "curriculum": "rows say how hard they are, and the hard ones are out of reach at first.",
    "generalist": "no traces are at hand, and the model finds the format by itself now and then.",
    "scaffolded": "whoever reads the traces wants them in one form.",
    "robotics": "an answer can be executed: many are right, and none need be written down.",
    "distilled": "a larger model of the same family is at hand, and no answers are.",
    "trace_model": "answers are known for some rows, and GRPO is to go on where they are not.",
    "judged": "rows have neither answers nor a checker, and a larger model can tell good from bad.",
    "preferred": "rollouts are dear: pairs are sampled once, and used for many updates.",
}
