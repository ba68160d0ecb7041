"""Is this the right yes or no?

One of them, first, or last behind a "so"; an explanation may follow. It may have a "not" in it
("Yes, ice does not sink"). What takes the answer back is a clause that would be a *short answer*
the other way: "yes, never", "yes, it is not", "no, it does", "yes, the claim is wrong"; or one that
says the question's own words the other way: "No, 91 is a prime number".
"""

import itertools
import re

from submission.bench.answers.answer_text import (
    HEDGES,
    NEGATIONS,
    ORDERED,
    SPOKEN,
    VERDICT,
    after_lead_in,
    conclusion,
    undress,
    without_passage,
    words_of,
)
from submission.bench.answers.number_forms import NAMED

TRUTH = dict.fromkeys("yes yeah yep true correct y".split(), True)
TRUTH |= dict.fromkeys("no nope nah false incorrect n".split(), False)
SAID_FIRST = re.compile(
    r"(?:(?:definitely|certainly|absolutely|clearly|indeed|of course|obviously),? )?"
    r"(?:(?:based on|according to) [^,]{1,40}, )?"
    rf"(?P<said>{'|'.join(TRUTH)})\b(?!-\w)(?P<rest>.*)",
    re.DOTALL,
)
# Whole answers without a yes or no in them.
SAYS_NO = re.compile(
    r"(?:(?:it|that|this) is |it's )?(?:(?:definitely|certainly|absolutely) )?"
    r"(?:not (?:true|correct|possible|the case)|impossible)"
    r"|(?:definitely|certainly|absolutely|of course|surely) not|not at all|never"
)
SAYS_YES = re.compile(r"absolutely|of course|definitely|certainly|indeed")
# Without a comma, only these may follow: "Yes it is", not "yes no".
OPENERS = frozenset(
    "it he she they you we i this that these those there the because since as indeed both all most "
    "its his her their my our for".split()
)
CLAUSE_END = re.compile(r"[,;:!()\n—–]+|\.(?!\d)|\s-\s|\b(?:and|but|although|though|however|yet)\b")
NOT_SURE = re.compile(
    r"^\W*(?:or|either|if|unless|both$|and/or)\b|\bnot (?:sure|certain|clear|known)\b"
    r"|\b(?:only (?:if|when)|except (?:that|when)|were it not)\b|\bbe (?:either|both)\b"
    r"|\bbut (?:in fact|actually|really)\b"
    r"|\b(?:i doubt|doubtful|hardly|barely|scarcely)\b"
    r"|\bthe (?:opposite|contrary|reverse|other (?:one|way|answer|after all))\b"
    r"|^\W*\d+(?:\.\d+)? ?%\W*$|\b50 ?/ ?50\b|[✗✘❌👎]"
    r"|\b(?:do not|don't|cannot|can't) (?:know|tell|say)\b"
)

# **A clause as an answer of its own.**


FILLERS = frozenset(
    "of course actually well so then really in fact rather indeed just oh i mean think say "
    "would".split()
)
NO_WORDS = NEGATIONS - {"anything", "except", "unless", "without"} | {"n", "negative"}
YES_WORDS = frozenset("yes yeah yep y true correct affirmative".split())
# Behind "not", these end a short answer: "it is not true", "it could not be".
AFTER_NOT = frozenset(
    "true correct right so the case be been have do does did is are was were at all really quite "
    "exactly entirely either too yet here possible".split()
)
SHORT_YES = re.compile(
    r"(?:it|he|she|they|you|we|i|this|that|there|one) (?:is|are|was|were|am|do|does|did|can|could"
    r"|will|would|has|have|had|should|may|must)"
    r"(?: (?:be|indeed|too|so|now|right|possible|not false|not wrong|not untrue))?|that's right"
)
DENIED = re.compile(r"(?:it|he|she|they|you|we|i|this|that|there|one) (?:\w+n't|cannot|\w+ not)")
SHORT_NO = re.compile(
    r"(?:(?:it|that|this)(?: is|'s) )?(?:a (?:lie|myth|hoax|fable)|impossible|by no means|nonsense"
    r"|absurd|false|fiction)"
)


