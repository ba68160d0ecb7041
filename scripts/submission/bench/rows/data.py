"""Which rows are used.

Rows of any source become `Example`s, and here it is decided which of them are used. The
bundled ones, of the `tiny` profile, are made by
`scripts/tasks.py`: sums, stories, comparisons, yes/no questions, choices, sorting and
words. Their traces come in three styles: 30 % are bare guesses ("I think it is 42."), 45 %
give one equation a step ("17+25=42."), 25 % work digit by digit ("17+25: 7+5=12, 1+2+1=4,
so 42."). The `kaggle` profile takes of glaive's traces those that fit, whole.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import math
import os
import random
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from submission.bench.answers.checkers import check
from submission.bench.answers.prompts import (
    TAGS,
    TURN_END,
    TURN_START,
    Example,
    render_prompt,
    render_target,
)
from submission.bench.policy.hosts import gather, host_count, this_host
from submission.bench.rows.hub import SourceDown
from submission.bench.rows.mixture import Decontaminator, mixture_shares, question_key
from submission.bench.rows.reading import is_there, read_source
from submission.bench.settings.config import CHECK_SECONDS, Lengths, MixtureShares, Source
from submission.bench.settings.limits import within

# **Tokens.** One function turns an example into tokens, and it is the only place where BOS
# and EOS are added. The loss covers the target alone: the prompt is masked. The target ends
# with the tokenizer's eos *directly* after `</answer>`, because that, not Gemma's
# `<end_of_turn>`, is where the judges' sampler stops.


@dataclasses.dataclass(frozen=True)
class Tokens:
    """An example in tokens: the prompt with its BOS, the target with its EOS."""

    prompt: list[int]
    target: list[int]

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.prompt) + len(self.target)


def tokenize(tokenizer: Any, example: Example) -> Tokens:
    """The tokens that SFT trains on; the sampler makes the same of `render_prompt`."""
    prompt = [tokenizer.bos_id(), *tokenizer.encode(render_prompt(example.question))]
    return Tokens(prompt, [*tokenizer.encode(render_target(example)), tokenizer.eos_id()])


class LaterTokens:
    """An example in tokens, whose number is known and which are made when they are asked for."""

    def __init__(self, size: int, make: Callable[[], Tokens]) -> None:
        self.size, self._make = size, make

    @functools.cached_property
    def _made(self) -> Tokens:
        return self._make()

    prompt = property(lambda self: self._made.prompt)
    target = property(lambda self: self._made.target)


# **Which rows are used.** A row must fit the token limits *whole*: a target that is cut loses
# its closing tag, and then SFT teaches not to close it. So rows are counted by the real
# tokenizer and dropped, never cut. Of glaive's rows one to five in a hundred fit 1,024 tokens,
# so most must be told apart before they are tokenized: what has more than six characters for
# each token allowed is dropped unseen (English has four to five a token). Nothing in a row may
# read as Gemma's turn marks or our tags. And the gold answer must pass the row's own checker,
# which for code means that the reference program is run on the row's tests.


CHARACTERS_PER_TOKEN = 6


def gold_fault(example: Example) -> str:
    """What is wrong with the gold answer; empty if it earns full marks through its own checker.

    Code without a reference program passes if its tests can be read. Open answers have nothing
    to check.

    >>> gold_fault(Example("6*7?", "42", "number")), gold_fault(Example("6*7?", "many", "number"))
    ('', 'gold answer cannot be read')
    """
    if example.checker == "open":
        return ""
    try:
        right = within(CHECK_SECONDS, lambda: check(example, example.answer))
    except (RuntimeError, TimeoutError):
        return "gold answer could not be checked"
    if right is None:
        return "gold answer cannot be read"
    without_program = example.checker == "code" and not example.answer
    return "" if right or without_program else "gold answer fails its own checker"


def misfit(tokenizer: Any, example: Example, lengths: Lengths, needs_trace: bool) -> str:
    """Why a row does not fit, whatever its gold answer is worth; empty if it fits."""
    target = example.trace + example.answer
    if any(mark in example.question + target for mark in (*TAGS, TURN_START, TURN_END)):
        return "contains a tag"
    if needs_trace and not example.trace:
        return "has no trace"
    if len(example.question) > CHARACTERS_PER_TOKEN * lengths.prompt:
        return f"prompt over {CHARACTERS_PER_TOKEN * lengths.prompt:,} characters"
    if needs_trace and len(target) > CHARACTERS_PER_TOKEN * lengths.completion:
        return f"target over {CHARACTERS_PER_TOKEN * lengths.completion:,} characters"
    if 1 + len(tokenizer.encode(render_prompt(example.question))) > lengths.prompt:  # with BOS
        return f"prompt over {lengths.prompt:,} tokens"
    if needs_trace and len(tokenize(tokenizer, example).target) > lengths.completion:
        return f"target over {lengths.completion:,} tokens"
    return ""


# **From sources to a mixture.** Each source is read until its rows end, or enough are usable,
# or its minutes are over; then the run goes on with what there is. A source that stays down is
# left out with a warning, and the shares are those of the others; if too little of the weight
# remains, the run stops. What was dropped is printed, and why.


EARLY_LOOK = 20_000  # rows after which a source must have kept its minimum share
SCANNERS = 4  # threads that read ahead from a large source
FEW = 500  # rows, of sources that all broke off: others are added to fewer
AHEAD = 32  # code rows whose reference programs may be waiting to be run


def source_label(source: Source) -> str:
    """The name of a source in the mixture.

    >>> source_label(Source("arc", "allenai/ai2_arc", subset="ARC-Easy"))
    'allenai/ai2_arc (ARC-Easy, train)'
    """
    parts = source.select if source.adapter == "bundled" else (source.subset, source.split)
    which = ", ".join(part for part in parts if part)
    return f"{source.location} ({which})" if which else source.location


@dataclasses.dataclass(frozen=True)
class SourceCount:
    """What became of the rows of one source."""

    source: Source
    kept: int
    dropped: Mapping[str, int]  # by reason
    trouble: str = ""  # what cut it short, or kept it out

    @property
    def read(self) -> int:
        """Rows that were looked at."""
        return self.kept + sum(self.dropped.values())

    def __str__(self) -> str:
        """One line for the reader.

        >>> print(SourceCount(Source("gsm8k", "openai/gsm8k", licence="MIT"), 9, {"duplicates": 1}))
        openai/gsm8k (train, MIT): 9 of 10 rows kept, 1 duplicates
        """
        label = source_label(self.source).removesuffix(")")
        label += f"{', ' if '(' in label else ' ('}{self.source.licence})"
        reasons = sorted(self.dropped.items(), key=lambda item: (-item[1], item[0]))
        dropped = "".join(f", {count:,} {reason}" for reason, count in reasons)
        end = f"; {self.trouble}" if self.trouble else ""
        return f"{label}: {self.kept:,} of {self.read:,} rows kept{dropped}{end}"


@dataclasses.dataclass(frozen=True)
class Mixture:
    """What a stage draws from."""

    groups: Mapping[str, tuple[Example, ...]]  # by the label of the source, in order
    shares: Mapping[str, float]  # of the same labels; they add up to 1
    counts: tuple[SourceCount, ...] = ()  # of all sources, those left out too

    @property
    def examples(self) -> tuple[Example, ...]:
        """All rows, source after source."""
        return tuple(example for rows in self.groups.values() for example in rows)


class RowFilter:
    """Says of each row, in order, why it is dropped; remembers what it has let through."""

    def __init__(
        self, tokenizer: Any, lengths: Lengths, needs_trace: bool, keep_out: Sequence[Example]
    ) -> None:
        self.tokenizer, self.lengths, self.needs_trace = tokenizer, lengths, needs_trace
        self.decontaminator = Decontaminator(keep_out) if keep_out else None
        self.seen: set[tuple] = set()

    def look(self, example: Example | str) -> str:
        """Everything but the gold answer; what the adapter refused has its reason already."""
        if isinstance(example, str):
            return example
        if reason := misfit(self.tokenizer, example, self.lengths, self.needs_trace):
            return reason
        if (key := question_key(example)) in self.seen:
            return "duplicates"
        if self.decontaminator and (reason := self.decontaminator.reason(example)):
            return reason
        self.seen.add(key)
        return ""

    def judged(self, rows: Iterable[Example | str]) -> Iterator[tuple[Example | str, str]]:
        """The rows with the reason, in order. Reference programs are run several at a time."""
        waiting: collections.deque[tuple[Example, concurrent.futures.Future]] = collections.deque()
        pool = concurrent.futures.ThreadPoolExecutor(min(16, os.cpu_count() or 1))
        try:
            for row in rows:
                reason = self.look(row)
                if not reason and row.checker == "code":
                    waiting.append((row, pool.submit(gold_fault, row)))
                elif not waiting:
                    yield row, reason or gold_fault(row)
                else:  # it must not overtake the others
                    done: concurrent.futures.Future = concurrent.futures.Future()
                    done.set_result(reason or gold_fault(row))
                    waiting.append((row, done))
                while len(waiting) > AHEAD or (waiting and waiting[0][1].done()):
                    first, answer = waiting.popleft()
                    yield first, answer.result()
            for row, answer in waiting:
                yield row, answer.result()
        finally:
            pool.shutdown(cancel_futures=True)


def until_down(rows: Iterable[Example | str], trouble: list[str]) -> Iterator[Example | str]:
    """The rows until the source is down; says so in `trouble`."""
    try:
        yield from rows
    except SourceDown as error:
        trouble.append(f"it is down: {error}")


def outlined(source: Source, rows: Iterable[Example | str]) -> Iterator[Example | str]:
    """The rows, their traces in the source's outline if it has one."""
    for row in rows:
        if source.outline and not isinstance(row, str) and row.trace:
            parts = {"question": row.question, "trace": row.trace, "answer": row.answer}
            row = dataclasses.replace(row, trace=source.outline.format(**parts))
        yield row


