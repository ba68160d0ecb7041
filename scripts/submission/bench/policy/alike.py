"""Equal beginnings are read once.

The completions of a group begin alike, and those of a policy that is sure stay alike for long: of
eight of Gemma 3 270M after its warm start two are different in the end. A decode step reads one
row of each kind, some rows at a time, and each of its kind draws from the same logits with noise of
its own. What is drawn is what would have been.

Where a step's time goes with its rows, as on a CPU, that saves most of it, unless most rows differ.
Where a step has to read all weights, however many rows there are, as on a TPU, it saves nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


def same_so_far(kind_B: jax.Array, token_B: jax.Array) -> jax.Array:
    """The kinds of rows after one more token: rows are alike that were, and drew the same.

    A kind is the number of its first row.

    >>> same_so_far(jnp.array([0, 0, 0, 3]), jnp.array([7, 8, 7, 7])).tolist()
    [0, 1, 0, 3]
    """
    alike_BB = (kind_B[:, None] == kind_B) & (token_B[:, None] == token_B)
    return jnp.argmax(alike_BB, axis=1).astype(jnp.int32)


class Kinds(NamedTuple):
    """Which rows are read, and for whom."""

    read: jax.Array  # B: numbers of rows; the first of each kind come first
    count: jax.Array  # how many kinds there are
    place: jax.Array  # B: of each row's kind, among them


def kinds_of(kind_B: jax.Array, done_B: jax.Array) -> Kinds:
    """The kinds, as above, among the rows that are not done.

    >>> done = jnp.array([True, True, False, False])
    >>> read, count, place = kinds_of(jnp.array([0, 0, 2, 2]), done)
    >>> read[:1].tolist(), int(count), place[2:].tolist()
    ([2], 1, [0, 0])
    """
    is_read_B = (kind_B == jnp.arange(len(kind_B))) & ~done_B
    place_B = jnp.cumsum(is_read_B) - 1
    return Kinds(jnp.argsort(~is_read_B), is_read_B.sum(), place_B[kind_B])


def step_of_kinds(
    kinds: Kinds,
    rows: int,
    step: jax.Array,
    new: Any,
    read: Callable[[jax.Array], tuple[jax.Array, Any]],
    drawn: Callable[[jax.Array, jax.Array], jax.Array],
) -> tuple[jax.Array, Any]:
    """One decode step of all rows: the tokens drawn_B, and the buffers with their keys and values.

    Args:
      kinds: of the rows.
      rows: so many are read at a time.
      step: where in the buffers the new keys and values stand.
      new: the buffers of all rows, arrays_BKSH.
      read: of some numbers of rows, their logits and buffers.
      drawn: tokens_B, where each row's logits are those at its place.
    """
    rows = min(rows, len(kinds.read))
    read_B = jnp.pad(kinds.read, (0, -len(kinds.read) % rows))

    def part(number: jax.Array, carry: tuple) -> tuple:
        token_B, new = carry
        logits_RV, of_read = read(jax.lax.dynamic_slice_in_dim(read_B, number * rows, rows))
        is_here_B, at_B = kinds.place // rows == number, kinds.place % rows

        def shared(all_BKSH: jax.Array, some_RKSH: jax.Array) -> jax.Array:
            old_BK1H = jax.lax.dynamic_slice_in_dim(all_BKSH, step, 1, axis=2)
            new_BK1H = jax.lax.dynamic_slice_in_dim(some_RKSH, step, 1, axis=2)[at_B]
            at_step = jnp.where(is_here_B[:, None, None, None], new_BK1H, old_BK1H)
            return jax.lax.dynamic_update_slice_in_dim(all_BKSH, at_step, step, axis=2)

        token_B = jnp.where(is_here_B, drawn(logits_RV, at_B), token_B)
        return token_B, jax.tree.map(shared, new, of_read)

    nothing = (jnp.zeros(len(kinds.read), jnp.int32), new)
    return jax.lax.fori_loop(0, -(-kinds.count // rows), part, nothing)