def is_negated(words: list[str]) -> bool:
    """Has a clause an odd number of denials in it?"""
    words = [w for w in words if w != "nor" or "neither" not in words]
    return sum(w in NO_WORDS or w in DENIALS or w.endswith("n't") for w in words) % 2 == 1


def short_answer(clause: str) -> bool | None:
    """What a clause says as an answer of its own: yes, no, or None if it only explains.

    >>> short_answer("it is not true"), short_answer("it does"), short_answer("it does not sink")
    (False, True, None)
    """
    words = SPOKEN.findall(clause)
    while words and words[0] in FILLERS and not SHORT_YES.fullmatch(" ".join(words)):
        words = words[1:]
    if len(words) > 2 and words[-1] in ("none", "nothing", "nobody") and words[0] not in POINTING:
        return None  # flatbreads need none
    if not words or SHORT_NO.fullmatch(clause.strip()):
        return False if words else None
    if SHORT_YES.fullmatch(" ".join(words)):
        return True
    end = len(words)
    while end > 1 and words[end - 1] in AFTER_NOT:
        end -= 1
    explains = words[0] in ("not", "no") and len(words) > 2 and end == len(words)
    if (words[0] in NO_WORDS and not explains) or is_negated(words[end - 1 : end]):
        return False
    return True if {words[0], words[-1]} & YES_WORDS else None


# **A clause that says the question again** affirms or denies what it asks.


PAIRS = (  # a word and its opposite: one said for the other denies
    "odd/even composite/prime south/north west/east after/before higher/lower float/sink cold/hot "
    "smaller/larger smaller/bigger below/above outside/inside negative/positive left/right "
    "dead/alive shorter/taller shorter/longer younger/older lighter/heavier slower/faster lose/win "
    "closed/open colder/hotter decrease/increase illegal/legal impossible/possible later/earlier "
    "irrational/rational unsafe/safe cheaper/dearer invisible/visible earlier/after later/before "
    "fall/rise".split()
)
DENIALS = frozenset(
    "less fewer fail fails lack lacks refuses outside rather nobody deny denies denied".split()
)
POINTING = frozenset("it he she they this that these those there".split())
PREDICATE = re.compile(
    r"\b(?:is|are|was|were|be|been|has|have|had|do|does|did|can|cannot|could|will|would|should|may"
    r"|might|\w+n't)\b"
)
DEGREE = re.compile(r"\w+er|more|less")
PLACED = frozenset("at in on under during for".split())
QUIET = NO_WORDS | DENIALS  # with them, what is neither subject nor predicate
QUIET |= frozenset(
    "it is a an the are was were be they he she that this there indeed really do does did can will "
    "could would has have had in of to and so just in fact very than then now one more without "
    "kind type sort such exactly may might must some every all each any".split()
)


IRREGULAR = dict(
    pair.split("/")
    for pair in (
        "won/win lost/lose ate/eat fell/fall rose/rise flew/fly wrote/write ran/run swam/swim "
        "grew/grow sank/sink gave/give made/make"
    ).split()
)


def root(word: str) -> str:
    """A word without its ending, a number word in digits: "squares", "denser", "six"."""
    if word in NAMED:
        return str(NAMED[word])
    word = IRREGULAR.get(word, word)
    return re.sub(r"(?<=\w{3})(?:ed|er|est|es|'s|s|ing)$", "", word).removesuffix("e")


OPPOSITES = {
    root(one): {
        other
        for pair in PAIRS
        for left, other in (pair.split("/"), pair.split("/")[::-1])
        if left == one
    }
    for one in "/".join(PAIRS).split("/")
}


