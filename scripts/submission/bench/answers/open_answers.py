"""How good is an open answer?

A story, a list of ideas or a summary has no gold answer to match. What can be measured without a
judge is whether the text does what texts of its kind do: it is about the question, it is prose, it
says many different things, it has a natural length, it does not repeat or copy. With a small model
that reads meaning (`meaning.py`) the score also sees how near the answer is to the question and to
the reference; without it, it counts shared words. Nothing in a trace makes an answer relevant.

**Guards** are what no good answer lacks; they multiply, so that one of them at 0 leaves nothing,
whatever the others say. **Merits** are what a better answer has more of; they are averaged. The
quality of the trace is a factor of its own. All are from 0 to 1.

| part | kind | pays for |
|---|---|---|
| `on_topic` | guard | speaks of what the question or the reference speaks of |
| `kept` | guard | the share of words in sound sentences that say something new |
| `own_words` | guard | is not copied from the question |
| `fresh` | guard | does not repeat itself, word for word or in its frames |
| `does_it` | guard | is the thing asked for, not talk about it |
| `holds` | guard | a summary's numbers and denials are those of its document |
| `only_here` | guard | is not what is said to other prompts of the batch |
| `honest_trace` | guard | the trace is a text of its own, no copy and not endless |
| `trace` | factor, 1/2 to 1 | it is about the question, names things, leads to the answer |
| `length` | merit | the length that is natural for the kind of text, or that was asked for |
| `specific` | merit | how many different, specific words; short text has few |
| `agreement` | merit | is near the reference, where there is one |

Where the reference is a fact of a few words, the answer is scored by whether it **names** it.

It separates an honest attempt from no attempt, and a developed answer from a thin one. It does not
know what is true: a false explanation in the words of a right one passes.
"""

import collections
import functools
import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from submission.bench.answers.prompts import Completion, Example
from submission.bench.answers.texts import (
    LONGEST_TEXT,
    PLAIN,
    SMALL_WORDS,
    TOPIC_STEMS,
    Kept,
    Text,
    Vocabulary,
    cosine,
    keep,
    read_source_text,
    read_text,
    stem,
)


def clamp(value: float) -> float:
    """Into 0 to 1."""
    return min(1.0, max(0.0, value))


def ramp(value: float, nothing: float, everything: float) -> float:
    """0 at `nothing`, 1 at `everything`, straight between, flat outside.

    >>> ramp(3, 2, 4), ramp(9, 2, 4), ramp(3, 4, 2)
    (0.5, 1.0, 0.5)
    """
    return clamp((value - nothing) / (everything - nothing))


class Alike(NamedTuple):
    """What only the batch and the model that reads meaning can tell of an answer."""

    elsewhere: float = 0.0  # share of what it says that is said to other prompts as well
    question: float = -1.0  # cosine; -1: nothing has read the meaning
    reference: float = -1.0
    generic: float = -1.0  # to prompts that any text of the kind would fit


UNSEEN, NO_TEXT = Alike(), read_text("")
GENERIC = ("Write a short story.", "Write a poem.", "Write a letter.", "Give me some ideas.")
DRAWN = re.compile(r"[^\w\s.,;:!?'\"’()%-]")  # what is drawn, not said
Reader = Callable[[Sequence[str]], Any]  # texts to unit vectors


