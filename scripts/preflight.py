"""Does the run fit a TPU v5e-8, and what can it do in nine hours? Asked of the TPU's compiler.

Every program of the `kaggle` profile is compiled for the slice, on any Linux machine with libtpu:
the compiler says how much memory it takes, or that it does not fit, and its text says what moves
and what is computed (`compiled_cost.py`). Nothing is run, and no weight is made. Gemma 3 1B took
15 minutes on two busy cores; Gemma 2 2B and `--compare stock` take longer.

    python scripts/preflight.py [--model gemma3_1b_it|gemma2_2b_it] [--topology v5e:2x4]
                                [--json FILE] [--compare stock] [--programs NAME ...]

Exit code 1: something does not fit, or the plan does not end in time.
"""

import argparse
import dataclasses
import functools
import json
import math
import os
import pathlib
import re
import sys
import time
import types
import warnings
from collections.abc import Callable
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import absl.logging
import jax
import jax.numpy as jnp
import numpy as np
import optax
from compiled_cost import HBM_BYTES_PER_SECOND, HBM_GIB, Cost, cost_of
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tpu_target import constraints_forced, tpu_devices
from tunix.rl import function_registry
from tunix.rl.grpo import grpo_learner
from tunix.sft import peft_trainer
from tunix.sft import utils as sft_utils

from submission import (
    config,
    decoding,
    grpo,
    losses,
    memory,
    model,
    packing,
    rollout,
    updates,
)

EFFICIENCY = 0.5  # of the roofline's speed, assumed in the plan
HOST_SECONDS = 3.0  # per GRPO update, assumed: rewards, tokens and metrics on the host
SAVE_SECONDS = 30.0  # of a checkpoint, assumed: written, read back, and half as much again
SLOTS_USED = packing.GOOD_USE  # share of a packed row that holds tokens
PAD, EOS = 0, 1  # Gemma's


# --- A run as the compiler sees it: shapes on a mesh --------------------------------------------


@dataclasses.dataclass(frozen=True)
class Target:
    """A run, and the shapes of its policy on the chips of a slice."""

    run: config.Run
    mesh: Mesh
    policy: nnx.Module
    plan: memory.MemoryPlan

    def rows(self, *shape: int, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
        """An array whose first axis is split over the chips."""
        axes = tuple(axis for axis in model.DATA_AXES if axis in self.mesh.shape)
        return jax.ShapeDtypeStruct(
            shape, dtype, sharding=NamedSharding(self.mesh, PartitionSpec(axes))
        )

    def whole(self, tree: Any) -> Any:
        """Arrays that every chip holds."""
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), tree
        )

    def parts(self) -> tuple[Any, Any, Any]:
        """Graph definition, adapter and base."""
        return nnx.split(self.policy, nnx.LoRAParam, ...)


