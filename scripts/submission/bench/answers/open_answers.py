"""How good is an open answer?

A story, a list of ideas or a summary has no gold answer to match. What can be measured without a
judge is whether the text does what texts of its kind do: it is about the question, it is prose, it
says many different things, it has a natural length, it does not repeat or copy. With a model that
reads meaning (`meaning.py`) the score also sees how near an answer is to question and reference;
without it, it counts shared words. Nothing in a trace makes an answer relevant.

**Guards** are what no good answer lacks; they multiply. **Merits** are what a better answer has
more of; they are averaged. The trace is a factor of its own. All are from 0 to 1.

| part | kind | pays for |
|---|---|---|
| `on_topic` | guard | speaks of what the question or the reference speaks of |
| `in_order` | guard | its sentences begin with large letters |
| `kept` | guard | the share of words in sound sentences that say something new |
| `own_words` | guard | is not copied from the question |
| `fresh` | guard | does not repeat itself, and its words stand in some order |
| `does_it` | guard | is the thing asked for, not talk about it |
| `holds` | guard | a summary's numbers and denials are those of its document |
| `only_here` | guard | is not what is said to other prompts of the batch |
| `brief` | guard | is not far longer than what was asked for |
| `honest_trace` | guard | the trace is a text of its own, no copy and not endless |
| `trace` | factor, 1/2 to 1 | it is about the question, names things, leads to the answer |
| `length`, `specific` | merits | the natural length, and many different, specific words |
| `agreement` | merit | is near the reference, where there is one |
| `adds` | factor, 0.4 to 1 | says more than the question, in meaning |

Where the reference is a fact of a few words, what counts is whether the answer **names** it. The
score tells an honest attempt from none, and a developed answer from a thin one. It does not know
what is true: a false explanation in the words of a right one passes.
"""

import collections
import functools
import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from submission.bench.answers.prompts import Completion, Example
from submission.bench.answers.texts import (
    LONGEST_TEXT,
    PLAIN,
    SMALL_WORDS,
    Text,
    Vocabulary,
    cosine,
    keep,
    read_source_text,
    read_text,
    stem,
    topic_stem,
)


def clamp(value: float) -> float:
    """Into 0 to 1."""
    return min(1.0, max(0.0, value))


def ramp(value: Any, nothing: float, everything: float) -> Any:
    """0 at `nothing`, 1 at `everything`, straight between, flat outside.

    >>> ramp(3, 2, 4), ramp(9, 2, 4), ramp(3, 4, 2)
    (0.5, 1.0, 0.5)
    """
    return clamp((value - nothing) / (everything - nothing))


# What only the batch, or the model that reads meaning, can tell.


class Alike(NamedTuple):
    """How an answer is like other texts; -1 where nothing has read the meaning."""

    elsewhere: float = 0.0  # share of it that fits other prompts of the batch as well
    question: float = -1.0  # cosines
    reference: float = -1.0
    generic: float = -1.0  # to prompts that any text of its kind would fit


UNSEEN, NO_TEXT = Alike(), read_text("")
GENERIC = ("Write a short story.", "Write a poem.", "Write a letter.", "Give me some ideas.")
DRAWN = re.compile(r"[^\w\s.,;:!?'\"’()%-]")  # marks that say nothing
Reader = Callable[[Sequence[str]], Any]  # texts to unit vectors


