"""The settings of a run.

What a run is told stands here: the model, the recipe, the hyper-parameters of both stages, the
weights of the reward. Nothing below asks *which* profile it runs in; it
reads a number from here.

A **profile** says where we run. `tiny` is a laptop's CPU and a Gemma of 1.2 million
parameters; `kaggle` is a TPU v5e-8 and stock Gemma. A **recipe** says what is taught, in
which order, from which rows. `small`, between the two, is a laptop's CPU and Gemma 3 270M.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class StockModel:
    """A stock Gemma in Kaggle's Flax layout."""

    name: str
    family: str  # gemma3 or gemma2: which of Tunix's two models it is
    weights: str  # the Orbax folder beside tokenizer.model
    handle: str = ""  # Kaggle model handle; empty: `folder` is used
    folder: str = ""  # in the repository; with a `script`, in the cache of models
    script: str = ""  # makes `folder` in the cache, if it is not there
    shape: Mapping[str, Any] | None = None  # Tunix ModelConfig fields; None: Tunix's preset
    dtype: str = "bfloat16"


# Rows come from **sources**. A bundled source is a file of this repository and the names of
# the parts of it to use; a public one is a dataset on the hub, read by streaming, with an
# adapter that turns its rows into ours. Where a licence is non-commercial, or none is stated,
# the source is off until someone switches it on by name (`SWITCHED_ON`).


@dataclasses.dataclass(frozen=True)
class Source:
    """Where rows come from, and what they may be used for."""

    adapter: str  # bundled, or a name in ADAPTERS
    location: str  # a file, or a dataset id on the hub
    select: tuple[str, ...] = ()  # bundled: keep rows whose `source` starts with one of these
    subset: str | None = None  # the hub's "config"
    split: str = "train"
    revision: str | None = None
    files: str | None = None  # read these files of the dataset only, e.g. one shard
    domain: str = "other"
    checker: str = "open"
    weight: float = 1.0  # times its share in the mixture
    rows: int = 1_000_000  # keep no more than this many usable rows
    skip: int = 0  # so many rows, in the source's own order, are left out first, ...
    look: int | None = None  # ... and then so many are looked at; None: all
    outline: str = ""  # what its traces become: a text with {question}, {trace}, {answer} in it
    minutes: float = 6.0  # read no longer than this; a limit of the hub's lasts up to five
    licence: str = "Apache-2.0"
    on: bool = True


# Where what a run is told can be set, at the end of a message about it.
PARAMETERS = " It is set in the notebook's cell of parameters, or in the environment."


def pick(kind: str, name: str, known: Mapping[str, Any], where: str = "") -> Any:
    """`known[name]`, or an error that lists what there is.

    >>> pick("profile", "laptop", {"tiny": 1})
    Traceback (most recent call last):
    ValueError: Unknown profile 'laptop'. Choose one of: tiny.
    """
    if name not in known:
        raise ValueError(f"Unknown {kind} {name!r}. Choose one of: {', '.join(known)}.{where}")
    return known[name]


def switched_on(names: str, known: Mapping[str, Source]) -> tuple[str, ...]:
    """Names of sources that are off above, from the environment: SWITCHED_ON=sciq,xsum.

    Raises:
      ValueError: there is no such source.
    """
    found = tuple(name.strip() for name in names.split(",") if name.strip())
    for name in found:
        pick("source in SWITCHED_ON", name, known)
    return found


