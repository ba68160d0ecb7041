"""Packing.

A batch of padded examples is as long as the longest of them; what the others leave over is
computed and thrown away. So several examples share a row. Each sees itself alone, through a
block-diagonal attention mask, and counts its positions from zero: to the model it is as if it
had a row of its own.

A row takes the example that has waited longest, and then, of those that wait behind it, the
ones that fill it best. Which sums of lengths can be reached is one integer, a bit for each sum;
adding an example is a shift and an "or". With 64 waiting, the bundled rows, of 53 tokens on
average, use 99.9 % of the slots of rows of 144. No example is cut, none is lost, and nothing is
drawn: the rows follow from the stream alone.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from submission.bench.policy.hosts import gather, my_share
from submission.bench.rows.data import Tokens

WAITING = 64  # examples looked at for each row: how far the order of the stream can be changed


class PackedRows(NamedTuple):
    """Rows of several examples, as they travel to the device."""

    tokens: np.ndarray | jax.Array  # BT
    counts: np.ndarray | jax.Array  # BT, bool: the loss covers targets, their EOS included
    segments: np.ndarray | jax.Array  # BT: 1, 2, … for the examples of a row; 0 is padding


def best_fill(sizes: Sequence[int], length: int) -> list[int]:
    """Indices of the first size and of those others that best fill what it leaves of `length`.

    >>> best_fill([5, 4, 3, 2], length=10), best_fill([5, 9, 4], length=10)
    ([0, 2, 3], [0, 2])
    """
    room = length - sizes[0]
    reachable = [1]  # bit s: some of the sizes looked at so far add up to s
    for size in sizes[1:]:
        sums = reachable[-1]
        reachable.append(sums | (sums << size & (2 << room) - 1))
    total = reachable[-1].bit_length() - 1
    chosen = []
    for index in reversed(range(1, len(sizes))):
        if not reachable[index - 1] >> total & 1:  # not without this one
            chosen.append(index)
            total -= sizes[index]
    return [0, *reversed(chosen)]


def fill_rows(examples: Iterable[Tokens], length: int) -> Iterator[list[Tokens]]:
    """Rows of whole examples; the last ones of a finite stream too.

    Raises:
      ValueError: an example is longer than `length`; cutting it would lose its closing tag.
    """
    stream, waiting = iter(examples), []
    while True:
        waiting += itertools.islice(stream, WAITING - len(waiting))
        if not waiting:
            return
        sizes = [example.size for example in waiting]
        if max(sizes) > length:
            raise ValueError(f"An example of {max(sizes)} tokens does not fit the length {length}.")
        chosen = best_fill(sizes, length)
        yield [waiting[index] for index in chosen]
        waiting = [x for index, x in enumerate(waiting) if index not in chosen]


def packed_batches(
    examples: Iterable[Tokens], rows: int, length: int, pad_id: int
) -> Iterator[PackedRows]:
    """Batches of `rows` packed rows of `length` tokens; of several hosts, this one's share.

    Full batches only: shapes never change.
    """
    packed = fill_rows(examples, length)
    while len(batch := list(itertools.islice(packed, rows))) == rows:
        batch = my_share(batch)
        tokens_BT = np.full((len(batch), length), pad_id, np.int32)
        counts_BT = np.zeros((len(batch), length), bool)
        segments_BT = np.zeros((len(batch), length), np.int32)
        for row, contents in enumerate(batch):
            start = 0
            for segment, example in enumerate(contents, start=1):
                target = start + len(example.prompt)
                end = target + len(example.target)
                tokens_BT[row, start:end] = example.prompt + example.target
                counts_BT[row, target:end] = True
                segments_BT[row, start:end] = segment
                start = end
        yield PackedRows(tokens_BT, counts_BT, segments_BT)


def tokens_of(batch: PackedRows) -> int:
    """How many slots of a batch hold a token; of several hosts, in the parts of all."""
    return sum(gather(int((batch.segments > 0).sum()), "the tokens of a batch"))


# **On the device.** Positions and mask follow from the segments. The mask of 64 rows of 2,048
# tokens is 268 MB: it is made inside the compiled step, not shipped to it.


def segment_positions(segments_BT: jax.Array) -> jax.Array:
    """Positions_BT that restart with each segment.

    >>> segment_positions(jnp.array([[1, 1, 1, 2, 2, 0]])).tolist()
    [[0, 1, 2, 0, 1, 0]]
    """
    index_T = jnp.arange(segments_BT.shape[1])
    is_start_BT = jnp.diff(segments_BT, axis=1, prepend=-1) != 0
    return index_T - jax.lax.cummax(jnp.where(is_start_BT, index_T, 0), axis=1)


def segment_mask(segments_BT: jax.Array) -> jax.Array:
    """Mask_BTS: each position sees itself and what went before it in its own segment."""
    same_BTS = segments_BT[:, :, None] == segments_BT[:, None, :]
    return jnp.tril(same_BTS)


def packed_model_input(batch: PackedRows) -> dict[str, jax.Array]:
    """What Tunix's loss takes, and ours. Tunix calls this inside the compiled step."""
    return {
        "input_tokens": batch.tokens,
        "input_mask": batch.counts,
        "positions": segment_positions(batch.segments),
        "attention_mask": segment_mask(batch.segments),
    }


