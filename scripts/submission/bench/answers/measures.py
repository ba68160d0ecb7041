"""Units, and other things, of which one is asked for.

Only kinds that are mixed up are listed. Sizes count the smallest of a kind, so that 1 hour 30
minutes are 90 minutes; without one (currencies) nothing is converted.
"""

import dataclasses
import re
from fractions import Fraction
from typing import NamedTuple

from submission.bench.answers.answer_text import words_of
from submission.bench.answers.number_forms import Reading, read_number

MEASURE_WORDS = """
money: cent 1 ¢ penny pennies, dollar 100 $ usd buck, euro 0 € eur, pence 0, £ 0 gbp
money: yen 0 ¥, rupee 0 ₹
length: mm 1 millimetre millimeter, cm 10 centimetre centimeter, m 1000 metre meter
length: km 1000000 kilometre kilometer, inch 0 inches, foot 0 feet ft, yard 0, mile 0
mass: microgram 0 mcg, mg 1 milligram, g 1000 gram, kg 1000000 kilogram
mass: ounce 0 oz, pound 0 lb, tonne 0 ton
time: microsecond 0, millisecond 0 ms, second 1 sec s, minute 60 min, hour 3600 hr h
time: day 86400, week 604800
time: month 0, year 0, decade 0, century 0 centuries
volume: ml 1 millilitre milliliter, cl 10, dl 100, l 1000 litre liter, kl 1000000
volume: cup 0, pint 0, quart 0, gallon 0, teaspoon 0, tablespoon 0, spoon 0
angle: degree 0 °, radian 0 rad
temperature: °c 0 celsius, °f 0 fahrenheit, kelvin 0
"""


class Measure(NamedTuple):
    """A unit."""

    kind: str
    name: str
    size: int  # in the smallest of its kind; 0: not to be converted


MEASURES = {
    spelt: Measure(row.partition(":")[0], entry.split()[0], int(entry.split()[1]))
    for row in reversed(MEASURE_WORDS.strip().splitlines())
    for entry in row.partition(": ")[2].split(", ")
    for spelling in entry.split()
    for spelt in (spelling, f"{spelling}s")
}
MEASURE = re.compile(
    r"(?P<power>square |cubic )?(?P<word>[^\W\d_]+|[$€£¢¥₹]|°[CF]?)(?P<raised>\^[23])?"
)
ASKED_IN = re.compile(
    r"\b(?:how many|in|into|to|number of)\s(?!(?:an?|one|each|every)\s)(?:[^\W\d]+ )??"
    r"(?=[^\W\d]|[$€£¢°])",
    re.I,
)
COUNTED = re.compile(
    r"\bhow many ((?:(?!(?:are|is|do|does|did|can|could|will|would|must|should|has|have|was|were)"
    r"\b)[\w'-]+ ?){1,5})", re.IGNORECASE,
)  # fmt: skip
MONEY_ASKED = re.compile(
    r"\bhow much (?:money\b|(?:\w+ ){0,6}?(?:earn|make|cost|pay|paid|spend|charge|owe|change|tip"
    r"|tax|profit)\b)",
    re.IGNORECASE,
)
RATE = re.compile(
    r"\bper\b|/|\b(?:each|every|rate|speed|fast|average)\b|(?<!in )\ban? (?:day|week|hour|minute)"
)
PERCENT_ASKED = re.compile(
    r"\b(?:what|which|as an?|in|how many) (?:\w+ ){0,3}?per ?cent\b|\bpercentage\b|\bwhat %", re.I
)


