"""Is this program right?

A row of the `code` kind has tests in MBPP's form, `assert add(2, 3) == 5`. Each is taken apart
here, by Python's own parser: the **call** `add(2, 3)` goes to the sandbox, the **expected
value** 5 stays. A program is right if every call gives what its test expects.

- *The same type, all the way down.* `True` is not 1, 2.0 is not 2, a list is not a tuple, also
  inside of sets and dictionaries. Python's `==` is more generous (it takes 2.0 for 2), and so
  are the reference solutions of 22 of MBPP's 974 rows; a row whose own solution fails is dropped
  when it is loaded. Some kinds count as what they extend: a `Counter`, `defaultdict` or
  `OrderedDict` as a dictionary, a named tuple as a tuple.
- *What stands around the call* (`sorted(…)`, `round(…, 2)`, `set(…)`) is done here, to the value
  that came back, with our own `sorted`. A generator or a range is right only inside such a
  function: `list(f(3)) == [1, 2]` takes it, `f(3) == [1, 2]` does not.
- *A test that is of no known form makes the row one that we cannot tell.* The others alone
  would be a weaker test than its author wanted.
- *The prompt shows the first test only*: it tells the function's name and what goes in. The
  others are never shown, so a program that has learned the shown value by heart fails.
"""

import ast
import builtins
import dataclasses
import functools
import math
import operator
import re
import textwrap
from collections.abc import Callable, Collection, Sequence
from typing import Any

from submission.bench.answers.sandbox import Limits, run_calls

TEST_REQUEST = "\nYour code must pass this test, and others like it:\n"
LONGEST_PROGRAM = 8_000  # characters; MBPP's longest reference solution has a fifth of that
CODE_LIMITS = Limits(seconds=5.0)  # a right answer needs milliseconds; an endless loop all of it


def shown_tests(tests: Sequence[str]) -> tuple[str, ...]:
    """The tests that the prompt shows: the first. The others are hidden."""
    return tuple(tests[:1])


# **Expected values** are literals and a little more: `set((4, 5))`, `float('inf')`, `3**2`,
# `[0] * 3`, `list(range(3))`. They are worked out by walking the parsed expression, not by
# evaluating text, and none may get large: `10**10**10` is of no known form.


class UnknownFormError(ValueError):
    """A test is of a form that we do not know; the message says which."""


LARGEST_EXPECTED = 10_000  # numbers of a range, characters of what is repeated, bits of a power
ARITHMETIC: dict[type[ast.AST], Callable[..., Any]] = {
    ast.UAdd: operator.pos, ast.USub: operator.neg, ast.Add: operator.add, ast.Sub: operator.sub,
    ast.Mult: operator.mul, ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod, ast.Pow: operator.pow,
}  # fmt: skip
DISPLAYS = {ast.List: list, ast.Tuple: tuple, ast.Set: set}
CONVERSIONS = {f.__name__: f for f in (set, frozenset, tuple, list, dict, sorted, float, complex)}
CONSTANTS = {name: getattr(math, name) for name in ("pi", "e", "inf", "nan", "tau")}


