"""Answers that are formulas.

Some gold answers are no plain numbers: `\frac{\\sqrt{3}}{2}`, `x^2+1`, an interval. For these
alone, math-verify decides. It is a large library reading text that a model has written, and
`9^{9^{9^{9}}}` keeps it busy for ever; so it runs in a child process that is killed after 0.4
seconds, and sees only short text made of mathematical signs.

Two things are wrong before it is asked: a decimal beside an exact gold answer (0.866 is close
to √3/2, and close is wrong), and a formula of the question that is only repeated.
"""

import functools
import math
import re

from submission.bench.answers.answer_text import (
    HEDGES,
    NEGATIONS,
    OPERATORS,
    VERDICT,
    after_lead_in,
    conclusion,
    plain_text,
    strip_dressing,
    undress,
    words_of,
)
from submission.bench.answers.claims import is_unit
from submission.bench.answers.measures import asked_measures, measure_at
from submission.bench.answers.sandbox import SandboxError, Worker

LONGEST_FORMULA = 200  # characters
MATH_SECONDS = 0.4  # for one comparison; a usual one takes a few hundredths
MATH_CHILD = r'''
import logging

from math_verify import LatexExtractionConfig, parse, verify

logging.disable(logging.CRITICAL)
LATEX = [LatexExtractionConfig()]


def read(text):
    """What math-verify makes of a formula: a list, empty if it cannot read it."""
    return parse(f"${text}$", LATEX, fallback_mode="no_fallback", parsing_timeout=None)


def answer(request):
    """Are the formulas equal to the first? With one formula: can it be read and compared?"""
    try:
        gold, *others = [read(text) for text in request]
        if not others:
            verify(gold, read(r"\pi+7"), timeout_seconds=None)  # so that endless ones show here
            return bool(gold)
        # Its own time limits need the main thread's signals; here the parent's limit holds.
        return all(other and verify(gold, other, timeout_seconds=None) for other in others)
    except Exception:  # a formula that it cannot bear is no answer
        return False


answer([r"\frac{\sqrt{3}}{2}", r"\frac{3}{2\sqrt{3}}"])  # the imports that are made on first use
'''
FUNCTIONS = "sqrt sin cos tan cot sec csc log ln exp arcsin arccos arctan pi infty".split()
AS_LATEX = {
    "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "∪": r"\cup ", "∩": r"\cap ",
    "±": r"\pm ", "×": r"\cdot ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "∈": r"\in ",
    "−": "-", "–": "-", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "°": r"^\circ ",
}  # fmt: skip
SIGNS_OF_MATH = re.compile(r"[A-Za-z0-9\\{}^_()\[\],.+\-*/=<>|!' ]+")


def latex_text(text: str) -> str:
    r"""A formula in one spelling of LaTeX, whatever mixture it came in.

    >>> latex_text("$√3/2$"), latex_text("2π"), latex_text("x**2 + 1"), latex_text(r"\dfrac{a}{b}")
    ('\\sqrt{3}/2', '2\\pi', 'x^2 + 1', '\\frac{a}{b}')
    """
    text = re.sub(
        r"\\\(|\\\)|\\\[|\\\]|\\left(?![a-z])|\\right(?![a-z])|\\displaystyle|\$|`", "", text
    )
    text = re.sub(r"(?<=[\w)]) ?\*\* ?(?=[\w(-])", "^", text).replace("**", "")
    if boxed := re.fullmatch(r"(.*?)\\(?:boxed|fbox)\{(.*)\}([. ]*)", text, re.DOTALL):
        text = "".join(boxed.groups())
    text = re.sub(r"\\[,;:! ]|\\quad(?![a-z])|~", " ", re.sub(r"\\[dtc]frac", r"\\frac", text))
    text = re.sub(
        "[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda m: "^{" + plain_text(m[0]).removeprefix("^") + "}", text
    )
    text = re.sub(r"√ ?(\w+)", r"\\sqrt{\1}", text)
    text = re.sub(r"(?:√|\\?sqrt) ?\(([^()]*)\)", r"\\sqrt{\1}", text)
    for sign, command in AS_LATEX.items():
        text = text.replace(sign, command)
    text = re.sub(r"\\pi ?(?=\()", r"\\pi \\cdot ", text)
    text = re.sub(rf"(?<![\\A-Za-z])({'|'.join(FUNCTIONS)})(?![A-Za-z])", r"\\\1 ", text)
    return " ".join(re.sub(r"(?<=[\w)]) ?\* ?(?=[\w(\\])", r" \\cdot ", text).split())


