"""Decoding without copies.

A decode step reads every weight and the whole key-value cache to make one token per
sequence. It is bound by memory traffic, so everything here is about bytes:

- **The past is read only.** Tunix's sampler carries the whole cache through its loop, and the
  compiler copies it there. Here the loop runs over a *segment* of steps: new keys and values
  go into a small buffer, the past is only read. Between segments the two are joined.
- **The past is as long as it is.** Each segment reads what has been written so far, not the
  longest cache there can be; layers with a sliding window keep no more than the window.
- **A prompt is read once.** The completions of a group share their prompt: it is run through
  the model once, for its last position's logits alone, and its cache is repeated.

Only the attention differs from Tunix's model, and only while it decodes: it reads two pieces
of cache where Tunix's reads one. Weights, adapter and everything around it are the policy's.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from tunix.generate import sampler as sampler_lib
from tunix.models.gemma import model as gemma2_lib
from tunix.models.gemma3 import model as gemma3_lib

from submission.bench.policy.alike import kinds_of, same_so_far, step_of_kinds
from submission.bench.policy.losses import final_logits
from submission.bench.policy.model import DATA_AXES


class Seen(NamedTuple):
    """What a decode step may attend to. It travels as Tunix's attention mask."""

    past: jax.Array  # BL: which slots of the past hold a token; a prompt's padding does not
    step: jax.Array  # how many steps of this segment went before


def projected(attention: Any, x_BTD: jax.Array, positions_BT: jax.Array) -> tuple:
    """Query_BTNH (scaled), key_BTKH and value_BTKH, as the attention of either Gemma makes them."""
    if attention.use_qkv_einsum:
        query_BTNH, key_BTKH, value_BTKH = attention.qkv_einsum(x_BTD)
    else:
        query_BTNH = attention.q_einsum(x_BTD)
        key_BTKH, value_BTKH = attention.kv_einsum(x_BTD)
    turn: dict[str, Any] = {"head_dim": attention.head_dim}
    if isinstance(attention, gemma3_lib.Attention):
        query_BTNH = attention._query_norm(query_BTNH)
        key_BTKH = attention._key_norm(key_BTKH)
        turn["base_frequency"] = attention.rope_base_frequency
        turn["scale_factor"] = attention.rope_scale_factor
        rope, scale = gemma3_lib.apply_rope, attention.query_pre_attn_scalar
    else:
        rope, scale = gemma2_lib.apply_rope, attention.head_dim**-0.5
    query_BTNH = rope(query_BTNH, positions_BT, **turn) * scale
    return query_BTNH, rope(key_BTKH, positions_BT, **turn), value_BTKH


