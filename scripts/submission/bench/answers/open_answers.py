"""How good is an open answer?

A story, a list of ideas or a summary has no gold answer to match. What can be measured
without a judge is whether the text does what texts of its kind do: it is about the question,
it is prose, it says many different things, it has a natural length, it does not repeat or
copy, and its trace leads to it. None of this is quality. It separates an honest attempt from
no attempt, and a developed answer from a thin one, and that is all it is used for. It reads
words, not meaning: false facts told fluently, or a good answer to another question that shares
its words, pass. Only a judge that understands could refuse those.

What counts is what is **kept**: sentences that are English sentences, that are linked to the
question, and that do not say again what has been said. Padding that is none of these adds
nothing, and lowers the share that is kept. Then there are two kinds of parts, each from 0 to 1.
**Guards** are what no good answer lacks; they multiply, so that one of them at 0 leaves nothing,
whatever the others say. **Merits** are what a better answer has more of; they are averaged. The
quality of the trace is a factor of its own. "Good answers" below are those of
`tests/open_pairs.jsonl`, 64 at first.

| part | kind | pays for |
|---|---|---|
| `on_topic` | guard | speaks of what the question speaks of |
| `kept` | guard | the share of words in sentences that are kept |
| `own_words` | guard | is not copied from the question |
| `fresh` | guard | does not repeat itself, word for word or in its frames |
| `does_it` | guard | is the thing asked for, not talk about it |
| `honest_trace` | guard | the trace is a text of its own, no copy and not endless |
| `trace` | factor, 1/2 to 1 | it is about the question, names things, leads to the answer |
| `length` | merit | the length that is natural for the kind of text, or that was asked for |
| `specific` | merit | how many different, specific words; short text has few |
| `agreement` | merit | shares the reference's words, where there is a reference |
"""

import collections
import functools
import itertools
import math
import re

from submission.bench.answers.prompts import Completion, Example
from submission.bench.answers.texts import (
    LONGEST_TEXT,
    PLAIN,
    SMALL_WORDS,
    Kept,
    Text,
    Vocabulary,
    cosine,
    keep,
    read_source_text,
    read_text,
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


# **The guards.** What is *on topic* shares the question's topic words. A summary is on topic
# when its words are those of the document; anything else, when it takes up enough of what the
# question names.


EDITING = frozenset("rewrite rephrase paraphrase correct edit proofread shorten translate".split())
# Other words can mean the same: an answer that shares none is half on topic if its trace is.
SEEN_IN_TRACE = 0.6


def taken_up(text: Text, question: Text, vocabulary: Vocabulary) -> float:
    """0 to 1: how much a text speaks of what the question names; a fifth of it is enough."""
    # The words that a question repeats are what it is about; of a long one, a few are enough.
    named = [word for word, _ in question.topic.most_common(12)]
    share = vocabulary.weight(set(named) & text.content) / vocabulary.weight(named)
    return ramp(share, 0.0, 0.2)


def on_topic(
    answer: Text, trace: Text, question: Text, domain: str, vocabulary: Vocabulary = PLAIN
) -> float:
    """0 to 1: takes up the question's topic, itself or by way of the trace.

    A haiku about rain need not say "rain". Then the trace has to lead there: it speaks of rain,
    and of what the answer speaks of.

    >>> question = read_text("Why does bread rise when yeast is added?")
    >>> trace = read_text("It must be the gas.")
    >>> on_topic(read_text("Yeast makes gas, which lifts the bread."), trace, question, "science")
    1.0
    >>> on_topic(read_text("Owls hunt at night."), trace, question, "science")
    0.0
    """
    if not question.topic:
        return 1.0
    if not answer.topic:
        return 0.0
    if domain == "summarization":
        shared = vocabulary.weight(answer.content & question.content)
        return ramp(shared / vocabulary.weight(answer.content), 0.0, 0.3)
    bridge = len(trace.content & (answer.content - question.content))
    direct, seen = (taken_up(text, question, vocabulary) for text in (answer, trace))
    if not EDITING.isdisjoint(question.words[:4]):
        return direct
    return max(direct, SEEN_IN_TRACE * seen, seen * ramp(bridge, 0, 2))


# A copy of the question is on topic and good prose. So a guard asks for *own words*: runs of
# four words that stand in the question as well are copied, and a list of the question's words
# in another order has none of its own. A summary may borrow more, but must be shorter than
# what it sums up; and who is asked to rewrite a sentence may keep most of it.


def own_words(answer: Text, question: Text, domain: str) -> float:
    """0 to 1: is not copied from the question.

    >>> question = read_text("Write a short story about a lighthouse keeper and a lost whale.")
    >>> own_words(question, question, "creative")
    0.0
    >>> own_words(read_text("Old Marta lit the lamp and heard a whale sing."), question, "creative")
    1.0
    """
    if not answer.words:
        return 0.0
    copied = len(answer.quads & question.quads) / max(1, len(answer.quads))
    if domain == "summarization":
        size = len(answer.words) / max(1, len(question.words))
        return ramp(copied, 0.7, 0.25) * ramp(size, 1.8, 0.9)
    if not EDITING.isdisjoint(question.words[:4]):
        return ramp(copied, 1.0, 0.7)
    own = len(answer.content - question.content) / max(1, len(answer.content | set("x")))
    return ramp(copied, 0.6, 0.2) * ramp(own, 0.0, 0.3)


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
        score *= ramp(again / (count - 3), 0.3, 0.09)
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
    words = plain.split()
    if domain == "creative" and words:
        share = sum(word in ABOUT_TEXTS for word in words) / len(words)
    else:
        share = 0.0
    return ramp(share, 0.06, 0.02) * 0.5 ** (gaps + talk) if gaps + talk < 4 else 0.0


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
    (r"\bhaiku\b", (9, 20)),
    (r"\b(?:epitaph|inscription|proverb|riddle|text message|fortune cookie)s?\b", (10, 40)),
    (r"\b(?:a|an|one)(?: \w+)? (?:slogan|tagline|motto|headline|title|name|caption)\b", (3, 25)),
    (r"\b(?:two|2|single|one)[- ](?:line|sentence)s?\b|\bcouplet\b|\btweet\b", (8, 45)),
    (r"\blimerick\b|\bquatrain\b|\bfour[- ]line", (18, 55)),
    (r"\b(?:three|four|3|4)[- ](?:line|sentence)s?\b", (20, 90)),
    (r"\b(?:short|brief|briefly|small|quick)\b", (25, 200)),
)
ASKED_WORDS = re.compile(r"\b(\d{1,4})(?:[- ]to[- ]\d+)?[- ]words?\b")


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
        words = int(match[1])
        return round(0.7 * words), round(1.3 * words)
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
    return clamp(len(own) / max(4.0, SPECIFIC * band[0]))