def load_source(
    source: Source,
    row_filter: RowFilter,
    *,
    minimum_kept: float,
    at_most: int,
    clock: Callable[[], float],
) -> tuple[list[Example], SourceCount]:
    """The usable rows of one source, and what became of the others, at the commit that was read.

    Raises:
      ValueError: less than `minimum_kept` of its rows can be used, or none.
    """
    usable: list[Example] = []
    dropped: collections.Counter[str] = collections.Counter()
    trouble: list[str] = []
    commits: list[str] = []
    most = row_filter.lengths.prompt + row_filter.lengths.completion  # tokens
    scan = dict(longest=CHARACTERS_PER_TOKEN * most, workers=SCANNERS)
    end = clock() + 60 * source.minutes
    scan = scan if row_filter.needs_trace else {}
    rows = read_source(source, clock=clock, resolved=commits.append, **scan)
    looked_at = itertools.islice(
        rows, source.skip, None if source.look is None else source.skip + source.look
    )
    judged = row_filter.judged(outlined(source, until_down(looked_at, trouble)))
    with contextlib.closing(rows), contextlib.closing(judged):
        for example, reason in judged:
            if len(usable) >= min(source.rows, at_most) or clock() > end:
                break
            read = len(usable) + sum(dropped.values())
            if read == EARLY_LOOK and len(usable) < minimum_kept * read:
                break
            if reason:
                dropped[reason] += 1
            else:
                usable.append(example)
    if not trouble and clock() > end:
        trouble.append(f"its {source.minutes:.1f} minutes were over")
    if commits:
        source = dataclasses.replace(source, revision=commits[0])
    count = SourceCount(source, len(usable), dict(dropped), "; ".join(trouble))
    # Of a source that was cut short, a few rows say nothing about the others.
    can_tell = not trouble or count.read * minimum_kept >= 1
    if can_tell and (not usable or len(usable) < minimum_kept * count.read):
        raise ValueError(
            f"{source.location}: only {count.kept} of {count.read} rows can be used; at least "
            f"{minimum_kept:.1%} must be. Raise the lengths in the profile, or choose another "
            f"source. In all: {count}."
        )
    return usable, count