SHARE_ASKED = re.compile(r"\bwhat (?:fraction|proportion|probability)\b", re.IGNORECASE)
ENDING = re.compile(r"(?:ies?|y|e?s)$")  # candy, candies
ANGLES = re.compile(r"°|\b(?:angle|degree|temperature|rotat|arc|turn|bearing)", re.IGNORECASE)
DEGREES = ((re.compile(r"^(?:degrees? |°)(?:celsius|c)\b", re.I), "°C"),)
DEGREES += ((re.compile(r"^(?:degrees? |°)(?:fahrenheit|f)\b", re.I), "°F"),)
POUND = re.compile(r"\bpounds?\b")
PERIODS = "second|minute|hour|day|week|month|year"
# Who names one of them where another is asked answers another question.
RIVALS = [
    group.split()
    for group in (
        "before after/increase decrease/increased decreased/loss profit gain/lose profit gain"
        "/grow shrink/grow shrank/grow fell/grow decrease/win lose/first left/smallest largest"
        "/lowest highest/shortest longest/least greatest/youngest oldest/minimum maximum"
        "/quotient remainder/gcd multiple/gcf multiple/lcm divisor/radius diameter"
        "/absent present/boys girls/men women/adults children/heads tails"
        "/area perimeter volume circumference hypotenuse/mean median mode range"
    ).split("/")
]
SIDE = re.compile(r"(?:the |a )?(discount|tax|tip|interest|deposit|fee) (?:is|was|of) [^,;]+")
COLOUR_WORDS = frozenset(
    "red blue green yellow purple white black orange brown pink gray grey".split()
)
DIRECTED = frozenset("off less fewer too alone late early".split())


def measure_at(text: str) -> Measure | None:
    """The unit at the start of a text.

    >>> measure_at(" minutes or so").name, measure_at("square metres").name, measure_at("pears")
    ('minute', 'm^2', None)
    """
    text = re.sub(r"^(?:st|nd|rd|th) ", "", text.strip(" (-"))  # the 16th month
    for spelt, sign in DEGREES:
        text = spelt.sub(sign, text)
    match = MEASURE.match(text)
    if match is None or match["word"].lower() not in MEASURES:
        return None
    kind, name, size = MEASURES[match["word"].lower()]
    power = {"square ": "^2", "cubic ": "^3"}.get(match["power"], match["raised"] or "")
    return Measure(kind, name + power, 0 if power else size)


def measure_of(reading: Reading) -> Measure | None:
    """The unit behind or before a number."""
    return measure_at(reading.rest) or measure_at(reading.currency)


def quantity_at(text: str) -> Reading | None:
    """A number at the start of a text, with the smaller part of its unit behind it.

    >>> str(quantity_at("42 dollars and 50 cents").value), quantity_at("5 pears and 2").rest
    ('85/2', ' pears and 2')
    """
    reading = read_number(text)
    large = reading and measure_of(reading)
    behind = large and re.match(r"(?: ?[^\W\d_]+)?(?:,| and|, and)? (?=[\w¢])", reading.rest)
    part = behind and read_number(reading.rest[behind.end() :])
    small = part and measure_at(part.rest)
    if not small or small.kind != large.kind or not 0 < part.value * small.size < large.size:
        return reading
    value = reading.value + part.value * Fraction(small.size, large.size)
    rest = re.sub(r"^ ?[^\W\d_]+", "", part.rest)
    return dataclasses.replace(reading, value=value, rest=f" {large.name}{rest}")


def in_measure(reading: Reading, measure: Measure | None) -> Fraction:
    """The value in another unit of its kind; as it is, where nothing is known of one.

    >>> str(in_measure(quantity_at("1.5 hours"), measure_at("minutes")))
    '90'
    """
    own = measure_of(reading)
    if not own or not measure or own.kind != measure.kind or not (own.size and measure.size):
        return reading.value
    return reading.value * Fraction(own.size, measure.size)


def asked_measures(question: str, kind: str) -> set[str]:
    """The units of a kind that a question asks for; if it says none, those that it names.

    >>> asked_measures("It is 2 m and 30 cm long. How long is it in cm?", "length")
    {'cm'}
    """
    starts = [match.end() for match in ASKED_IN.finditer(question)]
    nouns = [start for start in starts if not measure_at(question[start:])]
    starts += [start + len(question[start:].split(" ")[0]) for start in nouns]  # "how many whole m"
    for places in (starts, [match.start() for match in MEASURE.finditer(question)]):
        found = [measure_at(question[place:]) for place in places]
        names = {measure.name for measure in found if measure and measure.kind == kind}
        if names or (kind == "time" and "how old" not in question.lower()):  # "it takes 3 weeks"
            return names
    return set()


