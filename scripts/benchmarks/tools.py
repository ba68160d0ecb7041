"""What the measurements of `benchmark.py` share: random models, a tokenizer, clocks, lengths."""

import contextlib
import math
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tunix.generate import sampler as sampler_lib

from submission.bench.policy import decoding, model
from submission.bench.settings import config
from submission.essay import profiles, rewards

SECONDS = "seconds"
Numbers = dict[str, float]


# --- Models and text ----------------------------------------------------------------------------


class Characters:
    """A tokenizer for models with random weights: one token per character."""

    FIRST = 4  # after pad, eos, bos and unknown, in Gemma's order

    def encode(self, text: str) -> list[int]:
        """Token ids, without BOS."""
        return [self.FIRST + ord(c) % 128 for c in text]

    def decode(self, ids: Sequence[int]) -> str:
        """Some text of the same length."""
        return "".join(chr(32 + i % 95) for i in ids)

    def pad_id(self) -> int:
        """Gemma's."""
        return 0

    def eos_id(self) -> int:
        """Gemma's."""
        return 1

    def bos_id(self) -> int:
        """Gemma's."""
        return 2


def random_policy(
    stock: config.StockModel, mesh: Mesh, adapter: config.Adapter, seed: int = 0
) -> nnx.Module:
    """A Gemma 3 with random weights, made on the devices, and an adapter that is not zero."""
    shape = model.tunix_config(stock)
    make = lambda: model.gemma3_lib.Gemma3(shape, rngs=nnx.Rngs(0))  # noqa: E731 (a new Rngs)
    graph, abstract = nnx.split(nnx.eval_shape(make))
    leaves, tree = jax.tree.flatten(abstract)

    def numbers(key: jax.Array) -> Any:
        keys = jax.random.split(key, len(leaves))

        def fill(key: jax.Array, leaf: Any) -> jax.Array:
            # Norms stay at their start, 1 + 0. Everything else keeps its input's size.
            scale = 0.0 if leaf.ndim == 1 else math.prod(leaf.shape[:-1]) ** -0.5
            return (scale * jax.random.normal(key, leaf.shape)).astype(stock.dtype)

        return jax.tree.unflatten(tree, [fill(*pair) for pair in zip(keys, leaves, strict=True)])

    where = nnx.get_named_sharding(abstract, mesh)
    state = jax.jit(numbers, out_shardings=where)(jax.random.key(seed))
    policy = model.add_adapter(nnx.merge(graph, state), adapter, seed, mesh)
    moved = jax.tree.map(
        lambda x: x + 0.02 * jax.random.normal(jax.random.key(x.size), x.shape, x.dtype),
        nnx.state(policy, nnx.LoRAParam),
    )
    nnx.update(policy, moved)
    return policy


def parts_of(profile: str) -> tuple[config.Run, Mesh, Any, Any]:
    """A profile's run, mesh and tokenizer, and a function that makes its policy."""
    run = profiles.read_run({"PROFILE": profile}, "cpu")
    mesh, folder = model.make_mesh(), model.locate(run.model, minutes=1)

    def make() -> nnx.Module:
        stock = model.load_stock(run.model, folder, mesh)
        return model.add_adapter(stock, run.profile.adapter, run.seed, mesh)

    return run, mesh, model.load_tokenizer(folder), make


# --- Time and lengths ---------------------------------------------------------------------------


def in_turns(calls: dict[str, Callable[[], Any]], repeats: int) -> tuple[Numbers, Numbers, dict]:
    """Seconds of the first call of each, the best of `repeats` more, and the last results.

    The best: whatever else runs on the machine can only add to it.
    """
    first, times, results = {}, {name: [] for name in calls}, {}
    for number in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            results[name] = call()
            seconds = time.perf_counter() - start
            if number == 0:
                first[name] = seconds
            else:
                times[name].append(seconds)
    return first, {name: min(spent) for name, spent in times.items()}, results


def stamped(batches: Iterable[Any], stamps: list[float]) -> Iterator[Any]:
    """Passes batches on; notes when each was asked for, and when there was no more."""
    for batch in batches:
        stamps.append(time.perf_counter())
        yield batch
    stamps.append(time.perf_counter())


def step_seconds(stamps: Sequence[float], skip: int) -> float:
    """The median time between batches, without the first `skip`, in which things compile."""
    return statistics.median(np.diff(stamps)[skip:].tolist())


def spread_lengths(count: int, limit: int) -> list[int]:
    """Lengths of completions like real ones: most are short, a few run into the limit.

    They are the quantiles of a log-normal distribution whose median is a quarter of the limit
    and whose σ is 0.7, cut at the limit, in a fixed random order.

    >>> lengths = spread_lengths(64, 128)
    >>> min(lengths), statistics.median(lengths), max(lengths), lengths.count(128)
    (6, 32.0, 128, 2)
    """
    normal = statistics.NormalDist()
    quantiles = [normal.inv_cdf((i + 0.5) / count) for i in range(count)]
    lengths = [min(limit, round(limit / 4 * math.exp(0.7 * z))) for z in quantiles]
    return [lengths[i] for i in np.random.default_rng(0).permutation(count)]


def random_rewards() -> contextlib.AbstractContextManager:
    """Completions of forced lengths are all worth nothing; so that no group is flat, they draw.

    What is computed of a text is computed all the same.
    """
    rng = random.Random(0)
    draw = staticmethod(lambda parts, weights, progress=0.0: rng.random())
    return mock.patch.object(rewards.Scorer, "total", draw)


@contextlib.contextmanager
def forced_lengths(lengths: Sequence[int], eos_id: int, pad_id: int) -> Iterator[None]:
    """In both engines, completion number i draws its EOS as token number `lengths[i]`.

    And neither EOS nor padding before, by the same change of the logits. It holds for programs
    that are traced inside.
    """
    last_B = np.array(lengths) - 1
    draw, sample = decoding.draw, sampler_lib.Sampler._sample

    def forced(logits_BTV: jax.Array, row_B: jax.Array, index: Any) -> jax.Array:
        tokens_V = jnp.arange(logits_BTV.shape[-1])
        ends_B11 = (jnp.asarray(last_B)[row_B] == index)[:, None, None]
        allowed_BTV = (tokens_V == eos_id) == ends_B11
        return jnp.where(allowed_BTV & (tokens_V != pad_id), logits_BTV, -jnp.inf)

    def our_draw(logits_RV: jax.Array, key: Any, row_B: jax.Array, index: Any, sampling: Any,
                 never: Any, place_B: Any = slice(None)) -> Any:  # fmt: skip
        logits_BV = forced(logits_RV[place_B, None], row_B, index)[:, 0]
        return draw(logits_BV, key, row_B, index, sampling, never)

    def stock_sample(self: Any, logits: jax.Array, sampler_state: Any, **rest: Any) -> Any:
        index = sampler_state.decoding_step + 1 - sampler_state.num_input_tokens
        changed = forced(logits[:, -1:], jnp.arange(len(logits)), index)
        return sample(self, logits=changed, sampler_state=sampler_state, **rest)

    decoding.draw, sampler_lib.Sampler._sample = our_draw, stock_sample
    try:
        yield
    finally:
        decoding.draw, sampler_lib.Sampler._sample = draw, sample
