"""Ours against stock Tunix: the same work, in one run, on this machine.

    python scripts/benchmark.py [--json FILE] [--only NAME ...] [--write] [--model 1b|tiny]

Each side of a measurement that has a device count or a peak of memory of its own runs in a
process of its own; where both can share one, they take turns. The first call of everything is its
warm-up: its time, compilation above all, is reported apart. On two cores all of it takes about
ten minutes. `--write` puts the table into `data/benchmarks.md`.

Where JAX finds an NVIDIA GPU, and only there, Gemma 3 1B with random weights is timed too.
`--model tiny` runs that section's code with a tiny model on whatever there is: a test of the
code, not a measurement.
"""

import argparse
import contextlib
import dataclasses
import datetime
import functools
import importlib.metadata
import importlib.util
import itertools
import json
import math
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # here; what measures is told by `measure`

import absl.logging
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tpu_target import constraints_forced
from tunix.generate import sampler as sampler_lib
from tunix.rl import rl_cluster
from tunix.rl.grpo import grpo_learner
from tunix.rl.rollout import base_rollout, vanilla_rollout
from tunix.sft import peft_trainer

from submission import (
    budget,
    config,
    curriculum,
    data,
    decoding,
    grpo,
    losses,
    metrics,
    model,
    packing,
    prepared,
    rewards,
    rollout,
    run_folder,
    stages,
    updates,
)

ROOT = pathlib.Path(__file__).resolve().parent.parent
TABLE = ROOT / "data" / "benchmarks.md"
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


def tiny_parts() -> tuple[config.Run, Mesh, Any, Any]:
    """The tiny profile's run, mesh and tokenizer, and a function that makes its policy."""
    run = config.read_run({"PROFILE": "tiny"}, "cpu")
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

    def our_draw(logits_BV: jax.Array, key: Any, row_B: jax.Array, index: Any, how: Any) -> Any:
        return draw(forced(logits_BV[:, None], row_B, index)[:, 0], key, row_B, index, how)

    def stock_sample(self: Any, logits: jax.Array, sampler_state: Any, **rest: Any) -> Any:
        index = sampler_state.decoding_step + 1 - sampler_state.num_input_tokens
        changed = forced(logits[:, -1:], jnp.arange(len(logits)), index)
        return sample(self, logits=changed, sampler_state=sampler_state, **rest)

    decoding.draw, sampler_lib.Sampler._sample = our_draw, stock_sample
    try:
        yield
    finally:
        decoding.draw, sampler_lib.Sampler._sample = draw, sample


# --- Rollout ------------------------------------------------------------------------------------

SMALL = dict(
    num_layers=6,
    num_embed=4096,
    embed_dim=256,
    hidden_dim=1024,
    num_heads=4,
    head_dim=64,
    num_kv_heads=1,
    sliding_window_size=64,
    local_base_frequency=10_000,
    global_base_frequency=1_000_000,
)
ADAPTER = config.Adapter(rank=16, alpha=32.0)


def stock_engine(policy: nnx.Module, tokenizer: Any, cache: int) -> Any:
    """Tunix's own rollout engine."""
    shape = policy.config
    return vanilla_rollout.VanillaRollout(
        policy,
        tokenizer,
        base_rollout.CacheConfig(cache, shape.num_layers, shape.num_kv_heads, shape.head_dim),
    )


def greedy(limit: int, prompt: int, segment: int, **changes: Any) -> rollout.EngineConfig:
    """The settings of a greedy rollout; the stock engine reads those that it knows."""
    return rollout.EngineConfig(
        max_tokens_to_generate=limit,
        max_prompt_length=prompt,
        kv_cache_size=limit + prompt,
        top_p=None,
        seed=jax.random.PRNGKey(0),
        segment=segment,
        prompt_step=prompt,
        **changes,
    )


def without_eos(completions: Sequence[np.ndarray], eos_id: int) -> list[list[int]]:
    """The tokens as the stock engine returns them."""
    return [[t for t in tokens.tolist() if t != eos_id] for tokens in completions]