def repeats_question(clause: str, question: str, whole: bool = False) -> bool | None:
    """Does a clause affirm what the question asks (True) or deny it (False), in its own words?

    Half of its words have to be the question's; an opposite, another number, or a comparison the
    other way round denies. `whole`: no word may be missing.

    >>> asked = "Is 91 a prime number?"
    >>> [repeats_question(f"it is {t}", asked) for t in ("a prime number", "composite", "7 × 13")]
    [True, False, None]
    >>> repeats_question("water is denser", "Is ice denser than water?")
    False
    """
    clause, question = (
        text.lower().replace("<", " less than ").replace(">", " greater than ")
        for text in (clause, question)
    )
    if "smaller than" in question:
        clause = clause.replace("less than", "smaller than")  # 50 < 60
    parts = re.split(r"(?<=[.!?:])['\"]?\s", question.strip())
    parts = [part for part in parts[::-1] if len(part) > 1] or [""]
    sentence = next((part for part in parts if part.endswith("?")), parts[0])
    sentence = sentence.rpartition(", ")[2] if sentence.startswith("if ") else sentence
    words, asked = SPOKEN.findall(clause), SPOKEN.findall(sentence)
    topic, said, known = [root(word) for word in asked if word not in QUIET | ORDERED], [], []
    reason = words[:1] in (["because"], ["since"], ["as"], ["due"])
    words = words[reason:]
    plain = [w for w in words if w in asked or not OPPOSITES.get(root(w), set()) & set(asked)]
    turned = is_negated(plain) + is_negated(asked)
    counted = any(word in NAMED or word.isdigit() for word in asked)
    quiet = QUIET - {"one"} if counted else QUIET
    for word in words:
        opposed = word not in asked and OPPOSITES.get(root(word), set()) & set(asked)
        turned += bool(opposed)
        meant = min(opposed) if opposed else word
        if word not in quiet and meant not in ORDERED:
            said.append(root(meant))
            known += said[-1:] if said[-1] in topic else []
    unknown = [word for word in said if word not in topic]
    missing = [word for word in topic if word not in said]
    points = not POINTING.isdisjoint(words) or PREDICATE.match(" ".join(words[:1]))
    before = topic[: topic.index(known[0])] if known and points else []  # what "it" stands for
    last = max((i for i, w in enumerate(asked) if root(w) in known and w not in PLACED), default=0)
    behind = asked[last + 1 :] if PLACED & {*asked[last + 1 : last + 2]} else []
    behind = asked[last + 1 :] if {"it", "them", "one"} & {*words[-1:]} else behind
    behind += [word for of, word in itertools.pairwise(asked) if of == "of"]  # of Giza
    left_out = [w for w in missing if w not in before and w not in map(root, behind)]
    end = topic[2:][-1:]  # "91 is not prime", of a prime number
    ends = left_out == end != [] and not (ORDERED & {*asked} - {*words} or end[0].isdigit())
    split = next((i for i, word in enumerate(asked) if word in ORDERED), 0)
    compared = split and root(asked[split - 1]) in known and len(known) > 1  # "Ann is taller"
    if (
        (reason and 3 * len(unknown) > len(known))
        or not known
        or (whole and left_out and not ends and not compared)
        or (unknown and is_negated(asked))
    ):
        return None
    other_number = all(any(word.isdigit() for word in part) for part in (unknown, missing))
    if other_number and split:
        return None
    if not other_number and not split and len(unknown) == len(missing) == 1:  # "... is Canberra"
        return None
    if len(topic) == 2 and known == topic[::-1] and not split:
        return None  # every rectangle is a square
    left, right = ({root(word) for word in part} for part in (asked[:split], asked[split:]))
    swapped = not left.isdisjoint(topic) and known[0] in right - left  # "water is denser"
    degree = max((i for i in range(split) if DEGREE.fullmatch(asked[i])), default=split)
    inner = {root(word) for word in asked[degree + 1 : split]} & {*topic}
    first = words[: next((i for i, word in enumerate(words) if word in ORDERED), len(words))]
    first = {root(word) for word in first}  # "faster in steel", of "faster in air than in steel"
    swapped |= bool(inner and not inner & first and (right - left) & first)
    last = [i + 1 for i, word in enumerate(asked) if root(word) == known[-1]]
    subject = len(known) == 1 and any(PREDICATE.match(w) for i in last for w in asked[i : i + 1])
    if "there" in words:
        missing = missing[:-1]
    missing = missing[1:] if points else missing
    denied = (turned + other_number + swapped) % 2 == 1
    covered = 2 * len(set(known)) >= len(set(topic)) + (not denied and not split)
    if (
        subject
        or not (points or (covered and len(known) > 1 and said[0] in topic))
        or 2 * len(known) < len(said) + (not denied and bool(missing))
        or not (denied or points or len(known) > 2 or PREDICATE.search(clause))
    ):
        return None
    return not denied