def abstract_policy(run: config.Run, mesh: Mesh, stock_layout: bool = False) -> nnx.Module:
    """The policy that `load_stock` and `add_adapter` make, without its numbers."""
    shape = model.tunix_config(run.model)
    is_gemma_3 = run.model.family == "gemma3"
    library = model.gemma3_lib.Gemma3 if is_gemma_3 else model.gemma2_lib.Gemma
    if stock_layout:
        shape.shd_config = type(shape.shd_config).get_default_sharding()
    provider = model.qwix.LoraProvider(
        module_path=run.profile.adapter.modules,
        rank=run.profile.adapter.rank,
        alpha=run.profile.adapter.alpha,
    )

    def make() -> nnx.Module:
        stock = library(shape, rngs=nnx.Rngs(0))
        return model.qwix.apply_lora_to_model(
            stock, provider, **stock.get_model_input(), rngs=nnx.Rngs(0)
        )

    graph, adapter, base = nnx.split(nnx.eval_shape(make), nnx.LoRAParam, ...)

    def placed(tree: Any, whole: bool) -> Any:
        def place(x: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
            where = NamedSharding(mesh, PartitionSpec()) if whole else sharding
            return jax.ShapeDtypeStruct(x.shape, jnp.dtype(run.model.dtype), sharding=where)

        return jax.tree.map(place, tree, nnx.get_named_sharding(tree, mesh))

    return nnx.merge(graph, placed(adapter, not stock_layout), placed(base, False))


# --- The programs -------------------------------------------------------------------------------


def lower_update(target: Target, transformation: optax.GradientTransformation, loss: Callable,
                 has_aux: bool, model_input: Callable, inputs: Any) -> Any:  # fmt: skip
    """Tunix's own train step, as our trainers jit it."""
    graph, adapter, base = target.parts()
    optimizer = nnx.eval_shape(
        lambda policy: nnx.Optimizer(policy, transformation, wrt=nnx.LoRAParam), target.policy
    )
    optimizer_graph, moments = nnx.split(optimizer)
    trainer = types.SimpleNamespace(
        gen_model_input_fn=model_input, loss_fn=loss, _lora_enabled=True, _has_aux=has_aux
    )
    step = updates.adapter_only_step(
        graph,
        optimizer_graph,
        functools.partial(peft_trainer.PeftTrainer._train_step, trainer),
        target.run.profile.remat,
    )
    return step.lower(adapter, target.whole(moments), base, inputs)


def sft_size(target: Target, length: int) -> tuple[int, int]:
    """Rows and their length, of an update of the warm start."""
    settings, chips = target.run.profile.sft, target.mesh.size
    return packing.rows_per_update(settings.rows, settings.shortest, length, chips), length


def sft_step(target: Target, longest: bool = False) -> Any:
    """One update of the warm start, on rows of the least or the greatest length."""
    profile = target.run.profile
    size = sft_size(target, profile.sft.length if longest else profile.sft.shortest)
    batch = packing.PackedRows(
        tokens=target.rows(*size),
        counts=target.rows(*size, dtype=bool),
        segments=target.rows(*size),
    )
    return lower_update(
        target,
        updates.make_optimizer(profile.sft.optimizer),
        losses.chunked_sft_loss(profile.vocabulary_chunk),
        has_aux=False,
        model_input=packing.packed_model_input,
        inputs=batch,
    )


def completions_batch(target: Target, rows: int) -> grpo_learner.TrainExample:
    """One micro-batch of GRPO."""
    prompts = (rows, target.run.profile.lengths.prompt)
    completions = (rows, target.run.profile.lengths.completion)
    return grpo_learner.TrainExample(
        prompt_ids=target.rows(*prompts),
        prompt_mask=target.rows(*prompts, dtype=bool),
        completion_ids=target.rows(*completions),
        completion_mask=target.rows(*completions, dtype=bool),
        advantages=target.rows(rows, dtype=jnp.float32),
        ref_per_token_logps=target.rows(*completions, dtype=jnp.float32),
        old_per_token_logps=None,
    )


def grpo_step(target: Target) -> Any:
    """One forward and backward pass of GRPO; the update is made with the last pass."""
    settings = target.run.profile.grpo
    algorithm = grpo.algorithm_config(target.run.profile)
    algorithm.temperature = settings.temperature
    policy_loss = function_registry.get_policy_loss_fn(algorithm.policy_loss_fn)
    transformation = updates.make_optimizer(settings.optimizer)
    passes = settings.prompts // target.plan.micro_prompts
    return lower_update(
        target,
        optax.MultiSteps(transformation, passes) if passes > 1 else transformation,
        lambda policy, train_example, algo_config: policy_loss(
            policy, train_example, algo_config=algo_config, pad_id=PAD, eos_id=EOS
        ),
        has_aux=True,
        model_input=lambda example: {"train_example": example, "algo_config": algorithm},
        inputs=completions_batch(target, target.plan.micro_prompts * settings.generations),
    )


def reference_log_probs(target: Target) -> Any:
    """The log-probabilities of as many completions under the reference."""
    profile = target.run.profile
    batch = completions_batch(target, target.plan.micro_prompts * profile.grpo.generations)
    graph, state = nnx.split(target.policy)
    return losses.completion_log_probs.lower(
        graph, state, batch.prompt_ids, batch.completion_ids,
        pad_id=PAD, temperature=profile.grpo.temperature, chunk=profile.vocabulary_chunk,
    )  # fmt: skip


def decoder_of(target: Target) -> tuple[decoding.Decoder, decoding.Sampling, jax.Array]:
    """The rollout engine's programs, how it samples, and its key."""
    settings = target.run.profile.grpo
    sampling = decoding.Sampling(settings.temperature, settings.top_p, settings.top_k)
    key = target.whole(jax.eval_shape(lambda: jax.random.PRNGKey(0)))
    return decoding.Decoder(target.policy, target.mesh, PAD, (EOS,)), sampling, key


def prefill(target: Target) -> Any:
    """Reads the longest prompts, each once for its group."""
    decoder, sampling, key = decoder_of(target)
    prompts, settings = target.plan.rollout_prompts, target.run.profile.grpo
    return decoder.prefill.lower(
        nnx.state(target.policy),
        target.rows(prompts, target.run.profile.lengths.prompt),
        target.rows(prompts, dtype=bool),
        key,
        generations=settings.generations,
        sampling=sampling,
    )


def segments(profile: config.Profile) -> int:
    """How many segments a rollout has at most; its first token comes from the prefill."""
    return math.ceil((profile.lengths.completion - 1) / profile.generation.segment)


def decode(target: Target, first: bool = False) -> Any:
    """The first segment of a rollout, or the last and dearest; no sequence is done."""
    profile, shape = target.run.profile, target.policy.config
    decoder, sampling, key = decoder_of(target)
    rows = target.plan.rollout_prompts * profile.grpo.generations
    past = profile.lengths.prompt
    past += 0 if first else (segments(profile) - 1) * profile.generation.segment
    dtype = jnp.dtype(target.run.model.dtype)

    def cache(window: int | None) -> jax.ShapeDtypeStruct:
        length = min(past, window or past)
        return target.rows(rows, shape.num_kv_heads, length, shape.head_dim, dtype=dtype)

    sequences = decoding.Sequences(
        past=[dict(past_key=cache(w), past_value=cache(w)) for w in decoder.windows],
        seen=target.rows(rows, past, dtype=bool),
        token=target.rows(rows),
        position=target.rows(rows),
        done=target.rows(rows, dtype=bool),
        row=target.rows(rows),
    )
    index = target.whole(jax.ShapeDtypeStruct((), jnp.int32))
    return decoder.segment.lower(
        nnx.state(target.policy), sequences, key, index, index,
        steps=profile.generation.segment, sampling=sampling,
    )  # fmt: skip


def decode_512(target: Target) -> Any:
    """The last segment with 512 sequences of 1,024 tokens, a size to compare by."""
    return decode(sized(target, (8, target.run.profile.sft.shortest), 512))


def sampler_programs(target: Target, rows: int, **sampling: Any) -> tuple[Any, Any, Any]:
    """Tunix's sampler, the shapes of its state, and its weights."""
    tokenizer = model.load_tokenizer(pathlib.Path("data/tiny_gemma"))  # for its special tokens
    sampler = model.make_sampler(target.policy, tokenizer, target.run.cache_length)
    sampler.eos_ids = np.array([EOS])
    prompt = target.run.profile.lengths.prompt
    state = jax.eval_shape(
        lambda tokens, seed: sampler.init_sample_state(
            tokens, target.run.cache_length, include_logits=False, forbidden_token_ids=None,
            seed=seed, beam_size=None, **sampling,
        ),
        jax.ShapeDtypeStruct((rows, prompt), jnp.int32), jax.eval_shape(jax.random.PRNGKey, 0),
    )  # fmt: skip
    state = dataclasses.replace(state, num_input_tokens=prompt)
    return sampler, state, sampler._flattened_transformer_state


def evaluation_decode(target: Target) -> Any:
    """The whole decode loop of an evaluation batch, in Tunix's sampler, as the judges do it.

    Its state lies where the sampler's prefill leaves it. A prefill that does not fit is reported
    here: it makes the logits of every position.
    """
    rows = target.run.profile.evaluation.batch_size
    sampler, state, weights = sampler_programs(target, rows, temperature=0.0, top_p=None, top_k=1)
    filled = sampler._compiled_prefill_fn.lower(weights, state, None, echo=False).compile()
    placed = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        filled.out_info,
        filled.output_shardings,
    )
    return sampler._compiled_decode_fn.lower(weights, placed)


