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
import re
from fractions import Fraction

# %% tags=["modules-only"]
from submission.prompts import Example

# %%
LONGEST_ANSWER = 400  # characters; nothing that is an answer is longer
LEAD_IN = re.compile(
    r"(?:so|thus|therefore|hence)?[,:]?\s*(?:i\s+(?:think|believe)\s+(?:that\s+)?)?"
    r"(?:(?:the\s+)?(?:final\s+|correct\s+|right\s+)?(?:answer|result|total|choice)\s*(?:is|=|:)"
    r"|it\s+is|it's|that\s+is|there\s+are|=)\s*:?\s*",
    re.IGNORECASE,
)


def strip_dressing(answer: str) -> str:
    r"""The answer without lead-in, mark-up and final stop.

    >>> strip_dressing("The answer is **42**.")
    '42'
    >>> strip_dressing(r"$\boxed{42}$")
    '42'
    """
    text = answer[:LONGEST_ANSWER].replace("**", "").strip()
    previous = None
    while text != previous:
        previous = text
        text = LEAD_IN.sub("", text, count=1) if LEAD_IN.match(text) else text
        text = re.sub(r"^\\boxed\{(.*)\}$", r"\1", text, flags=re.DOTALL)
        text = re.sub(r"^\\\((.*)\\\)$", r"\1", text, flags=re.DOTALL)
        for mark in ("__", "`", "$", '"', "'", "*"):
            if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
                text = text[len(mark) : -len(mark)]
        text = text.strip().removesuffix(".").strip()
    return text


# %% [markdown]
# **Numbers** are compared as exact fractions. Thousands separators, a currency sign in front
# and a unit behind are allowed; a second number is not.

# %%
NUMBER = re.compile(
    r"(?P<sign>[-+−]?)\s*[$€£¥]?\s*(?P<sign2>[-−]?)"
    r"(?P<whole>\d{1,3}(?:,\d{3})+|\d+)?(?P<decimals>\.\d+)?"
    r"(?:\s*/\s*(?P<denominator>\d+))?"
    r"(?:[eE](?P<exponent>[-+]?\d{1,3}))?"
    r"\s*(?P<percent>%)?"
    r"(?P<unit>(?:\s*[A-Za-z°€£¥][^\W\d]*[²³]?\.?){0,3})"
)


def parse_number(text: str) -> Fraction | None:
    """The one number in an answer, exactly; None if there is none, or more than one.

    >>> parse_number("$1,234.50"), parse_number("3/4"), parse_number("42 pears")
    (Fraction(2469, 2), Fraction(3, 4), Fraction(42, 1))
    >>> parse_number("12 or 13") is None
    True
    """
    match = NUMBER.fullmatch(strip_dressing(text))
    if match is None or not (match["whole"] or match["decimals"]):
        return None
    digits = (match["whole"] or "0").replace(",", "") + (match["decimals"] or "")
    value = Fraction(digits)
    if match["denominator"]:
        if int(match["denominator"]) == 0:
            return None
        value /= int(match["denominator"])
    if match["exponent"]:
        value *= Fraction(10) ** int(match["exponent"])
    if match["percent"]:
        value /= 100
    negative = bool(match["sign"] in ("-", "−")) != bool(match["sign2"])
    return -value if negative else value


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
LETTER = re.compile(r"(?:option\s+|choice\s+)?\(?(?P<letter>[A-Za-z])\)?", re.IGNORECASE)
LETTER_AND_TEXT = re.compile(r"\(?(?P<letter>[A-Z])\s*[).:]\s*(?P<text>.+)", re.DOTALL)


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
    by_text = [i for i, choice in enumerate(choices) if normalise(choice) == normalise(text)]
    if match := LETTER.fullmatch(text):
        # A choice may itself be a single letter: then its text decides.
        return (by_text or [ord(match["letter"].upper()) - ord("A")]) == [position]
    if match := LETTER_AND_TEXT.fullmatch(text):
        agrees = normalise(match["text"]) == normalise(choices[position])
        return match["letter"] == gold and agrees
    return by_text == [position]


# %% [markdown]
# **Yes and no**: one of them, first; an explanation may follow if it does not take it back.

# %%
TRUTH = {"yes": True, "true": True, "no": False, "false": False}
HEDGE = re.compile(
    r"\b(?:and|or|maybe|perhaps|not sure|unsure|unknown|both|either|depends|possibly)\b"
)


def parse_boolean(text: str) -> bool | None:
    """What the answer says, or None if it says neither, both, or hedges.

    >>> parse_boolean("No, it could not."), parse_boolean("yes and no") is None
    (False, True)
    """
    words = strip_dressing(text).lower()
    match = re.match(r"(yes|no|true|false)\b(?P<rest>.*)", words, re.DOTALL)
    if match is None:
        return None
    rest = match["rest"].strip()
    if rest and (not re.match(r"[,.;:—–-]", rest) or HEDGE.search(rest)):
        return None
    value = TRUTH[match[1]]
    others = {word for word, truth in TRUTH.items() if truth != value}
    return None if others & set(re.findall(r"\w+", rest)) else value


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
