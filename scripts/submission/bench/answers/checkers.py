"""Is this answer right?

A checker compares an answer with the gold one and says right or wrong, never "close". It
forgives what people write around an answer (a lead-in, bold type, a unit, a full stop, an
explanation) and never forgives a second answer: who says "yes and no", or names all the
choices, has said nothing.

When the *gold* answer cannot be read, the checker says `None`: it cannot tell. Such rows
are dropped when they are loaded.
"""

import re
import unicodedata
from fractions import Fraction

from submission.bench.answers.answer_text import (
    HEDGES,
    LONGEST_ANSWER,
    NEGATIONS,
    REASON,
    VERDICT,
    after_lead_in,
    plain_text,
    strip_dressing,
    undress,
    words_of,
)
from submission.bench.answers.code_answers import check_code
from submission.bench.answers.math_answers import check_formula
from submission.bench.answers.number_answers import check_number, explains, parse_number
from submission.bench.answers.number_forms import read_number
from submission.bench.answers.prompts import Example

# **Short text** is compared word by word, whatever its case, accents, separators and article. A
# row may list other names of the gold answer; each of them is right.


def normalise(text: str) -> str:
    """Lower case without accents, quotes, separators and a leading article.

    >>> normalise("The U.S.A."), normalise("7, 12 and 31"), normalise("Café-Bar")
    ('usa', '7 12 and 31', 'cafe bar')
    """
    text = unicodedata.normalize("NFKD", plain_text(text).casefold())
    text = "".join(c for c in text if not unicodedata.combining(c))
    text = re.sub(r"(?<=[a-z])_(?=\d)|(?<!\w)'(?=\w)|(?<=\w)'(?!\w)", "", text)  # H_2O, ['a']
    text = re.sub(r"\b(?:[^\W\d_]\.){2,}", lambda m: m[0].replace(".", ""), text + " ")
    text = re.sub(r"[.!,;:\s]+(?=\s|$)|[,;\"\s]+|(?<=[^\W\d_])[-–—](?=[^\W\d_])", " ", text)
    text = re.sub(r"^\s*[(\[{](.*)[)\]}]\s*$", r"\1", text.replace("&", " and ").strip())
    return re.sub(r"^(?:the|an?) (?=[^\W\d_])", "", " ".join(text.split()))


def spellings(text: str) -> set[str]:
    """The text normalised; a list also with "and" or an arrow between its last words.

    >>> normalise("7 < 12 < 31") in spellings("7, 12, 31")
    True
    """
    usual = normalise(text)
    if "," not in text or " " not in usual:
        return {usual}
    first, last = usual.rsplit(" ", 1)
    return {usual, f"{first} and {last}"} | {usual.replace(" ", sign) for sign in (" < ", " → ")}


LIST_ITEM = re.compile(r"(?:[-*•]|\(?\d{1,2}[.)])\s+(?P<item>\S.*)")
BACK_TO_QUESTION = re.compile(r"(?P<head>.+?) (?:is|was|are|were) (?P<asked>the .+)", re.I | re.S)


def joined_lines(answer: str) -> str:
    """The items of a numbered or bulleted list in one line; another text as it is.

    >>> joined_lines("1. cat\\n2. dog"), joined_lines("1. cat")
    ('cat, dog', '1. cat')
    """
    items = [LIST_ITEM.fullmatch(line.strip()) for line in answer.strip().splitlines()]
    if len(items) < 2 or not all(items):
        return answer
    return ", ".join(item["item"].strip() for item in items)


def before_question(text: str, question: str) -> str:
    """What stands before "is the ...", if the rest only repeats words of the question.

    >>> before_question("Paris is the capital of France", "What is the capital of France?")
    'Paris'
    """
    match = BACK_TO_QUESTION.fullmatch(text.strip(" ."))
    if match is None or not set(words_of(match["asked"])) <= set(words_of(question)):
        return text
    return match["head"]