def mix(groups: Mapping[str, Sequence[Example]], counts: Sequence[SourceCount],
        shares: MixtureShares) -> Mixture:  # fmt: skip
    """The mixture of what could be read, empty if nothing was to be; warns of what could not.

    Raises:
      RuntimeError: the sources that are left have too little of the weight; names the others.
    """
    if not counts:  # a stage that a recipe leaves out
        return Mixture({}, {})
    weights = {source_label(count.source): count.source.weight for count in counts}
    for count in counts:
        if count.trouble:
            fate = "goes on with what there is" if count.kept else "is left out"
            warnings.warn(f"{source_label(count.source)} {fate}: {count.trouble}", stacklevel=3)
    found = {name: tuple(rows) for name, rows in groups.items() if rows}
    left = sum(weights[name] for name in found) / (sum(weights.values()) or 1)
    if left < shares.least:
        lost = "; ".join(str(count) for count in counts if not count.kept)
        raise RuntimeError(
            f"Only {left:.0%} of the mixture's weight could be read, less than {shares.least:.0%}. "
            f"Not read: {lost}\nA folder that scripts/download_sft_datasets.py has prepared needs "
            "no hub, nor does PROFILE=tiny."
        )
    numbers = {name: len(rows) for name, rows in found.items()}
    return Mixture(found, mixture_shares(numbers, weights, shares), tuple(counts))