@dataclasses.dataclass(frozen=True)
class MixtureShares:
    """How much each source counts: its share of the rows to a power, then caps."""

    temperature: float = 0.5  # 1: as many as there are; 0: all sources alike
    cap: float = 0.4  # of the mixture; what is over goes to the others
    least: float = 0.5  # share of the weight that must be reachable, or the run stops


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Token limits. Together they are the length of the key-value cache."""

    prompt: int
    completion: int


@dataclasses.dataclass(frozen=True)
class Adapter:
    """LoRA on the four projections of attention and the three of the MLP."""

    rank: int
    alpha: float
    modules: str = ".*q_einsum|.*kv_einsum|.*attn_vec_einsum|.*gate_proj|.*up_proj|.*down_proj"


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """AdamW under a global-norm clip; warm-up, then cosine to a tenth of the peak."""

    peak_rate: float
    warm_up_share: float = 0.1  # of the steps
    end_share: float = 0.1  # of the peak rate
    b1: float = 0.9
    b2: float = 0.99
    weight_decay: float = 0.0  # an adapter starts at zero: decay would pull towards stock
    clip_norm: float = 1.0


@dataclasses.dataclass(frozen=True)
class Sft:
    """Stage 1: the warm start."""

    steps: int
    rows: int  # per update, each with several examples; fewer if they are longer than `shortest`
    length: int  # tokens per row, at most: it is chosen so that little is left over
    shortest: int  # ... and at least
    optimizer: Optimizer
    save_every: int
    minimum_kept: float  # share of rows that must fit the lengths, or the run stops
    epochs: float = 0.0  # not 0: it ends after so many passes through its rows, if not before


@dataclasses.dataclass(frozen=True)
class Curriculum:
    """Which prompts GRPO draws."""

    kind: str = "uniform"  # as the mixture has them; or learnability, or phases
    floor: float = 0.1  # learnability: the least weight of a cell, against 1 at p = 1/2
    memory: float = 0.98  # what a running success rate keeps at each completion
    borders: tuple[float, float] = (1 / 3, 2 / 3)  # phases: of the stage, where harder rows come in
    guessed: float = 1.0  # weight of rows with a choice or yes/no: who guesses is often right


@dataclasses.dataclass(frozen=True)
class Grpo:
    """Stage 2: reinforcement learning from the rewards below."""

    steps: int
    prompts: int  # groups per update
    generations: int  # completions per group
    optimizer: Optimizer
    beta: float  # weight of the KL divergence from the warm start
    save_every: int
    epsilon: float = 0.2  # clip of the ratio; idle while there is one update per rollout
    iterations: int = 1  # updates per rollout
    temperature: float = 1.0  # what is sampled is what is trained: no top-k, no top-p
    top_k: int | None = None
    top_p: float = 1.0
    micro_prompts: int = 0  # groups per forward and backward pass; 0: as many as memory allows
    parts: int = 1  # of a pass, one after the other: less memory, the same gradient
    curriculum: Curriculum = Curriculum()
    reference: str = "warm_start"  # whom the KL term holds the policy near to
    # By Tunix's names: how advantages, the KL divergence and the mean over tokens are computed.
    estimator: str = "grpo"
    kl_loss: str = "low_var_kl"
    aggregation: str = "sequence-mean-token-mean"


@dataclasses.dataclass(frozen=True)
class Generation:
    """How the rollout engine cuts its work up; what it generates does not depend on it."""

    segment: int  # steps between two looks at which completions are done
    prompt_step: int  # prompts are padded to a multiple of this
    completion_step: int  # for the update, completions are trimmed to a multiple of this
    least_share: float = 1 / 8  # of the first batch: it shrinks no further
    alike: int = 0  # rows at a time of a step that reads equal beginnings once; 0: reads all rows


@dataclasses.dataclass(frozen=True)
class Chip:
    """What an accelerator has, and how much of it one pass of training should use."""

    memory_gib: float  # usable
    spare: float = 0.1  # of it, left free for what an estimate does not see
    pass_tokens: int = 16_384  # per chip and pass: the matrix units are busy with fewer already


CHECK_SECONDS = 60.0  # for a look at one answer; one that takes longer has failed


@dataclasses.dataclass(frozen=True)
class Rewards:
    """The weights of the reward, and its length band in words of the trace.

    A completion out of format earns 0. In format it earns `in_format`. On a row that can be
    checked it earns `right` more if the answer is right, and only then does the length of the
    trace pay, up to `length`. On an open row it earns up to `open` by the score of its parts.
    """

    in_format: float = 0.1
    right: float = 0.8
    length: float = 0.1
    open: float = 0.9
    partly: float = 0.0  # out of format: times the share of good tags; for a start without SFT
    shortest: int = 10  # words; from here ...
    longest: int = 400  # ... to here the length pays in full
    slope: int = 200  # words past `longest` after which it pays nothing
    encoder: str = ""  # the model that reads the meaning of open answers; empty: none does
    extras: Mapping[str, float] = dataclasses.field(default_factory=dict)  # of `more_rewards`
    late: Mapping[str, float] = dataclasses.field(default_factory=dict)  # weights at the end
    most_failures: float = 0.02  # share of failed scorings after which the run stops
    seconds: float = CHECK_SECONDS  # for one scoring; one that takes longer has failed


@dataclasses.dataclass(frozen=True)
class Guards:
    """When GRPO has gone astray: a warning and a limit for means of the last steps."""

    window: int = 8  # steps
    format_lost: tuple[float, float] = (0.15, 0.4)  # share of the best one so far
    length: tuple[float, float] = (0.9, 0.97)  # mean completion, of the longest there can be
    entropy_lost: tuple[float, float] = (0.95, 0.995)  # share of the first one
    kl: tuple[float, float] = (0.5, 2.0)  # nats a token
    slower: float = 0.5  # times the learning rate, after each return to a good save
    returns: int = 2  # after which the stage ends


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Greedy decoding of held-out rows."""

    sources: tuple[Source, ...]
    rows: int  # of each source at most
    batch_size: int
    samples: int = 6  # before/after examples shown, always the first ones


