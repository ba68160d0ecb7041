"""One update of the adapter.

Both stages make their updates in Tunix's `PeftTrainer`. Three things it would do
differently are put right here.

**The adapter keeps its small changes.** The adapter has the dtype of the base, bfloat16,
with 8 bits of mantissa: at a learning rate of 5e-6 nearly every update is smaller than half
a unit in the last place and rounds away. `with_master_weights` keeps a float32 copy inside
the optimizer, updates that, and hands out its rounding. The adapter is always the rounded
master.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from submission.bench.policy.hosts import counted_tokens, gather, host_count, sum_over_hosts
from submission.bench.policy.model import mesh_of
from submission.bench.settings.config import Optimizer


class MasterState(NamedTuple):
    """The float32 copy of the parameters, and the state of the optimizer that moves it."""

    master: Any
    inner: Any


def with_master_weights(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Runs `inner` on a float32 copy of the parameters, whatever their own dtype is."""

    def widen(tree: Any) -> Any:
        # A copy even where the dtype is float32 already: the optimizer's state is donated.
        return jax.tree.map(lambda x: jnp.array(x, jnp.float32, copy=True), tree)

    def init(params: Any) -> MasterState:
        master = widen(params)
        return MasterState(master, inner.init(master))

    def update(gradients: Any, state: MasterState, params: Any) -> tuple[Any, MasterState]:
        steps, moved = inner.update(widen(gradients), state.inner, state.master)
        master = optax.apply_updates(state.master, steps)
        # In float32, the difference of two numbers of the narrow dtype added to the first
        # and rounded gives the second: what is applied lands exactly on the rounded master.
        changes = jax.tree.map(
            lambda m, p: m.astype(p.dtype).astype(jnp.float32) - p.astype(jnp.float32),
            master,
            params,
        )
        return changes, MasterState(master, moved)

    return optax.GradientTransformation(init, update)


# **The rate is injected in float32.** `optax.inject_hyperparams` stores AdamW's numbers in the
# dtype of the parameters. In bfloat16 a second moment's 0.999, the usual value, becomes 1.0, its
# bias correction divides by zero, and the run is dead from the first step while its loss reads 0.
#
# **The rate follows the clock.** It is set from outside before every update, from the progress of
# the stage, so that a stage that its time cuts short ends at the same low rate as any other.
#
# **What is not finite is left out.** A gradient with a NaN moves nothing: neither the adapter nor
# the moments. It is counted, and a few of them in a row stop the run. Where an update takes several
# passes, one such pass leaves all of it out. `optax.MultiSteps`, in which Tunix wraps the optimizer
# then, empties its sum of gradients by multiplying it by 0, and a NaN times 0 is a NaN: every later
# update would be left out too, while the loss looks healthy. So our step empties the sum itself.


def make_schedule(settings: Optimizer, steps: int) -> optax.Schedule:
    """The rate at each of `steps` steps: linear warm-up, then cosine."""
    warm_up = max(1, round(settings.warm_up_share * steps))
    return optax.warmup_cosine_decay_schedule(
        init_value=settings.peak_rate / warm_up,
        peak_value=settings.peak_rate,
        warmup_steps=warm_up,
        decay_steps=max(steps, warm_up + 1),
        end_value=settings.peak_rate * settings.end_share,
    )


def injected_adamw(
    settings: Optimizer, rate: optax.ScalarOrSchedule
) -> optax.GradientTransformation:
    """Clipped AdamW whose learning rate is part of its state.

    Only the rate is injected, and in float32 whatever the dtype of the parameters.
    """

    def clipped_adamw(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(settings.clip_norm),
            optax.adamw(
                learning_rate,
                b1=settings.b1,
                b2=settings.b2,
                weight_decay=settings.weight_decay,
            ),
        )

    inject = optax.inject_hyperparams(clipped_adamw, hyperparam_dtype=jnp.float32)
    return inject(learning_rate=rate)


NEVER_ACCEPTED = 2**31 - 2  # gradients in a row that are not finite


def make_optimizer(settings: Optimizer) -> optax.GradientTransformation:
    """The optimizer of both stages: clipped AdamW on float32 master weights, finite or nothing.

    Its rate is the peak until `with_rate` sets it.
    """
    inner = injected_adamw(settings, settings.peak_rate)
    return with_master_weights(optax.apply_if_finite(inner, NEVER_ACCEPTED))


def with_rate(moments: nnx.State, rate: float) -> nnx.State:
    """The optimizer's state with another learning rate."""

    def changed(path: Any, x: jax.Array) -> jax.Array:
        if "learning_rate" not in jax.tree_util.keystr(path):
            return x
        return jax.device_put(jnp.asarray(rate, x.dtype), x.sharding)

    return jax.tree_util.tree_map_with_path(changed, moments)


