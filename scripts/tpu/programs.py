"""The programs of the `kaggle` profile as a compiler sees them: shapes on the chips of a slice."""

import dataclasses
import functools
import math
import pathlib
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tunix.rl import function_registry
from tunix.rl.grpo import grpo_learner
from tunix.sft import peft_trainer

from submission.bench.policy import decoding, hosts, losses, memory, model, updates
from submission.bench.rows import packing
from submission.bench.settings import config
from submission.essay import grpo, judged, profiles, recipes  # noqa: F401 - adds its recipes
from tpu.target import OF_A_HOST, ONE_HOST, chips_of, tpu_devices

PAD, EOS, BOS = 0, 1, 2  # Gemma's


# --- A run on a mesh ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Target:
    """A run, and the shapes of its policy on the chips of a slice."""

    run: config.Run
    mesh: Mesh
    policy: nnx.Module
    plan: memory.MemoryPlan
    slice: Mesh | None = None  # the chips of all hosts, where there are several

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


def placed(run: config.Run, tree: Any, mesh: Mesh, whole: bool) -> Any:
    """The shapes of a tree in the model's dtype, whole on each chip or as Tunix lays it out."""

    def place(x: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        where = NamedSharding(mesh, PartitionSpec()) if whole else sharding
        return jax.ShapeDtypeStruct(x.shape, jnp.dtype(run.model.dtype), sharding=where)

    return jax.tree.map(place, tree, nnx.get_named_sharding(tree, mesh))


def abstract_stock_policy(run: config.Run, mesh: Mesh) -> nnx.Module:
    """The stock model that `load_stock` makes, without its numbers."""
    graph, state = nnx.split(model.abstract_stock(model.tunix_config(run.model)))
    return nnx.merge(graph, placed(run, state, mesh, False))


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
    adapter = placed(run, adapter, mesh, not stock_layout)
    return nnx.merge(graph, adapter, placed(run, base, mesh, False))


def run_for(
    name: str,
    layers: int | None = None,
    recipe: str = "",
    helper: str | None = None,
    prompts: int | None = None,
) -> config.Run:
    """The `kaggle` run of a model, or of its first few layers, by a recipe and its second model."""
    run = profiles.read_run({"PROFILE": "kaggle", "RECIPE": recipe}, "tpu")
    if prompts:
        run = config.changed(run, {"profile": {"grpo": {"prompts": prompts}}})
    if helper:
        run = config.changed(run, {"profile": {"helper": {"model": {"name": helper}}}})
    stock = profiles.STOCK_MODELS[name]
    if layers:
        preset = model.tunix_config(stock)
        shape = {field.name: getattr(preset, field.name) for field in dataclasses.fields(preset)}
        stock = dataclasses.replace(stock, shape=shape | {"num_layers": layers})
    return dataclasses.replace(run, profile=dataclasses.replace(run.profile, model=stock))


def make_target(run: config.Run, devices: list[Any]) -> Target:
    """The run on these chips, laid out as the notebook lays it out; of several hosts, on one."""
    everywhere = hosts.mesh_of_hosts(devices) if len(devices) > chips_of(ONE_HOST) else None
    if everywhere is not None:
        run = hosts.run_of_a_host(run, len(everywhere.devices))
        devices = list(tpu_devices(OF_A_HOST))  # the compiler takes no part of a slice
    plan = memory.plan_memory(run, len(devices))
    mesh = model.make_mesh(plan.replicated, devices)
    return Target(run, mesh, abstract_policy(run, mesh), plan, everywhere)


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
    return decoding.Decoder(target.policy, target.mesh, PAD, BOS, (EOS,)), sampling, key


def prefill(target: Target) -> Any:
    """Reads the longest prompts, each once for its group."""
    decoder, sampling, key = decoder_of(target)
    prompts, settings = target.plan.rollout_prompts, target.run.profile.grpo
    return decoder.prefill.lower(
        nnx.state(target.policy),
        target.rows(prompts, target.run.profile.lengths.prompt),
        target.rows(prompts, dtype=bool),
        key,
        target.whole(jax.ShapeDtypeStruct((), jnp.int32)),
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
        kind=target.rows(rows),
    )
    index = target.whole(jax.ShapeDtypeStruct((), jnp.int32))
    return decoder.segment.lower(
        nnx.state(target.policy), sequences, key, index, index,
        steps=profile.generation.segment, sampling=sampling,
    )  # fmt: skip


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
    rows = target.plan.evaluation_rows
    sampler, state, weights = sampler_programs(target, rows, temperature=0.0, top_p=None, top_k=1)
    filled = sampler._compiled_prefill_fn.lower(weights, state, None, echo=False).compile()
    placed = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        filled.out_info,
        filled.output_shardings,
    )
    return sampler._compiled_decode_fn.lower(weights, placed)


def helper_pass(target: Target) -> Any:
    """A pass of the second model: a judge's, or a teacher's over what the reference would read."""
    helper, chips = target.run.profile.helper, target.mesh.devices.flatten()
    mesh = target.mesh if target.plan.helper_whole else model.make_mesh(False, chips)
    run = dataclasses.replace(
        target.run, profile=dataclasses.replace(target.run.profile, model=helper.model)
    )
    second = dataclasses.replace(target, mesh=mesh, policy=abstract_stock_policy(run, mesh))
    if helper.rubrics is None:
        return reference_log_probs(second)
    rows, length = helper.rubrics.rows, run.cache_length + helper.rubrics.line_tokens
    graph, state = nnx.split(second.policy)
    return judged.odds_of_yes.lower(
        graph, state, second.rows(rows, length), pad_id=PAD, yes=1, no=2
    )


def exchange(target: Target) -> Any:
    """What crosses between hosts in each pass of an update: the gradient of the adapter."""
    of_hosts, _, added = hosts.exchange(target.mesh, target.slice)
    _, adapter, _ = target.parts()

    def of_all(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(
            (len(target.slice.devices), *x.shape), jnp.float32, sharding=of_hosts
        )

    return added.lower(jax.tree.map(of_all, adapter))


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
    "helper_pass": helper_pass,
    "exchange": exchange,
}


def programs_of(target: Target) -> list[str]:
    """The programs that a run has."""
    profile = target.run.profile
    if not profile.grpo.steps:
        return ["sft_step", "evaluation_decode"]
    absent = {"helper_pass"} if profile.helper is None else set()
    absent |= {"exchange"} if target.slice is None else set()
    return [name for name in PROGRAMS if name not in absent]