def see_batch(
    completions: Sequence[Completion], examples: Sequence[Example], reader: Reader | None = None
) -> list[Alike]:
    """What the batch tells of each answer: runs of four words that answer other prompts too.

    With a reader also: is it nearer to other prompts than to its own?
    """
    prompts_of = collections.defaultdict(set)  # by run of words
    quads = [read_text(completion.answer).quads for completion in completions]
    for found, example in zip(quads, examples, strict=True):
        for quad in found:
            prompts_of[quad].add(example.question)
    shared = [sum(len(prompts_of[q]) > 1 for q in found) / max(12, len(found)) for found in quads]
    if reader is None or not examples:
        return [Alike(share) for share in shared]
    places = {text: i for i, text in enumerate(dict.fromkeys(e.question for e in examples))}
    answers_ND = reader([DRAWN.sub(" ", completion.answer) for completion in completions])
    near_NQ = answers_ND @ reader(list(places)).T
    own_N = near_NQ[range(len(examples)), [places[example.question] for example in examples]]
    reference_N = (answers_ND * reader([example.answer for example in examples])).sum(1)
    generic_N = (answers_ND @ reader(GENERIC).T).max(1)
    nearer_N = (near_NQ > own_N[:, None] + 0.05).mean(1)
    columns = (own_N, reference_N, generic_N, nearer_N, near_NQ.max(1))
    rows = zip(shared, *(column.tolist() for column in columns), examples, strict=True)
    return [
        Alike(
            max(share, ramp(nearer, 0.03, 0.2), ramp(nearest - own, 0.2, 0.4)),
            own, reference if example.answer else -1.0, generic,
        )
        for share, own, reference, generic, nearer, nearest, example in rows
    ]  # fmt: skip


# **The guards.** Without a reader, what is on topic shares topic words with the question or the
# reference; a story or a poem need not, nor need a name.

UNTOLD = {"creative": 0.12, "ideation": 0.08}  # where no word need be shared with the prompt
EDITING = frozenset("rewrite rephrase paraphrase correct edit proofread shorten translate".split())
CHOICE = re.compile(
    r"\b(?:which|classify|categori[sz]e|identify|choose|select|sort|or)\b"
    r"|^(?:is|are|was|were|do|does|did|can|has|have|will)\b"
)


def taken_up(text: Text, source: Text, vocabulary: Vocabulary, enough: float = 0.2) -> float:
    """0 to 1: how much a text speaks of the things that the source names most."""
    named = [word for word, _ in source.topic.most_common(12)]
    share = vocabulary.weight(set(named) & text.content) / max(1e-9, vocabulary.weight(named))
    return ramp(share, 0.0, enough)


def on_topic(
    answer: Text, question: Text, reference: Text, domain: str, vocabulary: Vocabulary,
    alike: Alike, terse: bool,
) -> float:  # fmt: skip
    """0 to 1: speaks of what the question or the reference speaks of."""
    shared, near = taken_up(answer, question, vocabulary), alike.question
    if domain != "creative":
        shared = max(shared, taken_up(answer, reference, vocabulary, 0.5))
    short = len(answer.words) < 8
    if near > -1:
        if domain == "creative" or (domain == "ideation" and alike.reference == -1):
            # It may be far from its prompt, if it is farther from any other.
            beyond = ramp(near - alike.generic + 0.15 * shared, -0.05, 0.06) * ramp(
                near, 0.05, 0.15
            )
            return max(beyond, ramp(alike.reference, 0.42, 0.65), 0.35 * terse)
        near = near if alike.reference == -1 else (near + alike.reference) / 2
        return ramp(near + 0.05 * shared, *((0.05, 0.4) if short else (0.3, 0.55)))
    if domain == "summarization":
        covered = vocabulary.weight(answer.content & question.content)
        return ramp(covered / max(1e-9, vocabulary.weight(answer.content)), 0.05, 0.3)
    return max(shared, 0.5 if short else UNTOLD.get(domain, 0.0)) if question.topic else 1.0