def is_formula(text: str) -> bool:
    r"""Is this short, and made of mathematical signs, with no words in it?

    >>> is_formula(r"\frac{\sqrt{3}}{2}"), is_formula("about ten"), is_formula("1 or 2")
    (True, False, False)
    """
    words = re.findall(r"(?<![\\A-Za-z])[A-Za-z]+", re.sub(r"\\[A-Za-z]+", " ", text))
    return (
        0 < len(text) <= LONGEST_FORMULA
        and SIGNS_OF_MATH.fullmatch(text) is not None
        and "__" not in text
        and all(len(word) <= 2 for word in words)
        and not {word.lower() for word in words} & (HEDGES | NEGATIONS | OPERATORS | {"is", "of"})
    )


def squeeze(formula: str) -> str:
    r"""The formula without what only spaces it, to see whether two are the same text.

    >>> squeeze(r"\frac{1}{2} x^{2}") == squeeze("1/2x^2")
    True
    """
    return re.sub(r"[\s{}]|\\cdot", "", plain_text(formula))


def strip_formula(answer: str, question: str = "") -> str:
    r"""The formula of an answer: without dressing, unit, reason and the rounded value behind ≈.

    >>> strip_formula(r"The area is $9\pi \approx 28.3$."), strip_formula(r"2\sqrt{3} \text{ cm}")
    ('9\\pi', '2\\sqrt{3}')
    """
    boxed = re.fullmatch(r"(.*)\\boxed\{(.*)\}[.$ ]*", answer.strip(), re.DOTALL)
    if boxed and not (HEDGES | NEGATIONS) & set(words_of(boxed[1])):
        answer = boxed[2]
    answer = re.split(r"(?<=[\w)$])\. (?=[A-Z][a-z])", answer)[-1]  # the last sentence
    text = after_lead_in(conclusion(VERDICT.sub("", undress(answer, latex_text))), question)
    text = re.sub(r"^[A-Z][a-z]+(?: [A-Za-z]+)?: ", "", text)
    text = re.sub(
        r"^The (?!.*\b(?:not|never|near)\b)[a-z ]+ (?:at|in)(?: the point)? (?=\()",
        "",
        text,
        flags=re.I,
    )
    text = re.split(r"[,.;]? (?:because|since) | ?\(?(?:≈|\\approx) ?(?=-?\d*\.\d+\)?$)", text)[0]
    unit = unit_behind(text)
    return text[: unit.start()] if unit and is_unit(f" {unit[1] or unit[2]}") else text


def unit_behind(text: str) -> re.Match[str] | None:
    """The unit at the end of a formula, in `\\text{}` or bare."""
    return re.search(
        r"(?: ?\\(?:text|mathrm)\{ ?([A-Za-z ]+)\}| ((?:square |cubic )?[A-Za-z]{2,}))"
        r"(\^\{?\d\}?)?$", text,
    )  # fmt: skip


@functools.cache
def math_worker() -> Worker:
    """The child with math-verify in it, started by the first formula."""
    return Worker(MATH_CHILD, MATH_SECONDS)


def exactly(formula: str) -> str:
    """Its decimals as fractions: math-verify compares decimals after rounding them.

    >>> exactly("0.5x")
    '\\\\frac{5}{10}x'
    """
    return re.sub(
        r"(\d*)\.(\d+)",
        lambda m: rf"\frac{{{int(m[1] + m[2])}}}{{{10 ** len(m[2])}}}",
        formula,
    )


@functools.lru_cache(maxsize=4096)  # an exception is not kept
def math_verdict(*formulas: str) -> bool:
    """What math-verify says of these formulas.

    Raises:
      TimeoutError: it takes too long.
      SandboxError: the child process cannot be started.
    """
    try:
        return bool(math_worker().ask([exactly(formula) for formula in formulas]))
    except SandboxError:
        raise
    except RuntimeError:  # the child has died: if a new one lives, these formulas are to blame
        math_worker().ask(["1"])
        return False