PROGRAMS: dict[str, Callable[[Target], Any]] = {
    "sft_step": sft_step,
    "sft_step_longest": functools.partial(sft_step, longest=True),
    "prefill": prefill,
    "decode_first": functools.partial(decode, first=True),
    "decode": decode,
    "decode_step_512": decode_512,
    "reference_log_probs": reference_log_probs,
    "grpo_step": grpo_step,
    "evaluation_decode": evaluation_decode,
}
# What is in memory while a program runs, and is not among its arguments.
BESIDE = {
    "prefill": ("reference", "optimizer"),
    "decode_first": ("reference", "optimizer"),
    "decode": ("reference", "optimizer"),
    "decode_step_512": ("reference", "optimizer"),
    "reference_log_probs": ("policy", "optimizer"),
    "grpo_step": ("reference",),
    "evaluation_decode": ("reference", "optimizer"),
}


# --- Compiling ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of one program."""

    name: str
    model: str
    fits: bool
    hbm_gib: float  # its own; of a program that does not fit, what it would need
    beside_gib: float  # what else is in memory meanwhile
    cost: Cost | None
    seconds_to_compile: float

    def as_json(self) -> dict[str, Any]:
        """As in the file that `--json` writes."""
        cost = self.cost
        return {
            "name": self.name,
            "model": self.model,
            "fits": self.fits,
            "hbm_gib": round(self.hbm_gib, 3),
            "beside_gib": round(self.beside_gib, 3),
            "flops": cost and cost.flops,
            "bytes": cost and cost.bytes,
            "collectives": cost and cost.collectives,
            "roofline_seconds": cost and cost.roofline_seconds,
            "bound": cost and cost.bound,
            "seconds_to_compile": round(self.seconds_to_compile, 1),
        }

    def __str__(self) -> str:
        """One line of the table."""
        memory_used = f"{self.hbm_gib:6.2f} + {self.beside_gib:4.2f} GiB"
        start = f"{self.name:34} {'fits' if self.fits else 'DOES NOT FIT':12} {memory_used}"
        if self.cost is None:
            return start
        cost = self.cost
        links = ", ".join(
            f"{one['count'] - one['scalars']:.0f} {kind} ({one['bytes'] / 1e9:.2f} GB)"
            for kind, one in sorted(cost.collectives.items())
            if one["count"] > one["scalars"]
        )
        scalars = sum(one["scalars"] for one in cost.collectives.values())
        links = f"{links or 'links unused'}" + f"; {scalars:.0f} of scalars" * (scalars > 0)
        return (
            f"{start} {cost.flops / 1e12:8.2f} TFLOP {cost.bytes / 1e9:8.1f} GB "
            f"{cost.roofline_seconds:8.3f} s ({cost.bound})  {links}  "
            f"[compiled in {self.seconds_to_compile:.0f} s]"
        )


