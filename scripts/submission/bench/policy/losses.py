"""Log-probabilities without the logits.

Both losses need one number per token: its log-probability. Gemma has 262,144 tokens to choose
from, so the logits of one SFT update of 64 × 2048 tokens would take 69 GB in bfloat16, and
Tunix's losses hold several arrays of that size. Here they never exist as a whole:

- **Hidden states first.** The model hands out its last hidden states; its own logits are not
  used, and what is not used the compiler leaves out. A prompt's positions are dropped here.
- **Some tokens at a time.** A loop over chunks of the row makes logits, log-sum-exp and the
  chosen token's logit in float32, and keeps the two results.
- **The gradient on the way.** The log-probability of a token depends on one hidden state, that
  of the position before it. While the chunk's logits are there, that gradient is taken too, and
  stored: one row as wide as the model. The backward pass only scales it. Recomputing the logits
  instead (`jax.checkpoint`) would multiply by the vocabulary's table three times, not twice.

The table itself is frozen: no gradient of it is made.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.interpreters import pxla
from tunix.sft import utils as sft_utils
from tunix.utils import sharding_utils

from submission.bench.policy.model import DATA_AXES


def last_hidden_states(
    model: nnx.Module, tokens_BT: jax.Array, positions_BT: jax.Array, mask_BTS: jax.Array
) -> jax.Array:
    """The model's hidden states_BTD after its final norm."""
    model(tokens_BT, positions_BT, None, mask_BTS, output_hidden_states=True)
    # Taken out again, or the model would keep them as part of its state.
    return nnx.pop(model, nnx.Intermediate)["all_hidden_states"].get_value()[-1]


def final_logits(model: nnx.Module, logits: jax.Array, temperature: float) -> jax.Array:
    """Logits of the model's embedder in float32, under Gemma 2's final soft cap, if it has one."""
    logits = logits.astype(jnp.float32)
    if (cap := getattr(model, "final_logits_softcap", None)) is not None:
        logits = jnp.tanh(logits / cap) * cap
    return logits / temperature