# **The length of a row.** Examples of nearly equal size leave much over. If lengths are distributed
# as we take glaive's to be (a guess, with a long tail), most rows that fit our limits have 700 to
# 950 tokens: two to a row of 2,048, of whose slots 82 % would be used. So the length is chosen from
# the examples: the shortest at which the first of them use 96 % (attention costs more in longer
# rows).


GOOD_USE = 0.96
LENGTH_STEP = 128  # lengths to choose from are multiples of this, as TPUs like them


def used_share(sizes: Sequence[int], length: int) -> float:
    """The share of slots that examples of these sizes use, packed into rows of `length`.

    >>> used_share([6, 3] * 10, length=10)
    0.9
    """
    rows = list(fill_rows((Tokens([0] * size, []) for size in sizes), length))
    full = rows[:-1] or rows  # the last row is short because the stream ends
    return sum(len(x.prompt) for row in full for x in row) / (length * len(full))


def row_length(sizes: Sequence[int], shortest: int, longest: int) -> int:
    """The shortest length in which examples of these sizes use `GOOD_USE`, or else the best.

    Args:
      sizes: of the first examples of the stream, in tokens.
      shortest: of the lengths to choose from, in tokens.
      longest: of the lengths to choose from, in tokens.
    """
    lengths = range(min(shortest, longest), longest + 1, LENGTH_STEP)
    if len(lengths) == 1:
        return lengths[0]
    shares = {length: used_share(sizes, length) for length in lengths}
    good = [length for length, share in shares.items() if share >= GOOD_USE]
    return min(good, default=max(shares, key=shares.__getitem__))


def updates_of(passes: float, examples: int, sizes: Sequence[int], rows: int, length: int) -> int:
    """Updates in which so many examples pass so often.

    Args:
      passes: through all examples.
      examples: how many there are.
      sizes: of some of them, in tokens, which stand for all.
      rows: of an update.
      length: of a row, in tokens.

    >>> updates_of(4, 1000, [5] * 100, rows=10, length=20)
    100
    """
    slots = rows * length * used_share(sizes, length)
    return math.ceil(passes * examples * float(np.mean(sizes)) / slots)


def rows_per_update(rows: int, shortest: int, length: int, devices: int) -> int:
    """Rows of this length with about as many tokens as `rows` of the shortest.

    As many for each device, unless `rows` are fewer than the devices: then each has all of them.

    >>> [rows_per_update(64, 2048, length, devices=8) for length in (2048, 3072)]
    [64, 40]
    >>> rows_per_update(64, 2048, 3072, devices=64), rows_per_update(6, 144, 144, devices=8)
    (64, 6)
    """
    count = rows * shortest // length
    return count - count % devices or min(rows, devices)