def needed_gib(message: str) -> float:
    """What a program would need, from the compiler's words for "out of memory".

    >>> needed_gib("Ran out of memory in memory space hbm. Used 18.20G of 15.75G hbm.")
    18.2

    Raises:
      ValueError: the message is about something else.
    """
    for pattern in (r"Used ([\d.]+)([MGT]) of", r"\(([\d.]+)([MGT])\) exceeds available HBM"):
        if found := re.search(pattern, message):
            return float(found[1]) * {"M": 1 / 1024, "G": 1, "T": 1024}[found[2]]
    raise ValueError(f"Not understood: {message[:500]}")


def beside_gib(target: Target, name: str) -> float:
    """Memory per chip of what a program of GRPO leaves lying."""
    _, adapter, _ = target.parts()
    entries = sum(leaf.size for leaf in jax.tree.leaves(adapter))
    width = jnp.dtype(target.run.model.dtype).itemsize
    sizes = {"policy": width, "reference": width, "optimizer": 3 * 4}  # float32: master, moments
    if target.run.profile.grpo.prompts > target.plan.micro_prompts:
        sizes["optimizer"] += width  # gradients of the passes so far
    return entries * sum(sizes[part] for part in BESIDE.get(name, ())) / 2**30


def compiled(name: str, lower: Callable[[Target], Any], target: Target, turns: int = 1) -> Report:
    """Compiles one program; one that does not fit is a result, not an error.

    Args:
      name: of the program, for the report.
      lower: makes it from the target.
      target: the run on its chips.
      turns: of loops whose length is an argument, as in Tunix's sampler.
    """
    beside = beside_gib(target, name)
    start, busy = time.monotonic(), time.process_time()
    try:
        with constraints_forced(), target.mesh:
            cost = cost_of(lower(target).compile(), turns)
        needed = cost.hbm_gib
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        needed, cost = needed_gib(str(error)), None
    jax.clear_caches()  # or the compiled programs would add up to gigabytes
    fits = cost is not None and needed + beside <= HBM_GIB
    # Where other work has the cores, the process's own time says what an idle machine would take.
    seconds = min(time.monotonic() - start, time.process_time() - busy)
    return Report(name, target.run.model.name, fits, needed, beside, cost, seconds)


