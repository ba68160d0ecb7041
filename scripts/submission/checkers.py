# %% [markdown]
# ### Is this answer right?
#
# A checker compares an answer with the gold one and says right or wrong, never "close": a
# number that is nearly right is wrong. It forgives what people write around an answer (a
# lead-in, bold type, a unit, a full stop) and never forgives a second answer: who says "yes
# and no", or names all the choices, has said nothing.
#
# When the *gold* answer cannot be read, the checker says `None`: it cannot tell. Such rows
# are dropped when they are loaded.

# %%
import math
import re
from fractions import Fraction

# %% tags=["modules-only"]
from submission.prompts import Example

# %%
LONGEST_ANSWER = 400  # characters; nothing that is an answer is longer
LEAD_IN = re.compile(
    r"(?:so|thus|therefore|hence)?[,:]?\s*(?:i\s+(?:think|believe)\s+(?:that\s+)?)?"
    r"(?:(?:the\s+)?(?:final\s+|correct\s+|right\s+)?"
    r"(?:answer|result|total|choice|option)\s*(?:is|=|:)"
    r"|it\s+is|it's|that\s+is|there\s+are|[A-Za-z]\w{0,9}\s*=|=)\s*:?\s*",
    re.IGNORECASE,
)
WRAPPERS = re.compile(
    r"\\boxed\{(.*)\}|\\text\{(.*)\}|\\\((.*)\\\)|\\\[(.*)\\\]|\$(.*)\$|`(.*)`|__(.*)__"
    r"|\*(.*)\*|\"(.*)\"|'(.*)'",
    re.DOTALL,
)


def strip_dressing(answer: str) -> str:
    r"""The answer without lead-in, mark-up and final stop.

    >>> strip_dressing("The answer is **42**.")
    '42'
    >>> strip_dressing(r"$\boxed{42}$")
    '42'
    """
    text, previous = answer[:LONGEST_ANSWER].replace("**", "").strip(), None
    while text != previous:
        previous = text
        if match := LEAD_IN.match(text):
            text = text[match.end() :]
        if match := WRAPPERS.fullmatch(text):
            text = next(part for part in match.groups() if part is not None)
        text = text.strip().removesuffix(".").removesuffix("!").strip()
    return text


# %% [markdown]
# **Numbers** are compared as exact fractions. Thousands separators, a currency sign in front
# and a unit behind are allowed. A second number is not, in digits or in words, and neither
# is anything that takes the number back or leaves the last step to the reader: "84/2" is a
# question, not the answer 42.

# %%
NUMBER = re.compile(
    r"\(?(?P<sign>[-+−])?\s?(?:[$€£¥]|USD|EUR|GBP)?\s?(?P<sign2>[-−])?"
    r"(?P<whole>\d{1,3}(?:,\d{3})+|\d+)?(?P<decimals>\.\d+)?"
    r"(?:\s?/\s?(?P<denominator>\d+))?"
    r"(?:[eE](?P<exponent>[-+]?\d{1,3})|\s?[x×]\s?10\^(?P<power>[-+]?\d{1,3})|\^(?P<raised>\d))?"
    r"\s?(?P<percent>%)?\)?"
)
UNIT_WORD = re.compile(r"[A-Za-z°€£¥$²³/]{1,20}")
# Words that may not stand behind a number as its unit: they change it or take it back.
NO_UNITS = frozenset(
    "k thousand million billion trillion dozen hundred hundreds half pi and or but not no never "
    "is are was be isn't cannot can't nor neither either maybe perhaps unsure sure wrong false "
    "incorrect plus minus times over less more than approximately about roughly almost zero one "
    "two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty sixty "
    "seventy eighty ninety x".split()
)


def is_unit(text: str) -> bool:
    """Can this stand behind a number: at most three words, none of which changes it?

    >>> is_unit("square metres"), is_unit("million"), is_unit("or so")
    (True, False, False)
    """
    words = text.removesuffix(".").split()
    return len(words) <= 3 and all(
        UNIT_WORD.fullmatch(word) and word.lower() not in NO_UNITS for word in words
    )


def parse_number(text: str) -> Fraction | None:
    """The one number in an answer, exactly; None if there is none, or more than one.

    >>> parse_number("$1,234.50"), parse_number("3/4"), parse_number("42 pears")
    (Fraction(2469, 2), Fraction(3, 4), Fraction(42, 1))
    >>> parse_number("12 or 13") is parse_number("84/2") is parse_number("42 million") is None
    True
    """
    stripped = strip_dressing(text)
    match = NUMBER.match(stripped)
    rest = stripped[match.end() :]
    attached = rest[:1] in ("M", "B", "k", "K") and not rest[1:2].isalpha()  # 42k, 42M
    if not (match["whole"] or match["decimals"]) or attached or not is_unit(rest):
        return None
    if match["sign"] and match["sign2"]:
        return None
    value = Fraction((match["whole"] or "0").replace(",", "") + (match["decimals"] or ""))
    if match["denominator"]:
        below = int(match["denominator"])
        reduced = value.denominator == 1 and below > 1 and math.gcd(int(value), below) == 1
        if not reduced:
            return None
        value /= below
    if match["raised"]:
        value **= int(match["raised"])
    elif exponent := match["exponent"] or match["power"]:
        value *= Fraction(10) ** int(exponent)
    if match["percent"]:
        value /= 100
    return -value if (match["sign"] or match["sign2"] or "+") in "-−" else value


