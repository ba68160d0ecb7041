# %% [markdown]
# ### The rewards
#
# Three named parts, each a pure function of one parsed completion, with their weights in one
# table (`Rewards` in the configuration):
#
# | part | range | pays for |
# |---|---|---|
# | `in_format` | 0 or 1 | the gate: out of format, everything else is 0 |
# | `right` | 0 or 1 | the checker says that the answer is right |
# | `length` | 0 to 1 | a trace of ordinary length, and only if the answer is right |
#
# The format is a *gate*: what does not pass it earns nothing at all, and passing it earns only
# a tenth. After the warm start nearly every completion passes, and what is left to earn is being
# right. Length pays only with a right answer, so that no style can make up for a wrong one.

# %%
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

# %% tags=["modules-only"]
from submission.checkers import check
from submission.config import Rewards
from submission.prompts import Completion, Example, example_from_mapping, parse


# %%
def reward_format(completion: Completion) -> float:
    """0 or 1: strictly in format.

    >>> reward_format(parse("<reasoning>6*7</reasoning><answer>42</answer>"))
    1.0
    >>> reward_format(parse("<answer>42</answer>"))
    0.0
    """
    return float(completion.in_format)


def reward_right(completion: Completion, example: Example) -> float:
    """0 or 1: in format, and the answer passes the row's own checker.

    >>> row = Example("6 times 7?", "42", "number")
    >>> reward_right(parse("<reasoning>6*7</reasoning><answer>42</answer>"), row)
    1.0
    >>> reward_right(parse("<reasoning>6*7</reasoning><answer>43</answer>"), row)
    0.0
    """
    return float(completion.in_format and check(example, completion.answer) is True)


# %% [markdown]
# The length band is flat in the middle and falls on both sides, and the fall is clamped at
# 0. (A cosine without a clamp climbs again past its period: the longest trace of all would
# be paid like a short one.)


# %%
def reward_length(completion: Completion, weights: Rewards) -> float:
    """0 to 1: 1 within the band, falling linearly to 0 on both sides; words of the trace.

    >>> band = Rewards(shortest=2, longest=4, slope=4)
    >>> [reward_length(Completion("", True, "word " * n, "x"), band) for n in (1, 3, 5, 6, 99)]
    [0.5, 1.0, 0.75, 0.5, 0.0]
    """
    if not completion.in_format:
        return 0.0
    words = len(completion.reasoning.split())
    if words < weights.shortest:
        return words / weights.shortest
    return min(1.0, max(0.0, 1 - (words - weights.longest) / weights.slope))


def score(completion: Completion, example: Example, weights: Rewards) -> dict[str, float]:
    """The parts of the reward, by name, before weighting."""
    right = reward_right(completion, example)
    return {
        "in_format": reward_format(completion),
        "right": right,
        "length": right * reward_length(completion, weights),
    }


def total(parts: dict[str, float], weights: Rewards) -> float:
    """The weighted sum, in 0 to 1.

    Raises:
      ValueError: the sum is not a finite number. Tunix would count it as 0 without a word.
    """
    value = sum(getattr(weights, name) * part for name, part in parts.items())
    if not math.isfinite(value):
        raise ValueError(f"The reward is {value}; its parts are {parts}.")
    return value


# %% [markdown]
# The learner hands over whole batches: prompts and completions as lists of strings, and the
# fields of the rows as columns, one value per completion.


# %%
def examples_from_columns(count: int, columns: dict[str, Sequence[Any]]) -> list[Example]:
    """The rows behind a batch; `choices` and `tests` may be lists or JSON.

    Raises:
      ValueError: a column has another length than the batch, or a field is missing.
    """
    names = [name for name in Example.__dataclass_fields__ if name in columns]
    for name in names:
        if len(columns[name]) != count:
            raise ValueError(
                f"Column {name!r} has {len(columns[name])} values for {count} completions."
            )
    rows = []
    for i in range(count):
        row = {"domain": "other", "source": "", "question": ""}
        row |= {name: columns[name][i] for name in names}
        for name in ("choices", "tests"):
            if isinstance(row.get(name), str):
                row[name] = json.loads(row[name])
        row |= {name: str(row[name]) for name in ("answer", "checker") if name in row}
        rows.append(example_from_mapping(row, f"completion {i}"))
    return rows


def components(
    prompts: Sequence[str],
    completions: Sequence[str],
    weights: Rewards | None = None,
    **columns: Sequence[Any],
) -> dict[str, list[float]]:
    """The parts of the reward of every completion, by name, before weighting."""
    examples = examples_from_columns(len(completions), columns)
    scored = [
        score(parse(completion), example, weights or Rewards())
        for completion, example in zip(completions, examples, strict=True)
    ]
    return {name: [parts[name] for parts in scored] for name in ("in_format", "right", "length")}


def reward_function(weights: Rewards) -> Callable[..., list[float]]:
    """A reward function with the signature that Tunix's learner calls."""

    def reward(
        prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]
    ) -> list[float]:
        parts = components(prompts, completions, weights, **columns)
        return [
            total({name: values[i] for name, values in parts.items()}, weights)
            for i in range(len(completions))
        ]

    return reward


combined = reward_function(Rewards())
combined.__doc__ = "The reward with its default weights and length band: a list in [0, 1]."

# %%
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
