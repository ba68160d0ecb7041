"""What is mixed with what, and what must not be in it.

A **mixture** says how often each source is drawn. Drawn as they are, the largest source would
be nearly all of it; drawn alike, the smallest would be seen over and over. So a source of *n*
rows counts as its weight times *n*^*T*, with *T* between the two (0.5 here), and no source
gets more than a cap: what is over the cap goes to the others.
"""

import collections
import dataclasses
import functools
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

from submission.bench.answers.code_answers import TEST_REQUEST
from submission.bench.answers.prompts import Example
from submission.bench.settings.config import MixtureShares


def mixture_shares(
    counts: Mapping[str, int], weights: Mapping[str, float], settings: MixtureShares
) -> dict[str, float]:
    """The share of each source, by name; they add up to 1.

    A source without rows or without weight gets 0. Where there are so few sources that even
    with all of them at the cap something is left (cap · k < 1), the cap gives way to 1/k: all
    are alike then.

    Args:
      counts: usable rows by source.
      weights: by source, at least 0.
      settings: the exponent and the cap.

    Raises:
      ValueError: no source has both rows and weight.

    >>> mixture_shares({"a": 900, "b": 100}, {"a": 1, "b": 1}, MixtureShares(0.5, cap=1.0))
    {'a': 0.75, 'b': 0.25}
    >>> mixture_shares({"a": 900, "b": 100}, {"a": 1, "b": 1}, MixtureShares(0.5, cap=0.6))
    {'a': 0.6, 'b': 0.4}
    """
    wanted = {
        name: weights[name] * count**settings.temperature if count else 0.0
        for name, count in counts.items()
    }
    free = {name for name, value in wanted.items() if value > 0}
    if not free:
        raise ValueError(f"No source has both rows and weight: {dict(counts)}, {dict(weights)}.")
    cap = max(settings.cap, 1 / len(free))
    shares = dict.fromkeys(counts, 0.0)
    left = 1.0
    while free:  # ends: each round but the last caps at least one source
        total = sum(wanted[name] for name in counts if name in free)
        over = {name for name in free if left * wanted[name] / total > cap}
        for name in over or free:
            shares[name] = cap if over else left * wanted[name] / total
        left -= cap * len(over)
        free = free - over if over else set()
    return shares


# **When are two questions the same?** For a start, when they differ in nothing but case,
# punctuation, white space and the like. But "3 + 4" and "3 - 4" are two questions, so the signs of
# arithmetic are no punctuation: a text is taken apart into words, numbers and signs. A dash is
# a sign between numbers or single letters and a hyphen between words.


RAISED_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
SIGNS = str.maketrans(
    {"−": "-", "–": "-", "—": "-", "‐": "-", "×": "*", "∙": "*", "⋅": "*", "·": "*", "÷": "/"}
    | {"⁄": "/", "∕": "/", "’": "'", "‘": "'"}
)
THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
# A word; a number; a sign. A dash, a slash or a star is a sign behind a number, a bracket or a
# single letter and before another, or right before a number with nothing before it.
TOKENS = (
    r"L+|\d+(?:\.\d+)?|[+=<>^%±√∑∏∫∞≤≥≠≈∈∪∩→]"
    r"|[-*/](?:(?<=[\d)].)|(?<=[\d)] .)|(?<=\bL.)|(?<=\bL .))(?= ?(?:[\d(]|L\b))"
    r"|(?<![^\W_])-(?=\d)"
)
TOKEN = re.compile(TOKENS.replace("L", r"[^\W\d_]"))
ASCII_TOKEN = re.compile(TOKENS.replace("L", "[a-z]"))  # the same, and twice as fast


def question_tokens(text: str) -> tuple[str, ...]:
    """The words, numbers and signs of a text, in order, without case and punctuation.

    >>> question_tokens("What is 1,234 − 5?") == question_tokens("what is **1234-5**")
    True
    >>> question_tokens("A well-known T-shirt, don’t you think?")
    ('a', 'well', 'known', 't', 'shirt', 'dont', 'you', 'think')
    """
    is_ascii = text.isascii()
    if not is_ascii:
        text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda m: "^" + m[0].translate(RAISED_DIGITS), text)
        text = unicodedata.normalize("NFKC", text).translate(SIGNS)
    text = text.casefold()
    if "'" in text:
        text = re.sub(r"(?<=[^\W\d_])'(?=[^\W\d_])", "", text)
    if "," in text:
        text = THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    pattern = ASCII_TOKEN if is_ascii else TOKEN
    return tuple(pattern.findall(text)) or (text.strip(),)