def own_words(answer: Text, question: Text, reference: Text, domain: str, alike: Alike) -> float:
    """0 to 1: is not copied from the question, no more than the reference is.

    A summary may borrow more, but must be shorter than what it sums up; and who rewrites a
    sentence, or chooses between the things that the question names, may use its words.
    """
    copied = len(answer.quads & question.quads) / max(1, len(answer.quads))
    size = len(answer.words) / max(1, len(question.words))
    if domain == "summarization":
        return ramp(copied, 0.7, 0.25) * ramp(size, 1.8, 0.9)
    if not EDITING.isdisjoint(question.words[:4]):
        return ramp(copied, 1.0, 0.7)
    if CHOICE.search(" ".join(question.words)):
        return ramp(copied, 0.6, 0.2) * (answer.content != question.content)
    own, usual = (
        len(text.content - question.content) / max(1, len(text.content))
        for text in (answer, reference)
    )
    new = ramp(own, -1e-9, min(0.3, usual) if reference.words else 0.3)
    return ramp(copied, 0.6, 0.2) * new * (ramp(alike.question, 0.93, 0.83) if size < 2 else 1.0)


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
    words = ["0" if word[0].isdigit() else word for word in answer.words]
    loudest = max(answer.topic.values(), default=0) / max(8, len(words))
    score = ramp(loudest, 0.4, 0.2) * ramp(answer.clashes, 0.045, 0.02)
    if (named := answer.topic.total()) > 12:  # good answers name 0.68 new ones at least
        score *= ramp(len(answer.topic) / named, 0.4, 0.66)
    if (count := len(words)) > 6:
        pairs = len(set(itertools.pairwise(words)))
        triples = len(set(zip(words, words[1:], words[2:], strict=False)))
        score *= ramp(1 - pairs / (count - 1), 0.55, 0.25)
        score *= ramp(1 - triples / (count - 2), 0.4, 0.12)
        masked = [word if word in SMALL_WORDS else "*" for word in words]
        frames = collections.Counter(zip(masked, masked[1:], masked[2:], masked[3:], strict=False))
        again = sum(n - 1 for frame, n in frames.items() if n > 1 and frame.count("*") <= 2)
        score *= ramp(again / (count - 3), 0.22, 0.07)  # good answers repeat 0.07 at most
    return score


# Talk about an answer in place of one: refusals, promises, instructions, praise of oneself.
THINGS = "story|poem|essay|answer|summary|response|list|text|slogan|mail|letter|message|speech"
PLAN = re.compile(rf"\b(?:the|this|my) (?:e )?(?:{THINGS}) (?:would|could|should|will)\b")
TALK = re.compile(
    r"\b(?:as an ai|language model|great question|full marks|lorem ipsum|10 10)\b"
    r"|\bi(?:'m| am) (?:sorry|unable|not able)\b"
    r"|\bi (?:can't|cannot|can not|won't|will not) (?:help|answer|write|provide|do|complete)\b"
    r"|\bi(?:'ll|'d| would| could| will| am going to) (?:gladly )?(?:write|describe|tell|discuss"
    r"|explain|summari[sz]e|list|provide|begin|start|include|focus|bring|finish|make|suggest)\b"
    rf"|\bin this (?:{THINGS})\b"
    rf"|\b(?:the|this|my) (?:{THINGS}) is (?:correct|perfect|excellent|complete|great|the best)\b"
    r"|\b(?:the|this|a) question (?:is|what|asks|of|that)\b"
    r"|\b(?:would you like|let me know|feel free|happy to help|hope this helps|i can also)\b"
    r"|\b(?:could|can) you (?:tell me|give me|specify|clarify|share|provide)\b"
    r"|\b(?:qualified professional|i would encourage you|you won't believe|ready to discover)\b"
    r"|\bneed (?:some )?more (?:details|information)\b|\bplease (?:specify|clarify|provide|share)\b"
    r"|\b(?:score|rating|grade|reward) \d"
    r"|\b(?:propose|recommend|advise on|to write) (?:methods|manners|means|ways|an?|the)\b"
)
# Where the question asks for such words, they are no sign of anything.
TASK_TALK = re.compile(
    r"\b(?:ai|language models?|scores?|ratings?|grades?|letter|e-?mails?|messages?|invitation"
    r"|apolog\w+|dialogue|speech|note)\b"
)
ABOUT_TEXTS = frozenset(  # a story does not speak of its own plot
    "story narrative reader readers scene climax prose plot poem rhyme rhymes verse line lines "
    "stanza draft imagery metaphor ending opening beginning character characters dialogue tone "
    "mood paragraph sentence message greeting".split()
)
GAP = re.compile(r"\[[A-Za-z][^\]\n]{0,40}\]|<[A-Za-z][^>\n]{0,40}>|\{[A-Za-z][^}\n]{0,40}\}|_{3,}")