def one_step(report: Report, target: Target) -> Report:
    """Of a segment of decode steps, one."""
    steps = target.run.profile.generation.segment
    return dataclasses.replace(report, cost=report.cost and report.cost.share(1 / steps))


def make_target(run: config.Run, devices: list[Any]) -> Target:
    """The run on these chips, laid out as the notebook lays it out."""
    plan = memory.plan_memory(run, len(devices))
    mesh = model.make_mesh(plan.replicated, devices)
    return Target(run, mesh, abstract_policy(run, mesh), plan)


# --- Nine hours ---------------------------------------------------------------------------------


def nine_hours(target: Target, reports: dict[str, Report]) -> dict[str, Any]:
    """What the session can do, if every program runs at a share of its roofline's speed.

    All completions are taken to be as long as they may be.
    """
    run, profile, settings = target.run, target.run.profile, target.run.profile.grpo
    seconds = {name: report.cost.roofline_seconds for name, report in reports.items()}
    prompts, micro = target.plan.rollout_prompts, target.plan.micro_prompts
    completions = settings.prompts * settings.generations
    rollouts, passes = settings.prompts // prompts, settings.prompts // micro
    rows_per_chip = prompts * settings.generations / target.mesh.size
    join = 2 * memory.cache_bytes(run, rows_per_chip) / HBM_BYTES_PER_SECOND

    # The past grows by a segment each time, and what is read with it.
    segment = (seconds["decode_first"] + seconds["decode"]) / 2
    rollout_seconds = seconds["prefill"] + segments(profile) * (segment + join)
    update = rollouts * rollout_seconds
    update += settings.iterations * passes * seconds["grpo_step"]
    update += passes * seconds["reference_log_probs"] * (1 + (settings.iterations > 1))
    update = update / EFFICIENCY + HOST_SECONDS

    # Each length of the past and each size of the batch is a program of its own.
    lengths = profile.lengths.prompt // profile.generation.prompt_step
    pasts = lengths + segments(profile) - 1
    sizes = len(rollout.batch_sizes(round(rows_per_chip), profile.generation.least_share))
    programs = dict.fromkeys(reports, 1)
    programs |= {"prefill": lengths, "decode_first": 0, "decode": pasts * sizes}
    widths = math.ceil(profile.lengths.completion / profile.generation.completion_step)
    programs |= {
        "decode_step_512": 0,
        "sft_step_longest": 0,
        "grpo_step": widths,
        "reference_log_probs": widths,
    }
    compilation = sum(reports[name].seconds_to_compile * n for name, n in programs.items())
    evaluation_rows = profile.evaluation.rows * len(profile.evaluation.sources)
    batches = math.ceil(evaluation_rows / profile.evaluation.batch_size)

    hours = {
        "set_up": (profile.download_minutes + profile.preparation_minutes) / 60,
        "compilation": compilation / 3600,
        "evaluation": 3 * batches * seconds["evaluation_decode"] / EFFICIENCY / 3600,
    }
    left = profile.hours - sum(hours.values())
    # Which length the rows get, the examples decide: the dearer and smaller update is assumed.
    sft_seconds = max(seconds["sft_step"], seconds["sft_step_longest"])
    sft_rows, sft_length = sft_size(target, profile.sft.length)
    sft_steps = profile.sft.steps
    hours["sft"] = sft_steps * sft_seconds / EFFICIENCY / 3600
    hours["sft"] = min(hours["sft"], profile.sft_share * left)
    sft_steps = min(sft_steps, int(hours["sft"] * 3600 * EFFICIENCY / sft_seconds + 0.5))
    # What the notebook keeps back for the end of the run; evaluations are above already.
    kept_back = 0.5 * hours["evaluation"] / 3 * 3600
    kept_back += grpo.SPARE_STEPS * update + profile.closing_seconds + SAVE_SECONDS
    grpo_steps = min(settings.steps, int(((left - hours["sft"]) * 3600 - kept_back) / update))
    hours["grpo"] = grpo_steps * update / 3600
    hours["reserve"] = profile.hours - sum(hours.values())
    return {
        "model": run.model.name,
        "sft_tokens": round(sft_steps * sft_rows * sft_length * SLOTS_USED),
        "grpo_steps": grpo_steps,
        "completions": grpo_steps * completions,
        "hours_by_stage": {name: round(value, 3) for name, value in hours.items()},
        "total_hours": round(sum(hours.values()), 3),
        "complete": sft_steps == profile.sft.steps,
        "assumptions": {
            "efficiency": EFFICIENCY,
            "chips": target.mesh.size,
            "prompt_tokens": profile.lengths.prompt,
            "completion_tokens": profile.lengths.completion,
            "prompts_per_update": settings.prompts,
            "completions_per_prompt": settings.generations,
            "prompts_per_rollout": prompts,
            "prompts_per_pass": micro,
            "segments_per_rollout": segments(profile),
            "steps_per_segment": profile.generation.segment,
            "join_seconds": join,
            "updates_per_rollout": settings.iterations,
            "host_seconds_per_update": HOST_SECONDS,
            "seconds_per_update": update,
            "sft_steps": sft_steps,
            "sft_rows": sft_rows,
            "sft_row_tokens": sft_length,
            "sft_slots_used": SLOTS_USED,
            "evaluations": 3,
            "evaluation_rows": evaluation_rows,
            "evaluation_batch": profile.evaluation.batch_size,
            "download_minutes": profile.download_minutes,
            "preparation_minutes": profile.preparation_minutes,
            "compiled_programs": programs,
            "seconds_to_compile": {
                name: round(report.seconds_to_compile, 1) for name, report in reports.items()
            },
            "sft_share": profile.sft_share,
            "seconds_kept_back": kept_back,
            "roofline_seconds": seconds,
        },
    }