def expected_value(node: ast.expr, *, in_call: bool = False) -> Any:
    """The value of a literal expression; inside of a call, as in `list(range(3))`, of a range.

    Raises:
      UnknownFormError: it is not one. Python's own errors: it has no value, as 1/0 and {[]}.

    >>> expected_value(ast.parse("[-1, (2.5, 'a'), set((4, 5)), 3**2]", mode="eval").body)
    [-1, (2.5, 'a'), {4, 5}, 9]
    """
    match node:
        case ast.Constant(value=value) if value is not ...:
            return value
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            return DISPLAYS[type(node)](map(expected_value, items))
        case ast.Dict(keys=keys, values=values) if all(keys):
            return dict(zip(map(expected_value, keys), map(expected_value, values), strict=True))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in ARITHMETIC:
            return ARITHMETIC[type(op)](expected_value(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
            return calculated(type(op), expected_value(left), expected_value(right))
        case ast.Attribute(value=ast.Name(id="math"), attr=name) if name in CONSTANTS:
            return CONSTANTS[name]
        case ast.Call(func=ast.Name(id=name), args=items, keywords=words) if name in CONVERSIONS:
            arguments = [expected_value(item, in_call=True) for item in items]
            return CONVERSIONS[name](*arguments, **named_values(words))
        case ast.Call(func=ast.Name(id="range"), args=ends, keywords=[]) if in_call:
            numbers = range(*map(expected_value, ends))
            if len(numbers) <= LARGEST_EXPECTED:
                return numbers
    raise UnknownFormError(f"not a literal: {ast.unparse(node)[:80]}")


def named_values(words: Sequence[ast.keyword]) -> dict[str, Any]:
    """The values of the `name=literal` in a call."""
    return {word.arg: expected_value(word.value) for word in words}


def calculated(op: type[ast.operator], left: Any, right: Any) -> Any:
    """What `left op right` gives: two numbers, or a sequence and how often it stands there."""
    if op is ast.Mult and type(left) is int:
        left, right = right, left
    size = 0
    if op is ast.Mult and type(left) in (str, bytes, list, tuple) and type(right) is int:
        size = len(repr(left)) * right
    elif not {type(left), type(right)} <= {int, float, complex}:
        raise UnknownFormError(f"{op.__name__} with what is no number")
    elif op is ast.Pow and type(left) is type(right) is int:
        size = left.bit_length() * right
    if size > LARGEST_EXPECTED:
        raise UnknownFormError("a long repetition or a huge power")
    return ARITHMETIC[op](left, right)


# **A test, taken apart.**


AROUND = "set frozenset sorted tuple list dict len round sum min max abs bool str int float".split()
IS_CLOSE = ("isclose", "math.isclose")
MATH = ("import math", "from math import")  # what the tests need of it is known here


@dataclasses.dataclass(frozen=True)
class CodeTest:
    """One test: the call, `f(1)`, and what is to hold for its value."""

    call: str
    holds: Callable[[Any], bool]

    def passes(self, value: Any) -> bool:
        """Is what the call gave right? What does not fit the words around the call is not."""
        try:
            return self.holds(value)
        except (TypeError, ValueError, LookupError, ArithmeticError, RecursionError):
            return False


def exact_form(value: Any) -> Any:
    """A value with the types written beside it, so that == means the same types throughout."""
    kind = type(value)
    if kind is dict:
        return kind, frozenset(map(exact_form, value.items()))
    if kind in (list, tuple, set, frozenset):
        return kind, (tuple if kind in (list, tuple) else frozenset)(map(exact_form, value))
    return kind, value


def equals(expected: Any) -> Callable[[Any], bool]:
    """A test for the same value of the same type."""
    form = exact_form(expected)
    return lambda value: exact_form(value) == form


def is_close(expected: Any, rel_tol: Any = 1e-9, abs_tol: Any = 0.0) -> Callable[[Any], bool]:
    """A test for a number within a tolerance; whole numbers may stand for floats here."""
    numbers = all(type(x) in (int, float) for x in (expected, rel_tol, abs_tol))
    if not numbers or not rel_tol + abs_tol < math.inf:
        raise UnknownFormError("a tolerance that is not a number")
    close = functools.partial(math.isclose, expected, rel_tol=rel_tol, abs_tol=abs_tol)
    close(expected)  # raises a ValueError if a tolerance is negative
    return lambda value: type(value) in (int, float) and close(value)


def code_test(node: ast.expr, holds: Callable[[Any], bool]) -> CodeTest:
    """The test of the call inside an expression. What stands around it is done to its value."""
    match node:
        case ast.Call(func=ast.Name(id=f), args=[inner, *more], keywords=words) if f in AROUND:
            around, arguments = getattr(builtins, f), list(map(expected_value, more))
            named = named_values(words)
            return code_test(inner, lambda value: holds(around(value, *arguments, **named)))
        case ast.Subscript(value=inner, slice=index):
            key = expected_value(index)
            return code_test(inner, lambda value: holds(value[key]))
        case ast.Call(func=ast.Name(id=name)) if not hasattr(builtins, name):
            return CodeTest(ast.unparse(node), holds)
    raise UnknownFormError(f"no call of a function: {ast.unparse(node)[:80]}")


def other_side(left: ast.expr, right: ast.expr) -> tuple[ast.expr, Any]:
    """Of two sides, the one that calls, and the value of the other, which is a literal."""
    try:
        return left, expected_value(right)
    except UnknownFormError:
        return right, expected_value(left)


def split_condition(node: ast.expr) -> tuple[ast.expr, Callable[[Any], bool]]:
    """The side that calls, and what its value must be."""
    match node:
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return operand, equals(False)
        case ast.Compare(
            left=ast.Call(func=ast.Name(id="abs"), args=[ast.BinOp(left=a, op=ast.Sub(), right=b)]),
            ops=[ast.Lt() | ast.LtE()],
            comparators=[tolerance],
        ):
            side, expected = other_side(a, b)
            return side, is_close(expected, 0.0, expected_value(tolerance))
        case ast.Compare(left=left, ops=[ast.Eq() | ast.Is()], comparators=[right]):
            side, expected = other_side(left, right)
            return side, equals(expected)
        case ast.Call(func=f, args=[a, b], keywords=words) if ast.unparse(f) in IS_CLOSE:
            side, expected = other_side(a, b)
            return side, is_close(expected, **named_values(words))
        case ast.Call() | ast.Subscript():
            return node, equals(True)
    raise UnknownFormError(f"no known condition: {ast.unparse(node)[:80]}")


@functools.lru_cache(maxsize=4096)
def read_test(test: str) -> CodeTest:
    """A test in MBPP's form.

    Raises:
      UnknownFormError: it is not `assert`, or not of a known form.

    >>> test = read_test("assert sorted(f(3)) == [1, 3]")
    >>> test.call, test.passes({3, 1})
    ('f(3)', True)
    """
    try:
        *imports, last = ast.parse(test.strip()).body or [None]
        known = all(ast.unparse(line).startswith(MATH) for line in imports)
        if known and isinstance(last, ast.Assert):
            return code_test(*split_condition(last.test))
    except (SyntaxError, TypeError, ValueError, ArithmeticError, RecursionError, MemoryError) as e:
        raise UnknownFormError(f"{e or type(e).__name__}: {test[:80]}") from e
    raise UnknownFormError(f"not one assert: {test[:80]}")


# **The program** may stand in fences, with words around them. The opening or the closing fence may
# be missing, and the whole may be indented. Of several blocks those count up to the last one that
# defines what the tests call: helpers come before it, examples of its use after it. Of two
# definitions Python itself takes the second, so two attempts are not two chances. Then a look at
# the text, before a process is spent on it. It is never parsed here: a parser, too, can be made
# to fail by what it reads.


BLOCK = re.compile(
    r"^[^\S\n]*(?P<marks>(?P<mark>[`~])(?P=mark){2,})[^\S\n]*\{?\.?(?P<language>[\w+#-]*)[^`\n]*$"
    r"(?P<body>.*?)(?:^[^\S\n]*(?P=marks)(?P=mark)*[^\S\n]*$|\Z)",
    re.MULTILINE | re.DOTALL,
)
PYTHON = r"(?:python|py)3?"


def fenced_blocks(text: str) -> list[tuple[str, str]]:
    r"""The language and the text of every fenced block; the last may lack its closing fence.

    >>> fenced_blocks("Here:\n```py\nx = 1\n```\nDone."), fenced_blocks("x = 1\n```")
    ([('py', '\nx = 1\n')], [('', 'x = 1\n')])
    """
    blocks = list(BLOCK.finditer(text))
    if blocks and not text[blocks[0].start("body") :].strip():
        return [("", text[: blocks[0].start()])]  # a closing fence without its opening one
    return [(block["language"].lower(), block["body"]) for block in blocks]


def at_the_margin(text: str) -> tuple[str, str]:
    """A text at the left margin: as it is, and with the first line's lost indent back."""
    text = re.sub(r"\A\s*\n", "", text)
    lost = min(re.findall(r"(?<=\n)[ \t]*(?=\S)", text), key=len, default="")
    return textwrap.dedent(text), textwrap.dedent(lost + text)


def programs_of(answer: str, names: Collection[str]) -> tuple[str, ...]:
    """The program in an answer, in the ways in which it can be read; none if it has no Python.

    It is the Python blocks, or all of the answer.

    Args:
      names: what the tests call; blocks after the last that defines one of them are left out.
    """
    text = answer.lstrip("\ufeff").replace("\xa0", " ").strip("\r\n").rstrip()
    blocks = fenced_blocks(text) or [("", re.sub(rf"(?i)\A\s*{PYTHON}\s*\n", "", text))]
    tagged = [block for language, block in blocks if re.fullmatch(PYTHON, language)]
    programs = [at_the_margin(b) for b in tagged or [b for language, b in blocks if not language]]
    called = "|".join(map(re.escape, names))
    definition = re.compile(rf"^[ \t]*(?:(?:def|class)\s+(?:{called})\b|(?:{called})\s*=)", re.M)
    defining = [i for i, (program, _) in enumerate(programs) if definition.search(program)]
    programs = programs[: max(defining, default=len(programs)) + 1]
    return tuple(dict.fromkeys(map("\n".join, zip(*programs, strict=True))))


def check_code(answer: str, tests: Sequence[str], limits: Limits = CODE_LIMITS) -> bool | None:
    """Does the program pass all the tests?

    Returns:
      None if it cannot be told: there is no test, or one is of an unknown form.

    Raises:
      SandboxError: no child process could be started. That is not the answer's fault.

    >>> tests = ("assert add(2, 3) == 5", "assert add(-1, 1) == 0")
    >>> check_code("def add(a, b): return a + b", tests)
    True
    """
    if not tests:
        return None
    try:
        cases = [read_test(test) for test in tests]
    except UnknownFormError:
        return None
    if len(answer) > LONGEST_PROGRAM or "\0" in answer:
        return False
    names = {case.call.partition("(")[0] for case in cases}
    programs = programs_of(answer, names)
    if not programs or not names <= set(re.findall(r"\w+", programs[0])):
        return False
    outcome = run_calls(programs, [case.call for case in cases], limits)
    if outcome.problem:
        return False
    return all(case.passes(value) for case, value in zip(cases, outcome.values, strict=True))
