"""Scoring whole batches: failures counted, columns read, parts kept.

**What a failure is.** A reward that cannot be computed (a child process that cannot be started,
say) is not a wrong answer. The part counts as 0, because a part that paid could be broken on
purpose; the failure is counted by name, shown in the metrics, and when more than a set share of a
part's scorings have failed, the run stops. A scoring that does not come back in time is a failure
too.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import json
import os
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from submission.bench.answers.open_answers import UNSEEN, Reader, see_batch
from submission.bench.answers.prompts import Completion, Example, example_from_mapping, parse
from submission.bench.answers.texts import PLAIN, Vocabulary
from submission.bench.settings.config import Rewards, Run
from submission.bench.settings.limits import within


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


# The learner hands over whole batches: prompts and completions as lists of strings, and the
# fields of the rows as columns, one value per completion.


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


# Further parts can be switched on by a recipe. Each sees the whole batch, what the parts above
# have given, and what only a run knows; their weights are in `Rewards.extras`. The sum is
# divided by the weights' total, so that a reward stays between 0 and 1.


@dataclasses.dataclass
class Context:
    """What only a run knows; the stage that trains fills it in."""

    progress: float = 0.0  # share of the stage that is done
    vocabulary: Vocabulary = PLAIN
    encoder: Reader | None = None  # reads the meaning of open answers; without it, words count
    gold_probability: Callable[..., Sequence[float]] | None = None
    examples: Sequence[Example] = ()  # the rows of the stage


Parts = Mapping[str, Sequence[float]]
Part = Callable[[Sequence[Completion], Sequence[Example], Parts, Context], Sequence[float]]
EXTRA_PARTS: dict[str, Part] = {}  # by name; what a recipe or a reader adds
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
                f"There is no reward part {name!r} here. A recipe's own notebook has its parts: "
                "python scripts/build_notebook.py --recipe NAME -o FILE."
            )


def check_all(
    completions: Sequence[Completion],
    examples: Sequence[Example],
    is_right: Callable[[Completion, Example], float],
    tally: Tally,
) -> list[float]:
    """1.0 where the answer is right. Code runs in child processes, several at once."""

    def right(completion: Completion, example: Example) -> float:
        return tally.attempt("right", lambda: is_right(completion, example), 0.0)

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


def score_open(
    completions: Sequence[Completion],
    examples: Sequence[Example],
    score: Callable[..., float],
    context: Context,
    tally: Tally,
) -> list[float]:
    """The scores of the open rows, 0 elsewhere; what only the batch can tell is read once."""
    values = [0.0] * len(completions)
    rows = [i for i, example in enumerate(examples) if example.checker == "open"]
    if rows:
        batch = [completions[i] for i in rows], [examples[i] for i in rows]
        read = functools.partial(see_batch, *batch, context.encoder)
        alike = tally.attempt("meaning", read, [UNSEEN] * len(rows))
        for i, seen in zip(rows, alike, strict=True):
            one = functools.partial(score, completions[i], examples[i], context.vocabulary, seen)
            values[i] = tally.attempt("open", one, 0.0)
    return values


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


class BatchScorer:
    """A reward function with the signature that Tunix's learner calls.

    What a batch earns, by part, is the method `score`; the essay defines it.

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
            scored = self.score(parsed, examples, self.weights, self.context, self.tally)
            self.last, self.seconds = ((texts, examples), scored), time.monotonic() - start
        return self.last[1]

    def __call__(
        self, prompts: Sequence[str], completions: Sequence[str], **columns: Sequence[Any]
    ) -> list[float]:
        """The reward of every completion, in [0, 1]."""
        parts = self.parts(completions, columns)
        return [
            self.total(
                {name: values[i] for name, values in parts.items()},
                self.weights,
                self.context.progress,
            )
            for i in range(len(completions))
        ]


def fit_vocabulary(examples: Sequence[Example]) -> Vocabulary:
    """The words of all open rows of a run, weighted once; `PLAIN` where there are none."""
    texts = [f"{e.question}\n{e.answer}\n{e.trace}" for e in examples if e.checker == "open"]
    return Vocabulary.fit(texts) if texts else PLAIN


TRIAL = Example("What is 6 times 7?", "42", "number")  # tried before anything is trained
TRIAL_TEXTS = ["<reasoning>6 times 7 is 42.</reasoning><answer>42</answer>", "42", ""]


def with_rewards(run: Run, rewards: Mapping[str, tuple[float, Callable[..., Any]]]) -> Run:
    """The run with further parts of the reward, which pay in format only, like all others.

    Args:
      run: whose weights are added to.
      rewards: weight and function by name. A function has the signature that Tunix's learner
        calls, `f(prompts, completions, **columns)`, and gives a number in [0, 1] for each.

    Raises:
      ValueError: a name, a weight or a function is not sound; names the cell and the remedy.
    """
    extras, taken = dict(run.profile.rewards.extras), dataclasses.asdict(run.profile.rewards)
    for name, (weight, function) in rewards.items():
        where = f'{name!r}, in the cell "Change the reward"'
        if name in taken:
            raise ValueError(f"{where}: there is a part or setting of this name. Choose another.")
        if not 0 < weight <= 1:
            raise ValueError(f"{where}: the weight is {weight!r}. Choose one in (0, 1].")
        checked_values(where, function, TRIAL_TEXTS, [TRIAL] * len(TRIAL_TEXTS))

        def part(completions: Any, examples: Any, *_: Any, where: str = where,
                 function: Callable[..., Any] = function) -> list[float]:  # fmt: skip
            values = checked_values(where, function, [c.text for c in completions], examples)
            return [v if c.in_format else 0.0 for v, c in zip(values, completions, strict=True)]

        EXTRA_PARTS[name] = part
        extras[name] = weight
    weights = dataclasses.replace(run.profile.rewards, extras=extras)
    return dataclasses.replace(run, profile=dataclasses.replace(run.profile, rewards=weights))


def checked_values(
    where: str, function: Callable[..., Any], completions: list[str], examples: Sequence[Example]
) -> list[float]:
    """What a reader's reward gives for a batch.

    Raises:
      ValueError: it is not one finite number in [0, 1] for each completion.
    """
    columns = {
        key: [getattr(example, key) for example in examples] for key in Example.__dataclass_fields__
    }
    try:
        values = [float(value) for value in function(columns["question"], completions, **columns)]
    except Exception as error:
        raise ValueError(
            f"{where}: the function failed with {type(error).__name__}: {error}. It is called as "
            "f(prompts, completions, **columns) and returns a list of numbers."
        ) from error
    if len(values) != len(completions):
        raise ValueError(
            f"{where}: the function gave {len(values)} values for {len(completions)} completions. "
            "Return one for each."
        )
    if wrong := [value for value in values if not 0 <= value <= 1]:
        raise ValueError(f"{where}: the function gave {wrong[0]}. Keep its values in [0, 1].")
    return values
