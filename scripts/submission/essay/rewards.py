# %% [markdown]
# ### The rewards
#
# Named parts, each a pure function of one parsed completion, with their weights in one table
# (`Rewards` in the configuration); a fifth, `partly`, has no weight unless it is given one:
#
# | part | range | pays for |
# |---|---|---|
# | `in_format` | 0 or 1 | the gate: out of format, everything else is 0 |
# | `right` | 0 or 1 | the checker says that the answer is right |
# | `length` | 0 to 1 | a trace of ordinary length, and only if the answer is right |
# | `open` | 0 to 1 | on rows without a gold answer: the score of the parts above |
#
# The format is a *gate*: what does not pass it earns nothing at all, and passing it earns only
# a tenth. After the warm start nearly every completion passes, and what is left to earn is being
# right. Length pays only with a right answer, so that no style can make up for a wrong one.
#
# To the question *What is 6 times 7?* (gold answer 42):
#
# | part | passes | fails |
# |---|---|---|
# | `in_format` | `<reasoning>6*7</reasoning><answer>42</answer>` | the same, and one word more |
# | `right` | `<answer>42.0</answer>`, `<answer>forty-two</answer>` | `<answer>42 or 43</answer>` |
# | `length` | a trace within the band, and 42 | the same trace, and 43 |
#
# To *Name a use for an old jar*, the answer "Keep buttons in it, sorted by colour, on the window
# sill where the light falls through the glass." earns 0.22 for `open`, and "It depends on many
# factors." earns 0.

# %%
import collections
import concurrent.futures
import dataclasses
import json
import math
import os
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

# %% tags=["modules-only"]
from submission.bench.settings.limits import within
from submission.bench.answers.checkers import check
from submission.bench.settings.config import Rewards
from submission.bench.answers.open_answers import open_score
from submission.bench.answers.prompts import TAGS, Completion, Example, example_from_mapping, parse
from submission.bench.answers.texts import PLAIN, Vocabulary


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
    # Dots and dashes are no words.
    words = sum(any(map(str.isalnum, word)) for word in completion.reasoning.split())
    if words < weights.shortest:
        return words / weights.shortest
    return min(1.0, max(0.0, 1 - (words - weights.longest) / weights.slope))


def reward_partly(completion: Completion) -> float:
    """0 to 1: out of format, the share of the four tags that stand there exactly once.

    It has no weight unless the configuration gives it one (`partly`).

    >>> reward_partly(parse("<reasoning>6*7</reasoning> 42"))
    0.5
    >>> reward_partly(parse("<reasoning>6*7</reasoning><answer>42</answer>"))
    0.0
    """
    if completion.in_format:
        return 0.0
    return sum(completion.text.count(tag) == 1 for tag in TAGS) / len(TAGS)


# %% [markdown]
# **What a failure is.** A reward that cannot be computed (a child process that cannot be
# started, say) is not a wrong answer. The part counts as 0, because a part that paid could be
# broken on purpose; the failure is counted by name, shown in the metrics, and when more than a
# set share of a part's scorings have failed, the run stops. A scoring that does not come back in
# time is a failure too.


# %%
class RewardError(RuntimeError):
    """Too many scorings of a part have failed; the message names the part and the last error."""


@dataclasses.dataclass
class Tally:
    """Scorings and failures by part."""

    most: float  # share of failures that is still borne
    seconds: float = 60.0  # for one scoring
    tried: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    failed: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    grace: int = 20  # failures borne before the share counts
    lock: Any = dataclasses.field(default_factory=threading.Lock)

    def state(self) -> dict[str, dict[str, int]]:
        """What a save has to keep."""
        return {"tried": dict(self.tried), "failed": dict(self.failed)}

    def restore(self, state: Mapping[str, Mapping[str, int]]) -> None:
        """Goes on from a save."""
        self.tried = collections.Counter(state["tried"])
        self.failed = collections.Counter(state["failed"])

    def attempt(self, part: str, function: Callable[[], Any], otherwise: Any) -> Any:
        """`function()`; or `otherwise`, counted, if it raises or takes too long.

        Raises:
          RewardError: more than the share has failed.
        """
        with self.lock:
            self.tried[part] += 1
        try:
            value = within(self.seconds, function)
            if not np.all(np.isfinite(value)):
                raise ValueError(f"the value is {value}")
            return value
        except Exception as error:
            with self.lock:
                self.failed[part] += 1
                failed, tried = self.failed[part], self.tried[part]
            message = f"{type(error).__name__}: {error}"
            warnings.warn(f"The reward part {part!r} failed: {message}", stacklevel=2)
            if failed > self.grace and failed > self.most * tried:
                raise RewardError(
                    f"The reward part {part!r} has failed {failed} of {tried} times, more than "
                    f"{self.most:.0%}. The last error was {message}"
                ) from error
            return otherwise