def does_it(text: str, question: str, domain: str) -> float:
    """0 to 1: is the thing asked for. Each phrase of talk about it costs half, and so does each
    gap to fill in after the first; a creative text that speaks of texts is none.
    """
    text, question = text[:LONGEST_TEXT].lower().replace("’", "'"), question.lower()
    words = re.sub(r"(?<!\w)'|'(?!\w)|[^\w']", " ", text).split()
    plain = " ".join(words)
    talk = max(0, len(GAP.findall(text)) - 1) + 2 * len(PLAN.findall(plain))
    if not TASK_TALK.search(question):
        talk += len(TALK.findall(plain))
    if domain == "creative":
        share = (sum(word in ABOUT_TEXTS for word in words) - 1) / max(1, len(words))
        return ramp(share, 0.06, 0.02) * 0.5**talk * (talk < 3)
    if "question" not in question and domain != "ideation":  # questions in place of an answer
        talk += 2 * (2 * text.count("?") > len(re.findall(r"[.!?](?:\s|$)", text)) > 1)
    return 0.5**talk * (talk < 3)


SENTENCE_END = re.compile(r"[a-z]{3}[.!?]+[\"'”’)\]]*+(?:\s|$)")
SMALL_START = re.compile(r"[a-z]{3}[.!?]+[\"'”’)\]]*+\s+[a-z]")


def in_order(text: str) -> float:
    """0 to 1: its sentences begin with large letters; in 98 % of real answers, all do.

    >>> in_order("An owl called. It was late."), in_order("called. was It An owl late. it was. it")
    (1.0, 0.0)
    """
    text = text[:LONGEST_TEXT]
    return ramp(len(SMALL_START.findall(text)) / max(3, len(SENTENCE_END.findall(text))), 0.35, 0.1)


DENYING_WORDS = frozenset("no not never cannot nobody none nothing neither nor without".split())


def denies(words: Sequence[str]) -> bool:
    """Is there a denial in the sentence?"""
    return any(word in DENYING_WORDS or word.endswith("n't") for word in words)


def numbers_in_place(text: Text, most: int) -> list[tuple[str, set[str]]]:
    """The first numbers of a text, each with the topic words up to three words away."""
    places = [i for i, word in enumerate(text.words) if word[0].isdigit()][:most]
    around = ([w for w in text.words[max(0, i - 3) : i + 4] if not w[0].isdigit()] for i in places)
    near = ({topic_stem(word) for word in words} - {""} for words in around)
    return [(text.words[i].replace(",", ""), words) for i, words in zip(places, near, strict=True)]


def holds(answer: Text, document: Text) -> float:
    """0 to 1: a number stands near the words that it stands near in the document, and nothing is
    denied that is not denied there.
    """
    said, there = numbers_in_place(answer, 40), numbers_in_place(document, 200)
    wrong = turned = compared = 0
    for number, near in said:
        own = max((len(near & other) for n, other in there if n == number), default=-1)
        wrong += own < max((len(near & other) for n, other in there if n != number), default=0)
    for sentence in answer.sentences[:40]:
        sources = document.sentences[:200]
        source = max(sources, key=lambda s: len(s.topic & sentence.topic), default=None)
        if source and len(source.topic & sentence.topic) > 1:
            compared += 1
            turned += denies(source.words) != denies(sentence.words)
    return ramp(wrong / max(3, len(said)), 0.6, 0.25) * ramp(turned / max(3, compared), 0.7, 0.35)


# **The merits.** The natural length is a band of words by domain, unless the question asks for
# another: a haiku is not a story.