def load_mixture(
    sources: Sequence[Source],
    tokenizer: Any,
    lengths: Lengths,
    *,
    fallback: Sequence[Source] = (),
    needs_trace: bool,
    minimum_kept: float,
    shares: MixtureShares | None = None,
    keep_out: Sequence[Example] = (),
    at_most: int = 1_000_000,
    minutes: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
) -> Mixture:
    """The usable rows of all sources and their shares; prints what was dropped, and why.

    Args:
      sources: in this order; of two rows that ask the same, the first stays.
      tokenizer: the model's own.
      lengths: token limits of prompt and completion.
      fallback: read as well if all sources have broken off before there were enough rows; a
        file that is not there (the notebook travels without the repository's) is left out.
      needs_trace: drop rows without a trace, or with a target over the limit.
      minimum_kept: share of a source's rows that must be usable.
      shares: exponent, cap, and how much of the weight must be reachable.
      keep_out: held-out rows, which no row may give away.
      at_most: rows of each source.
      minutes: for all sources together, beside each source's own.
      clock: seconds.

    Raises:
      ValueError: too few rows of a source can be used.
      RuntimeError: too many sources are down.
    """
    names = [source_label(source) for source in sources]
    fallback = [x for x in fallback if source_label(x) not in names and is_there(x)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"The source {twice[0]} is in the mixture twice.")
    row_filter = RowFilter(tokenizer, lengths, needs_trace, keep_out)
    groups: dict[str, list[Example]] = {}
    counts: list[SourceCount] = []
    end = clock() + 60 * minutes

    def read(source: Source) -> None:
        left = max(0.0, (end - clock()) / 60)
        source = dataclasses.replace(source, minutes=min(source.minutes, left))
        groups[source_label(source)], count = load_source(
            source, row_filter, minimum_kept=minimum_kept, at_most=at_most, clock=clock
        )
        print(count)
        counts.append(count)

    for source in sources:
        read(source)
    shares = shares or MixtureShares()
    kept = sum(count.kept for count in counts)
    if fallback and counts and all(count.trouble for count in counts) and kept < FEW:
        others = ", ".join(map(source_label, fallback))
        print(f"Of {', '.join(names)} only {kept} rows came. Others are added: {others}. They are "
              "fewer and plainer; the format can be learned from them.")  # fmt: skip
        for source in fallback:
            read(source)
        shares = dataclasses.replace(shares, least=0.0)
    return mix(groups, counts, shares)


def what_was_read(rows: Mapping[str, Mixture]) -> list[dict[str, Any]]:
    """For `results.json`: each source of which a stage has rows, its commit and licence, counts."""
    return [
        {
            "stage": stage, "source": source_label(count.source), "location": count.source.location,
            "commit": count.source.revision, "licence": count.source.licence,
            "read": count.read, "kept": count.kept,
        }
        for stage, mixture in rows.items() for count in mixture.counts if count.kept
    ]  # fmt: skip


# **The stream.** SFT draws from an endless stream (what GRPO draws, the curriculum decides). Which
# source is next follows from the shares alone: the one that is furthest behind its share, so that
# any stretch of the stream has them in proportion. Within a source come shuffled epochs; the
# order of epoch `e` depends on the seed and on `e` alone.


def shuffled_forever(items: Sequence[Any], seed: int | str) -> Iterator[Any]:
    """Epoch after epoch, each in its own order."""
    for epoch in range(1_000_000):
        order = list(range(len(items)))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        for index in order:
            yield items[index]


def mixed_forever(mixture: Mixture, seed: int) -> Iterator[Example]:
    """Rows by the shares of their sources, each source in shuffled epochs of its own.

    With one source this is `shuffled_forever(rows, seed)`.
    """
    names = [name for name, share in mixture.shares.items() if share > 0]
    if len(names) == 1:
        yield from shuffled_forever(mixture.groups[names[0]], seed)
        return
    streams = {name: shuffled_forever(mixture.groups[name], f"{seed}/{name}") for name in names}
    due = {name: random.Random(f"{seed}/{name}").random() for name in names}
    while True:
        for name in names:
            due[name] += mixture.shares[name]
        name = max(names, key=due.__getitem__)
        due[name] -= 1
        yield next(streams[name])


def token_stream(tokenizer: Any, mixture: Mixture, seed: int) -> Iterator[Tokens | LaterTokens]:
    """The examples of `mixed_forever` in tokens; of several hosts, each makes those that it needs.

    All need to know how long each example is: each host counts a part of them.
    """
    if host_count() == 1:
        yield from (tokenize(tokenizer, example) for example in mixed_forever(mixture, seed))
        return
    examples = mixture.examples
    mine = [tokenize(tokenizer, x).size for x in examples[this_host() :: host_count()]]
    sizes: dict[int, int] = {}
    for host, told in enumerate(gather(mine, "the lengths of examples")):
        sizes |= zip(map(id, examples[host :: host_count()]), told, strict=True)
    for example in mixed_forever(mixture, seed):
        yield LaterTokens(sizes[id(example)], functools.partial(tokenize, tokenizer, example))


def prompt_columns(examples: Sequence[Example]) -> dict[str, np.ndarray]:
    """A batch for Tunix's learner: `prompts` and the fields of `Example`, one array each."""
    rows = [example.columns() for example in examples]
    arrays = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return {"prompts": np.array([render_prompt(e.question) for e in examples]), **arrays}