def whole_number(text: str) -> Fraction | None:
    """The value of a text that is one number and nothing else.

    >>> whole_number("seven") == whole_number("7"), whole_number("7 cats") is None
    (True, True)
    """
    reading = read_number(text.strip(" ."))
    return reading.value if reading and not reading.rest else None


def check_text(
    gold: str, answer: str, aliases: tuple[str, ...] = (), question: str = ""
) -> bool | None:
    """The same words in the same order as the gold answer or one of its other names.

    >>> check_text("7, 12, 31", "7 12 31"), check_text("cat red", "red cat")
    (True, False)
    >>> check_text("United States", "the U.S.", aliases=("USA", "US"))
    True
    """
    if not normalise(gold):
        return None
    names = set().union(*(spellings(name) for name in (gold, *aliases))) - {""}
    answer = joined_lines(answer)
    number = whole_number(gold)
    claim = strip_dressing(answer)
    in_words = re.search("[a-z]", (gold + claim).lower())
    if number is not None and in_words and whole_number(claim) == number:
        return True
    bare = before_question(undress(answer), question)
    for text in (plain_text(answer), undress(answer), strip_dressing(answer), bare):
        head, reason = split_reason(text)
        twice = re.fullmatch(r"(.+?) ?\((.+)\)", text)
        if normalise(text) in names or (reason and normalise(head) in names):
            return True
        if twice and {normalise(part) for part in twice.groups()} <= names:
            return True
    return False


def split_reason(text: str) -> tuple[str, str]:
    """An answer and the reason behind it, which may hold no hedge; ("text", "") without one.

    >>> split_reason("a cat, because it purrs"), split_reason("a cat because or a dog")
    (('a cat', 'because it purrs'), ('a cat because or a dog', ''))
    """
    match = re.search(r"[,.;:(—–-]*\s(?=\(?(?:because|since|as it|as they|as the)\s)", text, re.I)
    if match is None or HEDGES & set(words_of(text[match.end() :])):
        return text, ""
    return text[: match.start()], text[match.end() :]


# **Choices**: the letter, the text of the choice, or both if they agree. Another letter, or the
# text of another choice, is a second answer. A reason may mention the words of another choice
# ("A, because London is in England"), but not claim them ("because London is right").