def asked_last(question: str) -> Measure | None:
    """The unit that a question ends in: "How long is it in cm?"."""
    last = re.search(r"\bin ([^\W\d]+)\W*$", question)
    return measure_at(last[1]) if last else None


def counts_another(claim: Reading, question: str) -> bool:
    """Does a claim count what the question names, but does not ask for?

    >>> asked = "Cups come in packs of 25. How many packs are 70 cups?"
    >>> counts_another(read_number("3 cups"), asked), counts_another(read_number("3 packs"), asked)
    (True, False)
    """
    match, own = COUNTED.search(question), measure_of(claim)
    words = words_of(re.split(" per | than ", match[1])[0]) if match else []
    wanted = {MEASURES[word].name: MEASURES[word].kind for word in words if word in MEASURES}
    paid = not claim.currency and MONEY_ASKED.search(asked_part(question))
    if own is None and (wanted or paid or asked_last(question)):  # 150 pencils, where cents are
        unit = words_of(claim.rest)[:1]
        return bool(unit) and re.search(rf"\d {unit[0]}\b", question, re.I) is not None
    if own is None:  # 7 students, or 19 bags of marbles, where tables are, and both were counted
        noun = re.fullmatch(r" (\w+)(?: of \w+)?", claim.rest)
        told = question.removesuffix(asked_part(question)).lower()
        head = words_of(re.split(" of | per | than ", match[1])[0]) if match else []
        whole = {"pieces", "total", "kinds", "types"} & {*head} or not head
        one = {ENDING.sub("", word) for word in (words if whole else head)}
        one |= {"slic", "piec"} if one & {"slic", "piec"} else set()
        named = noun and re.search(rf"\d (?:\w+ )?{noun[1].lower()}\b", told)
        return bool(named and ENDING.sub("", noun[1].lower()) not in one and words)
    if own is None or not words or own.name in wanted or own.kind in wanted.values():
        return bool(own and claim.currency and PERCENT_ASKED.search(question))
    if own.kind == "temperature" and "degree" in wanted:
        return False
    told = {MEASURES[word].name for word in words_of(question) if word in MEASURES}
    return bool(wanted) or own.name in told or bool(claim.currency and claim.currency in question)


def asked_part(question: str) -> str:
    """The last sentence of a question that asks, and what stands behind it."""
    sentences = re.split(r"(?<=[.!?])\s", question.strip())
    asking = [i for i, sentence in enumerate(sentences) if sentence.endswith("?")]
    return " ".join(sentences[(asking or [len(sentences) - 1])[-1] :]) or "per"


def names_rival(text: str, question: str) -> bool:
    """Does a text name a rival of what the question asks for, and not the thing itself?

    >>> asked = "What is the least common multiple of 6 and 8?"
    >>> names_rival("the GCD is 24", asked), names_rival("24 is the least", asked)
    (True, False)
    """
    said, part = set(words_of(text)), set(words_of(asked_part(question)))
    named = [(said.intersection(group) - part, part.intersection(group) - said) for group in RIVALS]
    side = SIDE.fullmatch(text.lower())  # of the sum that is asked for
    return any(one and other for one, other in named) or bool(side and side[1] not in part)


