"""What fits into a chip's memory.

How many groups go through the model at once, and whether every chip can hold all weights,
follows from the chip's memory. Nothing here is exact. The estimates lie above what the TPU
compiler reports for the same programs (`scripts/preflight.py` prints both); what must not
happen is that they lie below.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from submission.bench.policy.model import abstract_stock, tunix_config
from submission.bench.settings.config import Run, StockModel


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """What the memory of the chips allows."""

    replicated: bool  # every chip holds all weights
    micro_prompts: int  # groups per forward and backward pass
    rollout_prompts: int  # groups that are generated at once
    evaluation_rows: int  # rows that Tunix's sampler answers at once
    weights: int  # bytes per chip, adapter and optimizer included
    training: int  # bytes per chip at the height of an update
    rollout: int  # bytes per chip at the end of a rollout
    helper_whole: bool = True  # every chip holds all of the second model, if there is one

    def __str__(self) -> str:
        """One line for the reader."""
        gib = [f"{x / 2**30:.2f}" for x in (self.weights, self.training, self.rollout)]
        where = "whole on every chip" if self.replicated else "in slices"
        return (
            f"weights {where}, {gib[0]} GiB; an update {gib[1]} GiB, groups at a time: "
            f"{self.micro_prompts}; a rollout {gib[2]} GiB, groups at a time: "
            f"{self.rollout_prompts}; rows at a time in an evaluation: {self.evaluation_rows}"
        )


def parameter_count(model_config: Any) -> int:
    """Numbers in a Tunix Gemma of this configuration; no weight is made."""
    return sum(x.size for x in jax.tree.leaves(nnx.state(abstract_stock(model_config))))


def weight_bytes(model: StockModel) -> int:
    """What the weights of a stock model take, whole."""
    return parameter_count(tunix_config(model)) * jnp.dtype(model.dtype).itemsize


def adapter_count(model_config: Any, rank: int) -> int:
    """Numbers in the adapter: two thin factors for each projection, from or to the width."""
    c = model_config
    ends = 2 * (c.num_heads + c.num_kv_heads) * c.head_dim + 3 * c.hidden_dim
    return rank * c.num_layers * (6 * c.embed_dim + ends)


def pass_bytes(run: Run, rows: float) -> int:
    """What `rows` whole rows per chip take in a forward and backward pass, beside the weights.

    Kept are the inputs of each layer, if the rest is recomputed, and otherwise everything.
    Beside that stands the larger of one layer at work and one chunk of the vocabulary.
    """
    c, width = tunix_config(run.model), jnp.dtype(run.model.dtype).itemsize
    length = run.cache_length
    tokens = rows * length
    heads = c.num_heads * c.head_dim
    layer = tokens * width * (4 * c.hidden_dim + 6 * c.embed_dim + 4 * heads)
    layer += rows * c.num_heads * length**2 * 2 * (width + 4)
    kept = tokens * c.embed_dim * width if run.profile.remat else layer
    vocabulary = min(tokens, run.profile.vocabulary_chunk) * c.num_embed * 4 * 3
    return math.ceil(c.num_layers * kept + max(layer, vocabulary) + tokens * c.embed_dim * width)


def cache_bytes(run: Run, rows: float) -> int:
    """What the key-value caches of `rows` sequences per chip take, at their longest."""
    c, width = tunix_config(run.model), jnp.dtype(run.model.dtype).itemsize
    per_token = c.num_layers * 2 * c.num_kv_heads * c.head_dim * width
    return math.ceil(rows * run.cache_length * per_token)


def largest_divisor(number: int, limit: float) -> int:
    """The largest divisor that is not over the limit; 1 if there is none.

    >>> largest_divisor(128, 20), largest_divisor(12, 5), largest_divisor(7, 0.5)
    (16, 4, 1)
    """
    return max((d for d in range(1, number + 1) if number % d == 0 and d <= limit), default=1)


def plan_memory(run: Run, devices: int) -> MemoryPlan:
    """What fits into the chips of the profile.

    Args:
      run: model, lengths and batch.
      devices: how many chips.

    Raises:
      ValueError: not even one group per pass fits, with the weights in slices.
    """
    rollout = functools.partial(cache_bytes, run)
    profile, settings, width = run.profile, run.profile.grpo, jnp.dtype(run.model.dtype).itemsize
    shape, base = tunix_config(run.model), weight_bytes(run.model)
    apart = profile.helper.chips if profile.helper else 0
    second = weight_bytes(profile.helper.model) if profile.helper and not apart else 0
    # The adapter and its frozen copy; master weights, two moments, gradients in float32.
    trained = adapter_count(shape, profile.adapter.rank) * (2 * width + 4 * 4)
    room = profile.chip.memory_gib * (1 - profile.chip.spare) * 2**30
    group = settings.generations / devices  # rows per chip

    def fitting(weights: float, whole: int, needed: Any, rows: float = group) -> int:
        """The largest divisor of `whole`, each so many rows, that fits beside the weights, or 0."""
        divisors = [d for d in range(1, whole + 1) if whole % d == 0]
        return max((d for d in divisors if weights + needed(d * rows) <= room), default=0)

    def training(rows: float) -> int:
        return pass_bytes(run, rows / settings.parts)

    def evaluation(rows: float) -> int:
        # Tunix's sampler makes its cache on the first chip, whole, and only then shares it out.
        return cache_bytes(run, rows) + cache_bytes(run, rows / devices)

    enough = largest_divisor(settings.prompts, profile.chip.pass_tokens / run.cache_length / group)
    for replicated, helper_whole in ((True, True), (True, False), (False, False)):
        weights = trained + (base if replicated else base / devices)
        weights += second if helper_whole else second / devices
        micro = settings.micro_prompts or fitting(weights, enough, training)
        at_once = fitting(weights, settings.prompts, rollout)
        answered = fitting(weights, profile.evaluation.batch_size, evaluation, rows=1)
        if micro and at_once and answered:
            return MemoryPlan(
                replicated, micro, at_once, answered, math.ceil(weights),
                math.ceil(weights + training(micro * group)),
                math.ceil(weights + rollout(at_once * group)), helper_whole,
            )  # fmt: skip
    beside = f" with {profile.helper.model.name} beside it" if second else ""
    raise ValueError(
        f"{run.model.name}{beside} does not fit {devices} chips of {profile.chip.memory_gib} GiB: "
        "shorten `lengths` in the profile, lower `generations`, or choose a smaller model."
    )