LETTER = re.compile(
    r"(?:(?:the )?(?:option|choice|answer|letter) )?[(\[{]?(?P<letter>[A-Za-z])(?![\w'])"
    r"(?P<mark>[)\]}]? ?[).:,;=→–—-]*)(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
LETTER_LAST = re.compile(
    r"(?P<text>.+?),? ?[(\[](?:option |choice )?(?P<letter>[A-Za-z])[)\]]",
    re.IGNORECASE | re.DOTALL,
)
# Letters that name a choice. A capital A before a word may be an article, and I a person.
LABELS = re.compile(
    r"\b([A-Z])\b(?![ '][a-z])|\(([A-Za-z])\)|\b([B-HJ-Z])\b|\b(A) (?:is|was|and|or|has|does)\b"
)


def find_choice(text: str, choices: tuple[str, ...]) -> int | None:
    """The place of the one choice with this text, or of this value; None if there is none.

    >>> find_choice("the cat", ("a dog", "a cat")), find_choice("$19", ("18", "19"))
    (1, 1)
    """
    exact = [i for i, choice in enumerate(choices) if plain_text(choice).lower() == text.lower()]
    same = [i for i, choice in enumerate(choices) if normalise(choice) == normalise(text)]
    value = parse_number(text)
    equal = [i for i, choice in enumerate(choices) if value == parse_number(choice)]
    for places in (exact, same, equal if value is not None else []):
        if places:
            return places[0] if len(places) == 1 else -1
    return None


OWN_LABEL = re.compile(r"[(\[]?([A-Za-z])[).:\]]\s*(?=\S)")
ORDINALS = {name: i for i, name in enumerate("first second third fourth fifth".split())}
OTHER_ORDINAL = re.compile(
    rf"\b({'|'.join(ORDINALS)}|last|other|latter) (?:option|choice|answer|one)\b", re.IGNORECASE
)
CLAIMED = r"(?:right|correct|true|best|better|answer|real|actual)"


def without_labels(choices: tuple[str, ...]) -> tuple[str, ...]:
    """The texts of choices that all carry their own letter, in order; else as they are.

    >>> without_labels(("A) Paris", "B) London")), without_labels(("A. Einstein", "N. Bohr"))
    (('Paris', 'London'), ('A. Einstein', 'N. Bohr'))
    """
    labels = [OWN_LABEL.match(choice) for choice in choices]
    if not all(m and ord(m[1].upper()) - ord("A") == i for i, m in enumerate(labels)):
        return choices
    return tuple(choice[m.end() :] for m, choice in zip(labels, choices, strict=True))


def claims_words(reason: str, other: str) -> bool:
    """Does a reason claim these words of another choice, or only mention them?

    >>> claims_words("because london is right", "london")
    True
    >>> claims_words("because london is in england", "london")
    False
    """
    found, reason = re.escape(other), reason.split(" ", 1)[-1]
    return bool(
        re.fullmatch(rf"(?:(?:it|that|this) is )?(?:the |an? )?{found}", reason)
        or re.search(rf"\b{found} (?:\w+ ){{0,3}}{CLAIMED}\b", reason)
        or re.search(
            rf"\b(?:{CLAIMED}|choose|choice|option|actually|really|say|it is|it s|should be)"
            rf" (?:\w+ ){{0,3}}{found}\b",
            reason,
        )
    )


def names_another(text: str, place: int, choices: tuple[str, ...]) -> bool:
    """Does a text beside one choice name another, by its letter or by its words?

    >>> names_another("because A is wrong", 1, ("18", "19")), names_another("A sum", 1, ("1", "2"))
    (True, False)
    """
    words = normalise(re.sub(r"[^\w\s]", " ", text))
    labels = "".join(label for group in LABELS.findall(text) for label in group).upper()
    named = {ord(label) - ord("A") for label in labels}
    others = [i for i in range(len(choices)) if i != place]
    texts = [normalise(choices[i]) for i in others if parse_number(choices[i]) is None]
    for label in re.findall(rf"\b([a-z]) (?:is|was) (?:the )?{CLAIMED}\b", text):
        named.add(ord(label) - ord("a"))
    if alone := re.fullmatch(r"\W*(?:because|since|as) ([a-z])\W*", text):
        named.add(ord(alone[1]) - ord("a"))
    for ordinal in OTHER_ORDINAL.findall(text.lower()):
        if ordinal == "other":
            return True
        named.add(ORDINALS.get(ordinal, len(choices) - 1))
    reason = REASON.match(text.strip())
    return bool(named & set(others)) or any(
        len(other) > 1
        and f" {other} " in f" {words} "
        and other not in normalise(choices[place])
        and (not reason or claims_words(words, other))
        for other in texts
    )


def supports(text: str, place: int, choices: tuple[str, ...]) -> bool:
    """May this text stand behind a choice: a reason, or a description in its own words?

    >>> supports("because 18 + 1 = 19", 1, ("18", "19")), supports("18", 1, ("18", "19"))
    (True, False)
    """
    denied = re.search(r",? (?:and )?(?:not|rather than|instead of) (?P<other>[^,;]+)$", text)
    if denied and find_choice(denied["other"], choices) not in (None, -1, place):
        text = text[: denied.start()]
    if names_another(text, place, choices):
        return False
    own, words = normalise(choices[place]), normalise(text)
    reason, value = REASON.match(text), parse_number(choices[place])
    described = f"{words} ".startswith(f"{own} ") if value is not None else own in words
    if not reason and not described:
        return False
    if value is not None:
        return explains(text if reason else words.removeprefix(own), value)
    doubts = HEDGES if reason else HEDGES | NEGATIONS
    return not doubts & (set(words_of(text)) - set(words_of(choices[place])))


def read_choice(text: str, choices: tuple[str, ...]) -> int | None:
    """The place of the choice that a text claims; -1 if it claims several; None if none.

    >>> read_choice("B) 19", ("18", "19")), read_choice("A) 19", ("18", "19"))
    (1, -1)
    """
    if last := LETTER_LAST.fullmatch(text):
        said = find_choice(last["text"], choices)
        if said is not None:
            return said if said == ord(last["letter"].upper()) - ord("A") else -1
    place, letter = find_choice(text, choices), LETTER.fullmatch(text)
    labelled = letter and ord(letter["letter"].upper()) - ord("A")
    if letter and labelled < len(choices):
        rest, marked = letter["rest"].strip(), bool(letter["mark"].strip())
        said = find_choice(rest, choices)
        if place is None or (marked and said is not None):
            if not rest or said == labelled or (said is None and supports(rest, labelled, choices)):
                return labelled
            if marked:  # without a mark, "a dog" is not the letter A
                return -1
    if place is not None:
        return place
    head, reason = split_reason(text)
    place = find_choice(head, choices) if reason else None
    return -1 if place is not None and not supports(reason, place, choices) else place


def check_choice(gold: str, answer: str, choices: tuple[str, ...]) -> bool | None:
    """The right letter, or the right text, and nothing else.

    >>> check_choice("B", "(b)", ("18", "19")), check_choice("B", "A or B", ("18", "19"))
    (True, False)
    """
    choices = without_labels(choices)
    gold = re.sub(r"\W", "", gold).upper()  # also "(B)" and "b."
    position = ord(gold) - ord("A") if len(gold) == 1 else -1
    if not 0 <= position < len(choices):
        return None
    text = undress(answer)
    without_verdict = VERDICT.sub("", text)
    for version in (text, without_verdict, after_lead_in(without_verdict)):
        claimed = read_choice(version, choices)
        if claimed is not None:
            led_by = version != text and version != without_verdict
            lead = text[: len(text) - len(version)] if led_by else ""
            return claimed == position and not names_another(lead, position, choices)
    return False


# **Yes and no**: one of them, first; an explanation may follow. It may have a "not" in it ("Yes,
# ice does not sink"). What takes the answer back is a clause that would be a *short answer* the
# other way: "yes, never", "yes, it is not", "no, it does", "yes, the claim is wrong".


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
    r"\b(?:kidding|joking|i doubt|doubtful|hardly|barely|scarcely|scratch that|second thoughts?"
    r"|the (?:opposite|contrary|reverse|other (?:one|way))|the other (?:answer|after all))\b"
    r"|^\W*\d+(?:\.\d+)? ?%\W*$|\b50 ?/ ?50\b|[✗✘❌👎]"
    r"|\b(?:do not|don't|cannot|can't) (?:know|tell|say)\b"
)
# Words that a clause and its question share without agreeing on anything.
CONNECTING = frozenset(
    "it is a an the are was were be they he she that this there indeed really do does did can "
    "could will would has have had in of to and so just in fact very".split()
)
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