def is_figure(token: str) -> bool:
    """Is it a number or a sign?

    >>> [is_figure(token) for token in question_tokens("What is 3 - x?")]
    [False, False, True, True, False]
    """
    return not token[:1].isalpha()


# When a row is compared with held-out ones, a question with choices is compared without their
# listing as well, because the choices may stand in another order, or not at all.


CHOICE_LABELS = ("({})", "{})", "{}.", "{}:")


def without_choices(example: Example) -> str:
    """The question without the listing of its choices.

    >>> without_choices(Example("Is 6*7 A) 42 B) 43?", "A", "choice", choices=("42", "43")))
    'Is 6*7 ?'
    """
    if not example.choices:
        return example.question
    first, last = example.choices[0], example.choices[-1]
    for label in CHOICE_LABELS:
        end_mark = f"{label.format(chr(ord('A') + len(example.choices) - 1))} {last}"
        start = example.question.find(f"{label.format('A')} {first}")
        end = example.question.find(end_mark, start)
        if 0 <= start < end:
            return example.question[:start] + example.question[end + len(end_mark) :]
    return example.question


def question_key(example: Example) -> tuple:
    """What duplicates have in common: the question, and the choices.

    Choices in another order make another question: its answer is another letter.
    """
    return question_tokens(example.question), tuple(map(question_tokens, example.choices))


# **Decontamination.** No row that is trained on may give away a row that is evaluated. Four
# looks, from plain to subtle; a row that fails one is dropped:
#
# 1. it is the same question;
# 2. it has a held-out question inside it, as a whole;
# 3. it shares 13 words in a row with one, or 60 % of its runs of 8 words: a passage was copied;
# 4. it has nearly the same words in another order: their TF-IDF cosine is 0.85 or more.
#
# Two guards keep this from dropping rows that only look alike. *What many held-out rows share
# is their template*: runs of words that stand in more than three of them do not count, and
# common words hardly weigh. *Numbers must match*: "What is 17 + 25?" and "What is 17 + 26?" are
# two questions, though nearly all of their words are the same. So are two fillings of one
# template with the same numbers in another order.
#
# The index is built once. A row is looked up in it by its words, in time linear in its length,
# however many rows are held out.


RUN, LONG_RUN = 8, 13  # words
RUNS_SHARED = 0.6  # of the held-out row's runs
MOSTLY_SAID = 0.7  # of the held-out row's words, by what they say
SAME_WORDS = 0.85  # TF-IDF cosine
TEMPLATE_ROWS = 3  # a run in more held-out rows than this is a template
SHORTEST_INSIDE = 5  # words that a question must have to be looked for inside others
# With few held-out rows no statistics can tell a common word. These count a fifth.
FUNCTION_WORDS = frozenset(
    "a an the of to in on at by for from with and or is are was were be been do does did has have "
    "had it its this that these those what which who whom whose when where why how if as there "
    "can could will would should may might than then so some any you your i we our they their he "
    "she his her please give tell me".split()
)


def token_runs(tokens: Sequence[str], length: int, step: int = 1) -> Iterator[tuple[str, ...]]:
    """All runs of so many tokens, or every `step`-th.

    >>> list(token_runs("abcd", 3))
    [('a', 'b', 'c'), ('b', 'c', 'd')]
    """
    return zip(*(tokens[start::step] for start in range(length)), strict=False)


@dataclasses.dataclass(frozen=True)
class AskedText:
    """A question, taken apart; of one with choices, the whole and the part without them."""

    tokens: tuple[str, ...]
    choices: frozenset[tuple[str, ...]]
    is_stem: bool  # the listing of the choices was left out

    @functools.cached_property
    def figures(self) -> tuple[str, ...]:
        """Its numbers and signs, in order."""
        different = set(filter(is_figure, set(self.tokens)))
        return tuple(filter(different.__contains__, self.tokens)) if different else ()

    @functools.cached_property
    def figure_set(self) -> tuple[str, ...]:
        """Its numbers and signs, sorted."""
        return tuple(sorted(self.figures))

    @functools.cached_property
    def words(self) -> frozenset[str]:
        """Its different words, without figures."""
        return frozenset(self.tokens).difference(self.figures)

    @functools.cached_property
    def template(self) -> tuple[str, ...]:
        """Its words in order, with a gap for each figure."""
        return tuple("0" if is_figure(token) else token for token in self.tokens)

    def comparable(self, other: "AskedText") -> bool:
        """May the two be compared? A stem is too little to go by where the choices differ."""
        if self.choices and other.choices:
            same_kind = self.is_stem == other.is_stem
            return same_kind and (not self.is_stem or bool(self.choices & other.choices))
        return True


