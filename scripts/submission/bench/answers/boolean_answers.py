"""Is this the right yes or no?

One of them, first, or last behind a "so"; an explanation may follow. It may have a "not" in it
("Yes, ice does not sink"). What takes the answer back is a clause that would be a *short answer*
the other way: "yes, never", "yes, it is not", "no, it does", "yes, the claim is wrong"; or one that
says the question's own words the other way: "No, 91 is a prime number".
"""

import re

from submission.bench.answers.answer_text import (
    HEDGES,
    NEGATIONS,
    VERDICT,
    after_lead_in,
    conclusion,
    undress,
    words_of,
)
from submission.bench.answers.number_forms import NAMED

TRUTH = dict.fromkeys("yes yeah yep true correct y".split(), True)
TRUTH |= dict.fromkeys("no nope nah false incorrect n".split(), False)
SAID_FIRST = re.compile(
    r"(?:(?:definitely|certainly|absolutely|clearly|indeed|of course|obviously),? )?"
    rf"(?P<said>{'|'.join(TRUTH)})\b(?P<rest>.*)",
    re.DOTALL,
)
# Without a comma, only these may follow: "Yes it is", not "yes no".
OPENERS = frozenset(
    "it he she they you we i this that these those there the because since as indeed both all most "
    "its his her their my our for".split()
)
CLAUSE_END = re.compile(r"[,.;:!()\n—–]+|\s-\s|\b(?:and|but|although|though|however|yet)\b")
FILLERS = frozenset(
    "of course actually well so then really in fact rather indeed just oh i mean think say "
    "would".split()
)
NO_WORDS = NEGATIONS - {"anything", "except", "unless", "without"} | {"n", "negative"}
YES_WORDS = frozenset("yes yeah yep y true correct affirmative".split())
TAKEN_BACK = re.compile(
    r"\bbut (?:in fact|actually|really)\b|\b(?:kidding|joking|i doubt|doubtful|hardly|barely|scarcely|scratch that|second thoughts?|take (?:that|it) back"
    r"|the (?:opposite|contrary|reverse|other (?:one|way))|the other (?:answer|after all))\b"
    r"|^\W*\d+(?:\.\d+)? ?%\W*$|\b50 ?/ ?50\b|[✗✘❌👎]"
    r"|\b(?:do not|don't|cannot|can't) (?:know|tell|say)\b"
)
PRONOUNS = frozenset("it he she they this that these those there".split())
WORD = re.compile(r"[^\W_]+(?:'[^\W\d_]+)?")
# A word and its opposite: one said for the other denies.
OPPOSITES: dict[str, set[str]] = {}
for pair in (
    "odd/even composite/prime south/north west/east after/before higher/lower float/sink dead/alive "
    "smaller/larger smaller/bigger below/above outside/inside negative/positive left/right cold/hot "
    "shorter/taller shorter/longer younger/older lighter/heavier slower/faster lose/win fall/rise "
    "closed/open colder/hotter decrease/increase illegal/legal impossible/possible later/earlier "
    "irrational/rational unsafe/safe cheaper/dearer invisible/visible earlier/after later/before"
).split():
    word, other = pair.split("/")
    OPPOSITES.setdefault(word, set()).add(other)
    OPPOSITES.setdefault(other, set()).add(word)
DENIALS = frozenset(
    "less fewer fails fail lacks lack refuses outside invisible rather nobody".split()
)
ORDERED = frozenset("than before after above below ahead behind".split())
PREDICATE = re.compile(
    r"\b(?:is|cannot|\w+n't|are|was|were|be|been|has|have|had|do|does|did|can|could|will|would|should|may|might)\b"
)
# Words that a clause and its question share without agreeing on anything.
CONNECTING = frozenset(
    "it is a an the are was were be they he she that this there indeed really do does did can "
    "could will would has have had in of to and so just in fact very than then now one".split()
)
QUIET = CONNECTING | NO_WORDS | DENIALS | {"more", *"without such exactly may might must".split()}
# Behind "not", these end a short answer: "it is not true", "it could not be".
AFTER_NOT = frozenset(
    "true correct right so the case be been have do does did is are was were at all really quite "
    "exactly entirely either too yet here possible".split()
)
SHORT_YES = re.compile(
    r"(?:it|he|she|they|you|we|i|this|that|there|one) (?:is|are|was|were|am|do|does|did|can|could"
    r"|will|would|has|have|had|should|may|must)"
    r"(?: (?:indeed|too|so|now|right|possible|not false|not wrong|not untrue))?"
    r"|that's right"
)


# Denials in one clause, if the question does not ask about them: "that is a lie".
DENIED = re.compile(
    r"(?:(?:it|that|this)(?: is|'s) )?(?:a (?:lie|myth|hoax|fable)|impossible|by no means|nonsense"
    r"|absurd|false|fiction)"
)
WHOLE_ANSWERS = (
    (
        re.compile(
            r"(?:(?:it|that|this) is |it's )?(?:definitely |certainly |absolutely )?"
            r"(?:not (?:true|correct|possible|the case))|(?:definitely|certainly|absolutely"
            r"|of course|surely) not|not at all|(?:it is )?impossible|never"
        ),
        False,
    ),
    (re.compile(r"absolutely|of course|definitely|certainly|indeed"), True),
)