def see_batch(
    completions: Sequence[Completion], examples: Sequence[Example], encoder: Reader | None = None
) -> list[Alike]:
    """What the whole batch tells of each answer.

    What is said to one prompt is compared with what is said to the others: runs of four words,
    and, with the encoder, how many of the other prompts the answer is nearer to than to its own.
    """
    said = collections.defaultdict(set)  # by run of words: the questions that it answers
    quads = [read_text(completion.answer).quads for completion in completions]
    for quads_here, example in zip(quads, examples, strict=True):
        for quad in quads_here:
            said[quad].add(example.question)
    elsewhere = [sum(len(said[q]) > 1 for q in found) / max(12, len(found)) for found in quads]
    if encoder is None or not examples:
        return [Alike(share) for share in elsewhere]
    questions = list(dict.fromkeys(example.question for example in examples))
    own = [questions.index(example.question) for example in examples]
    answers_ND, questions_QD, references_ND, generic_GD = (
        encoder(texts)
        for texts in (
            [DRAWN.sub(" ", completion.answer) for completion in completions],
            questions,
            [example.answer for example in examples],
            GENERIC,
        )
    )
    near_NQ = answers_ND @ questions_QD.T
    to_own = near_NQ[range(len(own)), own]
    nearer = ramp_all((near_NQ > to_own[:, None] + 0.05).mean(1), 0.03, 0.2)
    other = ramp_all(near_NQ.max(1) - to_own, 0.2, 0.4)  # it answers another prompt of the batch
    to_reference, to_generic = (answers_ND * references_ND).sum(1), (answers_ND @ generic_GD.T)
    to_reference[[not example.answer for example in examples]] = -1.0
    seen = (np.maximum(np.maximum(nearer, other), elsewhere), to_own, to_reference)
    return [Alike(*map(float, row)) for row in zip(*seen, to_generic.max(1), strict=True)]


def ramp_all(values: np.ndarray, nothing: float, everything: float) -> np.ndarray:
    """`ramp` of each value."""
    return np.clip((values - nothing) / (everything - nothing), 0.0, 1.0)


# **The guards.** What is *on topic* is near the question or the reference in meaning. Without
# the encoder it shares their topic words; a story or a poem need not, nor need a name.


EDITING = frozenset("rewrite rephrase paraphrase correct edit proofread shorten translate".split())


def taken_up(text: Text, source: Text, vocabulary: Vocabulary, enough: float = 0.2) -> float:
    """0 to 1: how much a text speaks of what the source names; a share of it is enough."""
    # The words that a source repeats are what it is about; of a long one, a few are enough.
    named = [word for word, _ in source.topic.most_common(12)]
    if not named:
        return 0.0
    share = vocabulary.weight(set(named) & text.content) / vocabulary.weight(named)
    return ramp(share, 0.0, enough)


def on_topic(
    answer: Text,
    question: Text,
    reference: Text,
    domain: str,
    vocabulary: Vocabulary = PLAIN,
    seen: Alike = UNSEEN,
    terse: bool = False,
) -> float:
    """0 to 1: speaks of what the question or the reference speaks of.

    >>> question = read_text("Why does bread rise when yeast is added?")
    >>> on_topic(read_text("Yeast makes gas, which lifts it."), question, read_text(""), "science")
    1.0
    >>> on_topic(read_text("Owls hunt at night."), question, read_text(""), "science")
    0.0
    """
    shared = taken_up(answer, question, vocabulary)
    if domain != "creative":
        shared = max(shared, taken_up(answer, reference, vocabulary, 0.5))
    short = len(answer.words) < 8
    if seen.question > -1:
        near = seen.question
        if domain == "creative" or (domain == "ideation" and seen.reference == -1):
            # It may be far from its prompt, if it is farther from any other.
            beyond = ramp(near - seen.generic + 0.15 * shared, -0.1, 0.1) * ramp(near, 0.05, 0.15)
            return max(beyond, ramp(seen.reference, 0.35, 0.65), 0.25 if terse else 0.0)
        if seen.reference > -1:
            near = (near + seen.reference) / 2
        return ramp(near + 0.05 * shared, *((0.05, 0.4) if short else (0.3, 0.55)))
    if domain == "summarization":
        covered = vocabulary.weight(answer.content & question.content)
        return ramp(covered / max(1e-9, vocabulary.weight(answer.content)), 0.05, 0.3)
    untold = 0.5 if short else UNTOLD.get(domain, 0.0)
    return max(shared, untold) if question.topic else 1.0


UNTOLD = {"creative": 0.12, "ideation": 0.08}  # where no word need be shared with the prompt


# A copy of the question is on topic and good prose. So a guard asks for *own words*: runs of
# four words that stand in the question as well are copied, and a list of the question's words
# in another order has none of its own. A summary may borrow more, but must be shorter than
# what it sums up; and who is asked to rewrite a sentence may keep most of it.