@dataclasses.dataclass(frozen=True)
class Profile:
    """Where we run, and everything that follows from it."""

    name: str
    model: StockModel  # the one field that chooses the model
    lengths: Lengths
    adapter: Adapter
    sft: Sft
    grpo: Grpo
    rewards: Rewards
    evaluation: Evaluation
    sft_sources: Mapping[str, tuple[Source, ...]]  # by recipe
    grpo_sources: tuple[Source, ...]
    generation: Generation
    chip: Chip
    hours: float  # the wall clock of a session
    host_gib: float = 0.0  # memory of the host that must be free; 0: it is not looked at
    sft_fallback: tuple[Source, ...] = ()  # read as well if those of `sft_sources` are all down
    warm_start: str = "warm_start_grpo"  # the key of `sft_sources` that the recipe has chosen
    stages: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # between SFT and GRPO
    helper: Any = None  # a second model, which teaches or judges
    mixture: MixtureShares = MixtureShares()
    minimum_prompts: float = 0.05  # of the rows of a source without traces that must fit
    preparation_minutes: float = 20.0  # for reading all rows; then it goes on with what it has
    preparation_share: float = 1.0  # of the minutes asked for, if that is less
    prepared: str = ""  # folder that scripts/download_sft_datasets.py made; empty: read the hub
    planned: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # seconds by model, stage
    sft_share: float = 0.3  # of the time that is left when SFT begins
    keep_checkpoints: int = 3
    save_minutes: float = 10.0  # a save is due after so long, as well as after `save_every` steps
    guards: Guards = Guards()
    most_skipped: int = 5  # steps in a row that are not finite, after which the run stops
    closing_seconds: float = 30.0  # for what follows the last evaluation
    upload_seconds: float = 0.0  # before the session's end, for what the host makes of the outputs
    remat: bool = False  # recompute activations in training
    vocabulary_chunk: int = 1024  # tokens per chip whose logits exist at a time
    download_minutes: float = 20.0
    compilation_cache: str = ""  # folder of JAX's persistent cache; empty: none


def changed(whole: Any, changes: Mapping[str, Any]) -> Any:
    """A dataclass with other values; a mapping changes a part of it, in the same way.

    >>> changed(Lengths(prompt=4, completion=8), {"prompt": 6})
    Lengths(prompt=6, completion=8)
    """
    values = {
        name: changed(getattr(whole, name), value)
        if dataclasses.is_dataclass(getattr(whole, name)) and isinstance(value, Mapping)
        else value
        for name, value in changes.items()
    }
    return dataclasses.replace(whole, **values)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is taught: how it differs from the profile, and from some profiles by their name."""

    about: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    in_profile: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    continues: str = ""  # the stage of an earlier run that goes on: sft or grpo; the other rests
    slower: float = 1.0  # ... at so much of the profile's rate

    def applied(self, profile: Profile) -> Profile:
        """The profile as this recipe changes it."""
        profile = changed(changed(profile, self.changes), self.in_profile.get(profile.name, {}))
        if not self.continues:
            return profile
        rate = self.slower * getattr(profile, self.continues).optimizer.peak_rate
        rests = {"sft": "grpo", "grpo": "sft"}[self.continues]
        going_on = {"optimizer": {"peak_rate": rate}}
        return changed(profile, {rests: {"steps": 0}, self.continues: going_on})


# A run is a profile and a recipe, a seed, a time limit, and where its files go. They can be set
# from outside, by the environment variables `PROFILE`, `RECIPE`, `RUN_SEED`, `MINUTES` and `OUT`;
# `SWITCHED_ON` names sources to add. A run that finds itself unfinished in its folder goes on.
# `RESUME=1` insists on that: another configuration is an error, and a finished run is left alone.
# `RESUME=0` starts anew. `START_FROM` is the earlier run of the recipe `continue`, and `PUBLISH_AS`
# the Kaggle model to upload to.


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of the notebook."""

    profile: Profile
    recipe: str
    seed: int
    minutes: float | None  # None: the run is limited by steps
    out: str
    resume: bool | None  # None: if there is an unfinished run of this configuration
    start_from: str = ""  # the folder of an earlier run
    publish_as: str = ""  # user/model on Kaggle

    @property
    def model(self) -> StockModel:
        """The stock model of the profile."""
        return self.profile.model

    @property
    def sft_sources(self) -> tuple[Source, ...]:
        """Where the rows of the warm start come from, if there is one."""
        if not self.profile.sft.steps:
            return ()
        return self.profile.sft_sources[self.profile.warm_start]

    @property
    def cache_length(self) -> int:
        """Tokens a sequence can have while it is generated."""
        return self.profile.lengths.prompt + self.profile.lengths.completion