def root(word: str) -> str:
    """A word without its ending, a number word in digits: "squares", "denser", "six"."""
    if word in NAMED:
        return str(NAMED[word])
    return re.sub(r"(?<=\w{3})(?:ed|er|est|es|'s|s|ing)$", "", word).removesuffix("e")


def is_negated(words: list[str]) -> bool:
    """Has a clause an odd number of denials in it?"""
    return sum(word in NO_WORDS | DENIALS or word.endswith("n't") for word in words) % 2 == 1


def short_answer(clause: str) -> bool | None:
    """What a clause says as an answer of its own: yes, no, or None if it only explains.

    >>> short_answer("it is not true"), short_answer("it does"), short_answer("it does not sink")
    (False, True, None)
    """
    if DENIED.fullmatch(clause.strip()):
        return False
    words = WORD.findall(clause)
    if SHORT_YES.fullmatch(" ".join(words)):
        return True
    while words and words[0] in FILLERS:
        words = words[1:]
    end = len(words)
    while end > 1 and words[end - 1] in AFTER_NOT:
        end -= 1
    if not words:
        return None
    explains = words[0] in ("not", "no") and len(words) > 2 and end == len(words)
    if (words[0] in NO_WORDS and not explains) or is_negated(words[end - 1 : end]):
        return False
    if words[0] in YES_WORDS or words[-1] in YES_WORDS or SHORT_YES.fullmatch(" ".join(words)):
        return True
    return None


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
    if re.match(r"\W*(?:because|since|as|due)\b", clause):
        return None
    sentence = re.split(r"[.!?:]['\"]?\s", question.lower().strip())[-1]
    words, asked = WORD.findall(clause.lower()), WORD.findall(sentence)
    topic, said, known = [root(word) for word in asked if word not in QUIET | ORDERED], [], []
    turned = is_negated(words) + is_negated(asked)
    for word in words:
        if word not in QUIET:
            opposed = word not in asked and OPPOSITES.get(word, set()) & set(asked)
            turned += bool(opposed)
            meant = min(opposed) if opposed else word
            said += [root(meant)] if meant not in ORDERED else []
            known += [root(meant)] if root(meant) in topic else []
    unknown = [word for word in said if word not in topic]
    missing = [word for word in topic if word not in said]
    split = next((i for i, word in enumerate(asked) if word in ORDERED), 0)
    left, right = ({root(w) for w in part} & set(topic) for part in (asked[:split], asked[split:]))
    if not known or (whole and missing) or (unknown and is_negated(asked)):
        return None
    if any(word.isdigit() for word in unknown) and any(word.isdigit() for word in missing):
        turned += 1  # another number
        if split:
            return None
    elif len(unknown) == len(missing) == 1:  # "the capital is Canberra"
        return None
    if left and known[0] in right - left:  # "water is denser"
        turned += 1
    ends = [i for i, word in enumerate(asked) if root(word) == known[-1]]
    subject = len(known) == 1 and any(
        PREDICATE.match(w) for i in ends for w in asked[i + 1 : i + 2]
    )
    pronoun = not PRONOUNS.isdisjoint(words) or PREDICATE.match(words[0])
    if subject or not (pronoun or (len(known) > 1 and said[0] in topic)):
        return None
    denied = turned % 2 == 1
    if 2 * len(known) < len(said) + (not denied and bool(missing)):
        return None
    tells = denied or len(known) > 2 or PREDICATE.search(clause.lower())
    return not denied if tells else None


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
    if "?" in dressed:
        return None
    for pattern, whole in WHOLE_ANSWERS:
        if pattern.fullmatch(dressed):
            return whole
    last = conclusion(dressed)
    match = SAID_FIRST.fullmatch(dressed) or SAID_FIRST.fullmatch(after_lead_in(last))
    led = dressed[: -len(last)] if match and match.string != dressed else ""
    match = match or SAID_FIRST.fullmatch(after_lead_in(dressed))
    if match is None:
        again = re.match(
            r"(?:is|are|was|were|do|does|did|can|could|will|would|has|have)\b", dressed
        )
        doubts = (HEDGES | {"if", "but"}) & set(words_of(dressed))
        return None if again or doubts else repeats_question(dressed, question, whole=True)
    value, rest = TRUTH[match["said"]], VERDICT.sub("", match["rest"])
    words = words_of(rest)
    if rest.strip() and not re.match(r" ?[,.;:!(—–\n-]", rest) and {*words[:1]} - OPENERS:
        return None
    hedges = (HEDGES - {"or", "either", "otherwise", "doubt"}) & {*words, *words_of(led)}
    if hedges or re.match(r"\W*(?:or|either|if|unless|both$|and/or)\b", rest):
        return None
    if re.search(r"\bnot (?:sure|certain|clear|known)\b|\bbe (?:either|both)\b", rest):
        return None
    if TAKEN_BACK.search(rest):
        return None
    clauses = [clause for clause in CLAUSE_END.split(f"{led}.{rest}") if clause.strip()]
    said = {short_answer(clause) for clause in clauses}
    said |= {repeats_question(clause, question) for clause in clauses}
    return None if (not value) in said else value


def check_boolean(gold: str, answer: str, question: str = "") -> bool | None:
    """The same truth value; `true` and `false` count as yes and no.

    >>> check_boolean("yes", "True"), check_boolean("yes", "yes or no")
    (True, False)
    """
    expected = parse_boolean(gold)
    return None if expected is None else parse_boolean(answer, question) == expected