# %% [markdown]
# The learner hands over whole batches: prompts and completions as lists of strings, and the
# fields of the rows as columns, one value per completion.


# %%
def as_texts(value: Any) -> tuple[str, ...]:
    """A list column: a list, JSON of one, or nothing.

    >>> as_texts('["18", "19"]'), as_texts(["18"]), as_texts(None), as_texts("")
    (('18', '19'), ('18',), (), ())
    """
    if isinstance(value, str):
        value = json.loads(value) if value.strip() else ()
    if value is None or isinstance(value, float):  # NaN: an empty cell of a table
        return ()
    return tuple(str(item) for item in value)


def examples_from_columns(count: int, columns: Mapping[str, Sequence[Any]]) -> list[Example]:
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
            if name in row:
                row[name] = as_texts(row[name])
        for name in ("question", "answer", "checker", "trace", "domain", "source"):
            if name in row:
                row[name] = "" if row[name] is None else str(row[name])
        rows.append(example_from_mapping(row, f"completion {i}"))
    return rows


# %% [markdown]
# Further parts can be switched on by a recipe. Each sees the whole batch, what the parts above
# have given, and what only a run knows; their weights are in `Rewards.extras`. The sum is
# divided by the weights' total, so that a reward stays between 0 and 1.


# %%
@dataclasses.dataclass
class Context:
    """What only a run knows; the stage that trains fills it in."""

    progress: float = 0.0  # share of the stage that is done
    vocabulary: Vocabulary = PLAIN
    gold_probability: Callable[..., Sequence[float]] | None = None


Parts = Mapping[str, Sequence[float]]
Part = Callable[[Sequence[Completion], Sequence[Example], Parts, Context], Sequence[float]]
EXTRA_PARTS: dict[str, Part] = {}  # by name; the chapter `more_rewards` fills it
# What a part needs of a run before the first step: (context, cluster, tokenizer, run) -> None.
EXTRA_SETUPS: dict[str, Callable[..., None]] = {}


def require_parts(weights: Rewards) -> None:
    """Are all parts here that the weights name?

    Raises:
      ValueError: names one that is not, and says how to get it.
    """
    for name in weights.extras:
        if name not in EXTRA_PARTS:
            raise ValueError(
                f"The reward part {name!r} is not in this notebook. It is in the notebook of a "
                "recipe that uses it: scripts/build_notebook.py --recipe NAME -o FILE."
            )


def check_all(completions: Sequence[Completion], examples: Sequence[Example], tally: Tally) -> list:
    """1.0 where the answer is right. Code runs in child processes, several at once."""

    def right(completion: Completion, example: Example) -> float:
        return tally.attempt("right", lambda: reward_right(completion, example), 0.0)

    values = [0.0] * len(completions)
    slow: dict[tuple, list[int]] = collections.defaultdict(list)
    for i, (completion, example) in enumerate(zip(completions, examples, strict=True)):
        if example.checker == "code" and completion.in_format:
            slow[completion.answer, example.tests].append(i)  # the same program runs once
        elif example.checker != "open":
            values[i] = right(completion, example)
    if slow:
        first = [places[0] for places in slow.values()]
        with concurrent.futures.ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
            done = pool.map(right, (completions[i] for i in first), (examples[i] for i in first))
            for places, value in zip(slow.values(), done, strict=True):
                for i in places:
                    values[i] = value
    return values