def asked_texts(example: Example) -> list[AskedText]:
    """The texts of a row that are compared; of a program the task, without what we add to it."""
    choices = frozenset(map(question_tokens, example.choices))
    task = example.question.split(TEST_REQUEST)[0]
    texts = [AskedText(question_tokens(task), choices, is_stem=False)]
    stem = without_choices(example)
    if stem != example.question:
        texts.append(AskedText(question_tokens(stem), choices, is_stem=True))
    return texts


def is_inside(part: tuple[str, ...], tokens: tuple[str, ...]) -> bool:
    """Do the tokens have the part in them, in a row, and not as the beginning of a longer sum?

    >>> asked = question_tokens("What is 17 + 25?")
    >>> [is_inside(asked, question_tokens(text)) for text in (
    ...     "Say it: what is 17 + 25?", "What is 17 + 25 + 8?", "What is 17 + 26?")]
    [True, False, False]
    """
    start = -1
    for _ in range(tokens.count(part[0])):
        start = tokens.index(part[0], start + 1)
        end = start + len(part)
        if tokens[start:end] == part:
            goes_on = is_figure(part[-1]) and any(map(is_figure, tokens[end : end + 1]))
            began = is_figure(part[0]) and any(map(is_figure, tokens[max(0, start - 1) : start]))
            if not (goes_on or began):
                return True
    return False


def figures_fit(text: AskedText, held: AskedText) -> bool:
    """Has it the held-out question's numbers; and no others, unless it is much longer?"""
    if len(text.tokens) < 2 * len(held.tokens):
        return text.figure_set == held.figure_set
    return collections.Counter(held.figures) <= collections.Counter(text.figures)


