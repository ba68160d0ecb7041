"""Is this the right number?

A unit, a currency and an explanation may stand beside a number. A *second value* may not, and
neither may a doubt, a negation, or work left to the reader: "84/2" is a question, not the answer
42. The same value said twice is one value: "1/2 (50 %)" is fine, and so is "6 × 7 = 42", because
both sides are 42.
"""

import ast
import dataclasses
import operator
import re
from fractions import Fraction

from submission.bench.answers.answer_text import (
    HEDGES,
    NEGATIONS,
    OPERATORS,
    OTHER_SUBJECT,
    REASON,
    plain_text,
    strip_dressing,
    undress,
    words_of,
)
from submission.bench.answers.number_forms import (
    DIGIT_WORDS,
    NUMBER_WORDS,
    TENS,
    Reading,
    read_digits,
    read_number,
)

# **What may stand beside a number**: a unit of a few words, then an explanation. A number in the
# explanation must be the same one, or belong to a calculation or a reason that ends in it
# ("because 6 × 7 = 42"). Calculations are worked out.


UNIT = r"[^\W\d_]{1,20}(?:\^[-+]?\d|[23]\b)?"
UNIT_WORD = re.compile(
    rf"(?:[/(]?{UNIT}(?:[/·*'-]\(?{UNIT}\)?){{0,4}}\)?|[°€£¥$₹¢][CFK]?|[\"'′]{{1,2}})'?"
)
ONE_LETTER_UNITS = frozenset("mgshlLJNWVACFKTdΩa")
NO_UNITS = HEDGES | NEGATIONS | NUMBER_WORDS | (OPERATORS - {"times"}) | frozenset(
    "π pi but is was be over above max maximum tops ish upwards change counting bit versus vs "
    "remainder mod would could should lakh lakhs crore crores doubled tripled "
    "halved negative quadrillion quintillion sextillion reversed inverted backwards few many "
    "sevenths ninths elevenths twelfths seventh ninth eleventh twelfth".split()
)  # fmt: skip
# Multipliers, if nothing follows: 42 grand, but 42 grand pianos.
LAST_MULTIPLIERS = frozenset("grand gross mil tn".split())
LABELLED = re.compile(r"[A-Za-z](?:[A-Za-z]| (?=[A-Za-z])){0,40}: ?(?=\S)")
NO_LABELS = frozenset(
    "estimate bound minimum maximum limit bad worst fake attempt step question draft example "
    "remaining before old previous initial square".split()
)
# A second number written as one word: "fortythree".
JOINED = re.compile(rf"(?:{'|'.join(TENS)})(?:{'|'.join(DIGIT_WORDS)})s?")
ARITHMETIC_WORDS = {"times": "*", "plus": "+", "minus": "-", "divided by": "/", "x": "*"}
ARITHMETIC_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "^": "**"} | dict.fromkeys("$€£"))
OPERATIONS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
SAME = re.compile(r"(?:or|so|i\.?e\.?,?|that is,?|equivalently|which is|also) ", re.IGNORECASE)
CHAIN = re.compile(r"[\d(.$][^=A-Za-wyz;:]{0,60}(?:= ?[\d(.$-][^=A-Za-wyz;:]{0,60})+")
CALLED = re.compile(
    r"\b(?:answers?|results?|gave|real|really|actual|actually|should|truth|truly|correct|right)"
    r"(?:(?: (?:is|was|be|the|to|of|being|it|have|been|as|has|a|answer|value|one|number|really"
    r"|actually))*|[:=,])[ :=]+(?:\$ ?)?(?=[\w(-])",
    re.IGNORECASE,
)
CALLED_AFTER = re.compile(
    r"(?P<number>-?\d[\d,.]*|(?<![\w-])[a-z]+(?:[ -][a-z]+)?)(?: [a-z]+)?,? (?:is|was|as|being)"
    r"(?: (?:the|an|a|my|our))?(?: (?:real|actual|true|final|best|only))?"
    r" (?:answer|result|correct|right)\b",
    re.IGNORECASE,
)
SAID = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?")
RESULT = re.compile(rf"(?:=|≈|\b(?:is|equals?|makes?|gives?|gets?|totals?)\b) ?({SAID.pattern})")
UNFINISHED = re.compile(r" ?(?:[-–/*×·^x:+,] ?\d|\.\d|[+*×·^]|- ?(?:\(|[^\W\d_]\b))")
TAIL = re.compile(
    r"(?P<unit>(?:(?! (?:-|or|because|since|as|so|which|that|equals) )"
    r"(?:/\(|[^,.;:!(\[=≈—–\n]))*)(?P<more>.*)",
    re.DOTALL,
)
NAME = re.compile(r"\\?[A-Za-z]\w{0,15}(?:\([\w, -]{0,20}\))?|[A-Za-z][A-Za-z ]{0,40}")