def score_batch(
    completions: Sequence[Completion],
    examples: Sequence[Example],
    weights: Rewards,
    context: Context,
    tally: Tally,
) -> dict[str, list[float]]:
    """The parts of the reward of every completion, by name, before weighting."""
    right = check_all(completions, examples, tally)
    parts = {
        "in_format": [reward_format(c) for c in completions],
        "right": right,
        "length": [r * reward_length(c, weights) for r, c in zip(right, completions, strict=True)],
        "open": [
            tally.attempt("open", lambda c=c, e=e: open_score(c, e, context.vocabulary), 0.0)
            if e.checker == "open"
            else 0.0
            for c, e in zip(completions, examples, strict=True)
        ],
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


def current_weights(weights: Rewards, progress: float) -> dict[str, float]:
    """The weights by part at a point of the stage, on a straight line to those in `late`.

    >>> current_weights(Rewards(late={"right": 0.6}), progress=0.5)["right"]
    0.7
    """
    now = {name: getattr(weights, name) for name in ("in_format", "right", "length", "open")}
    now |= {"partly": weights.partly, **weights.extras}
    share = min(1.0, max(0.0, progress))
    return {
        name: round((1 - share) * early + share * weights.late.get(name, early), 12)
        for name, early in now.items()
    }


def earned(parts: Mapping[str, Any], weights: Rewards, progress: float = 0.0) -> dict[str, Any]:
    """What each part gives: times its weight, over what could be earned at most.

    >>> earned({"in_format": 1.0, "right": 1.0, "length": 0.5}, Rewards())
    {'in_format': 0.1, 'right': 0.8, 'length': 0.05}
    """
    by_name = current_weights(weights, progress)
    most = by_name["in_format"] + max(by_name["right"] + by_name["length"], by_name["open"])
    most = max(1.0, most + sum(by_name[name] for name in weights.extras))
    return {name: by_name[name] * part / most for name, part in parts.items()}


def total(parts: Mapping[str, float], weights: Rewards, progress: float = 0.0) -> float:
    """The reward: the sum of what the parts give, in 0 to 1.

    Raises:
      ValueError: the sum is not a finite number. Tunix would count it as 0 without a word.
    """
    value = sum(earned(parts, weights, progress).values())
    if not math.isfinite(value):
        raise ValueError(f"The reward is {value}; its parts are {dict(parts)}.")
    return min(1.0, max(0.0, value))


class Scorer:
    """A reward function with the signature that Tunix's learner calls.

    It keeps the parts of its last batch, so that reward and metrics score every completion
    once.
    """

    __name__ = "score"  # Tunix names its metrics by it

    def __init__(self, weights: Rewards, context: Context | None = None) -> None:
        require_parts(weights)
        self.weights, self.context = weights, context or Context()
        self.tally = Tally(weights.most_failures, weights.seconds)
        self.last: tuple[Any, dict[str, list[float]]] = (None, {})
        self.seconds = 0.0  # of the last batch

    def parts(self, completions: Sequence[str], columns: Mapping[str, Any]) -> dict:
        """The parts of a batch, by name, before weighting."""
        texts = [str(text) for text in completions]
        examples = examples_from_columns(len(texts), columns)
        if self.last[0] != (texts, examples):
            start = time.monotonic()
            parsed = [parse(text) for text in texts]
            scored = score_batch(parsed, examples, self.weights, self.context, self.tally)
            self.last, self.seconds = ((texts, examples), scored), time.monotonic() - start
        return self.last[1]

    def __call__(
        self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]
    ) -> list[float]:
        """The reward of every completion, in [0, 1]."""
        parts = self.parts(completions, columns)
        return [
            total(
                {name: values[i] for name, values in parts.items()},
                self.weights,
                self.context.progress,
            )
            for i in range(len(completions))
        ]


def components(
    prompts: Sequence[str],
    completions: Sequence[str],
    weights: Rewards | None = None,
    **columns: Sequence[Any],
) -> dict[str, list[float]]:
    """The parts of the reward of every completion, by name, before weighting."""
    return Scorer(weights or Rewards()).parts(completions, columns)


def combined(
    prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]
) -> list[float]:
    """The reward with its default weights and length band: a list in [0, 1]."""
    return Scorer(Rewards())(prompts, completions, **columns)


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