CHOICE = re.compile(
    r"\b(?:which|classify|categori[sz]e|identify|choose|select|sort|or)\b|^(?:is|are|was|were|do|does"
    r"|did|can|has|have|will)\b"
)


def own_words(
    answer: Text,
    question: Text,
    domain: str,
    reference: Text = NO_TEXT,
    seen: Alike = UNSEEN,
) -> float:
    """0 to 1: is not copied from the question; no more than the reference is, if there is one.

    >>> question = read_text("Write a short story about a lighthouse keeper and a lost whale.")
    >>> own_words(question, question, "creative")
    0.0
    >>> own_words(read_text("Old Marta lit the lamp and heard a whale sing."), question, "creative")
    1.0
    """
    if not answer.words:
        return 0.0
    copied = len(answer.quads & question.quads) / max(1, len(answer.quads))
    size = len(answer.words) / max(1, len(question.words))
    if domain == "summarization":
        return ramp(copied, 0.7, 0.25) * ramp(size, 1.8, 0.9)
    if not EDITING.isdisjoint(question.words[:4]):
        return ramp(copied, 1.0, 0.7)
    own, needed = (
        len(text.content - question.content) / max(1, len(text.content))
        for text in (answer, reference)
    )
    needed = 0.3 if not reference.words else min(0.3, needed)
    if CHOICE.search(" ".join(question.words)):
        needed = 0.0
    new = ramp(own, 0.0, needed) if needed else float(not answer.content == question.content)
    said_again = ramp(seen.question, 0.93, 0.83) if size < 2 and needed else 1.0
    return ramp(copied, 0.6, 0.2) * new * said_again


DIGITS = frozenset("0123456789")


def fresh(answer: Text) -> float:
    """0 to 1: does not repeat itself; 1 for ordinary prose.

    Counted are pairs and triples of words that were there before, with all numbers alike, so
    that "Idea 1 …, Idea 2 …" is a repetition; and frames, four words in a row of which the
    large ones count alike: "the * of the *" over and over says nothing, whatever stands in it.

    >>> fresh(read_text("The fox ran home. The hen slept. An owl called twice from the barn."))
    1.0
    >>> fresh(read_text("The fox ran home today. " * 5))
    0.0
    """
    words = ["0" if word[0] in DIGITS else word for word in answer.words]
    masked = [word if word in SMALL_WORDS else "*" for word in words]
    loudest = max(answer.topic.values(), default=0) / max(8, len(words))
    score = ramp(loudest, 0.4, 0.2)  # one word over and over
    score *= ramp(answer.clashes, 0.045, 0.02)  # words in no order
    if (named := answer.topic.total()) > 12:
        # A few words over and over: of 114 good answers, none names less than 0.68 new ones.
        score *= ramp(len(answer.topic) / named, 0.3, 0.5)
    if (count := len(words)) > 6:
        pairs = len(set(itertools.pairwise(words)))
        triples = len(set(zip(words, words[1:], words[2:], strict=False)))
        score *= ramp(1 - pairs / (count - 1), 0.55, 0.25)
        score *= ramp(1 - triples / (count - 2), 0.4, 0.12)
        frames = collections.Counter(zip(masked, masked[1:], masked[2:], masked[3:], strict=False))
        again = sum(n - 1 for frame, n in frames.items() if n > 1 and frame.count("*") <= 2)
        # Of 64 good answers, none but one repeats more than 0.07 of its frames.
        score *= ramp(again / (count - 3), 0.25, 0.09)
    return score