def with_emptied_sum(moments: nnx.State) -> nnx.State:
    """The optimizer's state; after the last pass of an update, its sum of gradients is 0."""
    leaves = {jax.tree_util.keystr(path): x for path, x in jax.tree.leaves_with_path(moments)}
    passes = [x for path, x in leaves.items() if "mini_step" in path]
    if not passes:  # one pass an update
        return moments

    def emptied(path: Any, x: jax.Array) -> jax.Array:
        is_sum = "acc_grads" in jax.tree_util.keystr(path)
        return jnp.where(passes[0] == 0, jnp.zeros_like(x), x) if is_sum else x

    return jax.tree_util.tree_map_with_path(emptied, moments)


# **The base stays where it is.** Tunix's jitted step takes the whole model and returns the
# whole model, so that after one update the policy's base weights live in new buffers, and
# the reference, which shared them, holds a second copy: 2 GB more for the 1B, 5 GB for the
# 2B. Our step returns the adapter and the optimizer's state and nothing else. It also
# switches rematerialisation on while it is traced, and only then, because the stock sampler
# cannot run a model that rematerialises.


@contextlib.contextmanager
def rematerialised(config: Any, enabled: bool) -> Iterator[None]:
    """Recomputes every decoder layer in the backward pass of what is traced inside."""
    before = config.remat_config
    if enabled:
        config.remat_config = type(before).DECODER
    try:
        yield
    finally:
        config.remat_config = before


def adapter_only_step(
    graph: nnx.GraphDef,
    optimizer_graph: nnx.GraphDef,
    train_step: Callable[..., tuple[Any, Any, Any]],
    remat: bool = False,
) -> Callable[..., tuple[nnx.State, nnx.State, Any]]:
    """A jitted step (adapter, moments, base, inputs) -> (adapter, moments, result).

    Args:
      graph: the model's graph definition; adapter and base are its state, in this order.
      optimizer_graph: the optimizer's; the moments are its state. They are donated.
      train_step: Tunix's step (model, optimizer, inputs) -> (loss, aux, gradient norm).
      remat: recompute every decoder layer in the backward pass?
    """

    @functools.partial(jax.jit, donate_argnums=(1,))
    def step(adapter: nnx.State, moments: nnx.State, base: nnx.State, inputs: Any) -> tuple:
        model = nnx.merge(graph, adapter, base)
        optimizer = nnx.merge(optimizer_graph, moments)
        with rematerialised(model.config, remat):
            result = train_step(model, optimizer, inputs)
        return nnx.state(model, nnx.LoRAParam), with_emptied_sum(nnx.state(optimizer)), result

    return step


# **What teaches nothing is not computed.** Where a group's completions all earn the same, every
# advantage is 0, and without a KL term so is the gradient. Such groups come last in an update, and
# a pass that has no others adds zeros to the sum of gradients.


def is_idle(inputs: Any) -> bool:
    """Is the gradient of a pass zero whatever the model says?"""
    advantages = getattr(inputs, "advantages", None)
    if advantages is None or inputs.ref_per_token_logps is not None:
        return False
    return not np.any(advantages)


def without_gradient(model: nnx.Module, optimizer: nnx.Optimizer, _inputs: None) -> None:
    """A train step where the gradient is zero, without a look at the model."""
    optimizer.update(model, jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.LoRAParam)))


class Caught:
    """Stands where Tunix's step has its optimizer, and keeps the gradient."""

    gradient: Any = None

    def update(self, _model: nnx.Module, gradient: Any) -> None:
        """Takes the gradient."""
        self.gradient = gradient


# **Part by part.** What a pass keeps for its way back grows with its rows. Recomputing it does not
# help on a CPU, whose compiler finds the same work twice and does it once. So the rows can go there
# and back in parts, of which one is in memory at a time.


def in_parts(train_step: Callable[..., Any], parts: int) -> Callable[..., Any]:
    """Tunix's step on equal parts of the rows, one after the other; loss and gradient are means.

    Args:
      train_step: (model, optimizer, inputs) -> (loss, aux, gradient norm); aux has `tokens`.
      parts: into how many; the rows are divisible by it.
    """

    def step(model: nnx.Module, optimizer: Any, inputs: Any) -> tuple[Any, Any, Any]:
        graph, state = nnx.split(model)

        def one(part: Any) -> tuple[Any, Any, Any]:
            caught = Caught()
            here = nnx.merge(graph, jax.tree.map(lambda x: x, state))  # variables of this trace
            loss, aux, _ = train_step(here, caught, part)
            return caught.gradient, loss, aux

        # Every chip has its share of every part.
        cut = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), inputs)
        gradients, losses, aux = jax.lax.map(one, cut)
        gradient, loss = jax.tree.map(lambda x: x.mean(0), (gradients, losses))
        tokens = aux.pop("tokens")  # what stands beside it are means over tokens
        aux = {name: jnp.average(x, 0, tokens) for name, x in aux.items()}
        optimizer.update(model, gradient)
        return loss, aux | {"tokens": tokens.sum()}, optax.global_norm(gradient)

    return train_step if parts == 1 else step


# **On several hosts** the step is cut in two where the gradient is known: its mean over the hosts
# is what the optimizer gets. The norm that is reported, and clipped, is that mean's.