def attend_in_segment(attention: Any, x_B1D: jax.Array, positions_B1: jax.Array,
                      cache: dict[str, jax.Array], seen: Seen) -> tuple:  # fmt: skip
    """One decode step of one layer: the new key and value join the segment's buffer."""
    query, key, value = projected(attention, x_B1D, positions_B1)
    B, _, N, H = query.shape
    K = key.shape[2]
    at = (0, 0, seen.step, 0)
    key_BKSH = jax.lax.dynamic_update_slice(cache["key"], key.swapaxes(1, 2), at)
    value_BKSH = jax.lax.dynamic_update_slice(cache["value"], value.swapaxes(1, 2), at)
    query_BKGH = query.reshape(B, K, N // K, H)

    past, new = cache["past_key"].shape[2], key_BKSH.shape[2]
    seen_BL = seen.past[:, seen.past.shape[1] - past :]
    seen_S = jnp.arange(new) <= seen.step
    if attention.attn_type.name == "LOCAL_SLIDING":
        first = past + seen.step - attention.sliding_window_size + 1
        seen_BL = seen_BL & (jnp.arange(past) >= first)
        seen_S = seen_S & (past + jnp.arange(new) >= first)
    seen_BA = jnp.concatenate([seen_BL, jnp.broadcast_to(seen_S, (B, new))], axis=1)

    scores_BKGA = jnp.concatenate(
        [
            jnp.einsum("BKGH,BKSH->BKGS", query_BKGH, cache["past_key"]),
            jnp.einsum("BKGH,BKSH->BKGS", query_BKGH, key_BKSH),
        ],
        axis=-1,
    )
    if (cap := getattr(attention, "attn_logits_soft_cap", None)) is not None:
        scores_BKGA = jnp.tanh(scores_BKGA / cap) * cap
    scores_BKGA = jnp.where(seen_BA[:, None, None], scores_BKGA, gemma3_lib.K_MASK)
    shares_BKGA = jax.nn.softmax(scores_BKGA, axis=-1).astype(value.dtype)
    mixed_BKGH = jnp.einsum("BKGS,BKSH->BKGH", shares_BKGA[..., :past], cache["past_value"])
    mixed_BKGH += jnp.einsum("BKGS,BKSH->BKGH", shares_BKGA[..., past:], value_BKSH)
    output_B1D = attention.attn_vec_einsum(mixed_BKGH.reshape(B, 1, N, H))
    return {"key": key_BKSH, "value": value_BKSH}, output_B1D


@functools.cache
def segment_attention(kind: type) -> type:
    """Tunix's attention of either Gemma, which while decoding reads past and segment apart."""

    class SegmentAttention(kind):
        """Tunix's own, unless the mask is a `Seen`."""

        def block(self, x: Any, segment_pos: Any, cache: Any, attn_mask: Any) -> tuple:
            if isinstance(attn_mask, Seen):
                return attend_in_segment(self, x, segment_pos, cache, attn_mask)
            return super().block(x, segment_pos, cache, attn_mask)

    return SegmentAttention


def decoding_graph(policy: nnx.Module) -> Any:
    """The policy's graph definition with the attention above: its state is the policy's."""
    twin = nnx.merge(*nnx.split(policy))
    for layer in twin.layers:
        layer.attn.__class__ = segment_attention(type(layer.attn))
    return nnx.graphdef(twin)


# **Three programs.** `prefill` reads the prompts and draws each completion's first token.
# `segment` decodes a number of steps, or until all are done. `join` puts the segment behind the
# past and, where enough sequences are done, keeps the others only: the batch shrinks. Each chip
# keeps as many rows as every other, chosen among its own, so that nothing crosses the links.


LOOK_EVERY = 8  # steps between two looks, inside a segment, at whether all are done


class Sampling(NamedTuple):
    """How a token is drawn; with `top_p=None` it is the best one, as in Tunix's sampler."""

    temperature: float
    top_p: float | None
    top_k: int | None


class Sequences(NamedTuple):
    """Sequences under way. All arrays are sharded by their first axis."""

    past: list[dict[str, jax.Array]]  # by layer: past_key and past_value, BKLH
    seen: jax.Array  # BL: which slots of the past hold a token
    token: jax.Array  # B: the last one drawn; it has not been through the model yet
    position: jax.Array  # B: its position
    done: jax.Array  # B
    row: jax.Array  # B: which completion of the call this is; its noise depends on it
    kind: jax.Array  # B: the same number for rows that were the same before that token


class Segment(NamedTuple):
    """What a segment of steps has made."""

    new: list[dict[str, jax.Array]]  # by layer: key and value, BKSH
    tokens: jax.Array  # BS: padding after the end of a sequence
    token: jax.Array  # B: the last one, its position, and whether it is the end
    position: jax.Array
    done: jax.Array
    kind: jax.Array


def by_weight(weights_BN: jax.Array, chance_B: jax.Array) -> jax.Array:
    """The places whose share of each row's weights holds the chance, which is in [0, 1)."""
    sums_BN = jnp.cumsum(weights_BN, axis=1)
    # Rounded, the product may be the whole sum, behind the last place that has a weight.
    sought_B = jnp.minimum(chance_B * sums_BN[:, -1], jnp.nextafter(sums_BN[:, -1], 0.0))
    return jnp.sum(sums_BN <= sought_B[:, None], axis=1, dtype=jnp.int32)


def draw(logits_RV: jax.Array, key: jax.Array, row_B: jax.Array, index: Any,
         sampling: Sampling, never: tuple[int, ...],
         place_B: jax.Array | None = None) -> jax.Array:  # fmt: skip
    """Token number `index` of each completion. Its key depends on call, row and index alone.

    Its logits are those at its place; without places, each row has its own.

    Padding and BOS are never one: the loss does not count padding, but the tokens behind it were
    drawn with it in sight, and no text shows either.

    From the whole vocabulary, a token is drawn by two numbers: one chooses a block, by the sum of
    its probabilities, the other a token of it. Tunix's sampler makes a number for every token of
    the vocabulary, which on a CPU takes longer than the logits themselves.
    """

    def of_rows(x_RN: jax.Array) -> jax.Array:
        return x_RN if place_B is None else x_RN[place_B]

    logits_RV = logits_RV.at[:, jnp.array(never)].set(-jnp.inf)
    if sampling.top_p is None:
        return of_rows(jnp.argmax(logits_RV, axis=-1).astype(jnp.int32))
    noise = jax.vmap(lambda row: jax.random.fold_in(jax.random.fold_in(key, row), index))(row_B)
    if sampling.top_p < 1 or sampling.top_k:
        one = functools.partial(sampler_lib.sample_top_p, **sampling._asdict())
        token_B1, _ = jax.vmap(one)(of_rows(logits_RV)[:, None, None], noise)
        return token_B1[:, 0].astype(jnp.int32)

    block = math.isqrt(logits_RV.shape[1])
    chances_B2 = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(noise)
    lower_RV = logits_RV - jnp.max(logits_RV, axis=1, keepdims=True)
    weights_RV = jnp.exp(lower_RV / sampling.temperature)
    weights_RV = jnp.pad(weights_RV, ((0, 0), (0, -weights_RV.shape[1] % block)))
    weights_RKN = weights_RV.reshape(len(weights_RV), -1, block)
    block_B = by_weight(of_rows(jnp.sum(weights_RKN, axis=2)), chances_B2[:, 0])
    if place_B is None:
        chosen_BN = jnp.take_along_axis(weights_RKN, block_B[:, None, None], axis=1)[:, 0]
    else:
        chosen_BN = weights_RKN[place_B, block_B]
    return block_B * block + by_weight(chosen_BN, chances_B2[:, 1])


class Decoder:
    """The compiled programs of one policy on one mesh; arguments are arrays or their shapes."""

    def __init__(
        self, policy: nnx.Module, mesh: Any, pad_id: int, bos_id: int, eos_ids: tuple[int, ...]
    ) -> None:
        self.graph = decoding_graph(policy)
        self.shape, self.pad_id, self.eos_ids = policy.config, pad_id, eos_ids
        self.never = (pad_id, bos_id)
        self.shards = math.prod(mesh.shape[axis] for axis in DATA_AXES)
        local = [layer.attn.attn_type.name == "LOCAL_SLIDING" for layer in policy.layers]
        window = policy.config.sliding_window_size
        self.windows = [window if is_local else None for is_local in local]  # None: sees all
        self.by_row = NamedSharding(mesh, PartitionSpec(DATA_AXES))
        self.prefill = jax.jit(self._prefill, static_argnames=("generations", "sampling"))
        self.segment = jax.jit(self._segment, static_argnames=("steps", "sampling", "alike"))
        self.longer = jax.jit(self._longer, static_argnames="window")
        self.others = jax.jit(self._others)

    def _sharded(self, tree: Any) -> Any:
        return jax.lax.with_sharding_constraint(tree, self.by_row)

    def _zeros(self, rows: int, length: int, dtype: Any) -> jax.Array:
        shape = (rows, self.shape.num_kv_heads, length, self.shape.head_dim)
        return self._sharded(jnp.zeros(shape, dtype))

    def _run(self, model: Any, *arguments: Any) -> tuple[jax.Array, Any]:
        """Hidden states_BTD after the final norm, and the cache. The logits are left unused."""
        _, cache = model(*arguments, output_hidden_states=True)
        hidden_BTD = nnx.pop(model, nnx.Intermediate)["all_hidden_states"].get_value()[-1]
        return hidden_BTD, cache

    def _ends(self, token_B: jax.Array) -> jax.Array:
        return jnp.isin(token_B, jnp.array(self.eos_ids))

    def _prefill(self, state: Any, tokens_PL: jax.Array, is_real_P: jax.Array, key: jax.Array,
                 first: jax.Array, *, generations: int,
                 sampling: Sampling) -> Sequences:  # fmt: skip
        """Runs left-padded prompts through the model, once each; draws first tokens.

        The completions are numbered from `first` on.
        """
        model = nnx.merge(self.graph, state)
        P, L = tokens_PL.shape
        is_token_PL = tokens_PL != self.pad_id
        positions_PL = jnp.maximum(jnp.cumsum(is_token_PL, axis=1) - 1, 0)
        mask_PLL = jnp.tril(jnp.ones((L, L), bool))[None] & is_token_PL[:, None]
        dtype = model.embedder.input_embedding.get_value().dtype
        end, zeros_PLKH = jnp.zeros((P,), jnp.int32), self._zeros(P, L, dtype).swapaxes(1, 2)
        empty = {
            f"layer_{i}": {
                "k": zeros_PLKH, "v": zeros_PLKH, "end_index": end
            }
            for i in range(self.shape.num_layers)
        }  # fmt: skip
        hidden_PLD, cache = self._run(model, tokens_PL, positions_PL, empty, mask_PLL)
        logits_PV = final_logits(model, model.embedder.decode(hidden_PLD[:, -1]), 1.0)

        def spread(x: jax.Array) -> jax.Array:
            """Each row as often as its prompt has completions, beside each other."""
            x = jnp.broadcast_to(x[:, None], (P, generations, *x.shape[1:]))
            return self._sharded(x.reshape(P * generations, *x.shape[2:]))

        def kept(x_PLKH: jax.Array, window: int | None) -> jax.Array:
            return spread(x_PLKH[:, -(window or L) :].swapaxes(1, 2))

        past = [
            {
                "past_key": kept(cache[f"layer_{i}"]["k"], window),
                "past_value": kept(cache[f"layer_{i}"]["v"], window),
            }
            for i, window in enumerate(self.windows)
        ]
        row_B = self._sharded(first + jnp.arange(P * generations, dtype=jnp.int32))
        token_B = draw(spread(logits_PV), key, row_B, 0, sampling, self.never)
        done_B = self._ends(token_B) | ~spread(is_real_P)
        position_B = spread(positions_PL[:, -1] + 1)
        kind_B = spread(jnp.arange(P, dtype=jnp.int32))
        return Sequences(past, spread(is_token_PL), token_B, position_B, done_B, row_B, kind_B)

    def _segment(self, state: Any, sequences: Sequences, key: jax.Array, index: jax.Array,
                 limit: jax.Array, *, steps: int, sampling: Sampling,
                 alike: int = 0) -> Segment:  # fmt: skip
        """Decodes up to `steps` tokens, from number `index` on, and none from `limit` on.

        With `alike`, a step reads one row of each kind, so many at a time, unless most differ.
        """
        B = sequences.token.shape[0]
        dtype = sequences.past[0]["past_key"].dtype
        fresh = Segment(
            [{k: self._zeros(B, steps, dtype) for k in ("key", "value")} for _ in sequences.past],
            self._sharded(jnp.full((B, steps), self.pad_id, jnp.int32)),
            sequences.token, sequences.position, sequences.done, sequences.kind,
        )  # fmt: skip

        def more(carry: tuple) -> jax.Array:
            step, segment = carry
            # To know that all are done, the chips have to wait for each other.
            going = jax.lax.cond(
                step % LOOK_EVERY == 0, lambda: ~jnp.all(segment.done), lambda: jnp.bool_(True)
            )
            return (step < steps) & (index + step < limit) & going

        def advance(carry: tuple) -> tuple:
            step, segment = carry

            def read(rows: Any) -> tuple[jax.Array, Any]:
                """Logits and buffers of these rows."""
                model = nnx.merge(self.graph, state)  # here: a loop's body is a trace of its own
                past, new = jax.tree.map(lambda x: x[rows], (sequences.past, segment.new))
                cache = {f"layer_{i}": {**past[i], **new[i]} for i in range(len(past))}
                token_R1, position_R1 = segment.token[rows, None], segment.position[rows, None]
                seen = Seen(sequences.seen[rows], step)
                hidden_R1D, cache = self._run(model, token_R1, position_R1, cache, seen)
                logits_RV = final_logits(model, model.embedder.decode(hidden_R1D[:, 0]), 1.0)
                return logits_RV, [cache[f"layer_{i}"] for i in range(len(past))]

            def drawn(logits_RV: jax.Array, *place_B: jax.Array) -> jax.Array:
                at = (key, sequences.row, index + step)
                return draw(logits_RV, *at, sampling, self.never, *place_B)

            def of_all() -> tuple[jax.Array, Any]:
                logits_BV, new = read(slice(None))
                return drawn(logits_BV), new

            def of_kinds() -> tuple[jax.Array, Any]:
                return step_of_kinds(kinds, alike, step, segment.new, read, drawn)

            kind_B = segment.kind
            if alike:
                kind_B = same_so_far(kind_B, segment.token)
                kinds = kinds_of(kind_B, segment.done)
                token_B, new = jax.lax.cond(kinds.count > B // 2, of_all, of_kinds)
            else:
                token_B, new = of_all()
            token_B = jnp.where(segment.done, self.pad_id, token_B)
            tokens_BS = jax.lax.dynamic_update_slice(segment.tokens, token_B[:, None], (0, step))
            done_B = segment.done | self._ends(token_B)
            position_B = segment.position + 1
            return step + 1, Segment(new, tokens_BS, token_B, position_B, done_B, kind_B)

        return jax.lax.while_loop(more, advance, (jnp.int32(0), fresh))[1]

    def _kept(self, x: jax.Array, rows_DR: jax.Array) -> jax.Array:
        """Of each shard's rows, those named; nothing crosses from shard to shard."""
        D, R = rows_DR.shape
        if x.shape[0] == D * R:
            return x
        parts = x.reshape(D, -1, *x.shape[1:])
        chosen = jax.vmap(lambda part, rows: part[rows])(parts, rows_DR)
        return self._sharded(chosen.reshape(D * R, *x.shape[1:]))

    def _longer(self, past: dict[str, jax.Array], new: dict[str, jax.Array], rows_DR: jax.Array,
                *, window: int | None) -> dict[str, jax.Array]:  # fmt: skip
        """The past of one layer with the segment behind it, no longer than the layer sees."""

        def joined(name: str) -> jax.Array:
            pieces = [self._kept(x, rows_DR) for x in (past[f"past_{name}"], new[name])]
            joined_BKLH = jnp.concatenate(pieces, axis=2)
            return joined_BKLH[:, :, -(window or joined_BKLH.shape[2]) :]

        return {f"past_{name}": joined(name) for name in ("key", "value")}

    def _others(self, sequences: Sequences, segment: Segment, rows_DR: jax.Array) -> tuple:
        steps = segment.tokens.shape[1]
        seen_BL = jnp.pad(sequences.seen, ((0, 0), (0, steps)), constant_values=True)
        arrays = (
            seen_BL, segment.token, segment.position, segment.done, sequences.row, segment.kind
        )  # fmt: skip
        return tuple(self._kept(x, rows_DR) for x in arrays)

    def join(self, sequences: Sequences, segment: Segment, rows_DR: jax.Array) -> Sequences:
        """The past with a full segment behind it, of the rows that each shard keeps.

        Layer by layer, and what has been joined is let go of at once: past and result together
        would not fit for Gemma 2 2B. Both arguments are used up.
        """
        past = [
            self.longer(sequences.past.pop(0), segment.new.pop(0), rows_DR, window=window)
            for window in self.windows
        ]
        return Sequences(past, *self.others(sequences._replace(past=[]), segment, rows_DR))