def describe(plan: dict[str, Any]) -> str:
    """The plan in a few lines."""
    assumed = plan["assumptions"]
    hours = ", ".join(f"{name} {value:.2f}" for name, value in plan["hours_by_stage"].items())
    ends = "" if plan["complete"] else " The steps of the warm start do NOT all fit."
    return (
        f"Plan for {plan['model']}, at {assumed['efficiency']:.0%} of the roofline's speed, all "
        f"completions {assumed['completion_tokens']} tokens long:\n"
        f"  {plan['sft_tokens'] / 1e6:.0f} million SFT tokens, {plan['grpo_steps']:,} updates of "
        f"{assumed['seconds_per_update']:.1f} s, {plan['completions']:,} completions.{ends}\n"
        f"  Hours: {hours}; {plan['total_hours']:.2f} in all."
    )


# --- Tunix's defaults beside ours ---------------------------------------------------------------


def stock_mesh(layout: str, devices: list[Any]) -> Mesh:
    """Tunix's axes: all chips along `fsdp`, or the (2, 4) of its own Gemma configurations."""
    shape = (-1, 1) if layout == "fsdp" else (2, -1)
    return Mesh(np.array(devices).reshape(shape), ("fsdp", "tp"))


def stock_sft_step(target: Target) -> Any:
    """Tunix's loss and optimizer, on unpacked rows."""
    size = sft_size(target, target.run.profile.sft.shortest)

    def model_input(batch: peft_trainer.TrainingInput) -> dict[str, jax.Array]:
        is_token_BT = batch.input_tokens != PAD
        return {
            "input_tokens": batch.input_tokens,
            "input_mask": batch.input_mask,
            "positions": sft_utils.build_positions_from_mask(is_token_BT),
            "attention_mask": sft_utils.make_causal_attn_mask(is_token_BT),
        }

    return lower_update(
        target, optax.adamw(1e-5), peft_trainer._default_loss_fn, False, model_input,
        peft_trainer.TrainingInput(target.rows(*size), target.rows(*size, dtype=bool)),
    )  # fmt: skip