def chunk_length(batch: int, length: int, chunk: int) -> int:
    """How many positions of each row make up `chunk` tokens per chip, at least one.

    Under a mesh the rows are split along `DATA_AXES`, if they can be split evenly.

    >>> chunk_length(batch=8, length=2048, chunk=1024), chunk_length(8, 100, 1024)
    (128, 100)
    """
    mesh = pxla.thread_resources.env.physical_mesh
    shards = math.prod(mesh.shape.get(axis, 1) for axis in DATA_AXES)
    rows = batch // shards if batch % shards == 0 else batch
    return min(length, max(1, chunk // rows))


def in_chunks(function: Callable[..., Any], size: int, *arrays: jax.Array) -> Any:
    """`function(*arrays)`, from `size` positions (axis 1) at a time; at once if that is all."""
    length = arrays[0].shape[1]
    if size >= length:
        return function(*arrays)

    def split(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, [(0, 0), (0, -length % size), *[(0, 0)] * (x.ndim - 2)])
        return jnp.moveaxis(x.reshape(len(x), -1, size, *x.shape[2:]), 1, 0)

    def join(x: jax.Array) -> jax.Array:
        x = jnp.moveaxis(x, 0, 1)
        return x.reshape(len(x), -1, *x.shape[3:])[:, :length]

    results = jax.lax.map(lambda parts: function(*parts), tuple(map(split, arrays)))
    return jax.tree.map(join, results)


def token_log_probs(
    model: nnx.Module,
    hidden_BTD: jax.Array,
    targets_BT: jax.Array,
    *,
    temperature: float = 1.0,
    chunk: int = 1024,
    with_entropy: bool = False,
) -> tuple[jax.Array, jax.Array | None]:
    """Log-probabilities of tokens, and the entropy (in nats) of what they were drawn from.

    Args:
      model: a Gemma whose embedding table is not trained (JAX raises an error if it is).
      hidden_BTD: the hidden state of the position *before* each target.
      targets_BT: token ids.
      temperature: divides the logits.
      chunk: tokens per chip whose logits exist at a time.
      with_entropy: no entropy, and no time for it, without. It has no gradient.

    Returns:
      logps_BT and entropy_BT (or None), float32.
    """
    size = chunk_length(*targets_BT.shape, chunk)

    def scores(hidden_BCD: jax.Array, targets_BC: jax.Array) -> tuple[jax.Array, Any]:
        raw_BCV = model.embedder.decode(hidden_BCD)
        # Picked out before the logits are float32, or the compiler would store them twice.
        raw_BC1 = jnp.take_along_axis(raw_BCV, targets_BC[..., None], axis=-1)
        chosen_BC = final_logits(model, raw_BC1, temperature)[..., 0]
        logits_BCV = final_logits(model, raw_BCV, temperature)
        # Log-sum-exp and entropy in one pass over the logits, where the compiler sees both sums.
        largest_BC1 = jax.lax.stop_gradient(jnp.max(logits_BCV, axis=-1, keepdims=True))
        lower_BCV = logits_BCV - largest_BC1
        sum_BC = jnp.sum(jnp.exp(lower_BCV), axis=-1)
        logps_BC = chosen_BC - largest_BC1[..., 0] - jnp.log(sum_BC)
        if not with_entropy:
            return logps_BC, None
        return logps_BC, jnp.log(sum_BC) - jnp.sum(jnp.exp(lower_BCV) * lower_BCV, -1) / sum_BC

    def scores_and_slopes(hidden_BCD: jax.Array, targets_BC: jax.Array) -> tuple:
        logps_BC, pull_back, entropy_BC = jax.vjp(
            lambda hidden: scores(hidden, targets_BC), hidden_BCD, has_aux=True
        )
        # Each log-probability depends on its own position alone: one pull-back gives them all.
        (slopes_BCD,) = pull_back(jnp.ones_like(logps_BC))
        return (logps_BC, entropy_BC), slopes_BCD

    @jax.custom_vjp
    def chunked(hidden_BTD: jax.Array) -> tuple[jax.Array, Any]:
        return in_chunks(scores, size, hidden_BTD, targets_BT)

    def backward(slopes_BTD: jax.Array, gradients: tuple[jax.Array, Any]) -> tuple[jax.Array]:
        logps_gradient_BT, _ = gradients
        return ((logps_gradient_BT[..., None] * slopes_BTD).astype(slopes_BTD.dtype),)

    chunked.defvjp(lambda hidden: in_chunks(scores_and_slopes, size, hidden, targets_BT), backward)
    return chunked(hidden_BTD)


# **The loss of the warm start** is Tunix's: the mean over the tokens of the targets.


def chunked_sft_loss(chunk: int) -> Callable[..., jax.Array]:
    """A loss for `PeftTrainer.with_loss_fn`, with `chunk` tokens per chip at a time."""

    def sft_loss(
        model: nnx.Module,
        input_tokens: jax.Array,
        input_mask: jax.Array,
        positions: jax.Array,
        attention_mask: jax.Array,
    ) -> jax.Array:
        """What Tunix's default loss computes, from the same inputs.

        Args:
          model: the policy.
          input_tokens: token ids_BT.
          input_mask: bool_BT, the tokens that count. The first of a row never does.
          positions: positions_BT.
          attention_mask: mask_BTS, true where position T may look at S.
        """
        hidden_BTD = last_hidden_states(model, input_tokens, positions, attention_mask)
        # The last position has no target. It keeps a dummy, so that chunks divide the row evenly.
        targets_BT = jnp.roll(input_tokens, -1, axis=1)
        counts_BT = jnp.roll(input_mask, -1, axis=1).astype(jnp.float32).at[:, -1].set(0)
        logps_BT, _ = token_log_probs(model, hidden_BTD, targets_BT, chunk=chunk)
        return -jnp.sum(logps_BT * counts_BT) / (jnp.sum(counts_BT) + 1e-8)

    return sft_loss


# **Completions.** Policy, old policy and reference go through the same function at the same
# temperature, the one that completions are sampled at. Prompts are padded on the left,
# completions on the right.


def completion_scores(
    model: nnx.Module,
    prompt_tokens: jax.Array,
    completion_tokens: jax.Array,
    *,
    pad_id: int,
    **settings: Any,
) -> tuple[jax.Array, jax.Array | None]:
    """`token_log_probs` of completions_BC after prompts_BP, with its settings."""
    tokens_BT = jnp.concatenate([prompt_tokens, completion_tokens], axis=1)
    tokens_BT = sharding_utils.shard(tokens_BT, (DATA_AXES, None))
    is_token_BT = tokens_BT != pad_id
    hidden_BTD = last_hidden_states(
        model,
        tokens_BT,
        sft_utils.build_positions_from_mask(is_token_BT),
        sft_utils.make_causal_attn_mask(is_token_BT),
    )
    before_BCD = hidden_BTD[:, prompt_tokens.shape[1] - 1 : -1]
    return token_log_probs(model, before_BCD, completion_tokens, **settings)


@functools.partial(jax.jit, static_argnames=("pad_id", "temperature", "chunk"))
def completion_log_probs(
    graph: nnx.GraphDef,
    state: nnx.State,
    prompt_tokens: jax.Array,
    completion_tokens: jax.Array,
    *,
    pad_id: int,
    temperature: float,
    chunk: int,
) -> jax.Array:
    """Log-probabilities_BC of completions_BC after prompts_BP: Tunix's `compute_per_token_logps`.

    Args:
      graph: the model's graph definition, from `nnx.split`.
      state: its state.
      prompt_tokens: token ids_BP, padded on the left.
      completion_tokens: token ids_BC, padded on the right.
      pad_id: the tokenizer's padding id.
      temperature: divides the logits.
      chunk: tokens per chip whose logits exist at a time.
    """
    return completion_scores(
        nnx.merge(graph, state),
        prompt_tokens,
        completion_tokens,
        pad_id=pad_id,
        temperature=temperature,
        chunk=chunk,
    )[0]