def short_answer(clause: str) -> bool | None:
    """What a clause says as an answer of its own: yes, no, or None if it only explains.

    >>> short_answer("it is not true"), short_answer("it does"), short_answer("it does not sink")
    (False, True, None)
    """
    if DENIED.fullmatch(clause.strip()):
        return False
    words = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", clause)
    if SHORT_YES.fullmatch(" ".join(words)):
        return True
    while words and words[0] in FILLERS:
        words = words[1:]
    end = len(words)
    while end > 1 and words[end - 1] in AFTER_NOT:
        end -= 1
    negated = any(w in NO_WORDS or w.endswith("n't") for w in words[:end][-1:])
    if not words or words[0] in NO_WORDS or negated:
        return False if words else None
    if words[0] in YES_WORDS or words[-1] in YES_WORDS or SHORT_YES.fullmatch(" ".join(words)):
        return True
    return None


def repeats_question(clause: str, question: str) -> bool | None:
    """Does a clause affirm what the question asks (True) or deny it (False), in its words alone?

    >>> repeats_question("it is a prime number", "Is 91 a prime number?")
    True
    >>> repeats_question("it is composite", "Is 91 a prime number?") is None
    True
    >>> repeats_question("20 is more than 17", "Is 12 + 5 more than 20?") is None
    True
    """
    words, asked = (re.findall(r"[^\W_]+(?:'[^\W_]+)?", t.lower()) for t in (clause, question))
    negated = any(word in NO_WORDS or word.endswith("n't") for word in words)
    claimed = set(words) - CONNECTING - NO_WORDS
    topic = [word for word in asked if word not in CONNECTING]
    if not claimed or not claimed <= set(topic) or topic[-1] not in claimed:
        return None
    return not negated