def stock_grpo_step(target: Target) -> Any:
    """Tunix's GRPO loss and optimizer."""
    settings = target.run.profile.grpo
    algorithm = grpo_learner.GRPOConfig(num_generations=settings.generations, beta=settings.beta)
    algorithm.temperature = settings.temperature
    policy_loss = function_registry.get_policy_loss_fn(algorithm.policy_loss_fn)
    return lower_update(
        target, optax.adamw(1e-5),
        lambda policy, train_example, algo_config: policy_loss(
            policy, train_example, algo_config=algorithm, pad_id=PAD, eos_id=EOS
        ),
        True, lambda example: {"train_example": example, "algo_config": algorithm},
        completions_batch(target, target.plan.micro_prompts * settings.generations),
    )  # fmt: skip


def stock_decode(target: Target) -> Any:
    """One step of Tunix's sampler with a top-k of 50, its rows split along `fsdp`.

    The decode loop alone: the sampler's prefill makes the logits of every position, which for 512
    prompts does not fit under FSDP.
    """
    rows = target.plan.rollout_prompts * target.run.profile.grpo.generations
    sampler, state, weights = sampler_programs(target, rows, temperature=0.9, top_p=1.0, top_k=50)
    placed = jax.tree.map(
        lambda x: target.rows(*x.shape, dtype=x.dtype) if x.shape[:1] == (rows,) else x, state
    )
    return sampler._compiled_decode_fn.lower(weights, placed)


def sized(target: Target, sft: tuple[int, int], completions: int) -> Target:
    """The same run with other batches: rows and length of SFT, completions at once in GRPO."""
    profile, prompts = target.run.profile, completions // target.run.profile.grpo.generations
    profile = dataclasses.replace(
        profile,
        sft=dataclasses.replace(profile.sft, rows=sft[0], length=sft[1], shortest=sft[1]),
        grpo=dataclasses.replace(profile.grpo, prompts=prompts, micro_prompts=prompts),
    )
    plan = dataclasses.replace(target.plan, micro_prompts=prompts, rollout_prompts=prompts)
    run = dataclasses.replace(target.run, profile=profile)
    return dataclasses.replace(target, run=run, plan=plan)


COMPARED = (  # what is compared, its batches, our program, Tunix's
    ("sft_step 64 × 2048", (64, 2048), 128, sft_step, stock_sft_step),
    ("sft_step 32 × 2048", (32, 2048), 128, sft_step, stock_sft_step),
    ("grpo_step 128", (8, 2048), 128, grpo_step, stock_grpo_step),
    ("decode step 64", (8, 2048), 64, decode, stock_decode),
    ("decode step 512", (8, 2048), 512, decode, stock_decode),
)