def require_equal_work(completions: dict[str, list[list[int]]], lengths: Sequence[int]) -> None:
    """Raises an AssertionError unless all engines gave the same tokens, of these lengths."""
    reference = next(iter(completions.values()))
    for name, rows in completions.items():
        if [len(row) + 1 for row in rows] != list(lengths):
            raise AssertionError(f"{name}: not the lengths that were asked for")
        if rows != reference:
            raise AssertionError(f"{name}: not the tokens of the stock sampler")


def measure_rollout(
    shape: dict[str, Any] = SMALL, limit: int = 128, parts: Sequence[int] = (8, 6, 4),
    repeats: int = 3,
) -> dict:  # fmt: skip
    """8 prompts × 8, greedy, float32, random weights, forced lengths, all devices."""
    prompt = 48
    tokenizer, small = (
        Characters(),
        config.StockModel("small", "gemma3", "", shape=shape, dtype="float32"),
    )
    texts = [chr(97 + i) * (prompt // 2 + 2 * i) for i in range(8) for _ in range(8)]
    engines, calls = {}, {}
    with constraints_forced():
        for name, whole in (("FSDP", False), ("whole", True)):
            mesh = model.make_mesh(replicated=whole)
            policy = random_policy(small, mesh, ADAPTER)
            engines[f"stock, {name}"] = mesh, stock_engine(policy, tokenizer, limit + prompt), 1
        for segment in (limit // part for part in parts):
            settings = greedy(limit, prompt, segment)
            one = rollout.PolicyRollout(policy, tokenizer, mesh, settings)
            engines[f"ours, {segment}"] = mesh, one, segment

        def call(mesh: Mesh, engine: Any, segment: int) -> list[list[int]]:
            with mesh:
                output = engine.generate(texts, greedy(limit, prompt, segment))
            return without_eos(output.tokens, tokenizer.eos_id())

        calls = {name: functools.partial(call, *parts) for name, parts in engines.items()}
        lengths = spread_lengths(len(texts), limit)
        with forced_lengths(lengths, tokenizer.eos_id(), tokenizer.pad_id()):
            first, best, tokens = in_turns(calls, repeats)
    require_equal_work(tokens, lengths)
    stock = min(("stock, FSDP", "stock, whole"), key=best.__getitem__)
    ours = f"ours, {limit // 6}"
    everything = "; ".join(f"{name} {seconds:.2f} s" for name, seconds in best.items())
    return {
        "stock": {SECONDS: best[stock], "first call, seconds": first[stock]},
        "ours": {SECONDS: best[ours], "first call, seconds": first[ours]},
        "remarks": {
            SECONDS: f"{jax.device_count()} devices, {sum(lengths)} tokens, the same on all sides; "
            f"{everything} (number: the segment; the kaggle profile has a sixth of the limit)",
        },
    }


def measure_natural_rollout(repeats: int = 3) -> dict:
    """16 prompts × 8, greedy, of the tiny Gemma as it stands: it stops when it wants to."""
    run, mesh, tokenizer, make = tiny_parts()
    lengths, policy = run.profile.lengths, make()

    def settings() -> rollout.EngineConfig:  # new ones each time: the stock sampler uses up the key
        return greedy(lengths.completion, lengths.prompt, run.profile.generation.segment)

    questions = prepared.rows_of_run(run, tokenizer)["grpo"].examples[: run.profile.grpo.prompts]
    texts = [data.render_prompt(e.question) for e in questions for _ in range(8)]
    engines = {
        "stock": stock_engine(policy, tokenizer, run.cache_length),
        "ours": rollout.PolicyRollout(policy, tokenizer, mesh, settings()),
    }
    calls = {
        name: lambda engine=engine: without_eos(
            engine.generate(texts, settings()).tokens, tokenizer.eos_id()
        )
        for name, engine in engines.items()
    }
    first, best, tokens = in_turns(calls, repeats)
    if tokens["ours"] != tokens["stock"]:
        raise AssertionError("not the tokens of the stock sampler")
    sizes = [len(row) + 1 for row in tokens["ours"]]
    return {side: {SECONDS: best[side], "first call, seconds": first[side]} for side in engines} | {
        "remarks": {SECONDS: f"{sum(sizes)} tokens, the same; the longest has {max(sizes)}"}
    }


# --- SFT ----------------------------------------------------------------------------------------


def sft_steps(
    policy: nnx.Module, mesh: Mesh, batches: Sequence[packing.PackedRows], *,
    stock_step: bool, chunk: int | None, remat: bool = False,
) -> list[float]:  # fmt: skip
    """Trains on the batches with Tunix's `PeftTrainer`; returns when each batch was asked for.

    Args:
      policy: is trained in place.
      mesh: where it is.
      batches: of one shape.
      stock_step: Tunix's optimizer on the adapter and its jitted step, or ours?
      chunk: tokens per chip in our loss; None is Tunix's loss.
      remat: recompute the layers in the backward pass?
    """
    settings = config.Optimizer(peak_rate=1e-4)
    stock = updates.injected_adamw(settings, updates.make_schedule(settings, len(batches)))
    trainer = peft_trainer.PeftTrainer(
        policy,
        stock if stock_step else updates.make_optimizer(settings),
        peft_trainer.TrainingConfig(
            eval_every_n_steps=len(batches) + 1,
            max_steps=len(batches),
            data_sharding_axis=(model.DATA_AXES,),
        ),
    )
    trainer.with_gen_model_input_fn(packing.packed_model_input)
    if chunk is not None:
        trainer.with_loss_fn(losses.chunked_sft_loss(chunk))
    if not stock_step:
        updates.use_adapter_only_step(trainer, remat)
    trainer._pbar = metrics.SilentBar()
    stamps: list[float] = []
    with mesh, updates.rematerialised(policy.config, remat):
        trainer.train(stamped(batches, stamps), skip_jit=not stock_step)
    return stamps


def padded_batches(
    examples: Iterable[data.Tokens], rows: int, length: int, pad_id: int
) -> Iterator[packing.PackedRows]:
    """One example a row, padded, as Tunix's own examples have it."""
    for batch in zip(*[iter(examples)] * rows, strict=False):
        one_each = [packing.packed_batches([x], 1, length, pad_id) for x in batch]
        parts = [next(row) for row in one_each]
        yield packing.PackedRows(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def useful(batches: Sequence[packing.PackedRows]) -> tuple[float, float]:
    """Tokens of targets in a batch, on average, and the share of slots that hold any token."""
    targets = sum(int(batch.counts.sum()) for batch in batches) / len(batches)
    return targets, float(np.mean([batch.segments > 0 for batch in batches]))


def measure_sft(steps: int = 24, skip: int = 4) -> dict:
    """SFT steps of the tiny Gemma on the bundled rows, 16 padded examples against packed rows."""
    run, mesh, tokenizer, make = tiny_parts()
    settings, lengths = run.profile.sft, run.profile.lengths
    rows, pad_id = prepared.rows_of_run(run, tokenizer)["sft"], tokenizer.pad_id()

    def examples() -> Iterator[data.Tokens]:
        return (data.tokenize(tokenizer, x) for x in data.mixed_forever(rows, run.seed))

    padded = padded_batches(examples(), 16, lengths.prompt + lengths.completion, pad_id)
    packed = packing.packed_batches(examples(), settings.rows, settings.length, pad_id)
    chunk, results = run.profile.vocabulary_chunk, {}
    for name, stream, step, size in (
        ("stock", padded, True, None),
        ("padded", padded, False, chunk),
        ("ours", packed, False, chunk),
    ):
        batches = list(itertools.islice(stream, steps))
        targets, share = useful(batches)
        stamps = sft_steps(make(), mesh, batches, stock_step=step, chunk=size)
        seconds = step_seconds(stamps, skip)
        results[name] = {
            "ms a step": 1000 * seconds,
            "µs a target token": 1e6 * seconds / targets,
            "share of slots used": share,
        }
    alone = results.pop("padded")["µs a target token"]
    slots = f"16 × {lengths.prompt + lengths.completion} slots, {settings.rows} × {settings.length}"
    remarks = {
        "ms a step": slots,
        "µs a target token": f"our step and loss without packing: {alone:.0f}",
    }
    return results | {"remarks": remarks}


# --- The vocabulary -----------------------------------------------------------------------------


def measure_vocabulary(
    side: str, rows: int = 4, length: int = 512, vocabulary: int = 262_144, repeats: int = 3
) -> dict:
    """Loss and gradient of 4 × 512 tokens, 262,144 pieces, 2 layers of width 128, float32."""
    shape = SMALL | dict(
        num_layers=2, num_embed=vocabulary, embed_dim=128, hidden_dim=512, head_dim=32
    )
    thin = config.StockModel("thin", "gemma3", "", shape=shape, dtype="float32")
    policy = random_policy(thin, model.make_mesh(), ADAPTER)
    loss = losses.chunked_sft_loss(config.KAGGLE.vocabulary_chunk)
    if side == "stock":
        loss = peft_trainer._default_loss_fn
    graph, adapter, base = nnx.split(policy, nnx.LoRAParam, ...)
    tokens = np.random.default_rng(0).integers(4, vocabulary, (rows, length)).astype(np.int32)
    full = np.ones_like(tokens)
    inputs = packing.packed_model_input(packing.PackedRows(tokens, full > 0, full))

    def step(adapter: nnx.State, base: nnx.State, inputs: Any) -> Any:
        def value(adapter: nnx.State) -> jax.Array:
            return loss(nnx.merge(graph, adapter, base), **inputs)

        return jax.value_and_grad(value)(adapter)

    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    compiled = jax.jit(step).lower(adapter, base, inputs).compile()
    first = time.perf_counter() - start
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        value, _ = jax.block_until_ready(compiled(adapter, base, inputs))
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    numbers = {
        SECONDS: min(times[1:]),
        "GiB of temporaries, by the compiler": (
            compiled.memory_analysis().temp_size_in_bytes / 2**30
        ),
        "GiB of the process, beyond its weights": (peak - before) / 2**20,
        "the loss": float(value),
        "compilation, seconds": first,
    }
    return {side: numbers}


# --- GRPO ---------------------------------------------------------------------------------------


def drawn(rows: data.Mixture, run: config.Run) -> Iterator[dict[str, np.ndarray]]:
    """The batches of prompts that `train_grpo` draws."""
    settings = run.profile.grpo
    sampler = curriculum.PromptSampler(rows.groups, rows.shares, settings.curriculum, run.seed + 1)
    for step in range(settings.steps):
        progress = step / max(1, settings.steps - 1)
        yield data.prompt_columns(sampler.draw(settings.prompts, progress))


def stock_grpo_steps(
    policy: nnx.Module, tokenizer: Any, rows: data.Mixture, run: config.Run, mesh: Mesh
) -> list[float]:
    """Seconds of each step of Tunix's learner, engine, loss and train step, with our reward."""
    settings = run.profile.grpo
    roles = (rl_cluster.Role.ACTOR, rl_cluster.Role.REFERENCE, rl_cluster.Role.ROLLOUT)
    cluster = rl_cluster.RLCluster(
        actor=policy,
        reference=model.frozen_copy(policy),
        tokenizer=tokenizer,
        cluster_config=rl_cluster.ClusterConfig(
            role_to_mesh=dict.fromkeys(roles, mesh),
            rollout_engine="vanilla",
            # Without a seed, as stock is; it does not read the other fields of our engine.
            rollout_config=dataclasses.replace(grpo.rollout_config(run), seed=None),
            training_config=rl_cluster.RLTrainingConfig(
                actor_optimizer=updates.injected_adamw(
                    settings.optimizer, updates.make_schedule(settings.optimizer, settings.steps)
                ),
                eval_every_n_steps=settings.steps + 1,
                max_steps=settings.steps,
                mini_batch_size=settings.prompts,
                train_micro_batch_size=settings.micro_prompts or settings.prompts,
                rollout_micro_batch_size=settings.prompts,
                compute_logps_micro_batch_size=settings.micro_prompts or settings.prompts,
                data_sharding_axis=(model.DATA_AXES,),
            ),
        ),
    )
    learner = grpo_learner.GRPOLearner(
        rl_cluster=cluster,
        algo_config=grpo_learner.GRPOConfig(
            num_generations=settings.generations, beta=settings.beta, epsilon=settings.epsilon
        ),
        reward_fns=[rewards.Scorer(run.profile.rewards)],
    )
    cluster.actor_trainer._pbar = metrics.SilentBar()
    stamps: list[float] = []
    learner.train(stamped(drawn(rows, run), stamps))  # it does not ask past the last batch
    return np.diff(stamps).tolist()


def our_grpo_steps(
    policy: nnx.Module, tokenizer: Any, rows: data.Mixture, run: config.Run, mesh: Mesh
) -> list[float]:
    """Seconds of each step of `train_grpo`."""
    with tempfile.TemporaryDirectory() as folder:
        run = dataclasses.replace(run, out=f"{folder}/run")
        forever = budget.Deadline.after(600)
        session = stages.Session(run, mesh, run_folder.open_run_folder(run), forever)
        report = grpo.train_grpo(policy, tokenizer, rows, session, forever)
        session.folder.release()
    return [line["seconds"] for line in report["history"]]


def grpo_numbers(side: str, seconds: Sequence[float], skip: int) -> dict:
    """The first step, which compiles, and the median of those after `skip`."""
    steady = statistics.median(seconds[skip:])
    return {side: {"seconds a step": steady, "first step, seconds": seconds[0]}}


def measure_grpo(side: str, steps: int = 8, skip: int = 3) -> dict:
    """Whole GRPO steps of the tiny Gemma, 16 × 8 completions of 48 + 80, forced lengths."""
    run, mesh, tokenizer, make = tiny_parts()
    settings = dataclasses.replace(run.profile.grpo, steps=steps, save_every=1000)
    run = dataclasses.replace(run, profile=dataclasses.replace(run.profile, grpo=settings))
    rows = prepared.rows_of_run(run, tokenizer)["grpo"]
    lengths = spread_lengths(
        settings.prompts * settings.generations, run.profile.lengths.completion
    )
    train = stock_grpo_steps if side == "stock" else our_grpo_steps
    with forced_lengths(lengths, tokenizer.eos_id(), tokenizer.pad_id()):
        seconds = train(make(), tokenizer, rows, run, mesh)
    return grpo_numbers(side, seconds, skip)


# --- Gemma 3 1B on a GPU ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Large:
    """What is measured where there is a GPU."""

    stock: config.StockModel
    run: config.Run  # adapter, and the lengths and groups of GRPO
    rows: int  # of a packed SFT batch
    length: int  # tokens per packed row; one example a row is half as long
    batches: tuple[int, ...]  # sequences that are decoded at once
    prompt: int  # tokens, when decoding
    new: int  # tokens


PEAKS = {"NVIDIA H200": (989e12, 4.8e12)}  # dense bfloat16 FLOP/s; bytes/s of memory (data sheet)


def large(name: str) -> Large:
    """The 1B on one GPU of 80 GB or more, or the tiny model with everything small."""
    is_tiny = name == "tiny"
    profile = config.TINY if is_tiny else config.KAGGLE
    settings = dataclasses.replace(
        profile.grpo,
        steps=3 if is_tiny else 4,
        prompts=2 if is_tiny else 16,
        generations=2 if is_tiny else 8,
        micro_prompts=2,  # 16 completions at once, for Tunix's loss: 2 GB for one array of logits
        save_every=1000,
    )
    profile = dataclasses.replace(
        profile,
        grpo=settings,
        lengths=config.Lengths(prompt=256, completion=16 if is_tiny else 256),
        remat=False,
    )
    run = dataclasses.replace(config.read_run({"PROFILE": "tiny"}, "cpu"), profile=profile)
    if is_tiny:
        small = dataclasses.replace(run.model, shape=run.model.shape | dict(num_layers=1))
        return Large(small, run, 2, 128, (2, 8), 16, 16)
    return Large(run.model, run, 4, 2048, (16, 64, 256), 64, 448)


def peaks() -> tuple[float, float]:
    """FLOP/s and bytes/s of this device; NaN where they are not known."""
    kind = jax.devices()[0].device_kind
    return next((peak for name, peak in PEAKS.items() if name in kind), (math.nan, math.nan))


def large_policy(large: Large) -> tuple[nnx.Module, Mesh, int]:
    """A policy with random weights, its mesh, and the numbers in its base."""
    mesh = model.make_mesh(devices=jax.devices()[:1])
    policy = random_policy(large.stock, mesh, large.run.profile.adapter)
    adapter, whole = model.adapter_size(policy)
    return policy, mesh, whole - adapter


def training_flops(shape: Any, parameters: int, sizes: Sequence[int]) -> float:
    """FLOPs of one pass over examples of these sizes, forward and back to the activations.

    Frozen weights have no gradient: 4, not 6, for each weight and token. Attention: 4 forward
    and 8 back for each pair of tokens that see each other and each number of their heads.
    The adapter and whatever is recomputed are not counted.
    """
    pairs = sum(n * (n + 1) / 2 for n in sizes)
    heads = shape.num_layers * shape.num_heads * shape.head_dim
    return 4.0 * parameters * sum(sizes) + 12.0 * pairs * heads


def measure_large_sft(side: str, large: Large, steps: int = 10, skip: int = 3) -> dict:
    """SFT of Gemma 3 1B: packed with our loss; stock, one example a row with Tunix's."""
    policy, mesh, parameters = large_policy(large)
    rng, half = np.random.default_rng(0), large.length // 2
    sizes = rng.integers(half // 4, half // 2, 64 * steps).tolist()
    texts = [rng.integers(4, 600, size).tolist() for size in sizes]
    examples = [data.Tokens(text[: len(text) // 4], text[len(text) // 4 :]) for text in texts]
    if side == "stock":
        stream = padded_batches(examples, 2 * large.rows, half, 0)
    else:
        stream = packing.packed_batches(examples, large.rows, large.length, 0)
    batches = list(itertools.islice(stream, steps))
    chunk = None if side == "stock" else 4096
    stamps = sft_steps(policy, mesh, batches, stock_step=side == "stock", chunk=chunk)
    seconds = step_seconds(stamps, skip)
    found = [np.unique(row[row > 0], return_counts=True)[1] for b in batches for row in b.segments]
    held = np.concatenate(found)
    flops = training_flops(policy.config, parameters, held.tolist()) / len(batches)
    numbers = {
        "tokens a second": float(held.sum()) / len(batches) / seconds,
        "share of the bfloat16 peak": flops / seconds / peaks()[0],
        "ms a step": 1000 * seconds,
        "share of slots used": useful(batches)[1],
    }
    slots = f"{2 * large.rows} × {half} slots, {large.rows} × {large.length}; no padding counted"
    return {side: numbers, "remarks": {"tokens a second": slots}}


def decode_bytes(policy: nnx.Module, parameters: int, rows: int, prompt: int, new: int) -> float:
    """What a decode step must read: every weight once, and what the caches hold, on average."""
    shape = policy.config
    width = policy.embedder.input_embedding.get_value().dtype.itemsize
    held, window = prompt + new / 2, shape.sliding_window_size
    lengths = sum(
        min(held, window) if layer.attn.attn_type.name == "LOCAL_SLIDING" else held
        for layer in policy.layers
    )
    return width * (parameters + rows * lengths * 2 * shape.num_kv_heads * shape.head_dim)


def measure_large_decode(side: str, large: Large, repeats: int = 3) -> dict:
    """Greedy decoding of Gemma 3 1B, groups of 8; all of the call, its prefill included."""
    policy, mesh, parameters = large_policy(large)
    tokenizer, prompt, new = Characters(), large.prompt, large.new
    # Nothing ends early.
    settings = functools.partial(greedy, new, prompt, min(128, new), eos_tokens=[-1])
    numbers: Numbers = {}
    for rows in large.batches:
        texts = [chr(97 + i // 8 % 26) * (prompt - 1) for i in range(rows)]
        if side == "stock":
            engine = stock_engine(policy, tokenizer, prompt + new)
        else:
            engine = rollout.PolicyRollout(policy, tokenizer, mesh, settings())

        def call(engine: Any = engine, texts: list[str] = texts) -> Any:
            with mesh:
                return engine.generate(texts, settings())

        _, best, _ = in_turns({side: call}, repeats)
        floor = new * decode_bytes(policy, parameters, rows, prompt, new) / peaks()[1]
        numbers[f"batch {rows}: tokens a second"] = rows * new / best[side]
        numbers[f"batch {rows}: share of the memory bandwidth"] = floor / best[side]
    return {side: numbers}


def measure_large_grpo(side: str, large: Large, skip: int = 1) -> dict:
    """Whole GRPO steps of Gemma 3 1B, 16 × 8 completions of 256 + 256, forced lengths."""
    policy, mesh, _ = large_policy(large)
    tokenizer, settings = Characters(), large.run.profile.grpo
    tiny, _, sentences, _ = tiny_parts()
    limit = large.run.profile.lengths
    rows = prepared.rows_of_run(tiny, sentences)["grpo"]
    short = {
        name: [e for e in group if len(data.render_prompt(e.question)) < limit.prompt]
        for name, group in rows.groups.items()
    }
    rows = dataclasses.replace(rows, groups=short)
    lengths = spread_lengths(settings.prompts * settings.generations, limit.completion)
    train = stock_grpo_steps if side == "stock" else our_grpo_steps
    with forced_lengths(lengths, tokenizer.eos_id(), tokenizer.pad_id()):
        seconds = train(policy, tokenizer, rows, large.run, mesh)
    return grpo_numbers(side, seconds, skip)


def measure_transformers(large: Large, repeats: int = 2) -> dict:
    """Hugging Face Transformers' `generate`, the same shape and batches, beside ours above."""
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        return {"remarks": {"": f"{' and '.join(missing)} not installed"}}
    import torch
    import transformers

    if not torch.cuda.is_available():
        return {"remarks": {"": "torch without CUDA"}}
    shape = model.tunix_config(large.stock)
    text_config = transformers.Gemma3TextConfig(
        vocab_size=shape.num_embed,
        hidden_size=shape.embed_dim,
        intermediate_size=shape.hidden_dim,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        sliding_window=shape.sliding_window_size,
    )
    theirs = transformers.Gemma3ForCausalLM(text_config).to("cuda", torch.bfloat16).eval()
    numbers: Numbers = {}
    for rows in large.batches:
        tokens = torch.randint(4, 600, (rows, large.prompt), device="cuda")

        def call(tokens: Any = tokens) -> None:
            theirs.generate(
                tokens, attention_mask=torch.ones_like(tokens), do_sample=False,
                max_new_tokens=large.new, min_new_tokens=large.new,
            )  # fmt: skip
            torch.cuda.synchronize()

        _, best, _ = in_turns({"generate": call}, repeats)
        numbers[f"batch {rows}: tokens a second"] = rows * large.new / best["generate"]
    return {"stock": numbers}


# --- The table ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Something to measure, and the processes it needs."""

    function: Callable[..., dict]  # its docstring's first line is the table's
    each_side: bool = False  # a process for stock and one for ours, or one for both
    devices: int = 1  # emulated ones, on a CPU
    needs_gpu: bool = False


MEASUREMENTS = {
    "rollout": Measurement(measure_rollout, devices=8),
    "natural_rollout": Measurement(measure_natural_rollout),
    "sft": Measurement(measure_sft),
    "vocabulary": Measurement(measure_vocabulary, each_side=True),
    "grpo": Measurement(measure_grpo, each_side=True),
    "large_sft": Measurement(measure_large_sft, each_side=True, needs_gpu=True),
    "large_decode": Measurement(measure_large_decode, each_side=True, needs_gpu=True),
    "large_grpo": Measurement(measure_large_grpo, each_side=True, needs_gpu=True),
    "transformers": Measurement(measure_transformers, needs_gpu=True),
}


def child(name: str, side: str, model_name: str) -> None:
    """Measures in this process and prints the result as its last line."""
    absl.logging.set_verbosity(absl.logging.ERROR)
    measurement = MEASUREMENTS[name]
    arguments: list[Any] = [side] if measurement.each_side else []
    if measurement.needs_gpu:
        arguments.append(large(model_name))
    found = measurement.function(*arguments)
    for part in found.values():
        part.update({key: None for key, value in part.items() if value != value})  # NaN: not known
    print(json.dumps(found))


def measure(name: str, model_name: str, on_gpu: bool) -> dict:
    """Runs a measurement's processes, one after the other, and joins what they found."""
    measurement, joined = MEASUREMENTS[name], {"stock": {}, "ours": {}, "remarks": {}, "failed": []}
    gpu = measurement.needs_gpu and on_gpu
    environment = os.environ | {"JAX_PLATFORMS": "cuda" if gpu else "cpu"}
    # As in `environment.sh`: without it a third of a CPU's time, on both sides, is page faults.
    keep = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"
    environment.setdefault("GLIBC_TUNABLES", f"{keep}:glibc.malloc.arena_max=1")
    if gpu:
        environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")
    elif measurement.devices > 1:
        flag = f"--xla_force_host_platform_device_count={measurement.devices}"
        environment["XLA_FLAGS"] = flag
    for side in ("stock", "ours") if measurement.each_side else ("both",):
        command = [sys.executable, __file__, "--child", name, side, "--model", model_name]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            error = (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
            joined["failed"].append(f"{side}: {error}")
            continue
        for part, numbers in json.loads(done.stdout.splitlines()[-1]).items():
            joined[part].update(numbers)
    return joined


def gpu_at_hand() -> bool:
    """Does JAX find an NVIDIA GPU?"""
    probe = "import jax; assert jax.default_backend() == 'gpu'"
    environment = os.environ | {"JAX_PLATFORMS": "cuda"}
    done = subprocess.run([sys.executable, "-c", probe], env=environment, capture_output=True)
    return done.returncode == 0


def machine(on_gpu: bool) -> str:
    """Processor, cores and memory, and the GPU if one is used."""
    name = platform.processor() or platform.machine()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    text = f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB, load {os.getloadavg()[0]:.1f} before"
    if on_gpu:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        text += "; " + subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return text


def shown(number: float | None) -> str:
    """Three digits that count, or a dash."""
    if number is None or not math.isfinite(number):
        return "–"
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


def table(results: dict[str, dict]) -> str:
    """The results as Markdown, one line per number."""
    lines = ["| measurement | | stock Tunix | ours | ours / stock | |", "|---|---|---|---|---|---|"]
    for name, measurement in MEASUREMENTS.items():
        about = measurement.function.__doc__.splitlines()[0].rstrip(".")
        found = results.get(name)
        if found is None:
            lines.append(f"| {name}: {about} | | – | – | – | not measured |")
            continue
        what = dict.fromkeys([*found["stock"], *found["ours"], *found["remarks"]])
        first = f"{name}: {about}"
        for key in what:
            stock, ours = found["stock"].get(key), found["ours"].get(key)
            ratio = ours / stock if ours and stock else None
            cells = (first, key, shown(stock), shown(ours), shown(ratio))
            lines.append(f"| {' | '.join(cells)} | {found['remarks'].get(key, '')} |")
            first = ""
        lines += [f"| {first} | | – | – | – | failed, {error} |" for error in found["failed"]]
    return "\n".join(lines)


def document(report: dict) -> str:
    """The committed page."""
    return f"""# Ours against stock Tunix

Measured, with equal work on both sides, by

```
{report["command"]}
```

on {report["machine"]}; {report["date"]}; {report["versions"]}. What each line measures is
described in the script. Emulated devices share the machine's cores: they show what work is
saved, not what links cost. Seconds and bytes of other machines differ; ratios less so.

{table(report["measurements"])}
"""


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path, help="write the numbers to this file")
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, help="measure these")
    parser.add_argument("--write", action="store_true", help=f"put the table into {TABLE.name}")
    parser.add_argument("--model", choices=("1b", "tiny"), default="1b", help="of the GPU section")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.child:
        child(*chosen.child, chosen.model)
        return 0
    only = f"--only {' '.join(chosen.only)}" if chosen.only else ""
    if chosen.write and (only or chosen.model == "tiny"):
        parser.error("--write is for a whole run: the table would lose what is not measured")
    on_gpu = chosen.model == "1b" and gpu_at_hand()
    possible = [
        name for name, one in MEASUREMENTS.items()
        if not one.needs_gpu or on_gpu or chosen.model == "tiny"
    ]  # fmt: skip
    results, where = {}, machine(on_gpu)
    for name in chosen.only or possible:
        if name not in possible:
            print(f"{name}: not measured, JAX finds no NVIDIA GPU", flush=True)
            continue
        start = time.perf_counter()
        results[name] = measure(name, chosen.model, on_gpu)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("jax", "google-tunix")]
    report = {
        "command": " ".join(["python scripts/benchmark.py", *([only] if only else ["--write"])]),
        "machine": where,
        "date": datetime.date.today().isoformat(),
        "versions": ", ".join([f"Python {platform.python_version()}", *versions]),
        "model": chosen.model,
        "measurements": results,
    }
    if chosen.model == "tiny":
        print("The large_ lines are a test of their code with a tiny model, not a measurement.")
    print(table(results))
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1) + "\n")
    if chosen.write:
        TABLE.write_text(document(report))
    return 1 if any(found["failed"] for found in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
