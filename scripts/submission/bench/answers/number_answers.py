"""Is this the right number?

A unit, a currency and an explanation may stand beside a number. A *second value* may not, and
neither may a doubt, a negation, or work left to the reader: "84/2" is a question, not the answer
42. The same value said twice is one value: "1/2 (50 %)" is fine, and so is "6 × 7 = 42", because
both sides are 42.
"""

import ast
import dataclasses
import math
import operator
import re
from fractions import Fraction

from submission.bench.answers.answer_text import (
    HEDGES,
    JOINING,
    NEGATIONS,
    OPERATORS,
    OTHER_SUBJECT,
    REASON,
    VERDICT,
    after_lead_in,
    conclusion,
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

# **Measures**: of two units of one kind, one is asked for; and 1 hour 30 minutes are 90 minutes.
# Sizes tell how many of the smallest; without one (currencies) nothing is converted.


MEASURES: dict[str, tuple[str, str, int]] = {}  # by word: kind, name, size
for (
    line
) in """money: cent 1 ¢ penny pennies, dollar 100 $ usd buck, euro 0 € eur, pence 0, £ 0 gbp, yen 0
length: mm 1 millimetre millimeter, cm 10 centimetre centimeter, m 1000 metre meter, km 1000000
length: km 1000000 kilometre kilometer, inch 0 inches, foot 0 feet ft, yard 0, mile 0
feet: inch 1 inches, foot 12 feet ft, yard 36
mass: mg 1 milligram, g 1000 gram, kg 1000000 kilogram, ounce 0 oz, pound 0 lb lbs
time: second 1 sec s, minute 60 min mins, hour 3600 hr hrs h, day 86400, week 604800
time: month 0, year 0, decade 0, century 0 centuries
volume: ml 1 millilitre milliliter, cl 10, dl 100, l 1000 litre liter, kl 1000000, cup 0, pint 0
volume: teaspoon 0, tablespoon 0, quart 0, gallon 0
mass: tonne 0 ton
angle: degree 0 °, radian 0
temperature: °c 0 celsius, °f 0 fahrenheit""".splitlines():
    for names in line.partition(": ")[2].split(", "):
        name, size, *others = names.split()
        for word in (name, *others):
            for spelt in (word, f"{word}s"):
                MEASURES.setdefault(spelt, (line.partition(":")[0], name, int(size)))
MEASURE = re.compile(
    r"(?P<power>square |cubic )?(?P<word>[^\W\d_]+|[$€£¢]|°[CF]?)(?P<raised>\^[23])?"
)


def measure_at(text: str) -> tuple[str, str, int] | None:
    """The measure at the start of a text: kind, name, size.

    >>> measure_at(" minutes or so"), measure_at("square metres"), measure_at("pears")
    (('time', 'minute', 60), ('length', 'm^2', 0), None)
    """
    match = MEASURE.match(text.strip(" (-"))
    if match is None or match["word"].lower() not in MEASURES:
        return None
    kind, name, size = MEASURES[match["word"].lower()]
    power = {"square ": "^2", "cubic ": "^3"}.get(match["power"], match["raised"] or "")
    return kind, name + power, 0 if power else size


ASKED_IN = re.compile(r"\b(?:how many|in|into|to|number of)\s(?:\w+ )??(?=[\w$€£¢°])", re.I)


def asked_measures(question: str, kind: str) -> set[str]:
    """The measures of a kind that a question asks for; if it says none, those that it names.

    >>> asked_measures("It is 2 m and 30 cm long. How long is it in cm?", "length")
    {'cm'}
    """
    starts = [match.end() for match in ASKED_IN.finditer(question)]
    starts += [start + len(question[start:].split(" ")[0]) for start in starts]
    found = [measure_at(question[start:]) for start in starts]
    asked = {measure[1] for measure in found if measure and measure[0] == kind}
    if asked or kind == "time":
        return asked
    found = [measure_at(question[match.start() :]) for match in MEASURE.finditer(question)]
    return {measure[1] for measure in found if measure and measure[0] == kind}


def quantity_at(text: str) -> Reading | None:
    """A number at the start of a text, with the smaller part of its measure behind it.

    >>> str(quantity_at("42 dollars and 50 cents").value), quantity_at("5 pears and 2").rest
    ('85/2', ' pears and 2')
    """
    reading = read_number(text)
    large = reading and (measure_at(reading.rest) or measure_at(reading.currency))
    behind = large and re.match(r"(?: ?[^\W\d_]+)?(?:,| and|, and)? (?=[\w¢])", reading.rest)
    part = behind and read_number(reading.rest[behind.end() :])
    small = part and measure_at(part.rest)
    if not small or small[0] != large[0] or not 0 < part.value * small[2] < large[2]:
        return reading
    value = reading.value + part.value * Fraction(small[2], large[2])
    rest = re.sub(r"^ ?[^\W\d_]+", "", part.rest)
    return dataclasses.replace(reading, value=value, rest=f" {large[1]}{rest}")


def in_measure(reading: Reading, measure: tuple[str, str, int] | None) -> Fraction:
    """The value in another measure of its kind; as it is, where nothing is known of one.

    >>> str(in_measure(quantity_at("1.5 hours"), measure_at("minutes")))
    '90'
    """
    own = measure_at(reading.rest) or measure_at(reading.currency)
    if not own or not measure or own[0] != measure[0] or not (own[2] and measure[2]):
        return reading.value
    return reading.value * Fraction(own[2], measure[2])


# **What may stand beside a number**: a unit of a few words, then an explanation. A number in the
# explanation must be the same one, or belong to a calculation or a reason that ends in it
# ("because 6 × 7 = 42"). Calculations are worked out.


UNIT = r"[^\W\d_]{1,20}(?:\^[-+]?\d|[23]\b)?"
UNIT_WORD = re.compile(
    rf"(?:[/(]?{UNIT}(?:[/·*'-]\(?{UNIT}\)?){{0,4}}\)?|[°€£¥$₹¢][CFK]?|[\"'′]{{1,2}})'?"
)
ONE_LETTER_UNITS = frozenset("mgshlLJNWVACFKTdΩa")
NO_UNITS = HEDGES | NEGATIONS | NUMBER_WORDS | (OPERATORS - {"times"}) | frozenset(
    "π pi but is was be over above max maximum tops ish upwards counting bit versus vs "
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
FUNCTION = re.compile(
    r"\d!|\\(?:d?binom|sqrt|log|sin|cos|tan|gcd|sum|int)(?![a-z])|\b(?:lcm|gcd|log|sqrt)\b|\d°"
)
NAME = re.compile(r"\\?[A-Za-z]\w{0,15}(?:\([\w, -]{0,20}\))?|[A-Za-z][A-Za-z ']{0,60}")


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


def explains(
    text: str,
    value: Fraction,
    measure: tuple[str, str, int] | None = None,
    question: str = "",
) -> bool:
    """May this text follow an answer of this value, in this measure?

    >>> explains(", because 6 × 7 = 42", Fraction(42)), explains(", or 43", Fraction(42))
    (True, False)
    """
    text = re.sub(r"^-(?!\d)|-$", "", text.strip(" ,.;:!()[]—–\n")).strip()
    if text.startswith("≈"):
        return is_rounded(text[1:], value)
    same = quantity_at(SAME.sub("", text.lstrip("= "), count=1))
    if not text or (same and in_measure(same, measure) == value and is_unit(same.rest)):
        return True
    if same and same.value == value and in_measure(same, measure) != value:
        return False  # 9000 s or 9000 min
    if value in (arithmetic(text.lstrip("=")), arithmetic(SAME.sub("", text, count=1))):
        return True
    words, reason = set(words_of(text)), REASON.match(text)
    if words & HEDGES or (not reason and words & (NEGATIONS | OPERATORS)):
        return False

    def left_over(match: re.Match[str]) -> str:
        sides = [arithmetic(side) for side in match[0].split("=")]
        true = len(set(sides)) == 1 and sides[0] is not None and value in results
        return " " if true or all(side == value for side in sides) else match[0]

    text = re.sub(r"(?<=\d) (?:gives|makes|equals|is) (?=[\d$-])", " = ", text)
    results = [arithmetic(m[0].split("=")[-1]) for m in CHAIN.finditer(text)][-1:] if reason else []
    text = CHAIN.sub(left_over, text)
    if reason and claims_another(text[reason.end() :], value):
        return False
    said = RESULT.findall(text) if reason and len(words) > 2 else SAID.findall(text)
    if not reason and words & (NUMBER_WORDS - {"one"}):
        return False
    known = set(re.findall(r"\d+", question)) if reason else set()
    said = [number for number in said if number not in known]
    return all((r := read_digits(number)) and r.value == value for number in said)


CONTEXT = re.compile(r" (?:after|in|for|over|per|on|at|from|of|than|with|by|before) [^,;.:()=\n]+$")


def without_context(text: str, question: str) -> str:
    """The text without a last phrase that says again what the question has said.

    >>> without_context("104 games after 3 years", "How many games in 3 years?")
    '104 games'
    """
    if match := CONTEXT.search(text):
        said, asked = (set(re.findall(r"\w+", t.lower())) for t in (match[0], question))
        if re.search(r"\w", text[: match.start()]) and said - asked <= PLAIN_WORDS:
            return text[: match.start()]
    return text


def unspaced(text: str) -> str:
    """The text without what only spaces it."""
    return re.sub(r"[\s${}\\()]", "", text)


PLAIN_WORDS = frozenset(
    "after in for over per on at from of than with by before the a an his her its their".split()
)


def read_claim(text: str, question: str = "") -> Reading | None:
    """The one number that an undressed text claims; None if there is none, or a second one."""
    if text.count("=") > 5 or "?" in text:
        return None
    text = re.sub(r"^(?:minus|negative) (?=\d)", "-", text, flags=re.IGNORECASE)
    text = re.sub(r"^an? (?=\$?\d)", "", text, flags=re.IGNORECASE)
    while match := re.match(rf"(?:{NAME.pattern}|\w(?:[/*·+-]\w)+) ?= ?(?=\S)", text):
        if re.match(r"[\d/*·+-]+ ?=", match[0]):
            break
        if (OPERATORS | HEDGES | NEGATIONS) & set(words_of(match[0])):
            return None
        text = text[match.end() :]
    if label := LABELLED.match(text):
        named = words_of(label[0])
        if len(named) <= 4 and not (NO_UNITS | OPERATORS | NO_LABELS) & set(named):
            text = text[label.end() :]
    for claim in (text, without_context(text, question)):
        reading = quantity_at(claim)
        if reading and not claim[len(claim) - len(reading.rest) :].startswith(".."):
            if UNFINISHED.match(reading.rest):
                continue
            tail = TAIL.fullmatch(reading.rest)
            measure = measure_at(reading.rest) or measure_at(reading.currency)
            if is_unit(tail["unit"]) and explains(tail["more"], reading.value, measure, question):
                last = quantity_at(reading.rest.rpartition("=")[2].strip())
                asked = asked_measures(question, measure[0]) if measure else set()
                if (
                    last
                    and in_measure(last, measure) == reading.value
                    and not (measure and measure[1] in asked)
                ):
                    return last  # "2^10 = 1024", "300 minutes = 5 hours"
                return reading
    said, *right = re.split(r" ?= ?(?=[^=]*$)| (?:is|equals) ", text, maxsplit=1)
    if right and re.search(FUNCTION, said):  # \\binom{10}{3} = 120, 5! = 120
        return read_claim(right[0].strip(), question)
    first, *more = re.split(r"; |, ", text, maxsplit=1)  # 18*26 = 468; 468 - 95 = 373
    if more and "=" in first and len({arithmetic(side) for side in first.split("=")} - {None}) == 1:
        return read_claim(more[0], question)
    said, *right = re.split(r" ?= ?| (?:is|equals) ", text, maxsplit=1)
    if right and re.search(r"\d", said) and unspaced(said) in unspaced(question):
        return read_claim(right[0].strip(), question)
    left, *right = re.split(r" ?= ?| (?:is|equals|makes|gives) ", text, maxsplit=1)
    value = arithmetic(left) if right else None
    if value is None:
        return None
    claimed, first = read_claim(right[0].strip(), question), quantity_at(right[0].strip())
    return claimed if claimed and value in (claimed.value, first and first.value) else None


# **A sentence around the number**: "After dinner, Ali has $32 left." What it claims is its one
# number; of several, the one that is not the question's own. What stands right before it may not
# change it ("about 32", "more than 32"), and nothing may deny it or take it back.


NUMBER_START = re.compile(r"(?<![\w.,/^$€£-])-?[$€£]?(?=\d)|(?<![\w.,/^-])-?[$€£]-?(?=\d)")
CHANGES = OPERATORS - {"if"} | set(
    "over up within only after before until since".split()
)  # right before a number
BESIDES = frozenset("if times than between close under below most least".split())
TAKE_BACK = frozenset({"but", "actually", "wait"})
RELATIVE = re.compile(r"\b(?:that|who|which|whose)\b.*", re.DOTALL)
TO_VERB = re.compile(r"\b(?:that|who|which|whose)\b.*(?= (?:is|was|are|were)\b)", re.DOTALL)
# What the question says may be said again: "How many are not red?" "9 of them are not red."
NOT_HERE = frozenset("no not never isn't aren't wasn't weren't don't doesn't didn't".split())
BORNE = frozenset(
    "least most over under below half double twice triple times if minus plus".split()
)
OF_ANSWERS = frozenset("answer right correct true solution".split())


def number_in_sentence(text: str, question: str) -> Reading | None:
    """The number that a sentence claims; None if it claims none, or two.

    >>> str(number_in_sentence("Ali has $32 left.", "").value)
    '32'
    >>> number_in_sentence("Ali has about $32", "") is None
    True
    >>> str(number_in_sentence("In 3 years he has 104.", "How many games in 3 years?").value)
    '104'
    """
    if len(text) > 300 or set("=?\n") & set(text):
        return None
    found: list[tuple[int, Reading]] = []
    for match in NUMBER_START.finditer(text):
        reading = quantity_at(text[match.start() :])
        if reading is None:
            return None
        if not found or match.start() >= len(text) - len(found[-1][1].rest.lstrip()):
            found.append((match.start(), reading))
    if len(found) > 1:
        asked = set(re.findall(r"\d+", question))
        said = [re.search(r"\d[\d,.]*", text[start:])[0].strip(".,") for start, _ in found]
        found = [pair for pair, digits in zip(found, said, strict=True) if digits not in asked]
    if len(found) > 1 and (noun := re.search(r"\bhow many (\w{3,})", question.lower())):
        found = [p for p in found if re.match(rf" {noun[1]}\b", p[1].rest.lower())]
    if len(found) != 1:
        return None
    (start, reading), asked = found[0], set(words_of(question))
    lead = TO_VERB.sub("", text[:start])
    before, after = (
        words_of(lead),
        words_of(RELATIVE.sub("", reading.rest.replace("left over", ""))),
    )
    borne = asked & (NOT_HERE | BORNE) if not OF_ANSWERS & set(after) else set()
    near = before[-1:] if before[-1:] in (["is"], ["was"], ["equals"]) else before[-2:]
    doubtful = (
        re.search(r"\d ?(?:,|and|or|&|/) ?$", text[:start])  # "17 and 25"
        or re.match(r" ?(?:,|and|or|&|/) ?[-$€£]?\d", reading.rest)
        or UNFINISHED.match(reading.rest)
        or OTHER_SUBJECT.search(text)
        or set("<>≤≥≠~≈±\\") & set(lead)
        or re.search(r"\bone of\b", text)
        or (":" in lead and (NO_LABELS & set(before) or lead.strip()[-1] != ":" or after))
        or not (before or (words_of(text) and {"more", "fewer", "less"} & set(after)))
        or (NO_UNITS - borne - {"more", "than", "is", "was", "be"}) & set(after[:2])
        or ((HEDGES | NEGATIONS | TAKE_BACK) - borne) & {*before, *after}
        or (CHANGES - (asked & BORNE) | NOT_HERE) & set(near)
        or (OPERATORS - BESIDES - borne) & set(before)
        or re.match(r" times (?:\d|as|more|the)\b", reading.rest)
    )
    return None if doubtful else reading


ROUNDED = re.compile(r"\b(?:round|nearest|approximat|estimate|decimal place|significant)", re.I)
DATE = re.compile(r"^(?:on |in )?[A-Z][a-z]+ \d{1,2}(?:st|nd|rd|th)?,? (?=\d{4}$)")


FIRST_WORDS = JOINING | frozenset(
    "if after before so thus therefore then finally each every how what which there their her "
    "his my your our its all both since because when while now if total one two three some".split()
)


def about_another(text: str, question: str) -> bool:
    """Is a sentence about somebody of whom the question does not ask?

    >>> about_another("Ben is 32.", "Sue is 4 years older than Ben, who is 28. How old is Sue?")
    True
    """
    part = asked_part(question)
    asked, told, named = (names_in(t) for t in (part[:1].lower() + part[1:], question, text))
    rival = re.search(r" more .*\bthan ([A-Z][a-z]+)", part)  # "Bo has 3 more than Al"
    turned = rival and re.search(rf"\b{rival[1]}\b.* more .*\bthan [A-Z]", text)
    return bool(asked and named & told and not named & asked) or bool(turned)


def names_in(text: str) -> set[str]:
    """The capitalised words of a text that are no usual first words."""
    return {w for w in re.findall(r"\b[A-Z][a-z]+\b", text) if w.lower() not in FIRST_WORDS}


def read_answer(answer: str, question: str = "") -> Reading | None:
    """The one number that an answer claims, whatever the gold one is."""
    text = undress(answer)
    if about_another(text, question) or (re.search(r"\d!", question) and re.search(r"\d!", answer)):
        return None
    if ROUNDED.search(question):
        text = re.sub(
            r"^(?:[^=\d]{0,12}≈|~|about|approximately|roughly) ?", "", text, flags=re.IGNORECASE
        )
    if "year" in question:
        text = DATE.sub("", text)
    if TIME_ASKED.search(question):
        text = re.sub(r"(?<=\d):00(?!\d)|(?<=\d) ?[ap]\.?m\b\.?", "", text, flags=re.I)
    for claim in (after_lead_in(VERDICT.sub("", text), question), after_lead_in(conclusion(text))):
        if reading := read_claim(claim, question):
            return reading
    return number_in_sentence(text, question)


def parse_number(text: str) -> Fraction | None:
    """The one number in an answer, exactly; None if there is none, or more than one.

    >>> parse_number("$1,234.50"), parse_number("3/4"), parse_number("42 pears")
    (Fraction(2469, 2), Fraction(3, 4), Fraction(42, 1))
    >>> parse_number("12 or 13") is parse_number("84/2") is parse_number("about 42") is None
    True
    """
    reading = read_answer(text)
    return reading and reading.value


# **Which claim answers**: the same value, in the measure and the scale that the question asks
# for, and worked out. A form that only says the question again is no answer.


TIME_ASKED = re.compile(r"\b(?:what time|when|what hour|o'clock)\b", re.I)
PERCENT_ASKED = re.compile(
    r"\b(?:what|which|as an?|in|how many) (?:\w+ ){0,3}?per ?cent\b|\bpercentage\b|\bwhat %", re.I
)
SCALE_ASKED = re.compile(
    r"\b(?:in|how many)(?: \w+)? (dozen|hundred|thousand|million|billion|trillion)s?\b", re.I
)
DIGITS_ASKED = re.compile(
    r"\b(?:in|using|as|with)(?: only)? (?:a )?(?:digit|numeral|figure)s?\b", re.I
)
DECIMAL_ASKED = re.compile(r"\b(?:as|in|to)(?: an?)? decimals?\b|\bdecimal (?:form|number)\b", re.I)
FRACTION_ASKED = re.compile(r"\b(?:as|in)(?: an?)?(?: \w+)? fractions?\b(?! of)", re.I)
FORM_ASKED = re.compile(r"\b(?:improper|mixed) (?:fraction|number)|\bscientific notation", re.I)
SIMPLEST_ASKED = re.compile(r"\b(?:simplif|simplest|lowest terms|reduced?\b|common fraction)", re.I)
RATE = re.compile(
    r"\bper\b|/|\b(?:each|every|rate|speed|fast|average)\b|\ban? (?:day|week|hour|minute)"
)


def is_finished(claim: Reading, gold: Reading, question: str) -> bool:
    """Is the claim worked out, and in the form that is asked for?

    >>> gold, asked = read_number("289"), "What is 17 squared?"
    >>> is_finished(read_number("17^2"), gold, asked), is_finished(gold, gold, asked)
    (False, True)
    """
    if (claim.form, claim.scale, claim.parts) == (gold.form, gold.scale, gold.parts):
        return True
    numbers, asked = set(re.findall(r"\d+", question)), SCALE_ASKED.search(question)
    if DIGITS_ASKED.search(question) and (claim.form in ("words", "power") or claim.scale):
        return False
    if claim.scale == "dozen" and not (asked and asked[1].lower() == "dozen"):
        return False
    if DECIMAL_ASKED.search(question) and (claim.form == "fraction" or claim.scale == "percent"):
        return False
    if FORM_ASKED.search(question):  # of a fraction: improper, mixed; scientific notation
        return claim.form == gold.form and claim.form != "scientific"
    if FRACTION_ASKED.search(question) and gold.form == "fraction" and not claim.form:
        return False
    if claim.form == "power":
        asks = re.search(r"\^|\bpower|squared|cubed", question)
        return claim.value >= 1000 and not asks and str(claim.parts[0]) not in numbers
    if claim.form != "fraction":
        return True
    if math.gcd(*claim.parts) > 1:
        again = {str(part) for part in claim.parts} <= numbers
        return not again and not SIMPLEST_ASKED.search(question)
    said = "/".join(map(str, claim.parts))
    return re.search(rf"(?<![\d/.]){said}(?![\d/])", question.replace(" ", "")) is None


def in_asked_measure(claim: Reading, gold: Reading, question: str) -> bool:
    """Is the claim in the measure that the question asks for, or the gold answer names?

    >>> asked = "A pen costs $2. What do 21 cost?"
    >>> [in_asked_measure(quantity_at(t), quantity_at("42"), asked) for t in ("42 cents", "$42")]
    [False, True]
    """
    if counts_another(claim, question):
        return False
    measure, own = (measure_at(r.rest) or measure_at(r.currency) for r in (claim, gold))
    per = re.match(r" [^,.(]*?(?:\bper |/ ?)(\w+)", claim.rest)
    part = asked_part(question)
    if per and not (RATE.search(part) or per[1] in part or per[1] in gold.rest):
        return False
    if measure is None:
        return True
    asked = {own[1]} if own and own[0] == measure[0] else asked_measures(question, measure[0])
    return not asked or measure[1] in asked


COUNTED = re.compile(
    r"\bhow many ((?:(?!(?:are|is|do|does|did|can|could|will|would|must|should|has|have|had|was|were)"
    r"\b)[\w'-]+ ?){1,5})",
    re.IGNORECASE,
)


def counts_another(claim: Reading, question: str) -> bool:
    """Does the claim count what the question names, but does not ask for?

    >>> asked = "Cups come in packs of 25. How many packs are 70 cups?"
    >>> counts_another(read_number("3 cups"), asked), counts_another(read_number("3 packs"), asked)
    (True, False)
    """
    match, own = COUNTED.search(question), measure_at(claim.rest) or measure_at(claim.currency)
    wanted = {MEASURES.get(w, (w, w, 0))[:2] for w in words_of(match[1])} if match else set()
    measured = {kind for kind, name in wanted} - {name for kind, name in wanted}
    if own is None or not wanted or own[:2] in wanted or own[0] in measured:
        return bool(own and own[0] == "money" and claim.currency and PERCENT_ASKED.search(question))
    told = {MEASURES[w][1] for w in words_of(question) if w in MEASURES}
    return bool(measured or own[1] in told)


def asked_part(question: str) -> str:
    """The last sentence of a question."""
    return re.split(r"[.!?]\s", question.strip())[-1] if question else "per"


def equal(claim: Reading, gold: Reading, question: str) -> bool:
    """The same value, in the scale that is asked for ("How many million?")?

    In a question for percent, 20 and 20 % are the same; a gold below one is the share itself.

    >>> gold, asked = read_number("20"), "What is the percent increase?"
    >>> equal(read_number("20 %"), gold, asked), equal(read_number("20 %"), gold, "How much?")
    (True, False)
    """
    asked = SCALE_ASKED.search(question)
    scale = asked[1].lower() if asked else ""
    if PERCENT_ASKED.search(question) and abs(gold.value) >= 1:
        scale = "percent"
    left, right = (
        r.value / r.sized if scale and r.scale == scale else r.value for r in (claim, gold)
    )
    return left == right


def check_number(gold: str, answer: str, question: str = "") -> bool | None:
    """Equal as exact numbers; None if the gold answer is not a plain number.

    >>> check_number("42", "**42.0**"), check_number("5", "-5"), check_number("2π", "6.28")
    (True, False, None)
    >>> check_number("1024", "2^10"), check_number("1024", "2^10", "What is 2 to the power of 10?")
    (True, False)
    """
    asked = plain_text(question)
    expected = read_claim(strip_dressing(gold))
    if expected is None:
        return None
    claim = read_answer(answer, asked)
    return (
        claim is not None
        and equal(claim, expected, asked)
        and is_finished(claim, expected, asked)
        and in_asked_measure(claim, expected, asked)
    )