# Talk about an answer in place of one: refusals, promises, instructions, praise of oneself.
TELLING = (
    "write|describe|tell|discuss|explain|summari[sz]e|list|provide|begin|start|include|focus|recall|bring|finish|make"
    "|suggest"
)
THINGS = "story|poem|essay|answer|summary|response|list|text"
TALK = re.compile(
    r"\b(?:as an ai|language model|great question|full marks|lorem ipsum|10 10)\b"
    r"|\bi(?:'m| am) (?:sorry|unable|not able)\b"
    r"|\bi (?:can't|cannot|can not|won't|will not) (?:help|answer|write|provide|do|complete)\b"
    rf"|\bi(?:'ll|'d| would| could| will| am going to) (?:gladly )?(?:{TELLING})\b"
    rf"|\bin this (?:{THINGS})\b"
    rf"|\b(?:the|this|my) (?:{THINGS}) (?:would|could|should|will)\b"
    rf"|\b(?:the|this|my) (?:{THINGS}) is (?:correct|perfect|excellent|complete|great|the best)\b"
    r"|\b(?:the|this|a) question (?:is|what|asks|of|that)\b"
    r"|\b(?:would you like|let me know|feel free|happy to help|hope this helps|i can also)\b"
    r"|\b(?:could|can) you (?:tell me|give me|specify|clarify|share|provide)\b"
    r"|\b(?:qualified professional|i would encourage you|you won't believe|ready to discover)\b"
    r"|\bneed (?:some )?more (?:details|information)\b|\bplease (?:specify|clarify|provide|share)\b"
    r"|\b(?:score|rating|grade|reward) \d"
)
# Where the question asks for such words, they are no sign of anything.
TASK_TALK = re.compile(
    r"\b(?:ai|language models?|scores?|ratings?|grades?|letter|e-?mails?|messages?|invitation"
    r"|apolog\w+|dialogue|speech|note)\b"
)


# Words about texts. A story does not speak of its own plot: in good ones these are at most one
# word in a hundred.
ABOUT_TEXTS = frozenset(
    "story narrative reader readers scene climax prose plot poem rhyme rhymes verse line lines "
    "stanza draft imagery metaphor ending opening beginning character characters dialogue tone "
    "mood paragraph sentence message greeting".split()
)
GAP = re.compile(r"\[[A-Za-z][^\]\n]{0,40}\]|<[A-Za-z][^>\n]{0,40}>|\{[A-Za-z][^}\n]{0,40}\}|_{3,}")


def does_it(text: str, question: str, domain: str) -> float:
    """0 to 1: is the thing asked for. Each phrase of talk about it costs half, and so does each
    gap to fill in after the first; a creative text that speaks of texts is none.

    >>> does_it("As an AI, I would write about a fox.", "Write about a fox.", "creative")
    0.25
    >>> does_it("The fox came at dusk.", "Write about a fox.", "creative")
    1.0
    >>> does_it("The opening scene of the story has a fox.", "Write about a fox.", "creative")
    0.0
    """
    gaps = max(0, len(GAP.findall(text[:LONGEST_TEXT])) - 1)
    text = text[:LONGEST_TEXT].lower().replace("’", "'")
    plain = " ".join(re.sub(r"(?<!\w)'|'(?!\w)|[^\w']", " ", text).split())
    talk = 0 if TASK_TALK.search(question.lower()) else len(TALK.findall(plain))
    if domain != "creative" and "question" not in question.lower():
        talk += 2 * (2 * text.count("?") > len(re.findall(r"[.!?](?:\s|$)", text)) > 1)
    words = plain.split()
    if domain == "creative" and words:
        share = max(0, sum(word in ABOUT_TEXTS for word in words) - 1) / len(words)
    else:
        share = 0.0
    return ramp(share, 0.06, 0.02) * 0.5 ** (gaps + talk) if gaps + talk < 3 else 0.0


# A summary may not say what its document does not. What can be checked: a number stands near the
# words that it stands near there, and nothing is denied that is not denied there.


DENIALS = frozenset("no not never cannot nobody none nothing neither nor without".split())


def denies(words: Sequence[str]) -> bool:
    """Is there a denial in the sentence?"""
    return any(word in DENIALS or word.endswith("n't") for word in words)


def numbers_in_place(text: Text) -> list[tuple[str, set[str]]]:
    """Each number of a text, with the topic words that stand up to three words away."""
    words = text.words
    return [
        (
            word.replace(",", ""),
            {TOPIC_STEMS[w] for w in words[max(0, i - 3) : i + 4] if w[0] not in DIGITS} - {""},
        )
        for i, word in enumerate(words)
        if word[0] in DIGITS
    ]


