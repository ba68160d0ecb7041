"""Is this the right number?

The claim has to be the gold value, in the unit and the scale that the question asks for, and
worked out. A form that only says the question again is no answer.
"""

import math
import re

from submission.bench.answers.answer_text import plain_text, strip_dressing
from submission.bench.answers.claims import read_answer, read_claim
from submission.bench.answers.measures import PERCENT_ASKED, in_asked_measure, names_rival
from submission.bench.answers.number_forms import Reading

SCALE_ASKED = re.compile(
    r"\b(?:in|how many)(?: \w+)? (dozen|hundred|thousand|million|billion|trillion)s?\b", re.I
)
DIGITS_ASKED = re.compile(
    r"\b(?:in|using|as|with)(?: only)? (?:\w+ )?(?:digit|numeral|figure)s?\b|\bordinary number\b",
    re.I,
)
DECIMAL_ASKED = re.compile(r"\b(?:as|in|to)(?: an?)? decimals?\b|\bdecimal (?:form|number)\b", re.I)
FRACTION_ASKED = re.compile(r"\b(?:as|in|to|into)(?: an?)?(?: \w+)? fractions?\b(?! of)", re.I)
FORM_ASKED = re.compile(r"\b(?:improper|mixed) (?:fraction|number)|\bscientific notation", re.I)
SIMPLEST_ASKED = re.compile(r"\b(?:simplif|simplest|lowest terms|reduced?\b|common fraction)", re.I)


def asked_scale(question: str) -> str:
    """The scale in which a question asks: "million" of "How many million?"; else empty."""
    match = SCALE_ASKED.search(question)
    return match[1].lower() if match else ""


def is_finished(claim: Reading, gold: Reading, question: str) -> bool:
    """Is the claim worked out, and in the form that is asked for?"""
    numbers, dozens = set(re.findall(r"\d+", question)), asked_scale(question) == "dozen"
    if dozens and not claim.scale and re.match(r" [a-z]", claim.rest):
        return False  # 30 eggs, where dozens are asked
    if (claim.form, claim.scale, claim.parts) == (gold.form, gold.scale, gold.parts):
        return True
    if FORM_ASKED.search(question):
        return claim.form == gold.form != "scientific"
    if claim.form == "power":
        asked = re.search(r"\^|\bpower|squared|cubed|\bdigits", question)
        return claim.value >= 1000 and not asked and str(claim.parts[0]) not in numbers
    fraction = claim.form == "fraction"
    if (
        (DIGITS_ASKED.search(question) and (claim.form in ("words", "scientific") or claim.scale))
        or (claim.scale == "dozen" and not dozens)
        or (DECIMAL_ASKED.search(question) and (fraction or claim.scale == "percent"))
        or (FRACTION_ASKED.search(question) and gold.form == "fraction" and not claim.form)
    ):
        return False
    if not fraction:
        return True
    if math.gcd(*claim.parts) > 1:
        again = {str(part) for part in claim.parts} <= numbers
        return not again and not SIMPLEST_ASKED.search(question)
    said = "/".join(map(str, claim.parts))
    return re.search(rf"(?<![\d/.]){said}(?![\d/])", question.replace(" ", "")) is None


def equal(claim: Reading, gold: Reading, question: str) -> bool:
    """The same value, in the scale that is asked for ("How many million?")?

    In a question for percent, 20 and 20 % are the same; a gold below one is the share itself.
    """
    scale = asked_scale(question)
    if PERCENT_ASKED.search(question) and abs(gold.value) >= 1:
        scale = "percent"
    values = [r.value / r.sized if scale and r.scale == scale else r.value for r in (claim, gold)]
    return values[0] == values[1]


def check_number(gold: str, answer: str, question: str = "") -> bool | None:
    """Equal as exact numbers; None if the gold answer is not a plain number.

    >>> check_number("42", "**42.0**"), check_number("5", "-5"), check_number("2π", "6.28")
    (True, False, None)
    >>> check_number("1024", "2^10"), check_number("1024", "2^10", "What is 2 to the power of 10?")
    (True, False)
    >>> check_number("20", "20 %", "What is the percent increase?"), check_number("20", "20 %")
    (True, False)
    """
    expected, asked = read_claim(strip_dressing(gold)), plain_text(question)
    if expected is None:
        return None
    claim = read_answer(answer, asked)
    return (
        claim is not None
        and (claim.value < 0 or not names_rival(answer, asked))  # "a loss of -$90"
        and equal(claim, expected, asked)
        and is_finished(claim, expected, asked)
        and in_asked_measure(claim, expected, asked)
    )