BANDS = {  # words: from, to; past twice the second the length pays nothing
    "creative": (60, 450), "ideation": (45, 350), "summarization": (15, 110), "science": (30, 260),
    "other": (25, 300),
}  # fmt: skip
ASKED = (
    (r"\bhaiku\b", (9, 17)),
    (r"\b(?:names|slogans|taglines|mottos|headlines|titles|hashtags)\b", (4, 120)),
    (r"\b(?:epitaph|inscription|proverb|riddle|text message|fortune cookie)s?\b", (10, 40)),
    (r"\b(?:a|an|one)(?: \w+)? (?:slogan|tagline|motto|headline|title|name|caption)\b", (3, 25)),
    (r"\b(?:two|2|single|one)[- ](?:line|sentence)s?\b|\bcouplet\b|\btweet\b", (8, 45)),
    (r"\blimerick\b|\bquatrain\b|\bfour[- ]line", (18, 55)),
    (r"\b(?:three|four|3|4)[- ](?:line|sentence)s?\b", (20, 90)),
    (r"\b(?:poem|rhyme|song|short|brief|briefly|small|quick)\b", (25, 200)),
)
NUMBERS = dict(two=2, three=3, four=4, five=5, six=6, ten=10)
ASKED_WORDS = re.compile(rf"\b(\d{{1,4}}|{'|'.join(NUMBERS)})(?:[- ]to[- ]\d+)?[- ]words?\b")
ASKS_FACT = re.compile(
    r"(?:who|whom|whose|when|where|which|name|identify|classify|tell me (?:who|which|whether)"
    r"|what (?:is|was) the (?!difference)|what's the|in (?:which|what)"
    r"|how (?:many|much|old|far|long|tall))\b(?!.*\b(?:why|explain|discuss|how can)\b)",
    re.DOTALL,
)


@functools.lru_cache(maxsize=4096)
def natural_length(question: str, domain: str) -> tuple[int, int]:
    """The band of words for an answer."""
    request = question[:200].lower() + " … " + question[-200:].lower()
    if match := ASKED_WORDS.search(request):
        words = NUMBERS.get(match[1]) or max(1, int(match[1]))
        return round(0.7 * words), round(1.3 * words)
    if domain in ("science", "other") and ASKS_FACT.match(question.lower()):
        return 1, 80
    for pattern, band in ASKED if domain != "summarization" else ():
        if re.search(pattern, request):
            return band
    return BANDS.get(domain, BANDS["other"])


def natural(count: int, band: tuple[int, int]) -> float:
    """0 to 1: within the band of words; falls to 0 at none and at twice the upper end."""
    return ramp(count, 0, band[0]) if count < band[0] else ramp(count, 2 * band[1], band[1])


FACT, FACT_BAND = 10, (1, 25)  # words of a reference that is a fact; of prose beside it
EXPLAINS = re.compile(
    r"\b(?:why|explain|describe|discuss|compare|differences?|(?:dis)?advantages?|benefits|reasons"
    r"|causes|effects|how (?!many|much|old|far|long|tall|big))"
)
HEDGE = re.compile(r"\b(?:or|perhaps|maybe|possibly|either|others|some would)\b")


OTHER_NAME = re.compile(r"(?<=\w )[A-Z][a-z]+|\d")  # a name or a number, not a first word


def names_fact(
    answer: Text, reference: Text, question: Text, alike: Alike = UNSEEN, written: str = ""
) -> float:
    """0 to 1: names the fact that the reference names, and no other."""
    said, wanted, asked = (
        {stem(word) for word in text.words if word not in SMALL_WORDS}
        for text in (answer, reference, question)
    )
    if said <= asked and 2 * len(said) > len(asked):  # the question again
        return 0.0
    found = said & wanted
    recall = clamp(len(found) / max(1, len(wanted - asked or wanted)))
    right = recall * len(found) / max(1, len(found) + len(said - wanted - asked))
    if not found or len(wanted) < 3:  # other words may mean the same
        right = max(right, ramp(alike.reference, 0.5, 0.85))
    if OTHER_NAME.search(written) and not found:  # other names mean something else
        return 0.0
    brief = ramp(len(answer.words), 6 * len(reference.words) + 30, 3 * len(reference.words) + 12)
    return right * brief * ramp(answer.clashes, 0.045, 0.02)


LARGEST_GROUP, MOST_PAIRS = 25, 100  # words that a sorting puts together; of a reference, pairs
WordPairs = frozenset[frozenset[str]]


def pairs_of(text: str, known: frozenset[str] = frozenset()) -> WordPairs | None:
    """The pairs of words that a sorting puts together; None if that is no sorting.

    >>> sorted(map(sorted, pairs_of("Fruit: figs. A beet is a root.")))
    [['beet', 'root'], ['fig', 'fruit']]
    """
    groups = re.split(r"[.;\n]" if ":" in text else r"[.;,\n]|\band\b", text)
    words = [{stem(word) for word in read_text(g).words if word not in SMALL_WORDS} for g in groups]
    words = [group - known for group in words]
    if max(map(len, words)) > LARGEST_GROUP:
        return None
    return frozenset(frozenset(p) for group in words for p in itertools.combinations(group, 2))