def holds(answer: Text, document: Text) -> float:
    """0 to 1: the numbers and denials of a summary are those of the document.

    >>> document = read_text("It cost 40 pounds and 12 men did not come. All 7 dogs came.")
    >>> holds(read_text("12 men did not come, and it cost 40 pounds."), document)
    1.0
    >>> holds(read_text("40 men did not come, and it cost 12 pounds to 90 dogs."), document)
    0.0
    """
    said, there = numbers_in_place(answer), numbers_in_place(document)
    wrong = 0
    for number, near in said:
        own = max((len(near & other) for n, other in there if n == number), default=-1)
        wrong += own < max((len(near & other) for n, other in there if n != number), default=0)
    score = ramp(wrong / max(3, len(said)), 0.6, 0.25)
    turned = compared = 0
    for sentence in answer.sentences:
        source = max(document.sentences, key=lambda s: len(s.topic & sentence.topic), default=None)
        if source and len(source.topic & sentence.topic) > 1:
            compared += 1
            turned += denies(source.words) != denies(sentence.words)
    return score * ramp(turned / max(3, compared), 0.7, 0.35)


# **The merits.** The natural length is a band of words by domain, unless the question asks
# for another: a haiku is not a story.


BANDS = {  # words: from, to; past twice the second the length pays nothing
    "creative": (60, 450),
    "ideation": (45, 350),
    "summarization": (15, 110),
    "science": (30, 260),
    "other": (25, 300),
}
ASKED = (
    (r"\bhaiku\b", (9, 17)),
    (r"\b(?:epitaph|inscription|proverb|riddle|text message|fortune cookie)s?\b", (10, 40)),
    (r"\b(?:a|an|one)(?: \w+)? (?:slogan|tagline|motto|headline|title|name|caption)\b", (3, 25)),
    (r"\b(?:two|2|single|one)[- ](?:line|sentence)s?\b|\bcouplet\b|\btweet\b", (8, 45)),
    (r"\blimerick\b|\bquatrain\b|\bfour[- ]line", (18, 55)),
    (r"\b(?:three|four|3|4)[- ](?:line|sentence)s?\b", (20, 90)),
    (r"\b(?:short|brief|briefly|small|quick)\b", (25, 200)),
)
ASKED_WORDS = re.compile(
    r"\b(\d{1,4}|one|two|three|four|five|six|ten)(?:[- ]to[- ]\d+)?[- ]words?\b"
)
NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "ten": 10}


ASKS_FACT = re.compile(
    r"(?:who|whom|whose|when|where|which|name|identify|classify|tell me (?:who|which|whether)"
    r"|what (?:is|was) the (?!difference)|what's the|in (?:which|what)"
    r"|how (?:many|much|old|far|long|tall))\b(?!.*\b(?:why|explain|discuss|how can)\b)",
    re.DOTALL,
)


@functools.lru_cache(maxsize=4096)
def natural_length(question: str, domain: str) -> tuple[int, int]:
    """The band of words for an answer.

    >>> natural_length("Write a haiku about rain.", "creative")
    (9, 20)
    >>> natural_length("Tell it in 50 words.", "creative")
    (35, 65)
    """
    request = question[:200].lower() + " … " + question[-200:].lower()
    if match := ASKED_WORDS.search(request):
        words = NUMBERS.get(match[1]) or int(match[1])
        return round(0.7 * words), round(1.3 * words)
    if domain not in AGREEMENT and domain != "summarization" and ASKS_FACT.match(question.lower()):
        return 1, 80
    if domain != "summarization":
        for pattern, band in ASKED:
            if re.search(pattern, request):
                return band
    return BANDS.get(domain, BANDS["other"])


def natural(count: int, band: tuple[int, int]) -> float:
    """0 to 1: within the band of words; falls to 0 at none and at twice the upper end.

    >>> natural(40, (80, 100)), natural(150, (80, 100))
    (0.5, 0.5)
    """
    low, high = band
    return ramp(count, 0, low) if count < low else ramp(count, 2 * high, high)


SPECIFIC = 0.65  # of the band's lower end: so many different words are full marks


