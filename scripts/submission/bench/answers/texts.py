"""Reading a text.

For an open answer, a text is taken apart once: into words, sentences, and what it is about.
Words are compared by their stems, and two lists tell what kind of words they are:
*small* words join the others ("of", "because"), *common* ones fit any subject, or speak of texts
and how good they are ("important", "many", "reader"). What are left are the *topic* words.
"""

import collections
import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence

SMALL_WORDS = frozenset(
    "a about above after again against all also although am among an and any are around as at "
    "be because been before behind being below between both but by can cannot could did do does "
    "doing don't down during each either else even ever every few for from further had has have "
    "having he her here hers herself him himself his how however i i'm i'd i'll if in into is "
    "isn't it it's its itself just less let like may me might mine more most much must my myself "
    "neither never no nor not now of off on once one only onto or other our ours ourselves out "
    "over own per perhaps quite rather same shall she should since so some still such than that "
    "that's the their theirs them themselves then there these they this those though through "
    "thus to together too toward towards under unless until up upon us very via was wasn't we "
    "were what whatever when whenever where wherever whether which while who whoever whom whose "
    "why will with within without would yet you your yours yourself".split()
)
COMMON_WORDS = (
    "accordingly add addition again along always another answer appear area ask aspect back bad "
    "based become best better big bring call came careful case cause certain change "
    "characteristic check circumstance clear come common complete conclusion consequently "
    "consider convincing correct create creative day deep definition depend describe detail "
    "development different difficult end enough essence essential everyone everything example "
    "excellent explain explanation facet factor feel final find first follow form found full "
    "funny furthermore general get give go goal goes good got great group happen hard help hence "
    "high hmm hope idea important include increasingly individual information interesting "
    "introduce it keep key kind know known large last later lead least left level life line list "
    "little long look lot made main make many matter mean method moreover move need nevertheless "
    "new next nice nobody nothing number often opposite option order original others part people "
    "perfect person place play please point possible power problem process provide put question "
    "quickly read reader real reason regard result right said say score second see seen set "
    "several show side similar situation small something sometimes soon start step story strong "
    "such summary surprise take talk tell term text therefore thing think third thought time "
    "today token topic true try turn two type typically understand use used using usual value "
    "various view wait want way well went word work world write written year yes"
)
# Words that do not follow each other in an English sentence. In 5,000 real answers they are one
# pair of small words in a hundred, in the same answers shuffled two in five.
CLASH = (
    (
        "the a an my your his its our their every",
        "of at with from into during without in on to by about and or but because although if when "
        "is are was were am be been has have had i you he she we they the a an my your his its our "
        "their every this that these those there which it does did would could as where each",
    ),
    (
        "of to in on at by for from with into about during without",
        "is are was were am can could would should will must and or but because although while of "
        "i he she we they does did had",
    ),
    ("of in at by for with into from", "be have to at by on for with from"),
    ("to", "to for from with at been has"),
    ("is are was were am be been", "is are was were am has have will would could should of"),
    ("has have had can could would should will might must", "is are was were am of or and has had"),
    ("can could would should will might must", "to in for with the a an my their can could would"),
    ("i he she we they", "the a an of my your his its our their am"),
    ("he she it i", "are were"),
    ("i you we they", "is has does"),
    ("and or but if when while than more most", "and or but of the is are was"),
)
CLASHES = frozenset(
    (left, right) for lefts, rights in CLASH for left in lefts.split() for right in rights.split()
) - {
    ("most", "of"),
    *(("i", "am"), ("for", "is")),
    *itertools.product("and or but if when while than".split(), ["the"]),
}
NEVER_LAST = frozenset("the a an my your our every and or but because".split())
WORD = r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+(?:[.,]\d+)*"
# Words, ends of sentences, and the marks of list items.
TEXT_PIECE = re.compile(rf"{WORD}|(?<![.!?…])[.!?…]++[\"'”’)\]]*+(?=\s)|;\s|\n\s*+[-*•–]?")
STRETCHED = re.compile(r"([a-z])\1\1++")
SUFFIXES = ("'s", "ing", "ed", "ies", "es", "s", "ly")


def stem(word: str) -> str:
    """A word without its ending, at most seven letters; crude, but alike for related words.

    >>> stem("rains"), stem("raining"), stem("rain")
    ('rain', 'rain', 'rain')
    """
    for suffix in SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word[: -len(suffix)] + ("y" if suffix == "ies" else "")
            break
    return (word[:-1] if len(word) > 3 and word[-1] == "e" else word)[:7]


COMMON_STEMS = frozenset(map(stem, COMMON_WORDS.split()))


@functools.lru_cache(maxsize=100_000)
def topic_stem(word: str) -> str:
    """The stem of a topic word; empty for a small, a common or a very short one."""
    found = stem(word)
    return "" if len(word) < 3 or word in SMALL_WORDS or found in COMMON_STEMS else found


def is_sentence(words: Sequence[str]) -> bool:
    """Do small words join the others, in an order that English allows?

    Between a seventh and four fifths of the words are small, no more than eight of one kind
    stand in a row, and few stand together that cannot. A line of up to four words needs one that
    is small or common.
    """
    if len(words) < 5:
        return any(not topic_stem(word) for word in words)
    kinds = "".join(["s" if word in SMALL_WORDS else "t" for word in words])
    clashes = sum(pair in CLASHES for pair in itertools.pairwise(words))
    return (
        0.15 <= kinds.count("s") / len(words) <= (0.8 if len(words) > 9 else 0.9)
        and words[-1] not in NEVER_LAST
        and "sssssssss" not in kinds
        and "ttttttttt" not in kinds
        and 2.5 <= len("".join(words)) / len(words) <= 9
        and 5 * sum(not word.isascii() for word in words) <= len(words)
        and 12 * clashes <= len(words)
    )