def step_of_hosts(
    graph: nnx.GraphDef,
    optimizer_graph: nnx.GraphDef,
    train_step: Callable[..., tuple[Any, Any, Any]],
    remat: bool,
    by_token: bool,
    home: Mesh,
) -> Callable[..., tuple[nnx.State, nnx.State, Any]]:
    """As `adapter_only_step`, with the rows of all hosts.

    Args:
      graph: this and the next three as there.
      optimizer_graph: the optimizer's.
      train_step: Tunix's.
      remat: in the backward pass?
      by_token: is the loss a mean over tokens? If not, then over rows.
      home: this host's mesh.
    """

    @jax.jit
    def look(adapter: nnx.State, base: nnx.State, inputs: Any) -> tuple:
        model, caught = nnx.merge(graph, adapter, base), Caught()
        with rematerialised(model.config, remat):
            loss, aux, _ = train_step(model, caught, inputs)
        return caught.gradient, loss, aux

    @functools.partial(jax.jit, donate_argnums=(1,))
    def move(adapter: nnx.State, moments: nnx.State, base: nnx.State, gradient: Any) -> tuple:
        model, optimizer = nnx.merge(graph, adapter, base), nnx.merge(optimizer_graph, moments)
        gradient = jax.tree.map(lambda x, p: x.astype(p.dtype), gradient, adapter)
        optimizer.update(model, gradient)
        norm = optax.global_norm(gradient)
        return nnx.state(model, nnx.LoRAParam), with_emptied_sum(nnx.state(optimizer)), norm

    def step(adapter: nnx.State, moments: nnx.State, base: nnx.State, inputs: Any) -> tuple:
        found, tokens = look(adapter, base, inputs), counted_tokens(inputs)
        whole = sum(gather(tokens, "an update"))
        of_tokens = tokens / max(1.0, whole)
        part = of_tokens if by_token else 1 / host_count()
        gradient, loss, aux = sum_over_hosts(found, (part, part, of_tokens), home)
        if aux:
            aux["tokens"] = whole  # the other numbers beside the loss are means over tokens
        adapter, moments, norm = move(adapter, moments, base, gradient)
        return adapter, moments, (loss, aux, norm)

    return step


def on_mesh_of(like: nnx.State, state: nnx.State) -> nnx.State:
    """The state, with all of it that is on one device only on every device of a mesh."""
    sharding = jax.tree.leaves(like)[0].sharding
    if not isinstance(sharding, NamedSharding):
        return state
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())

    def placed(x: jax.Array) -> jax.Array:
        return x if isinstance(x.sharding, NamedSharding) else jax.device_put(x, everywhere)

    return jax.tree.map(placed, state)


def use_adapter_only_step(
    trainer: Any,
    remat: bool = False,
    rate: Callable[[], float] | None = None,
    report: Callable[..., None] | None = None,
    by_token: bool = True,
    parts: int = 1,
) -> None:
    """Gives a `PeftTrainer` a train step that leaves the base weights alone.

    Call `train(..., skip_jit=True)` afterwards: the step is jitted here.

    Args:
      trainer: the trainer.
      remat: recompute every decoder layer in the backward pass?
      rate: gives the learning rate of each pass; by default the optimizer's own.
      report: hears of each pass: the loss, what the loss reports beside it, the gradient's norm.
      by_token: is the loss a mean over tokens? If not, then over rows. (Several hosts weigh so.)
      parts: of a pass, one after the other.
    """
    graph, adapter, base = nnx.split(trainer.model, nnx.LoRAParam, ...)
    # What the step returns lies on the mesh. What it is first given has to as well, or it is
    # compiled twice.
    nnx.update(trainer.optimizer, on_mesh_of(adapter, nnx.state(trainer.optimizer)))
    optimizer_graph, _ = nnx.split(trainer.optimizer)
    whole = in_parts(trainer._train_step, parts), remat
    if host_count() == 1:
        step = adapter_only_step(graph, optimizer_graph, *whole)
    else:
        home = mesh_of(trainer.model)
        step = step_of_hosts(graph, optimizer_graph, *whole, by_token, home)
    idle, nothing = adapter_only_step(graph, optimizer_graph, without_gradient), None

    def train_step(inputs: Any) -> tuple[Any, Any, Any]:
        nonlocal nothing
        adapter, moments = nnx.state(trainer.model, nnx.LoRAParam), nnx.state(trainer.optimizer)
        if rate is not None:
            moments = with_rate(moments, rate())
        left_out = all(gather(is_idle(inputs), "an update"))
        if left_out and nothing is not None:
            adapter, moments, _ = idle(adapter, moments, base, None)
        else:
            adapter, moments, result = step(adapter, moments, base, inputs)
            if nothing is None:
                nothing = jax.tree.map(jnp.zeros_like, result)
        if left_out:  # the first one too, which a run that goes on makes elsewhere
            result = nothing
        nnx.update(trainer.model, adapter)
        nnx.update(trainer.optimizer, moments)
        if report is not None:
            report(*result)
        return result

    make: Callable[[], Any] = lambda: train_step  # noqa: E731 (one function, jitted once)
    trainer.create_train_step_fn = make