def specific(kept: Kept, question: Text, domain: str, band: tuple[int, int]) -> float:
    """0 to 1: different topic words that are the answer's own, out of what its band allows.

    A count, not a share: a share would be won by two words. In a summary, those count that it
    takes from the document.

    >>> question, band = read_text("Why is the sky blue?"), (10, 40)
    >>> kept = keep(read_text("The air in the sky scatters blue light."), ["sky"])
    >>> round(specific(kept, question, "science", band), 2)
    0.46
    """
    of_summary = domain == "summarization"
    own = kept.content & question.content if of_summary else kept.content - question.content
    return clamp(len(own) / max(min(4.0, band[0]), SPECIFIC * band[0]))


def agreement(
    answer: str, reference: str, vocabulary: Vocabulary = PLAIN, seen: Alike = UNSEEN
) -> float:
    """0 to 1: near the reference in meaning; without the encoder, the TF-IDF cosine.

    >>> agreement("Air scatters blue light.", "Blue light is scattered by air.")
    1.0
    """
    if seen.reference > -1:
        return ramp(seen.reference, 0.3, 0.8)
    return ramp(cosine(vocabulary.weights(answer), vocabulary.weights(reference)), 0.0, 0.45)


FACT, FACT_BAND = 10, (1, 25)  # words of a reference that is a fact; of prose beside it
HEDGE = re.compile(r"\b(?:or|perhaps|maybe|possibly|either|others|some would)\b")


def names(answer: Text, reference: Text, question: Text, seen: Alike = UNSEEN) -> float:
    """0 to 1: names the fact that the reference names, and no other.

    >>> question, reference = read_text("Which bird? An owl or a hen?"), read_text("The owl")
    >>> [names(read_text(t), reference, question) for t in ("Owl.", "It is the owl.", "Hen")]
    [1.0, 1.0, 0.0]
    """
    said, wanted, asked = (
        {stem(word) for word in text.words if word not in SMALL_WORDS}
        for text in (answer, reference, question)
    )
    found = said & wanted
    recall = len(found) / max(1, len(wanted - asked or wanted))
    extra = len(said - wanted - asked)
    words = clamp(recall) * len(found) / max(1, len(found) + extra)
    brief = ramp(len(answer.words), 6 * len(reference.words) + 30, 3 * len(reference.words) + 12)
    copied = said <= asked and 2 * len(said) > len(asked)
    if not found or len(wanted) < 3:  # other words may mean the same
        words = max(words, ramp(seen.reference, 0.5, 0.85))
    return 0.0 if copied else brief * words * ramp(answer.clashes, 0.045, 0.02)


def not_copied(trace: Text, answer: Text, question: Text) -> float:
    """0 to 1: the trace is a text of its own, and not an endless one."""
    if len(trace.words) < 8:  # too short to tell, and worth little anyway
        return 1.0
    copied = max(len(trace.quads & other.quads) for other in (answer, question))
    return ramp(copied / len(trace.quads), 0.75, 0.35) * ramp(len(trace.words), 900, 450)


def trace_quality(trace: Text, answer: Text, question: Text) -> float:
    """0 to 1: the trace is about the question, leads to the answer and copies neither.

    >>> question = read_text("Why does bread rise?")
    >>> answer = read_text("Yeast eats sugar and gives off gas, which lifts the dough.")
    >>> trace = read_text("The bread has yeast in it. So the cause must be the gas from the yeast.")
    >>> round(trace_quality(trace, answer, question), 2), trace_quality(answer, answer, question)
    (0.39, 0.0)
    """
    kept = keep(trace, question.content | answer.content)
    about = len(kept.content & question.content) / max(1, min(3, len(question.content)))
    new = answer.content - question.content
    leads = len(kept.content & new) / max(1, min(3, len(new)))
    merits = 0.3 * clamp(about) + 0.3 * clamp(leads) + 0.4 * ramp(len(kept.content), 2, 12)
    return merits * ramp(kept.share, 0.3, 0.8) * fresh(trace) * not_copied(trace, answer, question)


