"""The ways of writing a number.

1234 is `1,234`, `1 234`, `1'234`, `1.234×10^3` and "one thousand two hundred and thirty-four".
Here each of them becomes one exact fraction: 0.1 + 0.2 is 0.3, and 3.14 is not π. A reader
takes the number at the *start* of a text and hands back what is left; whether that may stand
there is the next section's question.
"""

import dataclasses
import re
from fractions import Fraction

# **In digits.** A number is a sign and a currency, a magnitude, a form (a fraction, a power), a
# scale ("million", "%"). `1.234,50` and `3,50 €` can only be European; `1.234` is a decimal, and
# `3,5` is two numbers.


CURRENCY = r"(?:(?:US|A|C|HK|NZ)?\$|[€£¥₹₩₽]|(?:USD|EUR|GBP|CHF|JPY|INR|Rs\.?)(?=[ \d.-]))"
SIGN = re.compile(rf"(?P<sign>[-+–])? ?(?P<currency>{CURRENCY})? ?(?P<second>[-–])? ?")
MAGNITUDE = re.compile(
    r"(?P<european>\d{1,3}(?:\.\d{3})+,\d{1,2}(?!\d)|\d{1,9},\d\d(?= ?€)"
    r"|(?<=€)\d{1,9},\d\d(?![\d,])"
    r"|\d{1,3}(?:\.\d{3}){2,}(?![\d.]))"
    r"|(?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d{1,2}(?:,\d{2})+,\d{3}(?!\d)"
    r"|\d{1,3}(?P<gap>[ '_])\d{3}(?:(?P=gap)\d{3})*(?![\d/^])|\d+)?"
    r"(?:\.(?P<fixed>\d{0,9})\((?P<repeat>\d{1,9})\)|(?P<decimals>\.\d+))?"
)
FORM = re.compile(
    r"(?: | and )(?P<over>\d{1,9}) ?/ ?(?P<under>\d{1,9})(?![\d/])"
    r"|(?P<half> and (?:a|one) half\b)"
    r"| ?/ ?(?P<denominator>\d{1,12})(?![\d/.])"
    r"|[eE](?P<exponent>[-+]?\d{1,3})\b"
    r"| ?(?:[x×·*]|times) ?10 ?\^ ?\(?(?P<power>[-+]?\d{1,3})\b\)?"
    r"| ?\^ ?\(?(?P<raised>[-+]?\d{1,3})\b\)?"
)
SCALE = re.compile(
    r"(?P<words>(?i: ?(?:hundred|thousand|[mbtr]+illion|dozens?)\b)+|(?:[kKMB]|[mb]n)\b)?"
    r"(?P<percent> ?(?i:%|per ?cent\b(?! point)|pct\b)| ?(?P<permille>‰))?"
)
MULTIPLIERS = {
    "hundred": 100,
    "dozen": 12,
    **dict.fromkeys(("thousand", "k"), 10**3),
    **dict.fromkeys(("million", "mn", "m"), 10**6),
    **dict.fromkeys(("billion", "bn", "b"), 10**9),
    "trillion": 10**12,
}


@dataclasses.dataclass(frozen=True)
class Reading:
    """A number at the start of a text."""

    value: Fraction
    rest: str  # what stands behind it
    form: str = ""  # "words", "fraction", "mixed", "power", "scientific"; or digits
    parts: tuple[int, ...] = ()  # the numbers of the form
    scale: str = ""  # its last scale: "million", "dozen", "percent"
    sized: Fraction = Fraction(1)  # what its scales have multiplied it by
    currency: str = ""


def magnitude(match: re.Match[str]) -> Fraction | None:
    """The value of a match of MAGNITUDE; None if there is no digit in it."""
    if european := match["european"]:
        return Fraction(european.replace(".", "").replace(",", "."))
    if not (match["whole"] or match["decimals"] or match["repeat"]):
        return None
    value = Fraction(re.sub(r"\D", "", match["whole"] or "0") + (match["decimals"] or ""))
    if match["repeat"]:  # 0.1(6) is 0.1666…
        fixed, repeat = match["fixed"], match["repeat"]
        once = int(fixed + repeat) - int(fixed or 0)
        value += Fraction(once, 10 ** len(fixed) * (10 ** len(repeat) - 1))
    return value


def in_form(value: Fraction, match: re.Match[str]) -> tuple[Fraction, str, tuple] | None:
    """The value with its fraction or power, the name of that form, and its parts."""
    if match["half"]:
        return value + Fraction(1, 2), "", ()
    if exponent := match["exponent"] or match["power"]:
        return value * Fraction(10) ** int(exponent), "scientific", (int(value),)
    if value.denominator != 1:
        return None
    base = int(value)
    if under := int(match["under"] or 0):
        over = int(match["over"])  # 17 25/1 is 17 + 25, and not yet added
        return (value + Fraction(over, under), "mixed", ()) if over < under else None
    if below := int(match["denominator"] or 0):
        if base % below == 0:
            return None  # 84/2: the division is left to the reader
        return value / below, "fraction", (base, below)
    if not match["raised"] or base > 10**6 or (base == 0 and int(match["raised"]) <= 0):
        return None
    return value ** int(match["raised"]), "power", (base, int(match["raised"]))