def in_asked_measure(claim: Reading, gold: Reading, question: str) -> bool:
    """Is the claim in the unit that the question asks for, or the gold answer names?

    >>> asked, gold = "A pen costs $2. What do 21 cost?", quantity_at("42")
    >>> [in_asked_measure(quantity_at(t), gold, asked) for t in ("42 cents", "$42")]
    [False, True]
    """
    if "£" in question:  # pounds are money there
        question, *rests = (POUND.sub("£", text) for text in (question, claim.rest, gold.rest))
        claim, gold = (
            dataclasses.replace(read, rest=rest)
            for read, rest in zip((claim, gold), rests, strict=True)
        )
    part = asked_part(question)
    each = re.findall(rf"(?:\bper |(?<=[a-z])/|\b(?:each|every) |\ban? (?={PERIODS}))(\w+)", part)
    spans = PERIODS if each else "|".join(re.findall(rf"\d ({PERIODS})s\b", part)) or "-"
    per = re.match(
        rf"(?: [^,.(]*?(\w+))?(?: ?/ ?| per | (?:in )?(?:each|every) | an? (?=(?:{spans})))(\w+)",
        claim.rest,
    )
    asked_for = per and rf"\b(?:{per[2]}\b|{per[2][:-1]}\w?ly\b)"
    if per and not (RATE.search(part) or re.search(asked_for, part) or per[2] in gold.rest):
        return False
    if per and per[1] and re.search(rf"\b{per[2]}\w* (?:per|an?) {per[1][:3]}", part):
        return False  # hours per km
    of = re.match(r" of (?:an?|the) (\w+)", claim.rest)
    whole = re.search(r"\bfraction of (?:an?|the|one) (\w+)", question)
    if of and whole and of[1] != whole[1]:
        return False  # 2/3 of a minute
    if re.match(" times (?:as|more|the) ", claim.rest) and "times" not in part:
        return False  # 15 times as old
    other = re.fullmatch(r" of .* (?:is|are|was|were) (\w+)", claim.rest)
    if other and other[1] in words_of(question) and other[1] not in words_of(part):
        return False  # 2/3 are blue, where the red ones are asked for
    told = set(words_of(claim.rest))
    behind = set(words_of(re.split("[,.;(]", claim.rest)[0]))
    if DIRECTED & behind - set(words_of(question)):
        return False  # $52 off
    coloured = COLOUR_WORDS & behind - set(words_of(part))
    if len(coloured) == 1 and len(COLOUR_WORDS & set(words_of(question))) > 1 and not per:
        return False  # 35 purple flowers, where all are asked for
    if {"altogether", "total", "combined"} & told and "each" in part:
        return False
    rate = re.search(r"(?:\bper |(?<=[a-z])/)(\w+)", part)
    unit = measure_at(per[2]) if per and each and per[2] not in each else None
    if unit and unit not in map(measure_at, each):
        return False  # miles per minute
    if per and each and not unit and per[2] not in each and re.search(rf"\b{per[2]}", question):
        return False  # dollars per egg
    measure, own = measure_of(claim), measure_of(gold)
    if rate and measure and not per and re.search(rf"\bin \w+(?: per |/){rate[1]}\b", part):
        return False  # 60 km, where km/h are asked
    named = asked_last(question)
    if named and named.kind == "temperature" and measure and measure.name == "degree":
        return True
    if measure and measure.kind == "time" and not per and MONEY_ASKED.search(part):
        return False  # 10 hours, where her pay is asked
    if named and measure and named.kind != measure.kind and not per:
        return False  # 91 hours, where dollars are asked
    degrees = claim.rest.startswith("°") and not ANGLES.search(question)
    if degrees or ("each" in behind and not per and not RATE.search(part)):
        return False
    counted = claim.rest.startswith(" times") or (measure and measure.kind != "angle" and not per)
    if PERCENT_ASKED.search(part) and counted and claim.scale != "percent":
        return False  # 25 cm
    thing = re.match(r" (?!points\b)(\w\w+s|people|men|women|children)\b", claim.rest)
    if thing and claim.scale != "percent" and PERCENT_ASKED.search(part):
        return False  # 25 students
    if counts_another(claim, question):
        return False
    if measure and not (own or whole) and SHARE_ASKED.search(part):
        return False  # 1/8 hours
    if measure is None:
        return True
    asked = (
        {own.name} if own and own.kind == measure.kind else asked_measures(question, measure.kind)
    )
    return not asked or measure.name in asked
