"""Tunix's defaults compiled beside ours: the same batches, lengths and recomputation."""

import dataclasses
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from tunix.rl import function_registry
from tunix.rl.grpo import grpo_learner
from tunix.sft import peft_trainer
from tunix.sft import utils as sft_utils

from tpu.compile import compiled, one_step
from tpu.programs import (
    EOS,
    PAD,
    Target,
    abstract_policy,
    completions_batch,
    decode,
    grpo_step,
    lower_update,
    sampler_programs,
    sft_size,
    sft_step,
    sized,
)


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