def read_digits(text: str) -> Reading | None:
    """A number in digits at the start of the text.

    >>> [str(read_digits(t).value) for t in ("1,234.50", "3 1/2", "1.2×10^3", "50 %", "-0.(3)")]
    ['2469/2', '7/2', '1200', '1/2', '-1/3']
    """
    sign = SIGN.match(text)
    digits = MAGNITUDE.match(text, sign.end())
    value, end, form, parts = magnitude(digits), digits.end(), "", ()
    if value is None or (sign["sign"] and sign["second"]):
        return None
    if match := FORM.match(text, end):
        formed = in_form(value, match)
        if formed is None:
            return None
        (value, form, parts), end = formed, match.end()
    scale = SCALE.match(text, end)
    words = re.findall("[a-z]+", (scale["words"] or "").lower())
    sized = Fraction(1, 1000 if scale["permille"] else 100 if scale["percent"] else 1)
    for word in words:
        sized *= MULTIPLIERS[word.rstrip("s")]
    negative = (sign["sign"] or sign["second"] or "+") in "-–"
    value *= -sized if negative else sized
    last = "permille" if scale["permille"] else "percent" if scale["percent"] else ""
    last = last or (words[-1].rstrip("s") if words else "")
    return Reading(value, text[scale.end() :], form, parts, last, sized, sign["currency"] or "")


# **In words**: "forty-two", "minus three and a half", "two thirds", "one point five".


DIGIT_WORDS = "zero one two three four five six seven eight nine".split()
TEENS = (
    "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
)  # fmt: skip
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
NAMED = {name: i for i, name in enumerate(DIGIT_WORDS + TEENS)}
NAMED |= {name: 10 * i for i, name in enumerate(TENS, 2)}
PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "eighth": 8}
PARTS |= {"seventh": 7, "ninth": 9, "twelfth": 12, "twentieth": 20, "fiftieth": 50, "tenth": 10}
PARTS |= {"hundredth": 100, "thousandth": 1000}
NUMBER_WORDS = frozenset(NAMED) | frozenset(MULTIPLIERS) - {"k", "m", "b"} | frozenset(PARTS)
NUMBER_WORDS |= {f"{word}s" for word in NUMBER_WORDS}


def number_grammar() -> str:
    """The pattern of a number in words; groups: sign, whole, share, part, point, dozen.

    Each piece is atomic: words that were read are never read in another way, so the time is
    linear in the text.
    """
    ones = rf"(?:{'|'.join(DIGIT_WORDS)})\b"
    small = rf"(?>(?:{'|'.join(TENS)})\b(?:[ -]{ones})?|(?:{'|'.join(TEENS)})\b|{ones})"
    group = rf"(?>(?:{small}|a)[ -]hundred\b(?:(?: and)? {small})?|{small})"
    scaled = rf"(?>(?:{group}|a) (?:thousand|million|billion|trillion)\b)"
    whole = rf"(?>{scaled}(?:(?:,| and)? (?:{scaled}|{group}))*|{group})"
    part = rf"(?:{'|'.join(PARTS)})s?"
    return (
        r"(?:(?P<sign>minus|negative) )?(?:"
        rf"(?:(?P<share>{whole}|an?)[ -])?(?P<part>{part}|halves)\b(?! an? (?:dozen|hundred|mil))"
        rf"|(?P<whole>{whole})(?: and (?P<share2>{whole}|an?)[ -](?P<part2>{part})\b"
        rf"| point(?P<point>(?: {ones}){{1,12}}))?(?P<dozen>[ -]dozen)?\b"
        r"|(?P<one_dozen>a dozen)\b)(?P<percent> per ?cent\b)?"
    )


IN_WORDS = re.compile(number_grammar(), re.IGNORECASE)


def cardinal(words: str) -> int:
    """The value of a whole number in words.

    >>> cardinal("two thousand three hundred and forty-two")
    2342
    """
    total = group = 0
    for word in re.findall("[a-z]+", words.lower()):
        if word in NAMED:
            group += NAMED[word]
        elif word == "hundred":
            group = max(group, 1) * 100
        elif word in MULTIPLIERS:
            total, group = total + max(group, 1) * MULTIPLIERS[word], 0
    return total + group


def read_words(text: str) -> Reading | None:
    """A number in words at the start of the text.

    >>> [str(read_words(t).value) for t in ("forty-two pears", "minus two thirds", "a dozen")]
    ['42', '-2/3', '12']
    """
    match = IN_WORDS.match(text)
    if match is None:
        return None
    share, part = match["share"] or match["share2"], match["part"] or match["part2"]
    if part and not share and part.lower() != "half":
        return None  # "third" alone is a place, not a number
    value = Fraction(cardinal(match["whole"] or ("" if part else "one")))
    if part:
        size = 2 if part.lower() == "halves" else PARTS[part.lower().removesuffix("s")]
        value += Fraction(max(cardinal(share or ""), 1), size)
    for place, word in enumerate((match["point"] or "").lower().split(), 1):
        value += Fraction(NAMED[word], 10**place)
    last = re.findall("[a-z]+", match[0].lower())[-1]
    dozen, percent = last == "dozen", bool(match["percent"])
    value *= Fraction(12 if dozen else 1, 100 if percent else 1)
    sized = Fraction(1, 100) if percent else Fraction(MULTIPLIERS.get(last, 1))
    scale = "percent" if percent else last if last in MULTIPLIERS else ""
    value = -value if match["sign"] else value
    return Reading(value, text[match.end() :], "words", (), scale, sized)


def read_number(text: str) -> Reading | None:
    """A number in digits or in words at the start of the text."""
    return read_digits(text) or read_words(text)