@dataclasses.dataclass(frozen=True)
class Sentence:
    """One sentence or line."""

    words: tuple[str, ...]
    topic: frozenset[str]  # stems
    sound: bool  # is built like one
    opens: bool  # a paragraph


@dataclasses.dataclass(frozen=True)
class Text:
    """A text, taken apart once."""

    words: tuple[str, ...]  # lower case, in order
    topic: collections.Counter  # stems of the topic words
    sentences: tuple[Sentence, ...]
    quads: frozenset  # sets of four words in a row
    clashes: float  # share of words that cannot follow the one before, or are streeetched

    @property
    def content(self) -> set[str]:
        """The different topic words."""
        return set(self.topic)


LONGEST_TEXT = 20_000  # characters; beyond them nothing is read


def read_text(text: str) -> Text:
    """Takes a text apart; linear in its length."""
    sentences: list[Sentence] = []
    words: list[str] = []
    named: list[str] = []
    found: list[str] = []
    opens, alone = True, text.strip(" .\n").isdigit()  # the whole text is a number
    for piece in TEXT_PIECE.findall(text[:LONGEST_TEXT].lower().replace("’", "'") + "\n"):
        if piece[0].isalnum():
            found.append(piece)
            continue
        if not alone and len(found) == 1 and re.fullmatch(r"\d\d?", found[0]):  # "3." of an item
            found = []
            continue
        if found:
            stems = [s for word in found if (s := topic_stem(word))]
            named += stems
            words += found
            sentences.append(Sentence(tuple(found), frozenset(stems), is_sentence(found), opens))
            found, opens = [], False
        opens = opens or piece.count("\n") > 1
    quads = frozenset(zip(words, words[1:], words[2:], words[3:], strict=False))
    clashes = sum(pair in CLASHES for pair in itertools.pairwise(words))
    clashes += len(STRETCHED.findall(" ".join(words)))
    share = clashes / max(12, len(words))
    return Text(tuple(words), collections.Counter(named), tuple(sentences), quads, share)


read_source_text = functools.lru_cache(maxsize=4096)(read_text)  # questions and references


@dataclasses.dataclass(frozen=True)
class Kept:
    """What counts of a text."""

    words: int  # no more than three for each different topic word: filler adds few of these
    content: frozenset[str]  # topic words
    share: float  # of all words, 0 to 1


def keep(text: Text, known: Iterable[str], loose: bool = False, free: int = 0) -> Kept:
    """What counts: sound sentences that say something new, in paragraphs that are linked.

    Args:
      text: the text.
      known: topic words. A paragraph after the first is linked if it shares one with them or with
        a linked paragraph before it.
      loose: a story or a poem: nothing needs a link.
      free: lines of so many words need not be sentences: of a haiku, or a list of names.
    """
    reached, said = set(known), set()
    words, linked = 0, True
    for i, sentence in enumerate(text.sentences):
        if sentence.opens and i and not loose:
            ahead = itertools.takewhile(lambda s: not s.opens, text.sentences[i + 1 : i + 20])
            linked = any(not reached.isdisjoint(s.topic) for s in (sentence, *ahead))
        new = sentence.topic - said
        sound = sentence.sound or len(sentence.words) <= free
        if sound and linked and new and len(new) >= 0.34 * len(sentence.topic):
            words += len(sentence.words)
            said |= sentence.topic
            reached |= sentence.topic
    share = words / max(1, len(text.words))
    return Kept(min(words, 3 * len(said)), frozenset(said), share)


# How much a word says is its inverse document frequency. The vocabulary is fitted **once**,
# over the open rows that GRPO draws from; fitted per sample, every word of a short text
# would look rare. Without a run, every topic word counts alike.


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """How much each topic word says."""

    idf: Mapping[str, float] = dataclasses.field(default_factory=dict)
    unseen: float = 1.0

    @classmethod
    def fit(cls, texts: Iterable[str]) -> "Vocabulary":
        """Smoothed idf over texts: ln((1 + n) / (1 + texts with the word)) + 1."""
        count, seen = 0, collections.Counter()
        for text in texts:
            count += 1
            seen.update(read_text(text).content)
        idf = {word: math.log((1 + count) / (1 + n)) + 1 for word, n in seen.items()}
        return cls(idf, math.log(1 + count) + 1)

    def weight(self, words: Iterable[str]) -> float:
        """The sum of the words' weights."""
        return sum(self.idf.get(word, self.unseen) for word in words)

    def weights(self, text: str) -> dict[str, float]:
        """The TF-IDF vector of a text, of length 1 (empty for a text without topic words)."""
        vector = {
            word: (1 + math.log(count)) * self.idf.get(word, self.unseen)
            for word, count in read_source_text(text).topic.items()
        }
        size = math.sqrt(sum(value * value for value in vector.values()))
        return {word: value / size for word, value in vector.items()}


PLAIN = Vocabulary()


def cosine(left: Mapping[str, float], right: Mapping[str, float]) -> float:
    """The cosine of two unit vectors, 0 to 1."""
    return sum(value * right[word] for word, value in left.items() if word in right)
