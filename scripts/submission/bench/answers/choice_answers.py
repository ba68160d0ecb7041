"""Is this the right choice?

The letter, the text of the choice, or both if they agree; an explanation may follow. Another
letter, or the text of another choice, is a second answer. An explanation may mention the words of
another choice ("A, because London is in England"), but not claim them ("because London is right").
"""

import re

from submission.bench.answers.answer_text import (
    HEDGES,
    JOINING,
    NEGATIONS,
    REASON,
    VERDICT,
    after_lead_in,
    beside_question,
    conclusion,
    is_wrapped,
    plain_text,
    stem_of,
    undress,
    unwrap,
    words_of,
)
from submission.bench.answers.claims import explains, parse_number, read_answer, says_again
from submission.bench.answers.measures import measure_of
from submission.bench.answers.text_answers import (
    SURNAME,
    items,
    named_by,
    normalise,
    same_moment,
    split_reason,
)

LETTER = re.compile(
    r"(?:(?:the )?(?:option|choice|answer|letter|statement) )?"
    r"[(\[{]?(?P<letter>[A-Za-z])(?![\w'])"
    r"(?P<mark>(?: is (?:correct|right|true)(?=:| because\b| since\b))?"
    r"[)\]}]? ?(?:[).:,;=→]|[–—-](?! ?\d))*)(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
LETTER_LAST = re.compile(
    r"(?P<text>.+?)(?:,? ?[(\[](?:option |choice )?|: (?=.$))(?P<letter>[A-Za-z])[)\]]?",
    re.IGNORECASE | re.DOTALL,
)
LETTER_IN_THE_END = re.compile(
    r"(?:so|(?:which|answer) is)\W+(?:(?:it|the answer) is )?(?:option |choice |answer )?"
    r"[(\[]?([A-Z])\b\W*$"
)
# Letters that name a choice. A capital A before a word may be an article, and I a person.
LABELS = re.compile(
    r"(?<!°)\b([A-Z])\b(?![ '][a-z])|\(([A-Za-z])\)|(?<!°)\b([B-HJ-Z])\b"
    r"|\b(A) (?:is|was|and|or|has|does)\b"
)
OWN_LABEL = re.compile(r"[(\[]?([A-Za-z])[).:\]]\s*(?=\S)")
ORDINALS = {name: i for i, name in enumerate("first second third fourth fifth".split())}
OTHER_ORDINAL = re.compile(
    rf"\b({'|'.join(ORDINALS)}|last|other|latter) (?:option|choice|answer|one)\b", re.IGNORECASE
)
CLAIMED = r"(?:right|correct|true|best|better|answer|real|actual)"
WITHDRAWN = re.compile(
    rf"\b(?:not|isn't) (?:\w+ )?{CLAIMED}\b|\bactually\b|\b(?:is|be) (?:wrong|incorrect|false)\b"
    r"|\b(?:wrong|incorrect|false|all of|any of|both|no|too|as well)\W*$",
    re.IGNORECASE,
)
VERB = re.compile(
    r"\b(?:is|are|was|were|has|have|had|does|do|did|can|could|will|would|be|\w+(?:ed|s))\b"
)


DOING = frozenset(  # what may stand beside a choice and its question's words
    "give given use used take taken start try choose administer prescribe perform should would "
    "means mean same word term called you'd they'd".split()
)
ARTICLE = re.compile(r"^(?:an? )?pair of |\b(?:the|an?) |^to ", re.IGNORECASE)


def bare(text: str) -> str:
    """A text without articles, normalised.

    >>> bare("a pair of the Gloves"), bare("to run")
    ('gloves', 'run')
    """
    return normalise(ARTICLE.sub("", text))


def stems_of(text: str) -> set[str]:
    """The stems of a text's words that say something."""
    return {stem_of(word) for word in words_of(text)} - JOINING


def same_quantity(text: str, choice: str) -> bool:
    """Is a choice this value, and in no other unit: 54 m^3 is not 54 m^2, 10 A not 10 Ω?"""
    said, named = read_answer(text), read_answer(choice)
    if said is None or named is None or said.value != named.value:
        return False
    units = [re.findall(r"(?<=\d) ?([^\W\d]{1,2}(?:\^\d)?|°[CF])$", t) for t in (text, choice)]
    if all(units) and units[0] != units[1]:
        return False
    measures = measure_of(said), measure_of(named)
    if named.currency and not said.currency and words_of(said.rest) and not measures[0]:
        return False  # 15 pens
    other = all(measures) and measures[0].name != measures[1].name
    return not other and (said.form != "power" or named.form == "power")


def find_choice(text: str, choices: tuple[str, ...]) -> int | None:
    """The place of the one choice with this text, or of this value; -1 if there are two.

    >>> find_choice("the cat", ("a dog", "a cat")), find_choice("$19", ("18", "19"))
    (1, 1)
    >>> find_choice("Rr", ("RR", "Rr", "rr"))
    1
    """
    plain = [plain_text(choice) for choice in choices]
    for same in (
        [unwrap(choice) == unwrap(text) for choice in plain],
        [choice.lower() == text.lower() for choice in plain],
        [normalise(choice) == normalise(text) for choice in choices],
        [same_quantity(text, choice) for choice in plain],
        [same_moment(choice, plain_text(text), "") for choice in plain],
        [bare(choice) == bare(text) for choice in plain],
        [" and " in choice and sorted(items(choice)) == sorted(items(text)) for choice in plain],
        [(m := SURNAME.fullmatch(choice)) and m[1].lower() == text.lower() for choice in plain],
        [len(text) > 3 and stem_of(bare(choice)) == stem_of(bare(text)) for choice in plain],
    ):
        if any(same):
            return same.index(True) if sum(same) == 1 else -1
    return None


def without_labels(choices: tuple[str, ...]) -> tuple[str, ...]:
    """The texts of choices that all carry their own letter, in order; else as they are.

    >>> without_labels(("A) Paris", "B) London")), without_labels(("A. Einstein", "N. Bohr"))
    (('Paris', 'London'), ('A. Einstein', 'N. Bohr'))
    """
    labels = [OWN_LABEL.match(choice) for choice in choices]
    if not all(m and ord(m[1].upper()) - ord("A") == i for i, m in enumerate(labels)):
        return choices
    return tuple(choice[m.end() :] for m, choice in zip(labels, choices, strict=True))


def claims_words(text: str, other: str) -> bool:
    """Does a normalised explanation claim these words of another choice, or only mention them?

    >>> claims_words("because london is right", "london")
    True
    >>> claims_words("because london is in england", "london")
    False
    """
    found, text = re.escape(other), re.sub(r"^(?:because|since|as) ", "", text)
    return bool(
        re.fullmatch(rf"(?:(?:it|that|this) \w+ )?(?:the |an? )?{found}", text)
        or re.search(rf"\b{found} (?:\w+ ){{0,3}}{CLAIMED}\b", text)
        or re.search(rf"\b{found} (?:is|are|was|were) (?:the )?(?:only|one)\b", text)
        or re.search(
            rf"\b(?:{CLAIMED}|choose|choice|option|actually|really|say|it is|it s|should be)"
            rf" (?:\w+ ){{0,3}}{found}\b",
            text,
        )
    )


def names_another(text: str, place: int, choices: tuple[str, ...]) -> bool:
    """Does a text beside one choice name another, by its letter or by its words?

    A reason, or a clause with a verb behind the choice's own words, may mention another.

    >>> names_another("because A is wrong", 1, ("18", "19")), names_another("A sum", 1, ("1", "2"))
    (True, False)
    """
    own = normalise(choices[place])
    labels = "".join(label for group in LABELS.findall(text) for label in group).upper()
    named = {ord(label) - ord("A") for label in labels}
    for label in re.findall(rf"\b([a-z]) (?:is|was) (?:the )?{CLAIMED}\b", text):
        named.add(ord(label) - ord("a"))
    if alone := re.fullmatch(r"\W*(?:because|since|as) ([a-z])\W*", text):
        named.add(ord(alone[1]) - ord("a"))
    for ordinal in OTHER_ORDINAL.findall(text.lower()):
        named.add(-1 if ordinal == "other" else ORDINALS.get(ordinal, len(choices) - 1))
    others = {i for i in range(len(choices)) if chr(ord("A") + i) not in choices[place]} - {place}
    if named & (others | {-1}):
        return True
    reason, said = REASON.match(text.strip()), False
    ends = r"[.;:!\n]" if reason else r"[.;,:!\n]"  # "because coal, oil and gas are fossil fuels"
    for clause in re.split(rf"{ends}| (?:but|while|whereas) ", text):
        words = normalise(re.sub(r"[^\w\s]", " ", clause))
        borne = reason or (said and VERB.search(words) and len(words.split()) > 3)
        for i, choice in enumerate(choices):
            other = normalise(choice)
            if i == place or len(other) < 2 or other in own or parse_number(choice) is not None:
                continue
            if f" {other} " in f" {words} " and (not borne or claims_words(words, other)):
                return True
        said = said or f" {own} " in f" {words} "
    return False


def supports(
    text: str, place: int, choices: tuple[str, ...], marked: bool = False, question: str = ""
) -> bool:
    """May this text stand behind a choice: a reason, or an explanation in its own words?

    >>> supports("because 18 + 1 = 19", 1, ("18", "19")), supports("18", 1, ("18", "19"))
    (True, False)
    """
    denied = re.search(r",? \(?(?:and )?(?:not|rather than|instead of) ([^,;()]+)\)?$", text)
    if denied and find_choice(denied[1], choices) not in (None, -1, place):
        text = text[: denied.start()]
    if names_another(text, place, choices) or WITHDRAWN.search(text) or "?" in text:
        return False
    beside = beside_question(REASON.sub("", text.strip()), question)
    if beside and find_choice(beside, choices) not in (None, place):
        return False
    own, words = normalise(choices[place]), normalise(text)
    reason, value = REASON.match(text), parse_number(choices[place])
    if len(symbol := unwrap(text)) > 1 and named_by(choices[place], symbol):
        return True  # B (CO2)
    if value is not None:
        behind = words.removeprefix(own) if f"{words} ".startswith(f"{own} ") else None
        numbers = set(re.findall(r"\d+", text)) & set(re.findall(r"\d+", " ".join(choices)))
        if marked and behind and len(words.split()) > 2 and numbers <= {own}:
            return not HEDGES & set(words_of(text))  # 29 has no divisors but 1 and itself
        said = text if reason else behind
        return said is not None and explains(said, value)
    said = set(words_of(text))
    part_of = [i for i, choice in enumerate(choices) if said and said <= set(words_of(choice))]
    if marked and part_of == [place]:
        return True
    if reason or (marked and len(words.split()) > 2 and VERB.search(words)):
        return not HEDGES & (said - set(words_of(choices[place])))
    return own in words and not (HEDGES | NEGATIONS) & (said - set(words_of(choices[place])))


def choice_in_sentence(text: str, choices: tuple[str, ...], question: str) -> int | None:
    """The choice that a sentence names beside its question's words; None if none, or two.

    >>> asked = "Of grass and fox, which is the producer?"
    >>> choice_in_sentence("The grass is the producer.", ("Grass", "Fox"), asked)
    0
    """
    if bool(NEGATIONS & set(words_of(text))) != bool(NEGATIONS & set(words_of(question))):
        return None  # "Sound can travel through a vacuum", of what it cannot
    said = beside_question(text, question) or beside_question(conclusion(text), question)
    place = find_choice(said, choices) if said else None
    if place is not None:
        return place
    words, named = f" {bare(text)} ", [bare(choice) for choice in choices]
    asked = {*words_of(question), *"is the a an of answer choice option correct right".split()}
    found = [i for i, name in enumerate(named) if f" {name} " in words or f" {name}s " in words]
    if len(found) != 1:
        return None
    if parse_number(choices[found[0]]) is not None:  # "29 is prime"
        behind = text.removeprefix(plain_text(choices[found[0]]))
        again = behind != text and says_again(words_of(behind), set(words_of(question)))
        return found[0] if again else None
    if names_another(text, found[0], choices):
        return -1
    beside = re.sub(rf" {re.escape(named[found[0]])}s? ", " ", words, count=1)
    rest = words_of(re.sub(r"\([^\W_]{1,2}\)", "", beside))  # ohms (Ω)
    stems = {stem_of(word) for word in asked}
    known = sum(stem_of(word) in stems or word in JOINING or word in DOING for word in rest)
    enough = known == len(rest) == 1 or (len(rest) > 1 and 3 * known >= 2 * len(rest))
    alone = enough and not (HEDGES | NEGATIONS) & {*rest} - asked
    return found[0] if alone and "?" not in text else None


def read_choice(text: str, choices: tuple[str, ...], question: str = "") -> int | None:
    """The place of the choice that a text claims; -1 if it claims several; None if none.

    >>> read_choice("B) 19", ("18", "19")), read_choice("A) 19", ("18", "19"))
    (1, -1)
    """
    head, reason = split_reason(text)
    if last := LETTER_LAST.fullmatch(head if reason else text):
        labelled = ord(last["letter"].upper()) - ord("A")
        if reason and (labelled >= len(choices) or names_another(reason, labelled, choices)):
            return -1
        said = find_choice(last["text"], choices)
        if said is None and not LABELS.search(last["text"]):
            said = choice_in_sentence(last["text"], choices, question)
        if said is None:  # in other words, which are more this choice's than another's
            shared = [len(stems_of(last["text"]) & stems_of(choice)) for choice in choices]
            sure = not (HEDGES | NEGATIONS) & {*words_of(last["text"])} - {*words_of(question)}
            most = max(shared)
            said = shared.index(most) if sure and shared.count(most) == 1 and most else None
        if said is not None:
            return said if said == labelled else -1
    place, letter = find_choice(text, choices), LETTER.fullmatch(text)
    explained = re.fullmatch(r"(\S\S?) \((.+)\)", text)  # "M (mega)"
    if place is None and explained and explained[1] in choices:
        place = choices.index(explained[1])
        other = find_choice(explained[2], choices) not in (None, place)
        return -1 if other or HEDGES & set(words_of(explained[2])) else place
    labelled = letter and ord(letter["letter"].upper()) - ord("A")
    if letter and labelled < len(choices):
        rest = letter["rest"].strip()
        marked = bool(letter["mark"].strip()) or is_wrapped(rest)
        said = find_choice(rest, choices)
        alone = not rest and letter["letter"].isupper() and text not in map(plain_text, choices)
        if place is None or alone or (marked and said is not None):
            fits = said is None and supports(rest, labelled, choices, marked, question)
            if not rest or said == labelled or fits:
                return labelled
            variable = letter["letter"].islower() and "=" in letter["mark"]  # a = F/m
            if marked and not variable:  # without a mark, "a dog" is not the letter A
                return -1
    if place is not None:
        return place
    place = find_choice(head, choices) if reason else None
    refused = place is not None and not supports(reason, place, choices, question=question)
    return -1 if refused else place


def check_choice(
    gold: str, answer: str, choices: tuple[str, ...], question: str = ""
) -> bool | None:
    """The right letter, or the right text, and nothing else.

    >>> check_choice("B", "(b)", ("18", "19")), check_choice("B", "A or B", ("18", "19"))
    (True, False)
    """
    choices = without_labels(choices)
    gold = re.sub(r"\W", "", gold).upper()  # also "(B)" and "b."
    position = ord(gold) - ord("A") if len(gold) == 1 else -1
    if not 0 <= position < len(choices):
        return None
    exact, whole = answer.strip(), unwrap(plain_text(answer)).lower()
    spelt = [plain_text(choice).lower() for choice in choices]
    for names, said in ((choices, exact), (spelt, whole if len(whole) > 1 else "")):
        if names.count(said) == 1:  # "Only plants": no lead-in
            return names.index(said) == position
    text = undress(answer)
    without_verdict = VERDICT.sub("", text)
    ends = conclusion(text), after_lead_in(conclusion(without_verdict), question)
    for version in (text, without_verdict, *ends, after_lead_in(without_verdict, question)):
        claimed = read_choice(version, choices, question)
        if claimed is not None:
            if (letter := LETTER_IN_THE_END.search(text)) and ord(letter[1]) - ord("A") != claimed:
                return False  # 6, so the answer is C
            led_by = version != text and version != without_verdict
            lead = text[: len(text) - len(version)] if led_by else ""
            return claimed == position and not names_another(lead, position, choices)
    head, reason = split_reason(text)
    whole = choice_in_sentence(text, choices, question)
    place = choice_in_sentence(head, choices, question) if whole is None else whole
    return place == position and not (reason and names_another(reason, position, choices))
