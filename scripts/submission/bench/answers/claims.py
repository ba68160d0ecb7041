"""Which number does an answer claim?

A unit, a currency and an explanation may stand beside a number. A *second value* may not, and
neither may a doubt, a negation, or work left to the reader: "84/2" is a question, not the answer
42. The same value said twice is one value: "1/2 (50 %)" is fine, and so is "6 × 7 = 42", because
both sides are 42. The gold answer is not looked at.
"""

import ast
import functools
import operator
import re
from collections.abc import Sequence, Set
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
    undress,
    words_of,
)
from submission.bench.answers.measures import (
    Measure,
    asked_measures,
    asked_part,
    in_measure,
    measure_of,
    quantity_at,
)
from submission.bench.answers.number_forms import (
    DIGIT_WORDS,
    MULTIPLIERS,
    NAMED,
    NUMBER_WORDS,
    TENS,
    Reading,
    read_digits,
)

# **Calculations** with plain numbers are worked out.


ARITHMETIC_WORDS = {"times": "*", "plus": "+", "minus": "-", "divided by": "/", "x": "*"}
ARITHMETIC_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "^": "**"} | dict.fromkeys("$€£"))
OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}
OPERATIONS |= {ast.Div: operator.truediv}


def work_out(node: ast.expr) -> Fraction:
    """The value of a parsed calculation.

    Raises:
      ValueError: it is none, or too large.
    """
    match node:
        case ast.Constant(value=int() | float() as value):
            return Fraction(str(value))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -work_out(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            base, exponent = work_out(left), work_out(right)
            if abs(base) <= 10**6 and abs(exponent) <= 50 and exponent.denominator == 1:
                return base ** int(exponent)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATIONS:
            return OPERATIONS[type(op)](work_out(left), work_out(right))
    raise ValueError("not arithmetic")


def arithmetic(text: str) -> Fraction | None:
    """A calculation, worked out; units in it do not count. None if it is none.

    >>> arithmetic("6 × 7 pears"), arithmetic("17 plus 25"), arithmetic("not 42")
    (Fraction(42, 1), Fraction(42, 1), None)
    """
    for word, sign in ARITHMETIC_WORDS.items():
        text = re.sub(rf"(?<=[\d)% ]){word}(?=[\d( ])", sign, text)
    if NO_UNITS & set(words_of(text)) or len(text) > 100:
        return None
    text = re.sub(r"(?<=\d) ?[a-z]+\^[23]\b", "", text)  # 10 m^2
    text = re.sub(r"(?<=\d),(?=\d{3})|(?:/ ?)?[^\W\d_]+", "", text).translate(ARITHMETIC_SIGNS)
    text = re.sub(r"(\d[\d.]*) ?%", r"(\1/100)", text).strip(" ,.")
    if not re.fullmatch(r"[\d\s.+*/()-]+", text):
        return None
    try:
        return work_out(ast.parse(" ".join(text.split()), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


# **What may stand beside a number**: a unit of a few words, then an explanation. A number in the
# explanation must be the same one, or belong to a calculation or a reason that ends in it
# ("because 6 × 7 = 42").


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
NEVER_LAST_UNITS = frozenset("grand gross mil tn ago".split())
# A second number in one word: "fortythree"; a part of one: "nineteenths".
JOINED = re.compile(rf"(?:{'|'.join(TENS)})(?:{'|'.join(DIGIT_WORDS)})s?|(?:teen|tie)ths?\b")
SAME = re.compile(r"(?:or|so|i\.?e\.?,?|that is,?|equivalently|which is|also) ", re.IGNORECASE)
CHAIN = re.compile(r"[\d(.$][^=A-Za-wyz;:]{0,60}(?:= ?[\d(.$-][^=A-Za-wyz;:]{0,60})+")
CALLED = frozenset(
    "answer answers result results gave real really actual actually should truth truly correct "
    "right".split()
)
SAID = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?")
RESULT = re.compile(rf"(?:=|≈|\b(?:is|equals?|makes?|gives?|gets?|totals?)\b) ?({SAID.pattern})")
UNFINISHED = re.compile(r" ?(?:[-–/*×·^x:+,] ?\d|\.\d|[+*×·^]|- ?(?:\(|[^\W\d_]\b))")
TAIL = re.compile(
    r"(?P<unit>(?:(?! (?:-|or|because|since|as|so|which|that|equals) )"
    r"(?:/\(|[^,.;:!(\[=≈—–\n]))*)(?P<more>.*)",
    re.DOTALL,
)


def is_unit(text: str) -> bool:
    """Can this stand behind a number: at most five words, none of which changes it?

    >>> is_unit(" square metres"), is_unit("km/h"), is_unit("x"), is_unit(" or so")
    (True, True, False, False)
    """
    text = text.replace("o'clock", "oclock")
    words = text.lower().split()
    if words and (words[0] == "and" or (words[0] == "a" and not text.startswith(" "))):
        return False  # 42a is a product
    return (
        len(words) <= (9 if {"in", "on", "at", "for", "of"} & set(words[1:]) else 5)
        and not NEVER_LAST_UNITS & set(words[-1:])
        and all(map(UNIT_WORD.fullmatch, text.split()))
        and not NO_UNITS & set(re.findall(r"[^\W\d_]+(?:'t)?", text.lower()))
        and not JOINED.search(text.lower())
        and all(word in ONE_LETTER_UNITS for word in re.findall(r"\b[^\W\d_]\b", text))
    )


def explains(
    text: str, value: Fraction, measure: Measure | None = None, question: str = "", unit: str = ""
) -> bool:
    """May this text follow an answer of this value, in this measure or in words of a unit?

    >>> explains(", because 6 × 7 = 42", Fraction(42)), explains(", or 43", Fraction(42))
    (True, False)
    >>> explains(" or 8 pm", Fraction(8), unit=" am")
    False
    """
    text = re.sub(r"^-(?!\d)|-$", "", text.strip(" ,.;:!()[]—–\n")).strip()
    if rounded := re.fullmatch(r"≈ ?(-?\d*\.(\d+))", text):
        return round(value, len(rounded[2])) == Fraction(rounded[1])
    again = SAME.sub("", text.lstrip("= "), count=1)
    same = quantity_at(again)
    equal = same and in_measure(same, measure) == value
    if same and again != text:
        if not equal and (is_unit(same.rest) or {*words_of(same.rest)[:1]} & {"above", "below"}):
            return False  # that is, twelve
        of_kind = measure and (measure_of(same) or measure).kind == measure.kind
        if unit and words_of(same.rest) not in ([], words_of(unit)) and not of_kind:
            return False  # 8 am or 8 pm
    if not text or (equal and is_unit(same.rest)):
        return True
    if re.fullmatch(r"\d+ [a-z ]+(?:(?:, (?:and )?| and |\+ )\d+ [a-z ]+)+", text):
        summed = sum(map(int, re.findall(r"\d+", text)))  # 30 cows and 20 sheep
        return summed == value and not (HEDGES | NEGATIONS | NUMBER_WORDS) & set(words_of(text))
    if same and same.value == value and not equal:
        return False  # 9000 s or 9000 min
    if value in (arithmetic(text.lstrip("=")), arithmetic(again)):
        return True
    words, reason = set(words_of(text)), REASON.match(text)
    if words & HEDGES or (not reason and words & (NEGATIONS | OPERATORS | NUMBER_WORDS - {"one"})):
        return False
    text = re.sub(r"(?<=\d) (?:gives|makes|equals|is) (?=[\d$-])", " = ", text)
    chains = [[arithmetic(side) for side in m[0].split("=")] for m in CHAIN.finditer(text)]
    known = set(re.findall(r"\d+", question))
    ends = bool(chains) and (chains[-1][0] == value or str(chains[-1][0]) in known)
    if ends and all(len(set(sides)) == 1 for sides in chains):
        text = CHAIN.sub(" ", text)
    if re.fullmatch(r"(?:[\d, ]|and )+", text) and len(re.findall(r"\d+", text)) == value:
        return True  # 3 (2, 4, 6)
    if not reason:
        said = SAID.findall(re.sub(r"\b(?:by|out of|per|from) \d+", "", text))
    elif words & CALLED or len(words) < 3:
        said = SAID.findall(text) + ["?"] * bool(words & NUMBER_WORDS)
    else:
        said = RESULT.findall(text)
    return all(
        (reason and number in known) or ((read := read_digits(number)) and read.value == value)
        for number in said
    )


# **The claim** stands first, behind a name or a calculation ("x =", "6 × 7 ="), or last.


LABELLED = re.compile(r"[A-Za-z](?:[A-Za-z']| (?=[A-Za-z])){0,40}: ?(?=\S)")
NO_LABELS = frozenset(
    "estimate bound minimum maximum limit bad worst fake attempt step question draft example "
    "remaining before old previous initial square".split()
)
NAME = re.compile(
    r"(?:\\?[A-Za-z]\w{0,15}(?:\([\w, -]{0,20}\))?|[A-Za-z][A-Za-z ']{0,60}"
    r"|[A-Za-z](?:[/*·+-]\w)+|[A-Za-z]{2,}(?: ?[/*·+÷×] ?[A-Za-z]{2,})+) ?= ?(?=\S)"
)
BEFORE_LAST = re.compile(r"=| (?:equals|is|makes|gives) |, i\.e\.,? ")
FUNCTION = re.compile(
    r"\d!|\\(?:d?binom|sqrt|log|sin|cos|tan|gcd|sum|int)(?![a-z])|\b(?:lcm|gcd|log|sqrt|mod)\b|\d°"
)
RELATING = {"after", "over", "per", "before", "from", "total"}
CONTEXT = re.compile(r" (?:after|in|for|over|per|on|at|from|of|than|with|by|before) [^,;.:()=\n]+$")
SHORT_CONTEXT = re.compile(r" (?:after|in|for|over|of|with|per) (?:\w+ ){0,2}\w+$")


def without_context(text: str, question: str) -> str:
    """The text without a last phrase that says again what the question has said.

    >>> without_context("104 games after 3 years", "How many games in 3 years?")
    '104 games'
    """
    if match := CONTEXT.search(text):
        said, asked = (set(re.findall(r"\w+", t.lower())) for t in (match[0], question))
        compared = re.match(r" than \d", match[0])  # 36 more than 240
        if match.start() and said - asked <= JOINING | RELATING and not compared:
            return text[: match.start()]
    return text


def unspaced(text: str) -> str:
    """The text without what only spaces it."""
    return re.sub(r"[\s${}\\()]", "", text)


def read_claim(text: str, question: str = "") -> Reading | None:
    """The one number that an undressed text claims; None if there is none, or a second one."""
    if text.count("=") > 5 or "?" in text:
        return None
    text = re.sub(r"^(?:minus|negative) (?=\d)", "-", text, flags=re.IGNORECASE)
    text = re.sub(r"^an? (?=\$?\d)", "", text, flags=re.IGNORECASE)
    while match := NAME.match(text):
        if (OPERATORS | HEDGES | NEGATIONS) & set(words_of(match[0])):
            return read_result(text, question) if FUNCTION.match(text) else None
        text = re.sub(r"^\d?[a-zπ](?:\^\d)?[a-z]? ?= ?", "", text[match.end() :])  # d = 2r = 20
    if label := LABELLED.match(text):
        named = words_of(label[0])
        if len(named) <= 4 and not (NO_UNITS | OPERATORS | NO_LABELS) & set(named):
            text = text[label.end() :]
    for claim in (text, without_context(text, question)):
        reading = quantity_at(claim)
        if not reading or reading.rest.startswith("..") or UNFINISHED.match(reading.rest):
            continue
        tail, measure = TAIL.fullmatch(reading.rest), measure_of(reading)
        if is_unit(tail["unit"]) and explains(
            tail["more"], reading.value, measure, question, tail["unit"]
        ):
            inside = re.search(r"\(([^()]*)\)$", reading.rest)
            last = quantity_at(inside[1] if inside else BEFORE_LAST.split(reading.rest)[-1].strip())
            asked = asked_measures(question, measure.kind) if measure else set()
            worked_out = last and in_measure(last, measure) == reading.value
            # "2^10 = 1024", "300 minutes = 5 hours"
            takes = worked_out and (not inside or last.value != reading.value)
            return last if takes and not (measure and measure.name in asked) else reading
    return read_result(text, question)


def read_result(text: str, question: str) -> Reading | None:
    """The number that a calculation ends in, if it is one, and right where that can be seen."""
    first, *more = re.split(r"; |, ", text, maxsplit=1)  # 18*26 = 468; 468 - 95 = 373
    if more and "=" in first and len({arithmetic(side) for side in first.split("=")} - {None}) == 1:
        return read_claim(more[0], question)
    told_by = (" ?= ?| (?:is|equals|makes|gives) ", " ?= ?")
    splits = [re.split(pattern, text, maxsplit=1) for pattern in told_by]
    left, *right = splits[0]
    told = {unspaced(left), unspaced(re.sub(r"_\{?\d+\}?", "", left))}  # 1011_2 = 11
    if right and re.search(r"\d", left) and any(text in unspaced(question) for text in told):
        return read_claim(right[0].strip(), question)
    *sides, end = re.split(r" ?= ?", text)
    plain = [
        side for side in sides if re.search(r"\d.*[-+*/·×÷^√!(].*\d|\d!|√|\\sqrt|\bmod\b", side)
    ]
    values = {arithmetic(side) for side in sides if not FUNCTION.match(side)} - {None}
    worked = any(not re.search("[A-Za-z]", side) for side in plain) or FUNCTION.search(
        sides[0] if sides else ""
    )
    if worked and len(plain) == len(sides) - (not plain or sides[0] != plain[0]):
        claimed = read_claim(end, question)  # \\binom{10}{3} = 120, 5(2)/2 = 5
        fits = claimed and values <= {claimed.value, claimed.value / claimed.sized}  # 40 %
        return claimed if fits else None
    for left, *right in (parts for parts in splits if len(parts) > 1):
        lead, _, work = left.rpartition(", ")  # "With $20, he buys 20/4 = 5"
        said = set(re.findall(r"\d+", lead)) <= set(re.findall(r"\d+", question))
        value = arithmetic(work if said and not NO_UNITS & set(words_of(lead)) else left)
        end = right[0].strip()
        claimed, first = read_claim(end, question), quantity_at(end)
        if claimed and value is not None and value in (claimed.value, first and first.value):
            return claimed
    return None


# **A sentence around the number**: "After dinner, Ali has $32 left." What it claims is its one
# number; of several, the one that is not the question's own. What stands right before it may not
# change it ("about 32", "more than 32"), and nothing may deny it or take it back. What the
# question says may be said again: "How many are not red?" "9 of them are not red."


NUMBER_START = re.compile(r"(?<![\w.,/^$€£-])-?[$€£]?(?=\d)|(?<![\w.,/^-])-?[$€£]-?(?=\d)")
WORD_START = re.compile(rf"\b(?=(?:{'|'.join(set(NAMED) - {'one'})})\b)", re.IGNORECASE)
CHANGES = OPERATORS - {"if"} | set("over up within only after before until since".split())
BESIDES = frozenset("if times than between close under below most least".split())
TAKE_BACK = frozenset({"but", "actually", "wait"})
RELATIVE = re.compile(r"\b(?:that|who|which|whose)\b.*", re.DOTALL)
TO_VERB = re.compile(r"\b(?:that|who|which|whose)\b.*(?= (?:is|was|are|were)\b)", re.DOTALL)
DENYING = frozenset("no not never isn't aren't wasn't weren't don't doesn't didn't".split())
BORNE = frozenset(
    "least most over under below half double twice triple times if minus plus after before".split()
)
NUMBERED = frozenset("problem page question chapter figure exercise section table line row".split())
VERB_BEHIND = re.compile(r" \w+ (?:must|should|need|have|were|are|will)\b")
OF_ANSWERS = frozenset("answer right correct true solution".split())


def numbers_in(text: str, question: str) -> list[tuple[int, Reading]]:
    """Where a sentence has numbers that are not the question's own, or count what it asks for."""
    found: list[tuple[int, Reading]] = []
    for match in (NUMBER_START if re.search(r"\d", text) else WORD_START).finditer(text):
        reading = quantity_at(text[match.start() :])
        if reading and (not found or match.start() >= len(text) - len(found[-1][1].rest.lstrip())):
            found.append((match.start(), reading))
    if len(found) > 1:
        asked = {*re.findall(r"\d+", question), *re.findall(r"\d[\d,.]*\d", question)}
        said = [re.search(r"[\w,.]+", text[start:])[0].strip(".,") for start, _ in found]
        found = [pair for pair, digits in zip(found, said, strict=True) if digits not in asked]
    noun = re.search(r"\bhow many (\w{3,})", question.lower())
    if len(found) < 2 or not noun:
        return found
    counted = [(start, r) for start, r in found if r.rest.lower().startswith(f" {noun[1]}")]
    for of in (words_of(pair[1].rest)[:1] for pair in found if pair not in counted):
        if of and re.search(rf"\d (?:\w+ )?{of[0]}\b", question):
            return []  # with 6 books, where 5 are told of
    return counted


def says_again(words: Sequence[str], asked: Set[str]) -> bool:
    """Do words behind a number only say what it is: "25 is the largest such integer"?"""
    known = {word.rstrip("s") for word in asked | JOINING | {"such"}}
    return words[:1] in (["is"], ["are"]) and all(word.rstrip("s") in known for word in words)


def number_in_sentence(text: str, question: str) -> Reading | None:
    """The number that a sentence claims; None if it claims none, or two.

    >>> str(number_in_sentence("In 3 years he has 104.", "How many games in 3 years?").value)
    '104'
    >>> number_in_sentence("Ali has about $32", "") is None
    True
    """
    found = numbers_in(text, question)
    if len(found) != 1 or len(text) > 300 or set("=?\n") & set(text):
        return None
    (start, reading), asked = found[0], set(words_of(question))
    lead = re.sub(r"\bmakes? up ", "is ", TO_VERB.sub("", text[:start]))
    rest = reading.rest.replace("left over", "")
    before, after = words_of(lead), words_of(RELATIVE.sub("", rest))
    borne = asked & (DENYING | BORNE | NUMBER_WORDS) if not OF_ANSWERS & set(after) else set()
    near = before[-1:] if before[-1:] in (["is"], ["was"], ["equals"]) else before[-2:]
    doubtful = (
        re.search(r"\d ?(?:,|and|or|to|&|/|-|–) ?$|[+*/×·÷^√] ?$|\w\($", text[:start])  # 17 and 25
        or re.match(r" ?(?:,|and|or|&|/) ?[-$€£]?\d| times (?:\d|as|more|the)\b", rest)
        or UNFINISHED.match(rest)
        or re.match(rf"\d+ {(words_of(rest) or ['.'])[0]}\W+(?:and )?\d", text)  # 4 cats, 5 cats
        or OTHER_SUBJECT.search(text)
        or re.search(r"[<>≤≥≠~≈±\\]", lead)
        or (":" in lead and (NO_LABELS & set(before) or lead.strip()[-1] != ":" or after))
        or not (
            before
            or {"more", "fewer", "less"} & set(after)
            or says_again(after, asked)
            or (VERB_BEHIND.match(rest) and {*after[:1]} & asked and len(SAID.findall(text)) == 1)
        )
        or re.search(r"\bthan \d", rest)
        or NUMBERED & {*before[-1:]} - asked
        or DENYING & {*words_of(text[:start])} - asked
        or (NO_UNITS - borne - {"more", "than", "is", "was", "be", "between"}) & set(after[:2])
        or ((HEDGES | NEGATIONS | TAKE_BACK) - borne) & {*before, *after}
        or (CHANGES - (asked & BORNE) | DENYING) & set(near)
        or (OPERATORS - BESIDES - borne) & set(before)
        or "one of" in text
    )
    return None if doubtful else reading


FIRST_WORDS = JOINING | frozenset(
    "if after before so thus therefore then finally each every how what there their her his my "
    "your our all both since because when while now total one two three some monday tuesday "
    "wednesday thursday friday saturday sunday".split()
)


def names_in(text: str) -> set[str]:
    """The capitalised words of a text that are no usual first words."""
    return {w for w in re.findall(r"\b[A-Z][a-z]+\b", text) if w.lower() not in FIRST_WORDS}


def about_another(text: str, question: str) -> bool:
    """Is a sentence about somebody of whom the question does not ask?

    >>> about_another("Ben is 32.", "Sue is 4 years older than Ben, who is 28. How old is Sue?")
    True
    """
    part = asked_part(question)
    asked, told, named = (names_in(t) for t in (part[:1].lower() + part[1:], question, text))
    function = re.match(r"[A-Za-z]\(([\w ]{2,})\) ?=", text)  # P(red), where blue is asked for
    inside, of_part = (set(words_of(t)) for t in (function[1] if function else "", part))
    if inside and not inside & of_part and inside & {*words_of(question), *NUMBER_WORDS}:
        return True
    rival = re.search(r" more .*\bthan ([A-Z][a-z]+)", part)  # "Bo has 3 more than Al"
    turned = rival and re.search(rf"\b{rival[1]}\b.* more .*\bthan [A-Z]", text)
    return bool(asked and named & told and not named & asked) or bool(turned)


def numbers_of(text: str) -> set[str]:
    """The whole numbers of a text, those in words too, in digits."""
    words = re.findall(r"\w+", text.lower())
    return {str(NAMED.get(word, word)) for word in words if word.isdigit() or word in NAMED}


def for_another(text: str, question: str) -> bool:
    """Does an answer end in another number than the question asks about: "$8 for 3", not for 12?

    >>> for_another("$8 for 3", "Apples are 3 for $2. What do 12 cost?")
    True
    """
    phrase, asked = SHORT_CONTEXT.search(text), numbers_of(asked_part(question))
    if not phrase or re.search(r"\b(?:because|since|is)\b|=", text):
        return False
    said = numbers_of(phrase[0])
    return bool(said and asked and not said & asked and numbers_of(text[: phrase.start()]))


BASES = {"binary": 2, "octal": 8, "decimal": 10, "hexadecimal": 16}
ROUNDED = re.compile(r"\b(?:round|nearest|approximat|estimate|decimal place|significant)", re.I)
AN_EXAMPLE = re.compile(
    r"^for (?:example|instance)\b"
    r"|\b(?:such as|for (?:example|instance)|e\.g\.|including),? \S?\d\S*(?: \w+)?\W*$",
    re.IGNORECASE,
)
ABOUT = re.compile(r"^(?:[^=\d]{0,12}≈|~|about|approximately|roughly) ?", re.IGNORECASE)
BECAUSE = re.compile(r",? (?:because|since) ")
QUOTIENT = re.compile(r"^\d+,? ?(?:R|with (?:a )?remainder(?: of)?|remainder) ?(?=\d+$)", re.I)
DATE = re.compile(r"^(?:on |in )?[A-Z][a-z]+ \d{1,2}(?:st|nd|rd|th)?,? (?=\d{4}$)")
TIME_ASKED = re.compile(r"\b(?:what time|when|what hour|o'clock)\b", re.IGNORECASE)
FULL_HOUR = re.compile(r"(?<=\d):00(?!\d)|(?<=\d) ?[ap]\.?m\b\.?", re.IGNORECASE)


@functools.lru_cache(maxsize=4096)  # the choices of a row are read for every completion
def read_answer(answer: str, question: str = "") -> Reading | None:
    """The one number that an answer claims, whatever the gold one is."""
    text = undress(answer)
    text = QUOTIENT.sub("", text) if "remainder" in question else text
    factorial = re.search(r"\d!", question) and re.search(r"\d!\W*$", answer)
    if (
        factorial
        or AN_EXAMPLE.search(text)
        or about_another(text, question)
        or for_another(text, question)
    ):
        return None
    *steps, last = re.split(r"\n|(?<=\w)\. (?=[A-Z\d])", text)
    if steps and all("=" in line for line in (*steps, last)):  # 3x = 27, x = 9
        name = last.partition("=")[0].strip()
        text = text if any(line.partition("=")[0].strip() == name for line in steps) else last
    elif steps and (result := re.search(r"= ?([^=]+)$", steps[-1])):
        worked, told = quantity_at(result[1]), number_in_sentence(last, question)
        if worked and told and worked.value == told.value:  # 48 - 9 = 39. She has 39 left.
            return told
    elif steps and (named := re.fullmatch(r"(?:The )?(\w+) (?:=|is) \S+", last)):
        text = last if named[1].lower() in words_of(question) else text  # Median = 7
    if ROUNDED.search(question):
        text = re.sub(r"^[^≈]*=[^≈]*≈ ?|\b(?:about|approximately|roughly) (?=\d)", "", text)
        text = ABOUT.sub("", text)
    text = re.sub(
        r"^half of (\d+)(?: \w+)? (?:is|equals) ", r"\1 / 2 = ", text, flags=re.IGNORECASE
    )
    text = DATE.sub("", text) if "year" in question else text
    text = FULL_HOUR.sub("", text) if TIME_ASKED.search(question) else text
    noun = re.search(r"\bhow many (\w+s)\b", question.lower())
    if noun and noun[1] in NUMBER_WORDS and noun[1][:-1] not in MULTIPLIERS:  # zeros, quarters
        text = re.sub(rf"(?<=\d) {noun[1]}\b", "", text)
    if base := re.findall(rf"\b(?:to|in) (?:base )?({'|'.join(BASES)})\b", question.lower()):
        text = re.sub(rf"_\{{?{BASES[base[-1]]}\}}?(?!\d)| \(base {BASES[base[-1]]}\)", "", text)
    text = re.sub(r" ?(?:\\pmod ?\{?\d+\}?|\(mod \d+\))", "", text)
    text = re.sub(r"\\equiv|≡", "=", text)
    if "next" in question and (listed := re.fullmatch(r"((?:-?\d+, ){2,})(-?\d+)", text)):
        text = listed[2] if listed[1] in question + "," else text  # 2, 6, 18, 54, 162
    for claim in (after_lead_in(VERDICT.sub("", text), question), after_lead_in(conclusion(text))):
        if reading := read_claim(claim, question):
            return reading
    said, *why = BECAUSE.split(text, maxsplit=1)
    if why and (reading := number_in_sentence(said, question)):
        measure = measure_of(reading)
        return reading if explains(f"because {why[0]}", reading.value, measure, question) else None
    said, colon, parts = text.partition(":")  # "63 km in total: 18 on Monday, 36 ..., and 9 ..."
    if colon and (reading := number_in_sentence(said, question)):
        numbers = re.findall(r"\d+", parts)  # or "six: 11, 13, 17, 19, 23 and 29"
        return reading if reading.value in (sum(map(int, numbers)), len(numbers)) else None
    return number_in_sentence(conclusion(text), question)


def parse_number(text: str) -> Fraction | None:
    """The one number in an answer, exactly; None if there is none, or more than one.

    >>> parse_number("$1,234.50"), parse_number("3/4"), parse_number("42 pears")
    (Fraction(2469, 2), Fraction(3, 4), Fraction(42, 1))
    >>> parse_number("12 or 13") is parse_number("84/2") is parse_number("about 42") is None
    True
    """
    reading = read_answer(text)
    return reading and reading.value
