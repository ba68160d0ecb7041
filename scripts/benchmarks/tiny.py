"""What `benchmark.py` measures on any machine: rollout, SFT, the vocabulary, GRPO."""

import dataclasses
import functools
import itertools
import resource
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tpu.target import constraints_forced
from tunix.rl import rl_cluster
from tunix.rl.grpo import grpo_learner
from tunix.rl.rollout import base_rollout, vanilla_rollout
from tunix.sft import peft_trainer

from benchmarks.tools import (
    SECONDS,
    Characters,
    forced_lengths,
    in_turns,
    parts_of,
    random_policy,
    random_rewards,
    spread_lengths,
    stamped,
    step_seconds,
)
from submission.bench.policy import losses, model, rollout, updates
from submission.bench.policy.cluster import rollout_config
from submission.bench.rows import curriculum, data, packing, prepared
from submission.bench.run import budget, metrics, run_folder, stages
from submission.bench.settings import config
from submission.essay import grpo, profiles, rewards

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
    run, mesh, tokenizer, make = parts_of("tiny")
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
    run, mesh, tokenizer, make = parts_of("tiny")
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
    loss = losses.chunked_sft_loss(profiles.KAGGLE.vocabulary_chunk)
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
            rollout_config=dataclasses.replace(rollout_config(run), seed=None),
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
        forever = budget.Deadline.after(24 * 3600)
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
    run, mesh, tokenizer, make = parts_of("tiny")
    rows = prepared.rows_of_run(run, tokenizer)["grpo"]
    return grpo_numbers(side, grpo_steps(side, run, rows, mesh, tokenizer, make, steps), skip)


def grpo_steps(
    side: str,
    run: config.Run,
    rows: data.Mixture,
    mesh: Mesh,
    tokenizer: Any,
    make: Any,
    steps: int,
) -> list[float]:
    """Seconds of each GRPO step of a side; lengths forced, and no group flat."""
    settings = dataclasses.replace(run.profile.grpo, steps=steps, save_every=1000)
    run = dataclasses.replace(run, profile=dataclasses.replace(run.profile, grpo=settings))
    lengths = spread_lengths(
        settings.prompts * settings.generations, run.profile.lengths.completion
    )
    train = stock_grpo_steps if side == "stock" else our_grpo_steps
    with forced_lengths(lengths, tokenizer.eos_id(), tokenizer.pad_id()), random_rewards():
        return train(make(), tokenizer, rows, run, mesh)