def parse_boolean(text: str, question: str = "") -> bool | None:
    """What the answer says, or None if it says neither, both, or hedges.

    >>> parse_boolean("No, it could not."), parse_boolean("Yes, ice does not sink.")
    (False, True)
    >>> parse_boolean("yes and no") is parse_boolean("Yes, it is not.") is None
    True
    """
    dressed = undress(text).lower()
    for pattern, whole in WHOLE_ANSWERS:
        if pattern.fullmatch(dressed):
            return whole
    match = SAID_FIRST.fullmatch(dressed) or SAID_FIRST.fullmatch(after_lead_in(dressed))
    if match is None or "?" in dressed:
        return None
    value, rest = TRUTH[match["said"]], VERDICT.sub("", match["rest"])
    words = words_of(rest)
    if (
        rest.strip()
        and not re.match(r" ?[,.;:!(—–\n-]", rest)
        and words[:1]
        and words[0] not in OPENERS
    ):
        return None
    hedges = (HEDGES - {"or", "either", "otherwise", "doubt"}) & set(words)
    if hedges or re.match(r"\W*(?:or|either|if|unless|both$|and/or)\b", rest):
        return None
    if re.search(r"\bnot (?:sure|certain|clear|known)\b|\bbe (?:either|both)\b", rest):
        return None
    if TAKEN_BACK.search(rest):
        return None
    clauses = [clause for clause in CLAUSE_END.split(rest) if clause.strip()]
    said = {short_answer(clause) for clause in clauses}
    said |= {repeats_question(clause, question.lower()) for clause in clauses}
    return None if (not value) in said else value


def check_boolean(gold: str, answer: str, question: str = "") -> bool | None:
    """The same truth value; `true` and `false` count as yes and no.

    >>> check_boolean("yes", "True"), check_boolean("yes", "yes or no")
    (True, False)
    """
    expected = parse_boolean(gold)
    return None if expected is None else parse_boolean(answer, question) == expected


# One function stands before them all. Code is run, in a child process, against the row's tests;
# everything else is read here.


def check(example: Example, answer: str) -> bool | None:
    """Is `answer` right? None if the row has no answer that can be checked.

    Raises:
      RuntimeError: a child process that a checker needs cannot be started.
    """
    gold, question = example.answer, example.question
    if example.checker == "code":
        return check_code(answer, example.tests)
    if len(gold) > LONGEST_ANSWER:
        return None
    if len(answer) > LONGEST_ANSWER:
        answer = ""
    match example.checker:
        case "number":
            right = check_number(gold, answer, question)
            return check_formula(gold, answer, question) if right is None else right
        case "choice":
            return check_choice(gold, answer, example.choices)
        case "boolean":
            return check_boolean(gold, answer, question)
        case "text":
            return check_text(gold, answer, example.choices, question)
    return None  # open answers have no gold to match
