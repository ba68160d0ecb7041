# %% [markdown]
# ### Every choice, once
#
# All that can be chosen stands here: the model, the recipe, the hyper-parameters of
# both stages, the weights of the reward. Nothing below asks *which* profile it runs in; it
# reads a number from here.
#
# A **profile** says where we run. `tiny` is a laptop's CPU and a Gemma of 1.2 million
# parameters; `kaggle` is a TPU v5e-8 and stock Gemma. A **recipe** says what is taught, in
# which order, from which rows.

# %%
import dataclasses
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class StockModel:
    """A stock, instruction-tuned Gemma in Kaggle's Flax layout."""

    name: str
    family: str  # gemma3 or gemma2: which of Tunix's two loaders reads it
    weights: str  # the Orbax folder beside tokenizer.model
    handle: str = ""  # Kaggle model handle; empty: `folder` is used
    folder: str = ""
    shape: Mapping[str, Any] | None = None  # Tunix ModelConfig fields; None: Tunix's preset
    dtype: str = "bfloat16"


STOCK_MODELS = {
    model.name: model
    for model in (
        StockModel(
            "gemma3_1b_it", "gemma3", "gemma3-1b-it", handle="google/gemma-3/flax/gemma3-1b-it"
        ),
        StockModel(
            "gemma2_2b_it", "gemma2", "gemma2-2b-it", handle="google/gemma-2/flax/gemma2-2b-it"
        ),
        StockModel(
            "gemma3_tiny_it",
            "gemma3",
            "gemma3-tiny-it",
            folder="data/tiny_gemma",
            # Five local layers to one global: with six, both kinds of attention exist.
            shape=dict(
                num_layers=6,
                num_embed=640,
                embed_dim=128,
                hidden_dim=384,
                num_heads=4,
                head_dim=32,
                num_kv_heads=1,
                sliding_window_size=64,
                local_base_frequency=10_000,
                global_base_frequency=1_000_000,
            ),
            dtype="float32",  # CPUs are slow in bfloat16
        ),
    )
}


# %% [markdown]
# Rows come from **sources**. A bundled source is a file of this repository and the names of
# the parts of it to use; a public one is a dataset on the hub, read by streaming, with an
# adapter that turns its rows into ours.


# %%
@dataclasses.dataclass(frozen=True)
class Source:
    """Where rows come from."""

    adapter: str  # bundled, glaive or gsm8k
    location: str  # a file, or a dataset id on the hub
    select: tuple[str, ...] = ()  # bundled: keep rows whose `source` starts with one of these
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    rows: int = 1_000_000  # read no more than this many usable rows
    minutes: float = 15.0  # read no longer than this, and go on with what there is
    licence: str = "Apache-2.0"


BUNDLED = "data/train.jsonl"
GLAIVE = Source("glaive", "glaiveai/reasoning-v1-20m", rows=3_000)
GSM8K_REVISION = "740312add88f781978c0658806c59bc2815b9866"
GSM8K = Source("gsm8k", "openai/gsm8k", (), "main", "train", GSM8K_REVISION, licence="MIT")
GSM8K_TEST = dataclasses.replace(GSM8K, split="test", rows=400)


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
    batch_size: int  # examples per update
    length: int  # tokens per example, prompt included
    optimizer: Optimizer
    save_every: int
    minimum_kept: float  # share of rows that must fit the lengths, or the run stops


@dataclasses.dataclass(frozen=True)
class Grpo:
    """Stage 2: reinforcement learning from the rewards below."""

    steps: int
    prompts: int  # groups per update
    generations: int  # completions per group
    micro_prompts: int  # groups per forward and backward pass
    optimizer: Optimizer
    beta: float  # weight of the KL divergence from the warm start
    save_every: int
    epsilon: float = 0.2  # clip of the ratio; idle while there is one update per rollout
    iterations: int = 1  # updates per rollout
    temperature: float = 1.0  # what is sampled is what is trained: no top-k, no top-p
    top_k: int | None = None
    top_p: float = 1.0