def ask_math(*formulas: str) -> bool:
    """Can one formula be read; are several equal to the first? False if it takes too long.

    Too long is said anew each time: the machine may have been busy for a moment.

    Raises:
      SandboxError: the child process cannot be started.
    """
    try:
        return math_verdict(*formulas)
    except TimeoutError:
        return False


# **Work left undone**: a command that still has to be carried out, two numbers that are not yet
# one, a form that the question asks to change. What the gold answer has itself is no fault.


SIMPLIFY = re.compile(r"\b(?:simplif|simplest|lowest terms|reduce)", re.IGNORECASE)
EXPAND = re.compile(r"\b(?:expand|multiply out|distribute|without (?:brackets|parentheses))", re.I)
FACTOR = re.compile(
    r"\bfactor(?!ial)|\b(?:powers?|products?) of (?:\w+ )?primes?|\bcomplet\w+ the square", re.I
)
PRODUCT = re.compile(r"\)(?: ?\\cdot)? ?[(^]|[\w}] ?\(|\) ?\w")
DIVISION = re.compile(r"(?<![\d^])(\d{1,9}) ?/ ?(\d{1,9})|\\frac\{(\d{1,9})\}\{(\d{1,9})\}")
COEFFICIENTS = re.compile(r"\\frac\{(\d+)[^{}+-]*\}\{(\d+)[^{}+-]*\}")
IN_DENOMINATOR = re.compile(r"/ ?\\sqrt|\}\{[^{}]*\\sqrt|\^\{?-")
UNDONE = re.compile(
    r"\\(?:int|sum|prod|lim)(?![A-Za-z])|\\frac\{d\}|\bd/d[a-z]\b"
    r"|\d(?: ?[A-Za-z\\{}]+)? ?\\(?:cdot|times) ?(?:\\frac|\d)|\\(?:sin|cos|tan|log|ln)(?![A-Za-z])"
    r"|(?<![\w}^])\d+\^\{?\d|\d ?\\cdot ?\\pi ?/ ?\d"
    r"|(?<![\^_\d./])\d[\d.]* ?(?:[-+*÷]|\\cdot|\\times) ?\d+(?![\d.]|\^| ?[A-Za-z(\\])"
)


def is_undone(claim: str, gold: str, question: str) -> bool:
    r"""Does the claim leave to be done what the gold answer has done?

    >>> is_undone("(1+x)^2", "x^2+2x+1", "Expand it"), is_undone("(1+x)^2", "(x+1)^2", "Expand it")
    (True, False)
    """
    divisions = [[int(n) for n in found if n] for found in DIVISION.findall(claim)]
    divisible = any(below and above % below == 0 for above, below in divisions)  # 6/2
    if divisible or (UNDONE.search(claim) and not UNDONE.search(gold)):
        return True
    over = [math.gcd(int(m[1]), int(m[2])) for m in COEFFICIENTS.finditer(claim)]
    if SIMPLIFY.search(question) and max(over, default=1) > 1:
        return True  # 6x^2/9
    roots = [int(n) for n in re.findall(r"\\sqrt\{(\d{1,9})\}", claim)]
    terms = [len(re.findall(r"[-+]", f.strip("+- "))) for f in (claim, gold)]
    if (
        any(math.isqrt(n) ** 2 == n for n in roots)
        or (re.search(r"rationali[sz]e", question, re.I) and IN_DENOMINATOR.search(claim))
        or ((EXPAND.search(question) or SIMPLIFY.search(question)) and terms[0] > terms[1])
    ):
        return True
    if (EXPAND.search(question) or SIMPLIFY.search(question)) and not PRODUCT.search(gold):
        square = any(n % k**2 == 0 for n in roots for k in PRIMES)
        return square or PRODUCT.search(claim) is not None
    if not FACTOR.search(question):
        return False
    if "prime" in question.lower():
        return not {int(n) for n in re.findall(r"(?<![\^\d])(?<!\^\{)\d+", claim)} <= set(PRIMES)
    inside = [re.findall(r"(?<!\^)\b\d+", part) for part in re.findall(r"\(([^()]*)\)", claim)]
    if any(len(part) > 1 and math.gcd(*map(int, part)) > 1 for part in inside):
        return True  # 2x(3x+6)
    outside = re.sub(r"\([^()]*\)", "()", claim)
    return claim.count(")") < gold.count(")") or re.search(r"(?<!^)[-+]", outside) is not None


PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
SET_OR = re.compile(r" ?(?:,|;|\bor\b|\band\b) ?(?:and |or )?(?:[a-z] ?= ?)?")


def one_spelling(formula: str) -> str:
    r"""Several solutions as a list, whatever joins them: "x = 5 or x = -5", "\pm 5".

    >>> one_spelling("x = -5 or x=5"), one_spelling(r"\pm 5"), one_spelling("(1, 2)")
    ('-5, 5', '5, -5', '(1, 2)')
    """
    if formula[:1] in tuple("(["):
        return formula
    formula = re.sub(r"^[a-z] ?(?:=|\\in) ?", "", formula)
    if "\\{" in formula:
        return formula
    formula = re.sub(r"^\\pm ?([\w\\{}/]+)$", r"\1, -\1", formula)
    return ", ".join(SET_OR.split(formula))


def check_formula(gold: str, answer: str, question: str = "") -> bool | None:
    r"""Equal as formulas; None if the gold answer cannot be read.

    >>> check_formula("about ten", "10") is None
    True
    """
    expected = strip_formula(gold)
    if not is_formula(expected) or not ask_math(expected):
        return None
    lines = [line.partition("=")[0].strip() for line in answer.strip().split("\n")]
    if len(lines) > 1 and len(set(lines)) < len(lines):
        return False  # y = 2x, and y = 3x
    claimed, unit = strip_formula(answer, question), unit_behind(strip_dressing(answer, latex_text))
    told = (unit[1] or unit[2]) + re.sub(r"[{}]", "", unit[3] or "") if unit else ""
    if measure := measure_at(told):
        asked = asked_measures(plain_text(question), measure.kind)
        if asked and measure.name not in asked:
            return False
    if squeeze(claimed) == squeeze(expected):
        return True
    if "\\{" in expected and "\\{" not in claimed:
        claimed = re.sub(r"(?<![\\\w}^_])\{([^{}]*)\}", r"\\{\1\\}", claimed)
    named = re.findall(r"(?:^|, ?| and )([a-z]) ?= ?([^,=]+?)(?=,| and |$)", claimed)
    pairs = [value for _, value in sorted(named)]
    if expected[:1] == "(" and len(pairs) == expected.count(",") + 1 > 1:  # x = 3, y = -2
        claimed = f"({', '.join(pairs)})"
    if "," in expected:
        claimed = re.sub(r"^[A-Za-z] ?= ?(?=[(\[])|^[A-Z] ?(?=\()", "", claimed)  # M(4, 7)
        claimed, expected = one_spelling(claimed), one_spelling(expected)
        if expected[0] in "([" and claimed[:1] + claimed[-1:] != expected[0] + expected[-1]:
            return False
    if is_undone(claimed.rpartition("=")[2].strip(), expected, question):
        return False
    sides = [side.strip() for side in claimed.split("=")]
    if (
        "=" not in expected
        and len(sides) > 1
        and re.fullmatch(
            r"[A-Za-z]'{0,2}(?:_\w|\([a-z]\))?|\([a-z](?:, ?[a-z])+\)|d[a-z]/d[a-z]", sides[0]
        )
    ):
        sides = sides[1:]  # f(x) = ...
    if "=" in expected:
        sides, name = [claimed], expected.partition("=")[0].strip()
        if len(name) == 1 and claimed.partition("=")[0].strip() != name:
            return False  # y - 1 = 2x where y = 2x + 1 is asked for
    asked = squeeze(latex_text(question))
    letters = set(re.findall(r"(?<![\\A-Za-z])[a-z]", expected))
    while len(sides) > 1 and "=" not in expected:  # what was asked, or a law: A = \\pi r^2 = ...
        named = set(re.findall(r"(?<![\\A-Za-z])[a-z](?![a-z])", sides[0]))
        if not (squeeze(sides[0]) in asked or named - letters):
            break
        sides = sides[1:]
    last, bare = (re.sub("[()]", "", text) for text in (squeeze(sides[-1]), asked))
    if not sides[-1] or (len(last) > 2 and (squeeze(sides[-1]) in asked or last in bare)):
        return False
    rounded = any(re.search(r"\d{13}|\.\d{7}", side) for side in sides)
    return not rounded and all(map(is_formula, sides)) and ask_math(expected, *sides)