ADDS, ADDS_ELSEWHERE, ADDS_SHARE = {"creative": (0.75, 0.35)}, (0.85, 0.5), 0.4
MERITS = {"length": 0.45, "specific": 0.55}  # and, with a reference, agreement
AGREEMENT = {"creative": 0.0, "ideation": 0.1}  # one story of many; elsewhere:
AGREEMENT_ELSEWHERE = 0.35
GUARDS = (
    *("on_topic", "kept", "own_words", "fresh", "does_it", "holds", "only_here", "brief"),
    "honest_trace",
)
WITHOUT_TRACE = 0.5  # what an answer is worth whose trace is worth nothing
HEDGED = 0.02  # of what names a fact, or another
BESIDE_FACT = 0.3  # what prose that does not name the fact can be worth


def open_parts(
    completion: Completion, example: Example, vocabulary: Vocabulary = PLAIN, seen: Alike = UNSEEN
) -> dict[str, float]:
    """All parts of an open answer's score, by name, each 0 to 1."""
    answer, question = read_text(completion.answer), read_source_text(example.question)
    trace, reference = read_text(completion.reasoning), read_source_text(example.answer)
    domain = example.domain
    is_fact = 0 < len(reference.words) <= FACT and domain not in AGREEMENT
    band = FACT_BAND if is_fact else natural_length(example.question, domain)
    terse = band[0] <= 10
    loose = terse or domain == "creative"
    kept = keep(answer, question.content | reference.content, loose, terse)
    document = read_source_text(f"{example.question}\n{example.answer}")
    usual = keep(reference, (), loose=True, terse=terse).share if reference.words else 1.0
    parts = {
        "on_topic": on_topic(answer, question, reference, domain, vocabulary, seen, terse),
        "kept": clamp(kept.share / max(0.1, usual)),  # a reference may be a list of names
        "own_words": own_words(answer, question, domain, reference, seen),
        "fresh": fresh(answer),
        "does_it": does_it(completion.answer, example.question, domain),
        "holds": holds(answer, document) if domain == "summarization" else 1.0,
        "only_here": ramp(seen.elsewhere, 0.6, 0.2),
        "honest_trace": not_copied(trace, answer, question),
        "trace": trace_quality(trace, answer, question),
        "brief": ramp(
            len(answer.words), *(x * band[1] for x in ((1.6, 1.1) if terse else (2.5, 1.5)))
        ),
        "length": natural(kept.words, band),
        "specific": specific(kept, question, domain, band),
    }
    if seen.question > -1 and domain != "summarization":
        parts["adds"] = ramp(seen.question, *ADDS.get(domain, ADDS_ELSEWHERE))
    if example.answer:
        parts["agreement"] = agreement(completion.answer, example.answer, vocabulary, seen)
        if is_fact:
            parts["names"] = names(answer, reference, question, seen)
    return parts


def open_score(
    completion: Completion,
    example: Example,
    vocabulary: Vocabulary = PLAIN,
    seen: Alike = UNSEEN,
    with_trace: bool = True,
) -> float:
    """0 to 1: the guards' product, times the mean of the merits; 0 out of format.

    A worthless trace costs half: the judges read the trace as well as the answer. Without the
    trace it is left out of account, so that texts in and out of the format can be compared.
    """
    if not completion.in_format:
        return 0.0
    parts = open_parts(completion, example, vocabulary, seen)
    if not with_trace:
        parts |= {"trace": 1.0, "honest_trace": 1.0}
    merits = sum(weight * parts[name] for name, weight in MERITS.items())
    if "agreement" in parts:
        share = AGREEMENT.get(example.domain, AGREEMENT_ELSEWHERE)
        merits = (1 - share) * merits + share * parts["agreement"]
    merits *= 1 - ADDS_SHARE + ADDS_SHARE * parts.get("adds", 1.0)
    worth = merits * math.prod(parts[name] for name in GUARDS)
    if "names" in parts:
        beside = BESIDE_FACT * worth * ramp(len(completion.answer.split()), 4, 8)
        worth = max(beside, parts["names"] * parts["honest_trace"])
        worth *= HEDGED if HEDGE.search(completion.answer.lower()) else 1.0
    return worth * (WITHOUT_TRACE + (1 - WITHOUT_TRACE) * parts["trace"])


# An honest answer, and four that are none: the question again, its words as a list, a text that
# fits any question, and one sentence said over and over.