@dataclasses.dataclass(frozen=True)
class Rewards:
    """The weights of the reward, and its length band in words of the trace.

    A completion out of format earns 0. In format, it earns `in_format`, and `right` more if
    the answer is right; only then does the length of the trace pay, up to `length`.
    """

    in_format: float = 0.1
    right: float = 0.8
    length: float = 0.1
    shortest: int = 10  # words; from here ...
    longest: int = 400  # ... to here the length pays in full
    slope: int = 200  # words past `longest` after which it pays nothing


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Greedy decoding of held-out rows."""

    source: Source
    rows: int
    batch_size: int
    samples: int = 8  # before/after examples shown, always the first ones


@dataclasses.dataclass(frozen=True)
class Profile:
    """Where we run, and everything that follows from it."""

    name: str
    model: str  # one of STOCK_MODELS: the one field that chooses the model
    lengths: Lengths
    adapter: Adapter
    sft: Sft
    grpo: Grpo
    rewards: Rewards
    evaluation: Evaluation
    sft_sources: Mapping[str, tuple[Source, ...]]  # by recipe
    grpo_sources: tuple[Source, ...]
    hours: float  # the wall clock of a session
    sft_share: float = 0.3  # of the time that is left when SFT begins
    grpo_share: float = 0.85  # of the time that is left when GRPO begins
    keep_checkpoints: int = 3
    remat: bool = False  # recompute activations in training
    download_minutes: float = 20.0


# %% [markdown]
# The two profiles. The rates of `tiny` are over a hundred times those of `kaggle`: its weights
# are small, and it takes 210 steps in all, not 1,300.

# %%
ALL_STYLES = Source("bundled", BUNDLED, ("tasks/sft/",))
WORKED = Source("bundled", BUNDLED, ("tasks/sft/short", "tasks/sft/steps"))

TINY = Profile(
    name="tiny",
    model="gemma3_tiny_it",
    lengths=Lengths(prompt=48, completion=80),
    adapter=Adapter(rank=16, alpha=32.0),
    sft=Sft(
        steps=150,
        batch_size=16,
        length=128,
        optimizer=Optimizer(peak_rate=3e-3),
        save_every=50,
        minimum_kept=0.9,
    ),
    grpo=Grpo(
        steps=60,
        prompts=16,
        generations=8,
        micro_prompts=16,
        optimizer=Optimizer(peak_rate=8e-4),
        beta=0.02,
        save_every=20,
    ),
    rewards=Rewards(shortest=2, longest=30, slope=15),
    evaluation=Evaluation(Source("bundled", "data/held_out.jsonl"), rows=600, batch_size=200),
    sft_sources={"warm_start_grpo": (ALL_STYLES,), "worked_only": (WORKED,)},
    grpo_sources=(Source("bundled", BUNDLED, ("tasks/grpo",)),),
    hours=1.0,
)

KAGGLE = Profile(
    name="kaggle",
    model="gemma3_1b_it",
    lengths=Lengths(prompt=256, completion=768),
    adapter=Adapter(rank=64, alpha=64.0),
    sft=Sft(
        steps=300,
        batch_size=32,
        length=1024,
        optimizer=Optimizer(peak_rate=2e-5),
        save_every=200,
        minimum_kept=0.002,  # of glaive's rows, 1 to 5 % fit 1,024 tokens, fewer 256 + 768
    ),
    grpo=Grpo(
        steps=1000,
        prompts=16,
        generations=8,
        micro_prompts=4,
        optimizer=Optimizer(peak_rate=5e-6),
        beta=0.04,
        save_every=25,
        temperature=0.9,
    ),
    rewards=Rewards(shortest=20, longest=400, slope=150),
    evaluation=Evaluation(GSM8K_TEST, rows=400, batch_size=200),
    sft_sources={"warm_start_grpo": (GLAIVE,)},
    grpo_sources=(GSM8K,),
    hours=9.0,
    remat=True,
)

PROFILES = {profile.name: profile for profile in (TINY, KAGGLE)}
RECIPES = {
    "warm_start_grpo": "SFT on all traces, then GRPO",
    "worked_only": "the control: SFT on worked traces only, then the same GRPO",
}


# %% [markdown]
# A run is a profile and a recipe, a seed, and where its files go. All five can be set from
# outside, by the environment variables `PROFILE`, `RECIPE`, `RUN_SEED`, `MINUTES` and `OUT`.
# `RESUME=1` leaves a finished run alone; this version cannot continue inside one.


# %%
@dataclasses.dataclass(frozen=True)
class Run:
    """One run of the notebook."""

    profile: Profile
    recipe: str
    seed: int
    minutes: float | None  # None: the run is limited by steps
    out: str
    resume: bool

    @property
    def model(self) -> StockModel:
        """The stock model of the profile."""
        return STOCK_MODELS[self.profile.model]

    @property
    def cache_length(self) -> int:
        """Tokens a sequence can have while it is generated."""
        return self.profile.lengths.prompt + self.profile.lengths.completion


def pick(kind: str, name: str, known: Mapping[str, Any]) -> Any:
    """`known[name]`, or an error that lists what there is.

    >>> pick("profile", "laptop", {"tiny": 1})
    Traceback (most recent call last):
    ValueError: Unknown profile 'laptop'. Choose one of: tiny.
    """
    if name not in known:
        raise ValueError(f"Unknown {kind} {name!r}. Choose one of: {', '.join(known)}.")
    return known[name]


def number(environment: Mapping[str, str], variable: str, kind: type) -> Any:
    """A number from an environment variable; None if it is not set."""
    text = environment.get(variable, "")
    if not text:
        return None
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(f"{variable}={text!r} is not a number. Unset it or correct it.") from None
    if not math.isfinite(value) or value < 0 or (kind is float and value == 0):
        raise ValueError(f"{variable}={text!r} is out of range. Unset it or correct it.")
    return value


def read_run(environment: Mapping[str, str], platform: str) -> Run:
    """The run that the environment asks for.

    Args:
      environment: `os.environ` or its like.
      platform: JAX's platform; a TPU means `kaggle`, anything else `tiny`.

    Raises:
      ValueError: an unknown profile, model or recipe, or a variable that is not a number.
    """
    default = "kaggle" if platform == "tpu" else "tiny"
    profile = pick("profile", environment.get("PROFILE") or default, PROFILES)
    recipe = environment.get("RECIPE") or "warm_start_grpo"
    pick("recipe", recipe, RECIPES)
    if recipe not in profile.sft_sources:
        raise ValueError(
            f"Recipe {recipe!r} has no rows in profile {profile.name!r}. "
            f"Choose one of: {', '.join(profile.sft_sources)}."
        )
    pick("model", profile.model, STOCK_MODELS)
    resume = pick("RESUME", environment.get("RESUME") or "0", {"0": False, "1": True})
    return Run(
        profile=profile,
        recipe=recipe,
        seed=number(environment, "RUN_SEED", int) or 0,
        minutes=number(environment, "MINUTES", float),
        out=environment.get("OUT") or "outputs",
        resume=resume,
    )