@functools.lru_cache(maxsize=4096)  # a row's completions are measured by the same reference
def sorting_of(reference: str) -> WordPairs:
    """The pairs of a reference that sorts; none of any other."""
    if len(re.findall(r"[:.;,]\s", reference)) < 2:
        return frozenset()
    found = pairs_of(reference[:LONGEST_TEXT]) or frozenset()
    return found if 2 <= len(found) <= MOST_PAIRS else frozenset()


def sorted_alike(written: str, reference: str, question: Text) -> float | None:
    """0 to 1: sorts the question's things as the reference does; None if that sorts nothing."""
    wanted = sorting_of(reference)
    if not wanted:
        return None
    sorted_words, asked = frozenset().union(*wanted), {stem(word) for word in question.words}
    if not sorted_words <= asked:
        return None
    # "String instruments", where "string" is enough.
    said = pairs_of(written[:2000], frozenset(asked - sorted_words))
    if said is None:  # so many pairs that most are wrong
        return 0.0
    return ramp(2 * len(said & wanted) / (len(said) + len(wanted)), 0.6, 1.0)


def not_copied(trace: Text, answer: Text, question: Text) -> float:
    """0 to 1: the trace is a text of its own, and not an endless one."""
    if len(trace.words) < 8:  # too short to tell, and worth little anyway
        return 1.0
    copied = max(len(trace.quads & other.quads) for other in (answer, question))
    return ramp(copied / len(trace.quads), 0.75, 0.35) * ramp(len(trace.words), 900, 450)


def trace_quality(trace: Text, answer: Text, question: Text) -> float:
    """0 to 1: the trace is about the question, leads to the answer and copies neither."""
    kept = keep(trace, question.content | answer.content)
    new = answer.content - question.content
    about = len(kept.content & question.content) / max(1, min(3, len(question.content)))
    leads = len(kept.content & new) / max(1, min(3, len(new)))
    merits = 0.3 * clamp(about) + 0.3 * clamp(leads) + 0.4 * ramp(len(kept.content), 2, 12)
    return merits * ramp(kept.share, 0.3, 0.8) * fresh(trace) * not_copied(trace, answer, question)


# **The sum.**

GUARDS = (
    "on_topic kept own_words fresh in_order does_it holds only_here brief honest_trace"
).split()
LENGTH, SPECIFIC = 0.45, 0.55  # weights of the merits; and, with a reference, of agreement:
AGREEMENT = {"creative": 0.0, "ideation": 0.1}  # by words; elsewhere 0.35
NEARNESS = {"creative": 0.2}  # by meaning; elsewhere 0.35
# What an answer loses that says in meaning what the question says; without a reference.
ADDS, ADDS_ALONE = 0.6, 0.4
WITHOUT_TRACE = 0.5  # what an answer is worth whose trace is worth nothing
HEDGED, BESIDE_FACT = 0.0, 0.3  # names a fact, or another; prose that does not name it, at most


@functools.lru_cache(maxsize=4096)  # a row's completions are measured by the same reference
def standard(reference: str, terse: bool) -> tuple[int, float, float]:
    """What a reference allows: it may be a list of names, or say a thing again and again.

    Returns:
      The words up to which a line need be no sentence, the share that is kept, and how fresh it is.
    """
    text = read_source_text(reference)
    is_list = text.words and keep(text, (), loose=True, free=4).share < 0.5
    free = 1000 if is_list else 4 * terse
    usual = keep(text, (), True, free).share if text.words else 1.0
    return free, usual, fresh(text)


