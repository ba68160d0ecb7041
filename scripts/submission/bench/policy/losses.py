"""Log-probabilities without the logits.

Both losses need one number per token: its log-probability. Gemma has 262,144 tokens to choose
from, so the logits of one SFT update of 64 × 2048 tokens would take 69 GB in bfloat16, and
Tunix's losses hold several arrays of that size. Here they never exist as a whole:

- **Hidden states first.** The model hands out its last hidden states; its own logits are not
  used, and what is not used the compiler leaves out. A prompt's positions are dropped here.
- **Only where a token counts.** Padding and prompts have hidden states, but no logits.
- **Some tokens at a time.** A loop over chunks makes logits, log-sum-exp and the chosen token's
  logit in float32, and keeps the two results.
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


def states_of_tokens(model: nnx.Module, tokens_BT: jax.Array, pad_id: int) -> jax.Array:
    """The model's hidden states_BTD of tokens between padding, each row by itself."""
    tokens_BT = sharding_utils.shard(tokens_BT, (DATA_AXES, None))
    is_token_BT = tokens_BT != pad_id
    positions_BT = sft_utils.build_positions_from_mask(is_token_BT)
    mask_BTT = sft_utils.make_causal_attn_mask(is_token_BT)
    return last_hidden_states(model, tokens_BT, positions_BT, mask_BTT)


def final_logits(model: nnx.Module, logits: jax.Array, temperature: float) -> jax.Array:
    """Logits of the model's embedder in float32, under Gemma 2's final soft cap, if it has one."""
    logits = logits.astype(jnp.float32)
    if (cap := getattr(model, "final_logits_softcap", None)) is not None:
        logits = jnp.tanh(logits / cap) * cap
    return logits / temperature


def data_shards(rows: int) -> int:
    """Into how many parts the mesh splits so many rows; 1 if it cannot split them evenly."""
    mesh = pxla.thread_resources.env.physical_mesh
    shards = math.prod(mesh.shape.get(axis, 1) for axis in DATA_AXES)
    return shards if rows % shards == 0 else 1


def in_chunks(
    function: Callable[..., Any], size: int, counts_BT: jax.Array, *arrays: jax.Array
) -> Any:
    """`function(*arrays)` where it counts, from `size` places per chip at a time; 0 elsewhere.

    Args:
      function: of arrays_SC…, the chunks of all chips, each place by itself.
      size: places in a chunk.
      counts_BT: bool, the places that count. They are brought together: no chunk has others, but
        the last, and chunks without any are left out.
      arrays: arrays_BT….
    """
    by_chip = lambda x: x.reshape(data_shards(len(x)), -1, *x.shape[2:])  # noqa: E731
    take = jax.vmap(lambda x_N, places_C: x_N[places_C])
    counts_SN, arrays = by_chip(counts_BT), tuple(map(by_chip, arrays))
    shards, places = counts_SN.shape
    size = min(size, places)
    order_SN = jnp.argsort(~counts_SN, axis=1, stable=True)
    most = jnp.max(jnp.sum(counts_SN, axis=1))

    def results(places_SC: jax.Array) -> Any:
        return function(*(take(x, places_SC) for x in arrays))

    def chunk(part: tuple[jax.Array, jax.Array]) -> Any:
        start, places_SC = part
        shapes = jax.eval_shape(results, places_SC)
        return jax.lax.cond(
            start < most,
            results,
            lambda _: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes),
            places_SC,
        )

    padded_SN = jnp.pad(order_SN, ((0, 0), (0, -places % size)), mode="edge")
    chunks_KSC = jnp.moveaxis(padded_SN.reshape(shards, -1, size), 1, 0)
    found = jax.lax.map(chunk, (jnp.arange(0, places, size), chunks_KSC))
    back_SN = jnp.argsort(order_SN, axis=1)

    def in_place(x: jax.Array) -> jax.Array:
        x = jnp.moveaxis(x, 0, 1)
        x = take(x.reshape(shards, -1, *x.shape[3:]), back_SN)
        x = x.reshape(*counts_BT.shape, *x.shape[2:])
        return jnp.where(counts_BT.reshape(counts_BT.shape + (1,) * (x.ndim - 2)), x, 0)

    return jax.tree.map(in_place, found)


def token_log_probs(
    model: nnx.Module,
    hidden_BTD: jax.Array,
    targets_BT: jax.Array,
    counts_BT: jax.Array,
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
      counts_BT: bool, which of them count. No logits are made for the others.
      temperature: divides the logits.
      chunk: tokens per chip whose logits exist at a time.
      with_entropy: no entropy, and no time for it, without. It has no gradient.

    Returns:
      logps_BT and entropy_BT (or None), float32; 0 where a target does not count.
    """

    def scores(hidden_SCD: jax.Array, targets_SC: jax.Array) -> tuple[jax.Array, Any]:
        raw_SCV = model.embedder.decode(hidden_SCD)
        # Picked out before the logits are float32, or the compiler would store them twice.
        raw_SC1 = jnp.take_along_axis(raw_SCV, targets_SC[..., None], axis=-1)
        chosen_SC = final_logits(model, raw_SC1, temperature)[..., 0]
        logits_SCV = final_logits(model, raw_SCV, temperature)
        # Log-sum-exp and entropy in one pass over the logits, where the compiler sees both sums.
        largest_SC1 = jax.lax.stop_gradient(jnp.max(logits_SCV, axis=-1, keepdims=True))
        lower_SCV = logits_SCV - largest_SC1
        sum_SC = jnp.sum(jnp.exp(lower_SCV), axis=-1)
        logps_SC = chosen_SC - largest_SC1[..., 0] - jnp.log(sum_SC)
        if not with_entropy:
            return logps_SC, None
        return logps_SC, jnp.log(sum_SC) - jnp.sum(jnp.exp(lower_SCV) * lower_SCV, -1) / sum_SC

    def scores_and_slopes(hidden_SCD: jax.Array, targets_SC: jax.Array) -> tuple:
        logps_SC, pull_back, entropy_SC = jax.vjp(
            lambda hidden: scores(hidden, targets_SC), hidden_SCD, has_aux=True
        )
        # Each log-probability depends on its own place alone: one pull-back gives them all.
        (slopes_SCD,) = pull_back(jnp.ones_like(logps_SC))
        return (logps_SC, entropy_SC), slopes_SCD

    def chunked(function: Callable[..., Any], hidden_BTD: jax.Array) -> Any:
        return in_chunks(function, chunk, counts_BT, hidden_BTD, targets_BT)

    def backward(slopes_BTD: jax.Array, gradients: tuple[jax.Array, Any]) -> tuple[jax.Array]:
        logps_gradient_BT, _ = gradients
        return ((logps_gradient_BT[..., None] * slopes_BTD).astype(slopes_BTD.dtype),)

    log_probs = jax.custom_vjp(functools.partial(chunked, scores))
    log_probs.defvjp(functools.partial(chunked, scores_and_slopes), backward)
    return log_probs(hidden_BTD)


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
        targets_BT, counts_BT = input_tokens[:, 1:], input_mask[:, 1:].astype(bool)
        logps_BT, _ = token_log_probs(model, hidden_BTD[:, :-1], targets_BT, counts_BT, chunk=chunk)
        return -jnp.sum(logps_BT) / (jnp.sum(counts_BT) + 1e-8)

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
    hidden_BTD = states_of_tokens(model, tokens_BT, pad_id)
    before_BCD = hidden_BTD[:, prompt_tokens.shape[1] - 1 : -1]
    counts_BC = completion_tokens != pad_id
    return token_log_probs(model, before_BCD, completion_tokens, counts_BC, **settings)


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
