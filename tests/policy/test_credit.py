"""A token's advantage is what it changes in the mean of the completions that begin alike."""

import numpy as np
import pytest

from submission.bench.policy.credit import where_completions_part

GENERATIONS, LENGTH = 6, 9


def drawn(seed):
    """Groups of completions over two pieces, so that many begin alike; advantages of mean 0."""
    rng = np.random.default_rng(seed)
    tokens_BC = rng.integers(1, 3, (4 * GENERATIONS, LENGTH))
    lengths_B = rng.integers(1, LENGTH + 1, len(tokens_BC))
    tokens_BC[np.arange(LENGTH) >= lengths_B[:, None]] = 0
    advantages_PG = rng.normal(size=(4, GENERATIONS))
    return (advantages_PG - advantages_PG.mean(axis=1, keepdims=True)).reshape(-1), tokens_BC


def by_dictionary(advantages, rows):
    """The same for one group, by looking each beginning up."""

    def worth(beginning):
        alike = zip(advantages, rows, strict=True)
        return np.mean([a for a, row in alike if tuple(row[: len(beginning)]) == beginning])

    return [
        [worth(tuple(row[: t + 1])) - worth(tuple(row[:t])) for t in range(len(row))]
        for row in rows
    ]


@pytest.mark.parametrize("seed", range(5))
def test_each_beginning_is_worth_the_mean_of_those_that_have_it(seed):
    advantages_B, tokens_BC = drawn(seed)
    found = where_completions_part(advantages_B, tokens_BC, GENERATIONS)
    for group in np.split(np.arange(len(tokens_BC)), 4):
        wanted = by_dictionary(advantages_B[group], tokens_BC[group].tolist())
        np.testing.assert_allclose(found[group], wanted, atol=1e-6)


def test_the_tokens_of_a_completion_add_up_to_the_mean_of_those_that_are_the_same():
    advantages_B, tokens_BC = drawn(5)
    found = where_completions_part(advantages_B, tokens_BC, GENERATIONS).sum(axis=1)
    for i, row in enumerate(tokens_BC):
        group = np.arange(len(tokens_BC)) // GENERATIONS == i // GENERATIONS
        same = group & (tokens_BC == row).all(axis=1)
        assert found[i] == pytest.approx(advantages_B[same].mean(), abs=1e-6)


def test_nothing_is_learned_where_all_go_on_together_or_where_nobody_can_be_compared_with():
    tokens_BC = np.array([[3, 4, 5, 6], [3, 4, 5, 7], [3, 8, 5, 6]])
    found = where_completions_part([1.0, 0.5, -1.5], tokens_BC, 3)
    assert (found != 0).tolist() == [
        [False, True, False, True],
        [False, True, False, True],
        [False, True, False, False],
    ]


def test_flat_groups_have_no_credit_at_all():
    _, tokens_BC = drawn(6)
    assert not where_completions_part(np.zeros(len(tokens_BC)), tokens_BC, GENERATIONS).any()
