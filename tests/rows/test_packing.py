import itertools
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunix.sft import utils as sft_utils

from conftest import small_gemma_2
from submission.bench.policy import losses, model
from submission.bench.rows import data, packing
from submission.bench.rows.data import Tokens
from submission.essay import profiles

PAD = 0


def examples_of(sizes):
    """Examples of these sizes with tokens that tell them apart; a third is prompt."""
    rng = random.Random(0)
    for size in sizes:
        tokens = [rng.randrange(4, 640) for _ in range(size)]
        yield Tokens(tokens[: 1 + size // 3], tokens[1 + size // 3 :])


def unpacked(batch):
    """The examples of a batch of packed rows, row by row."""
    for tokens_T, counts_T, segments_T in zip(*batch, strict=True):
        for segment in range(1, segments_T.max() + 1):
            here = segments_T == segment
            target = tokens_T[here & counts_T].tolist()
            yield Tokens(tokens_T[here & ~counts_T].tolist(), target)


def glaive_sizes(count, characters_per_token=4.3, prompt=60, seed=0):
    """Sizes in tokens of the rows of glaive that our filter keeps.

    Characters are log-normal, to the published percentiles (1 %: 4.0k, 5 %: 4.9k, median 7.1k,
    95 %: 10.4k). What a token and a prompt are worth is assumed, and varied below.
    """
    rng, kept, limits = np.random.default_rng(seed), [], profiles.KAGGLE.lengths
    while len(kept) < count:
        tokens = 7100 * np.exp(0.235 * rng.standard_normal(100_000)) / characters_per_token
        prompts = prompt * np.exp(0.6 * rng.standard_normal(100_000)) + 8
        targets = tokens - prompts
        fits = (prompts <= limits.prompt) & (targets <= limits.completion) & (targets > 50)
        kept += tokens[fits].astype(int).tolist()
    return kept[:count]


# --- What is packed ---------------------------------------------------------------------------

SIZES = st.lists(st.integers(2, 40), min_size=1, max_size=300)


@settings(max_examples=50, deadline=None)
@given(SIZES)
def test_no_example_is_lost_repeated_or_cut(sizes):
    examples = list(examples_of(sizes))
    rows = list(packing.fill_rows(examples, 40))
    out = [(tuple(x.prompt), tuple(x.target)) for row in rows for x in row]
    assert sorted(out) == sorted((tuple(x.prompt), tuple(x.target)) for x in examples)
    assert all(sum(len(x.prompt) + len(x.target) for x in row) <= 40 for row in rows)


@settings(max_examples=50, deadline=None)
@given(SIZES)
def test_no_example_waits_for_more_rows_than_there_were_examples_before_it(sizes):
    """The one that has waited longest goes first: the order is nearly kept."""
    examples = list(examples_of(sizes))
    number = {id(example): i for i, example in enumerate(examples)}
    for index, row in enumerate(packing.fill_rows(examples, 40)):
        assert all(index <= number[id(example)] for example in row)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=9))
def test_a_row_is_filled_as_well_as_it_can_be(sizes):
    chosen = packing.best_fill(sizes, 30)
    room = 30 - sizes[0]
    sums = (
        sum(some)
        for count in range(len(sizes))
        for some in itertools.combinations(sizes[1:], count)
    )
    assert chosen[0] == 0
    assert sum(sizes[i] for i in chosen) - sizes[0] == max(s for s in sums if s <= room)


def test_batches_hold_the_examples_and_their_targets():
    examples = list(examples_of([10, 20, 5, 30, 7, 7, 25] * 9))
    batches = list(packing.packed_batches(examples, rows=3, length=32, pad_id=PAD))
    out = [example for batch in batches for example in unpacked(batch)]
    known = {tuple(x.prompt + x.target): x for x in examples}
    assert len(out) > len(examples) * 0.8  # what would not fill a batch is left
    for example in out:
        assert known[tuple(example.prompt + example.target)] == example
    for batch in batches:
        assert all(x.shape == (3, 32) for x in batch)
        assert (batch.tokens[batch.segments == 0] == PAD).all()
        assert not batch.counts[batch.segments == 0].any()


def test_the_first_token_of_an_example_is_never_a_target():
    """It would be predicted from the last token of the example before it."""
    for batch in packing.packed_batches(examples_of([9, 4, 12] * 20), 2, 32, PAD):
        starts = np.diff(batch.segments, axis=1, prepend=-1) != 0
        assert not (batch.counts & starts).any()