def open_parts(
    completion: Completion, example: Example, vocabulary: Vocabulary = PLAIN, alike: Alike = UNSEEN
) -> dict[str, float]:
    """All parts of an open answer's score, by name, each 0 to 1."""
    answer, question = read_text(completion.answer), read_source_text(example.question)
    trace, reference = read_text(completion.reasoning), read_source_text(example.answer)
    domain, is_summary = example.domain, example.domain == "summarization"
    groups = sorted_alike(completion.answer, example.answer, question)
    is_fact = 0 < len(reference.words) <= FACT and domain not in ("creative", "ideation")
    is_fact = is_fact or groups is not None
    explains = EXPLAINS.search(example.question.lower()) is not None
    band = natural_length(example.question, domain) if explains or not is_fact else FACT_BAND
    terse = band[0] <= 10
    loose = terse or domain == "creative"
    free, usual, usual_fresh = standard(example.answer, terse)
    kept = keep(answer, question.content | reference.content, loose, free)
    own = kept.content & question.content if is_summary else kept.content - question.content
    document = read_source_text(f"{example.question}\n{example.answer}") if is_summary else NO_TEXT
    limits = (1.6 * band[1], 1.1 * band[1]) if terse else (2.5 * band[1], 1.5 * band[1])
    parts = {
        "on_topic": on_topic(answer, question, reference, domain, vocabulary, alike, terse),
        "kept": clamp(kept.share / max(0.1, usual)),
        "own_words": own_words(answer, question, reference, domain, alike),
        "fresh": clamp(fresh(answer) / max(0.1, usual_fresh)),
        "does_it": does_it(completion.answer, example.question, domain),
        "holds": holds(answer, document) if is_summary else 1.0,
        "only_here": ramp(alike.elsewhere, 0.6, 0.2),
        "in_order": in_order(completion.answer),
        "brief": ramp(len(answer.words), *limits),
        "honest_trace": not_copied(trace, answer, question),
        "trace": trace_quality(trace, answer, question),
        "length": natural(kept.words, band),
        "specific": clamp(len(own) / max(min(4.0, band[0]), 0.65 * band[0])),
        "adds": 1.0,
    }
    if alike.question > -1 and not is_summary:
        limits = (0.7, 0.3) if domain == "creative" else (0.85, 0.5)
        parts["adds"] = ramp(alike.question, *limits)
    if example.answer:
        limits, near = (0.3, 0.8), alike.reference
        if near == -1:
            near = cosine(*map(vocabulary.weights, (completion.answer, example.answer)))
            limits = (0.0, 0.45)
        parts["agreement"] = ramp(near, *limits)
    if is_fact:
        parts["names"] = groups
        if groups is None:
            parts["names"] = names_fact(answer, reference, question, alike, completion.answer)
        parts["beside"] = 1.0 if explains else BESIDE_FACT * ramp(len(answer.words), 4, 8)
        hedged = HEDGE.search(completion.answer.lower()) and not HEDGE.search(
            example.answer.lower()
        )
        if hedged and not explains:
            parts |= {"names": HEDGED * parts["names"], "beside": HEDGED * parts["beside"]}
    return parts


def open_score(
    completion: Completion,
    example: Example,
    vocabulary: Vocabulary = PLAIN,
    alike: Alike = UNSEEN,
    with_trace: bool = True,
) -> float:
    """0 to 1: the guards' product, times the mean of the merits; 0 out of format.

    A worthless trace costs half: the judges read the trace as well as the answer. Without the
    trace it is left out of account, so that texts in and out of the format can be compared.
    """
    if not completion.in_format:
        return 0.0
    parts = open_parts(completion, example, vocabulary, alike)
    if not with_trace:
        parts |= {"trace": 1.0, "honest_trace": 1.0}
    worth = LENGTH * parts["length"] + SPECIFIC * parts["specific"]
    if "agreement" in parts:
        shares = AGREEMENT if alike.reference == -1 else NEARNESS
        share = shares.get(example.domain, 0.35)
        worth = (1 - share) * worth + share * parts["agreement"]
    adds = ADDS if example.answer else ADDS_ALONE
    worth *= (1 - adds + adds * parts["adds"]) * math.prod(parts[name] for name in GUARDS)
    if "names" in parts:
        worth = max(parts["beside"] * worth, parts["names"] * parts["honest_trace"])
    return worth * (WITHOUT_TRACE + (1 - WITHOUT_TRACE) * parts["trace"])