class Decontaminator:
    """Finds rows that give away a held-out one."""

    def __init__(self, keep_out: Iterable[Example]) -> None:
        """The held-out rows; duplicates among them count once."""
        rows = {question_key(row): row for row in keep_out}.values()
        self.texts = [text for row in rows for text in asked_texts(row)]
        self.fit(self.texts)
        self.exact: dict[tuple[str, ...], list[int]] = collections.defaultdict(list)
        self.anchors: dict[str, list[int]] = collections.defaultdict(list)
        self.by_word: dict[str, list[int]] = collections.defaultdict(list)
        self.by_figures: dict[tuple[str, ...], list[int]] = collections.defaultdict(list)
        by_run: dict[tuple[str, ...], set[int]] = collections.defaultdict(set)
        for i, text in enumerate(self.texts):
            self.exact[text.tokens].append(i)
            if SHORTEST_INSIDE <= len(text.tokens) <= RUN:  # longer ones are found by their runs
                self.anchors[max(text.tokens, key=self.idf_of)].append(i)
            if text.figures:
                self.by_figures[text.figure_set].append(i)
            else:
                for word in self.rare_words(text):
                    self.by_word[word].append(i)
            for run in token_runs(text.tokens, RUN):
                by_run[run].add(i)
        self.by_run = {run: rows for run, rows in by_run.items() if len(rows) <= TEMPLATE_ROWS}
        counts = collections.Counter(i for rows in self.by_run.values() for i in rows)
        self.runs = [counts[i] for i in range(len(self.texts))]  # of each text, no template
        self.all_runs = frozenset(self.by_run)
        self.all_anchors, self.all_rare = frozenset(self.anchors), frozenset(self.by_word)

    def fit(self, texts: Sequence[AskedText]) -> None:
        """The inverse document frequencies, over the held-out questions alone."""
        seen = collections.Counter(token for text in texts for token in set(text.tokens))
        count = len(texts)
        self.idf = {
            token: (math.log((1 + count) / (1 + n)) + 1) * (0.2 if token in FUNCTION_WORDS else 1)
            for token, n in seen.items()
        }
        self.unseen = math.log(1 + count) + 1

    def idf_of(self, token: str) -> float:
        """How much a word says."""
        return self.idf.get(token, 0.2 if token in FUNCTION_WORDS else self.unseen)

    def size(self, tokens: Iterable[str]) -> float:
        """The squared length of a TF-IDF vector; each different word counts once."""
        return sum(self.idf_of(token) ** 2 for token in tokens)

    def rare_words(self, text: AskedText) -> Iterator[str]:
        """The rarest words of a text, until what is left is too little to be nearly the same.

        Whoever has none of them has a cosine below `SAME_WORDS` with it.
        """
        left, whole = 1.0, self.size(text.words)
        for word in sorted(text.words, key=lambda word: (-self.idf_of(word), word)):
            yield word
            left -= self.idf_of(word) ** 2 / whole
            if left < SAME_WORDS**2 - 1e-9:
                return

    def reason(self, example: Example) -> str:
        """Why the row must not be trained on; empty if it may.

        >>> asked = "Why do cats purr when they sleep?"
        >>> clean = Decontaminator([Example(asked, "", "open")])
        >>> clean.reason(Example("When they sleep, cats purr: why do they?", "", "open"))
        'near-copies of held-out rows'
        >>> clean.reason(Example("Why do dogs bark at night?", "", "open"))
        ''
        """
        for text in asked_texts(example):
            if self.same(text):
                return "copies of held-out rows"
            hits = self.shared_runs(text)
            if self.inside(text, hits) or self.passage(text, hits):
                return "rows with a passage of held-out rows"
            if self.same_words(text):
                return "near-copies of held-out rows"
        return ""

    def same(self, text: AskedText) -> bool:
        """Is it a held-out question, word for word?"""
        return any(text.comparable(self.texts[i]) for i in self.exact.get(text.tokens, ()))

    def inside(self, text: AskedText, hits: Mapping[int, int]) -> bool:
        """Is a whole held-out question inside it? A sum that goes on is another sum."""
        anchors = self.all_anchors.intersection(text.tokens)
        short = {i for anchor in anchors for i in self.anchors[anchor]}
        return any(
            text.comparable(self.texts[i]) and is_inside(self.texts[i].tokens, text.tokens)
            for i in sorted({*short, *hits})
        )

    def shared_runs(self, text: AskedText) -> Mapping[int, int]:
        """How many of its runs each held-out question shares, if any."""
        # At first every other run only: what is shared by more than one place has one of them.
        if self.all_runs.isdisjoint(token_runs(text.tokens, RUN, step=2)):
            return {}
        shared = self.all_runs.intersection(token_runs(text.tokens, RUN))
        return collections.Counter(i for run in shared for i in self.by_run[run])

    def passage(self, text: AskedText, hits: Mapping[int, int]) -> bool:
        """Does it share a long run of words, or most short runs, with a held-out question?"""
        for i, count in hits.items():
            held = self.texts[i]
            if text.template == held.template or not text.comparable(held):
                continue
            if not figures_fit(text, held):
                continue
            if count >= max(2, RUNS_SHARED * self.runs[i]) and self.says(text, held):
                return True
            long_runs = set(token_runs(held.tokens, LONG_RUN))
            if not long_runs.isdisjoint(token_runs(text.tokens, LONG_RUN)):
                return True
        return False

    def says(self, text: AskedText, held: AskedText) -> bool:
        """Has it most of what the held-out question says, and not its common words alone?"""
        return self.size(held.words & text.words) >= MOSTLY_SAID * self.size(held.words)

    def same_words(self, text: AskedText) -> bool:
        """Has it nearly the words of a held-out question, and the same numbers?"""
        if text.figures:
            candidates = set(self.by_figures.get(text.figure_set, ()))
        else:
            rare = self.all_rare.intersection(text.tokens)
            candidates = {i for word in rare for i in self.by_word[word]}
        return any(
            self.cosine_of(text, self.texts[i]) >= SAME_WORDS
            for i in candidates
            if text.template != self.texts[i].template and text.comparable(self.texts[i])
        )

    def cosine_of(self, text: AskedText, held: AskedText) -> float:
        """The TF-IDF cosine; figures count as words if their order is the same."""
        ours, theirs = text.words, held.words
        if text.figures == held.figures:
            ours, theirs = ours | set(text.figures), theirs | set(held.figures)
        if len(ours) > 5 * len(theirs) + 20:  # cannot be
            return 0.0
        norms = self.size(ours) * self.size(theirs)
        return self.size(ours & theirs) / math.sqrt(norms) if norms else 0.0