def compare_with_stock(
    target: Target, devices: list[Any], programs: list[str]
) -> list[dict[str, Any]]:
    """Tunix's two layouts and ours, same batches and lengths, recomputation in all of them.

    Compared are those of `programs` that stock Tunix has too.

    A decode step is one for all sequences: of ours, a share of the last segment of a rollout.
    """
    layouts: dict[str, Target] = {"ours": target}
    for layout in ("fsdp", "2x4"):
        mesh = stock_mesh(layout, devices)
        policy = abstract_policy(target.run, mesh, stock_layout=True)
        layouts[f"Tunix {layout}"] = dataclasses.replace(target, mesh=mesh, policy=policy)
    results = []
    for name, sft, completions, ours, theirs in COMPARED:
        if name.split()[0] not in programs:
            continue
        for layout, one in layouts.items():
            lower = ours if layout == "ours" else theirs
            report = compiled(f"{name}, {layout}", lower, sized(one, sft, completions))
            if lower is decode:
                report = one_step(report, target)
            print(report, flush=True)
            results.append(report.as_json())
    return results


# --- The command --------------------------------------------------------------------------------


def run_for(name: str, layers: int | None) -> config.Run:
    """The `kaggle` run of a model, or of its first few layers."""
    run = config.read_run({"PROFILE": "kaggle"}, "tpu")
    run = dataclasses.replace(run, profile=dataclasses.replace(run.profile, model=name))
    if layers:
        preset = model.tunix_config(run.model)
        shape = {field.name: getattr(preset, field.name) for field in dataclasses.fields(preset)}
        config.STOCK_MODELS[name] = dataclasses.replace(
            config.STOCK_MODELS[name], shape=shape | {"num_layers": layers}
        )
    return run


def check(name: str, devices: list[Any], options: argparse.Namespace) -> dict[str, Any]:
    """All programs of one model, its plan, and the comparison if one is asked for."""
    target = make_target(run_for(name, options.layers), devices)
    print(f"\n{name} on {len(devices)} chips: {target.plan}")
    reports: dict[str, Report] = {}
    for program in options.programs:
        is_sampler = program == "evaluation_decode"
        turns = target.run.profile.lengths.completion - 1 if is_sampler else 1
        reports[program] = compiled(program, PROGRAMS[program], target, turns)
        if program == "decode_step_512":
            reports[program] = one_step(reports[program], target)
        print(reports[program], flush=True)
    found: dict[str, Any] = {"programs": [report.as_json() for report in reports.values()]}
    if len(reports) == len(PROGRAMS) and all(report.cost for report in reports.values()):
        found["plan"] = nine_hours(target, reports)
        print(describe(found["plan"]), flush=True)
    if options.compare:
        found["comparison"] = compare_with_stock(target, devices, options.programs)
    return found


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    models = [name for name, one in config.STOCK_MODELS.items() if one.handle]
    parser.add_argument("--model", choices=models, action="append", help="default: both")
    parser.add_argument("--topology", default="v5e:2x4", help="also v5e:4x4, v5e:8x8")
    parser.add_argument("--json", type=pathlib.Path, help="write the results here")
    parser.add_argument(
        "--compare", choices=["stock"], help="Tunix's defaults beside ours, of --programs"
    )
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--layers", type=int, help="only so many layers: quick, for a trial")
    options = parser.parse_args()
    absl.logging.set_verbosity(absl.logging.ERROR)
    warnings.filterwarnings("ignore", category=DeprecationWarning)

    devices = list(tpu_devices(options.topology))
    found = [check(name, devices, options) for name in options.model or models]
    results = {
        "topology": options.topology,
        "programs": [program for one in found for program in one["programs"]],
        "plan": found[0].get("plan"),
        "plans": [one["plan"] for one in found if "plan" in one],
    }
    if options.compare:
        results["comparison"] = [line for one in found for line in one["comparison"]]
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    all_fit = all(program["fits"] for program in results["programs"])
    in_time = all(plan["complete"] for plan in results["plans"])
    return 0 if all_fit and in_time else 1


if __name__ == "__main__":
    sys.exit(main())