def test_batches_follow_from_the_stream_alone():
    """So a run that starts again finds its place by counting batches."""

    def batches():
        stream = examples_of(glaive_sizes(400))
        return list(packing.packed_batches(stream, 4, 2560, PAD))

    for one, other in zip(batches(), batches(), strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_reading_ahead_is_bounded():
    read = 0

    def stream():
        nonlocal read
        for example in examples_of([20] * 1000):
            read += 1
            yield example

    rows = packing.fill_rows(stream(), 40)
    for index in range(1, 20):
        next(rows)
        assert read <= packing.WAITING + 2 * index


def test_an_example_longer_than_a_row_is_an_error():
    with pytest.raises(ValueError, match="An example of 41 tokens does not fit the length 40"):
        list(packing.fill_rows(examples_of([5, 41]), 40))


# --- How many slots are used ------------------------------------------------------------------


def test_the_bundled_rows_use_95_percent_of_the_slots(rows, tokenizer):
    settings = profiles.TINY.sft
    stream = data.mixed_forever(rows["sft"], seed=0)
    tokens = (data.tokenize(tokenizer, example) for example in stream)
    batches = packing.packed_batches(tokens, settings.rows, settings.length, PAD)
    used = [batch.segments for batch in itertools.islice(batches, settings.steps)]
    assert np.mean(np.array(used) > 0) >= 0.95
    per_update = np.mean([x.max(axis=1).sum() for x in used])
    assert 11 <= per_update <= 13  # examples


@pytest.mark.parametrize(
    ("characters_per_token", "prompt"), [(4.3, 60), (3.8, 150), (4.3, 30), (5.0, 60), (5.5, 60)]
)
def test_rows_like_glaives_use_95_percent_of_the_slots(characters_per_token, prompt):
    sizes = glaive_sizes(5000, characters_per_token, prompt)
    settings = profiles.KAGGLE.sft
    length = packing.row_length(sizes[:2000], settings.shortest, settings.length)
    assert packing.used_share(sizes[2000:], length) >= 0.95


def test_a_fixed_length_of_2048_would_waste_a_sixth_on_rows_like_glaives():
    """Two of them fit, and leave 400 tokens over. Hence the choice of the length."""
    assert packing.used_share(glaive_sizes(3000), 2048) < 5 / 6


def test_the_shortest_good_length_is_chosen():
    sizes = [500] * 100
    assert packing.row_length(sizes, 512, 2048) == 512  # 98 %
    assert packing.row_length(sizes, 640, 2048) == 1024
    assert packing.row_length(sizes, 640, 896) == 640  # none is good: the best
    assert packing.row_length([], 144, 144) == 144  # no choice, nothing to look at


# --- What the model sees ----------------------------------------------------------------------


def test_positions_restart_and_attention_stays_inside_an_example():
    segments_BT = jnp.array([[1, 1, 1, 2, 2, 3, 0, 0]])
    assert packing.segment_positions(segments_BT).tolist() == [[0, 1, 2, 0, 1, 0, 0, 1]]
    mask_TS = packing.segment_mask(segments_BT)[0]
    for t, s in itertools.product(range(8), repeat=2):
        inside = segments_BT[0, t] == segments_BT[0, s]
        assert bool(mask_TS[t, s]) == (bool(inside) and s <= t)


def token_losses(policy, inputs):
    """-log p of each token that counts, in order."""
    hidden_BTD = losses.last_hidden_states(
        policy, inputs["input_tokens"], inputs["positions"], inputs["attention_mask"]
    )
    targets_BT = inputs["input_tokens"][:, 1:]
    counts_BT = inputs["input_mask"][:, 1:].astype(bool)
    logps_BT, _ = losses.token_log_probs(
        policy, hidden_BTD[:, :-1], targets_BT, counts_BT, chunk=64
    )
    return -np.asarray(logps_BT)[np.asarray(counts_BT)]


def stock_inputs(example, length):
    """One example in a row of its own, with Tunix's positions and mask."""
    tokens_T = np.full(length, PAD, np.int32)
    tokens_T[: len(example.prompt) + len(example.target)] = example.prompt + example.target
    is_token_BT = jnp.array(tokens_T[None] != PAD)
    return {
        "input_tokens": jnp.array(tokens_T[None]),
        "input_mask": is_token_BT & (jnp.arange(length) >= len(example.prompt)),
        "positions": sft_utils.build_positions_from_mask(is_token_BT),
        "attention_mask": sft_utils.make_causal_attn_mask(is_token_BT),
    }


@pytest.mark.parametrize("family", ["gemma3", pytest.param("gemma2", marks=pytest.mark.slow)])
def test_the_loss_of_each_packed_token_is_that_of_its_example_alone(family, make_policy, mesh):
    """In Gemma 3 also where a row is longer than the window of local attention, here 64."""
    policy = make_policy() if family == "gemma3" else small_gemma_2(mesh, sliding_window_size=96)
    length = 144 if family == "gemma3" else 96
    stream = examples_of([30, 50, 70, 20, 48, 26, 22] * 10)
    batch = next(packing.packed_batches(stream, rows=2, length=length, pad_id=PAD))
    assert batch.segments.max(axis=1).min() > 1
    packed = token_losses(policy, packing.packed_model_input(jax.tree.map(jnp.array, batch)))
    alone = [token_losses(policy, stock_inputs(x, length)) for x in unpacked(batch)]
    np.testing.assert_allclose(packed, np.concatenate(alone), atol=1e-5, rtol=0)


def test_a_row_longer_than_gemma_2s_window_would_be_wrong_and_is_refused(mesh):
    policy = small_gemma_2(mesh, sliding_window_size=32)
    batch = next(packing.packed_batches(examples_of([30, 30, 30]), 1, 96, PAD))
    packed = token_losses(policy, packing.packed_model_input(jax.tree.map(jnp.array, batch)))
    alone = [token_losses(policy, stock_inputs(x, 96)) for x in unpacked(batch)]
    assert np.abs(packed - np.concatenate(alone)).max() > 1e-3
    with pytest.raises(ValueError, match=r"96 tokens .* window of 32.*sft\.length"):
        model.require_window(policy, 96)
    model.require_window(policy, 32)