def check_number(gold: str, answer: str) -> bool | None:
    """Equal as exact numbers.

    >>> check_number("42", "**42.0**"), check_number("5", "-5")
    (True, False)
    """
    expected = parse_number(gold)
    return None if expected is None else parse_number(answer) == expected


# %% [markdown]
# **Choices**: the letter, the text of the choice, or both if they agree.

# %%
LETTER_FIRST = re.compile(
    r"(?:option\s+|choice\s+)?[(\[]?(?P<letter>[A-Za-z])[)\]]?(?:\s*[).:,–-]\s*(?P<text>.*))?",
    re.IGNORECASE | re.DOTALL,
)
LETTER_LAST = re.compile(r"(?P<text>.+?)\s*[(\[](?P<letter>[A-Za-z])[)\]]", re.DOTALL)


def normalise(text: str) -> str:
    """Lower case, separators and white space as one space."""
    return " ".join(re.sub(r"[,;\s]+", " ", strip_dressing(text).lower()).split())


def check_choice(gold: str, answer: str, choices: tuple[str, ...]) -> bool | None:
    """The right letter, or the right text, and nothing else.

    >>> check_choice("B", "(b)", ("18", "19")), check_choice("B", "A or B", ("18", "19"))
    (True, False)
    """
    position = ord(gold) - ord("A") if len(gold) == 1 else -1
    if not 0 <= position < len(choices):
        return None
    text = strip_dressing(answer)
    matching = [i for i, choice in enumerate(choices) if normalise(choice) == normalise(text)]
    if matching:  # the text decides, also where a choice is a single letter
        return matching == [position]
    match = LETTER_FIRST.fullmatch(text) or LETTER_LAST.fullmatch(text)
    if match is None or match["letter"].upper() != gold:
        return False
    return not match["text"] or normalise(match["text"]) == normalise(choices[position])


# %% [markdown]
# **Yes and no**: one of them, first; an explanation may follow if it does not take it back.

# %%
TRUTH = {"yes": True, "true": True, "no": False, "false": False}
HEDGE = re.compile(
    r"\s*\W?\s*(?:and|or)\b|.*\b(?:maybe|perhaps|unsure|sure|unknown|both|either|depends"
    r"|possibly|wrong|incorrect|rather)\b",
    re.DOTALL,
)
# Words that may not stand in the explanation of a yes, and of a no.
TAKES_BACK = {
    True: frozenset("no not never nope false n isn't can't cannot nor neither none".split()),
    False: frozenset("yes yeah yep y".split()),
}


def parse_boolean(text: str) -> bool | None:
    """What the answer says, or None if it says neither, both, or hedges.

    >>> parse_boolean("No, it could not."), parse_boolean("yes and no") is None
    (False, True)
    """
    match = re.match(r"(yes|no|true|false)\b(?P<rest>.*)", strip_dressing(text).lower(), re.DOTALL)
    if match is None:
        return None
    value, rest = TRUTH[match[1]], match["rest"].strip()
    if rest and (not re.match(r"[,.;:!(—–-]", rest) or HEDGE.match(rest)):
        return None
    return None if TAKES_BACK[value] & set(re.findall(r"[\w']+", rest)) else value


def check_boolean(gold: str, answer: str) -> bool | None:
    """The same truth value; `true` and `false` count as yes and no."""
    expected = parse_boolean(gold)
    return None if expected is None else parse_boolean(answer) == expected


# %% [markdown]
# **Short text** is compared word by word, whatever its case and separators.


# %%
def check_text(gold: str, answer: str) -> bool | None:
    """The same words in the same order.

    >>> check_text("7, 12, 31", "7 12 31"), check_text("cat red", "red cat")
    (True, False)
    """
    return None if not normalise(gold) else normalise(answer) == normalise(gold)


def check(example: Example, answer: str) -> bool | None:
    """Is `answer` right? None if the row has no answer that can be checked."""
    if len(answer) > LONGEST_ANSWER:
        answer = ""
    match example.checker:
        case "number":
            return check_number(example.answer, answer)
        case "choice":
            return check_choice(example.answer, answer, example.choices)
        case "boolean":
            return check_boolean(example.answer, answer)
        case "text":
            return check_text(example.answer, answer)
    return None  # open answers have no gold to match


# %%
pear = Example("How many pears?", "42", "number")
[check(pear, answer) for answer in ("42", "**42** pears.", "42 or 43", "about 42", "-42")]