COMPARED = re.compile(
    r"(?<![\w.,+*/×÷^-])(?<![-+*/×÷^=] )(\d+(?:\.\d+)?) ?([<>]) ?(\d+(?:\.\d+)?)(?! ?[-+*/×÷^\d,%])"
)


def compares_wrongly(text: str) -> bool:
    """Does a text affirm a comparison of two numbers that is false?

    >>> compares_wrongly("yes, 179 < 170"), compares_wrongly("98 + 81 > 170")
    (True, False)
    """
    wrong = [(float(m[1]) < float(m[3])) != (m[2] == "<") for m in COMPARED.finditer(text)]
    return any(wrong) and not (NEGATIONS - {"no"}) & set(words_of(text))


def parse_boolean(text: str, question: str = "") -> bool | None:
    """What the answer says, or None if it says neither, both, or hedges.

    >>> parse_boolean("No, it could not."), parse_boolean("Yes, ice does not sink.")
    (False, True)
    >>> parse_boolean("yes and no") is parse_boolean("Yes, it is not.") is None
    True
    >>> parse_boolean("98 + 81 = 179, so no."), parse_boolean("7 is prime", "Is 7 prime?")
    (False, True)
    """
    dressed = undress(text).lower()
    dressed = re.sub(r"^that(?:'s| is) (?:right|correct|true)\b(?=[,.;])", "yes", dressed)
    dressed = re.sub(r"^(?:of course|absolutely|certainly)(?=[,;:.!] (?!yes|no))", "yes", dressed)
    if "?" in dressed or compares_wrongly(dressed):
        return None
    if SAYS_NO.fullmatch(dressed) or SAYS_YES.fullmatch(dressed):
        return SAYS_YES.fullmatch(dressed) is not None
    last = conclusion(dressed)
    match = SAID_FIRST.fullmatch(dressed) or SAID_FIRST.fullmatch(after_lead_in(last))
    led = dressed[: -len(last)] if match and match.string != dressed else ""
    match = match or SAID_FIRST.fullmatch(after_lead_in(dressed))
    if match is None:
        unasked = {"could", "may", "might"} - set(words_of(question))
        doubts = (HEDGES | {"if", "but"} | unasked) & set(words_of(dressed))
        asks = PREDICATE.match(dressed)
        if asks or doubts:
            return None
        if SHORT_YES.fullmatch(dressed) or DENIED.fullmatch(dressed):
            return SHORT_YES.fullmatch(dressed) is not None
        said = re.sub(r" (?:since|because) .*| ?\([^()]*\)$", "", dressed, flags=re.DOTALL)
        return repeats_question(said, question, whole=True)
    value, rest = TRUTH[match["said"]], VERDICT.sub("", match["rest"])
    words = words_of(rest)
    if rest.startswith(" that ") and (inner := parse_boolean(rest[6:], question)) is not None:
        return inner == value  # it is false that it is so
    if rest.strip() and not re.match(r" ?[,.;:!(—–\n-]", rest) and {*words[:1]} - OPENERS:
        return None
    hedges = (HEDGES - {"or", "either", "otherwise", "doubt"}) & {*words, *words_of(led)}
    if hedges or NOT_SURE.search(rest):
        return None
    clauses = [clause for clause in CLAUSE_END.split(f"{led}.{rest}") if clause.strip()]
    said = {short_answer(clause) for clause in clauses}
    said |= {repeats_question(clause, question) for clause in clauses[:3]}
    return None if (not value) in said else value


def check_boolean(gold: str, answer: str, question: str = "") -> bool | None:
    """The same truth value; `true` and `false` count as yes and no.

    >>> check_boolean("yes", "True"), check_boolean("yes", "yes or no")
    (True, False)
    """
    expected = parse_boolean(gold)
    claim = parse_boolean(answer, without_passage(question))
    return None if expected is None else claim == expected