def agreement(answer: str, reference: str, vocabulary: Vocabulary = PLAIN) -> float:
    """0 to 1: TF-IDF cosine to the reference, full at 0.45: nobody repeats it word for word.

    >>> agreement("Air scatters blue light.", "Blue light is scattered by air.")
    1.0
    """
    return ramp(cosine(vocabulary.weights(answer), vocabulary.weights(reference)), 0.0, 0.45)


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
    kept = keep(trace, (), loose=True)
    about = len(kept.content & question.content) / max(1, min(3, len(question.content)))
    leads = len(kept.content & (answer.content - question.content))
    merits = 0.3 * clamp(about) + 0.3 * ramp(leads, 0, 3) + 0.4 * ramp(len(kept.content), 2, 12)
    return merits * ramp(kept.share, 0.3, 0.8) * fresh(trace) * not_copied(trace, answer, question)


MERITS = {"length": 0.45, "specific": 0.55}  # and, with a reference, agreement
AGREEMENT = {"creative": 0.0, "ideation": 0.0}  # one story of many; elsewhere:
AGREEMENT_ELSEWHERE = 0.2
GUARDS = ("on_topic", "kept", "own_words", "fresh", "does_it", "honest_trace")
WITHOUT_TRACE = 0.5  # what an answer is worth whose trace is worth nothing


def open_parts(
    completion: Completion, example: Example, vocabulary: Vocabulary = PLAIN
) -> dict[str, float]:
    """All parts of an open answer's score, by name, each 0 to 1."""
    answer, question = read_text(completion.answer), read_source_text(example.question)
    trace = read_text(completion.reasoning)
    band = natural_length(example.question, example.domain)
    terse = band[0] <= 10
    loose = terse or example.domain == "creative"
    kept = keep(answer, question.content | trace.content, loose, terse)
    parts = {
        "on_topic": on_topic(answer, trace, question, example.domain, vocabulary),
        "kept": kept.share,
        "own_words": own_words(answer, question, example.domain),
        "fresh": fresh(answer),
        "does_it": does_it(completion.answer, example.question, example.domain),
        "honest_trace": not_copied(trace, answer, question),
        "trace": trace_quality(trace, answer, question),
        "length": natural(kept.words, band) * ramp(len(answer.words), 2.5 * band[1], 1.5 * band[1]),
        "specific": specific(kept, question, example.domain, band),
    }
    if example.answer:
        parts["agreement"] = agreement(completion.answer, example.answer, vocabulary)
    return parts


def open_score(
    completion: Completion,
    example: Example,
    vocabulary: Vocabulary = PLAIN,
    with_trace: bool = True,
) -> float:
    """0 to 1: the guards' product, times the mean of the merits; 0 out of format.

    A worthless trace costs half: the judges read the trace as well as the answer. Without the
    trace it is left out of account, so that texts in and out of the format can be compared.
    """
    if not completion.in_format:
        return 0.0
    parts = open_parts(completion, example, vocabulary)
    if not with_trace:
        parts |= {"trace": 1.0, "honest_trace": 1.0}
    guards = math.prod(parts[name] for name in GUARDS)
    merits = sum(weight * parts[name] for name, weight in MERITS.items())
    if "agreement" in parts:
        share = AGREEMENT.get(example.domain, AGREEMENT_ELSEWHERE)
        merits = (1 - share) * merits + share * parts["agreement"]
    return guards * (WITHOUT_TRACE + (1 - WITHOUT_TRACE) * parts["trace"]) * merits


# An honest answer, and four that are none: the question again, its words as a list, a text that
# fits any question, and one sentence said over and over.