def number(environment: Mapping[str, str], variable: str, kind: type) -> Any:
    """A number from an environment variable; None if it is not set."""
    text = environment.get(variable, "")
    if not text:
        return None
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(f"{variable}={text!r} is not a number.{PARAMETERS}") from None
    if not math.isfinite(value) or value < 0 or (kind is float and value == 0):
        raise ValueError(f"{variable}={text!r} is out of range.{PARAMETERS}")
    return value


def run_asked_for(
    environment: Mapping[str, str],
    platform: str,
    profiles: Mapping[str, Profile],
    recipes: Mapping[str, Recipe],
    models: Mapping[str, StockModel],
) -> Run:
    """The run that the environment asks for.

    Args:
      environment: `os.environ` or its like.
      platform: JAX's platform; a TPU means `kaggle`, anything else `tiny`.
      profiles: by name.
      recipes: by name.
      models: by name.

    Raises:
      ValueError: an unknown profile, model or recipe, or a variable that is not a number; says
        where it is set.
    """
    default = "kaggle" if platform == "tpu" else "tiny"
    profile = pick("profile", environment.get("PROFILE") or default, profiles, PARAMETERS)
    if model := environment.get("MODEL"):
        profile = dataclasses.replace(profile, model=pick("model", model, models, PARAMETERS))
    name = environment.get("RECIPE") or "warm_start_grpo"
    recipe = pick("recipe", name, recipes, PARAMETERS)
    profile = recipe.applied(profile)
    if profile.warm_start not in profile.sft_sources:
        raise ValueError(
            f"Recipe {name!r} has no rows in profile {profile.name!r}. "
            f"SFT rows there: {', '.join(profile.sft_sources)}.{PARAMETERS}"
        )
    seed = number(environment, "RUN_SEED", int) or 0
    if seed >= 2**32:
        raise ValueError(f"RUN_SEED={seed} repeats the draws of {seed % 2**32}.{PARAMETERS}")
    publish_as = environment.get("PUBLISH_AS", "")
    if publish_as and not re.fullmatch(r"[A-Za-z0-9][\w-]*/[A-Za-z0-9][A-Za-z0-9-]*", publish_as):
        raise ValueError(
            f"PUBLISH_AS={publish_as!r} is not a Kaggle model, user/model.{PARAMETERS}"
        )
    resume = pick(
        "RESUME", environment.get("RESUME", ""), {"": None, "0": False, "1": True}, PARAMETERS
    )
    start_from = environment.get("START_FROM", "")
    if bool(start_from) != bool(recipe.continues):
        raise ValueError(
            "A recipe that continues and START_FROM, the folder of an earlier run, need each "
            "other: "
            f"RECIPE={name!r}, START_FROM={start_from!r}.{PARAMETERS}"
        )
    return Run(
        profile=profile,
        recipe=name,
        seed=seed,
        minutes=number(environment, "MINUTES", float),
        out=environment.get("OUT") or "outputs",
        resume=resume,
        start_from=start_from,
        publish_as=publish_as,
    )