def is_unit(text: str) -> bool:
    """Can this stand behind a number: at most five words, none of which changes it?

    >>> is_unit(" square metres"), is_unit("km/h"), is_unit("x"), is_unit(" or so")
    (True, True, False, False)
    """
    text = text.replace("o'clock", "oclock")
    words = text.split()
    if not text.startswith(" ") and words and words[0] == "a":
        return False  # 42a is a product
    return (
        len(words) <= (9 if {"in", "on", "at", "for", "of"} & set(words[1:]) else 5)
        and words[-1:] != ["ago"]
        and not (words and words[-1].lower() in LAST_MULTIPLIERS)
        and not re.search(r"(?:teen|tie)ths?\b", text.lower())
        and words[:1] != ["and"]
        and all(UNIT_WORD.fullmatch(word) for word in words)
        and not NO_UNITS & set(re.findall(r"[^\W\d_]+(?:'t)?", text.lower()))
        and not JOINED.search(text.lower())
        and all(word in ONE_LETTER_UNITS for word in re.findall(r"\b[^\W\d_]\b", text))
    )


def arithmetic(text: str) -> Fraction | None:
    """A calculation with plain numbers, worked out; None if it is none.

    >>> arithmetic("6 × 7 pears"), arithmetic("17 plus 25"), arithmetic("not 42")
    (Fraction(42, 1), Fraction(42, 1), None)
    """

    def work_out(node: ast.expr) -> Fraction:
        match node:
            case ast.Constant(value=int() | float() as value):
                return Fraction(str(value))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -work_out(operand)
            case ast.BinOp(left=left, op=ast.Pow(), right=right):
                base, exponent = work_out(left), work_out(right)
                if abs(base) > 10**6 or abs(exponent) > 50 or exponent.denominator != 1:
                    raise ValueError("too large")
                return base ** int(exponent)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATIONS:
                return OPERATIONS[type(op)](work_out(left), work_out(right))
        raise ValueError("not arithmetic")

    for word, sign in ARITHMETIC_WORDS.items():
        text = re.sub(rf"(?<=[\d)% ]){word}(?=[\d( ])", sign, text)
    if NO_UNITS & set(words_of(text)) or len(text) > 100:
        return None
    text = re.sub(r"(?<=\d),(?=\d{3})|[^\W\d_]+", "", text).translate(ARITHMETIC_SIGNS)
    text = re.sub(r"(\d[\d.]*) ?%", r"(\1/100)", text).strip(" ,.")
    if not re.fullmatch(r"[\d\s.+*/()-]+", text):
        return None
    try:
        return work_out(ast.parse(" ".join(text.split()), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def is_rounded(text: str, value: Fraction) -> bool:
    """Is the text a decimal that `value` rounds to? It may follow an exact value ("1/3 ≈ 0.33").

    >>> is_rounded("0.667", Fraction(2, 3)), is_rounded("0.666", Fraction(2, 3))
    (True, False)
    """
    match = re.fullmatch(r"-?\d*\.(\d+)", text.strip(" ."))
    return match is not None and round(value, len(match[1])) == Fraction(match[0])


def claims_another(reason: str, value: Fraction) -> bool:
    """Is a reason only another number, or does it call another number the answer?

    >>> claims_another("the answer is forty-three", Fraction(42))
    True
    >>> claims_another("6 × 7", Fraction(42))
    False
    """
    alone = read_number(reason.strip(" .,;:!"))
    if alone and alone.value != value and not alone.rest.strip(" .,;:!"):
        return arithmetic(reason) != value
    starts = [match.end() for match in CALLED.finditer(reason)]
    for start in starts:
        sum_ = re.match(r"[\d(][\d\s.,()+*×·÷/%-]*\d\)?", reason[start:])
        reading = read_number(reason[start:])
        worked_out = arithmetic(sum_[0]) if sum_ else None
        if reading and value not in (worked_out, reading.value):
            return True
    for match in CALLED_AFTER.finditer(reason):
        reading = read_number(match["number"])
        if reading and reading.value != value:
            return True
    return False


def explains(text: str, value: Fraction) -> bool:
    """May this text follow an answer of this value?

    >>> explains(", because 6 × 7 = 42", Fraction(42)), explains(", or 43", Fraction(42))
    (True, False)
    """
    text = text.strip(" ,.;:!()[]—–-\n")
    if text.startswith("≈"):
        return is_rounded(text[1:], value)
    same = read_number(SAME.sub("", text.lstrip("= "), count=1))
    if not text or (same and same.value == value and is_unit(same.rest)):
        return True
    if value in (arithmetic(text.lstrip("=")), arithmetic(SAME.sub("", text, count=1))):
        return True
    words, reason = set(words_of(text)), REASON.match(text)
    if words & HEDGES or (not reason and words & (NEGATIONS | OPERATORS)):
        return False

    def left_over(match: re.Match[str]) -> str:
        holds = all(arithmetic(side) == value for side in match[0].split("="))
        return " " if holds else match[0]

    text = re.sub(r"(?<=\d) (?:gives|makes|equals|is) (?=[\d$-])", " = ", text)
    text = CHAIN.sub(left_over, text)
    if reason and claims_another(text[reason.end() :], value):
        return False
    said = RESULT.findall(text) if reason and len(words) > 2 else SAID.findall(text)
    if not reason and words & (NUMBER_WORDS - {"one"}):
        return False
    return all((r := read_digits(number)) and r.value == value for number in said)


def follows(rest: str, value: Fraction) -> bool:
    """May `rest` stand directly behind a number of this value?

    >>> follows(" pears, because she has 2 more.", Fraction(42)), follows("-42", Fraction(42))
    (True, False)
    """
    if "?" in rest or rest.startswith("..") or UNFINISHED.match(rest):
        return False
    tail = TAIL.fullmatch(rest)
    return is_unit(tail["unit"]) and explains(tail["more"], value)


def read_claim(text: str) -> Reading | None:
    """The one number that an undressed text claims; None if there is none, or a second one."""
    if text.count("=") > 5:
        return None
    text = re.sub(r"^(?:minus|negative) (?=\d)", "-", text, flags=re.IGNORECASE)
    while match := re.match(rf"(?:{NAME.pattern}) ?= ?(?=\S)", text):
        if (OPERATORS | HEDGES | NEGATIONS) & set(words_of(match[0])):
            return None
        text = text[match.end() :]
    if label := LABELLED.match(text):
        named = words_of(label[0])
        if len(named) <= 4 and not (NO_UNITS | OPERATORS | NO_LABELS) & set(named):
            text = text[label.end() :]
    reading = read_number(text)
    if reading and follows(reading.rest, reading.value):
        worked_out = re.search(r"\d", reading.rest)  # "2^10 = 1024"
        return dataclasses.replace(reading, parts=()) if worked_out else reading
    left, *right = re.split(r" ?= ?| (?:is|equals|makes|gives) ", text, maxsplit=1)
    value = arithmetic(left) if right else None
    if value is None:
        return None
    claimed = read_claim(right[0].strip())
    return claimed if claimed and claimed.value == value else None


def parse_number(text: str) -> Fraction | None:
    """The one number in an answer, exactly; None if there is none, or more than one.

    >>> parse_number("$1,234.50"), parse_number("3/4"), parse_number("42 pears")
    (Fraction(2469, 2), Fraction(3, 4), Fraction(42, 1))
    >>> parse_number("12 or 13") is parse_number("84/2") is parse_number("about 42") is None
    True
    """
    reading = read_claim(strip_dressing(text))
    return reading and reading.value


# **A sentence around the number**: "After dinner, Ali has $32 left." What it claims is its one
# number; of several, the one that is not the question's own. What stands right before it may not
# change it ("about 32", "more than 32"), and nothing may deny it or take it back.


NUMBER_START = re.compile(r"(?<![\w.,/^$€£-])-?[$€£]?(?=\d)|(?<![\w.,/^-])-?[$€£]-?(?=\d)")
CHANGES = OPERATORS - {"if"} | {"over", "up", "within", "only"}  # right before a number
BESIDES = frozenset("if times than between close under below most least".split())
TAKE_BACK = frozenset({"but", "actually", "wait"})
RELATIVE = re.compile(r"\b(?:that|who|which|whose)\b.*", re.DOTALL)


def number_in_sentence(text: str, question: str) -> str:
    """The text from the number that a sentence claims on; empty if it claims none, or two.

    >>> number_in_sentence("Ali has $32 left.", ""), number_in_sentence("Ali has about $32", "")
    ('$32 left.', '')
    >>> number_in_sentence("He has 104 games after 3 years.", "How many games in 3 years?")
    '104 games after 3 years.'
    """
    starts = [match.start() for match in NUMBER_START.finditer(text)]
    if len(starts) > 1:
        asked = set(re.findall(r"\d+", question))
        starts = [
            i for i in starts if re.search(r"\d[\d,.]*", text[i:])[0].strip(".,") not in asked
        ]
    if len(starts) != 1 or len(text) > 300 or set("=?\n") & set(text):
        return ""
    before, claim = text[: starts[0]], text[starts[0] :]
    reading = read_number(claim)
    if reading is None or UNFINISHED.match(reading.rest) or not words_of(text):
        return ""
    if OTHER_SUBJECT.search(before) or ":" in before:
        return ""
    before, after = words_of(before), words_of(RELATIVE.sub("", reading.rest))
    if not before or (NO_UNITS - {"more", "than"}) & set(after[:2]):  # "32 pears" is judged above
        return ""
    if (HEDGES | NEGATIONS | TAKE_BACK) & {*before, *after} or CHANGES & set(before[-2:]):
        return ""
    if (OPERATORS - BESIDES) & set(before):
        return ""
    if re.match(r" times (?:\d|as|more|the)\b", reading.rest):
        return ""
    return claim


# A fraction that can be reduced and a power are right, unless both their numbers stand in the
# question: then they only repeat it. So does any fraction that stands there as it is ("Write 3/8
# as a decimal").


ASKS_PERCENT = re.compile(
    r"\b(?:what|which|as an?|in|how many) (?:\w+ )?per ?cent\b|\bpercentage\b|\bwhat %", re.I
)
IS_PERCENT = re.compile(r"[-+]?[\d.,/ ]+ ?(?:%|per ?cent\b|pct\b)", re.IGNORECASE)


def in_percent(gold: str, claim: str, question: str, value: Fraction) -> bool:
    """Is the claim written in percent, of a question that asks for it, and the gold without?

    A gold below one is then the share itself, and 50 % is 0.5, as everywhere.

    >>> in_percent("25", "25%", "What percent is it?", Fraction(25))
    True
    >>> in_percent("0.25", "25%", "What percent is it?", Fraction(1, 4))
    False
    """
    return (
        abs(value) >= 1
        and not re.search(r"%|per ?cent|pct", plain_text(gold), re.IGNORECASE)
        and ASKS_PERCENT.search(question) is not None
        and IS_PERCENT.match(claim) is not None
    )


def check_number(gold: str, answer: str, question: str = "") -> bool | None:
    """Equal as exact numbers; None if the gold answer is not a plain number.

    >>> check_number("42", "**42.0**"), check_number("5", "-5"), check_number("2π", "6.28")
    (True, False, None)
    >>> check_number("1024", "2^10"), check_number("1024", "2^10", "What is 2 to the power of 10?")
    (True, False)
    """
    expected = read_claim(strip_dressing(gold))
    if expected is None:
        return None
    text, wanted = strip_dressing(answer), expected.value
    claimed = read_claim(text)
    asked = plain_text(question)
    if claimed is None and (text := number_in_sentence(undress(answer), asked)):
        claimed = read_number(text)
    if claimed and in_percent(gold, text, question, wanted):
        wanted /= 100
    if claimed is None or claimed.value != wanted:
        return False
    if claimed.parts and {str(abs(part)) for part in claimed.parts} <= set(
        re.findall(r"\d+", asked)
    ):
        return claimed.parts == expected.parts
    fraction = re.match(r"(\d+) ?/ ?(\d+)(?!\d)", text)
    if fraction is None or "/" in gold:
        return True
    return re.search(rf"(?<![\d/.]){fraction[1]} ?/ ?{fraction[2]}(?![\d/])", asked) is None
