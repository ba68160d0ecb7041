# %% [markdown]
# ### Is this program right?
#
# A row of the `code` kind has tests in MBPP's form, `assert add(2, 3) == 5`. Each is taken apart
# here, by Python's own parser: the **call** `add(2, 3)` goes to the sandbox, the **expected
# value** 5 stays. A program is right if every call gives what its test expects.
#
# - *The same type, all the way down.* `True` is not 1, 2.0 is not 2, a list is not a tuple, also
#   inside of sets and dictionaries. Python's `==` is more generous (it takes 2.0 for 2), and so
#   are some reference solutions; a row whose own solution fails is dropped when it is loaded.
# - *What stands around the call* (`sorted(…)`, `round(…, 2)`, `set(…)`) is done here, to the value
#   that came back, with our own `sorted`.
# - *A test that is of no known form makes the row one that we cannot tell.* The others alone
#   would be a weaker test than its author wanted.
# - *The prompt shows the first test only*: it tells the function's name and what goes in. The
#   others are never shown, so a program that has learned the shown value by heart fails.

# %%
import ast
import builtins
import dataclasses
import functools
import math
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

# %% tags=["modules-only"]
from submission.sandbox import Limits, run_calls

# %%
SHOWN_TESTS = 1
LONGEST_PROGRAM = 8_000  # characters; MBPP's longest reference solution has a fifth of that
CODE_LIMITS = Limits(seconds=5.0)  # a right answer needs milliseconds; an endless loop all of it


def shown_tests(tests: Sequence[str]) -> tuple[str, ...]:
    """The tests that the prompt shows.

    >>> shown_tests(["assert f(1) == 2", "assert f(2) == 3"])
    ('assert f(1) == 2',)
    """
    return tuple(tests[:SHOWN_TESTS])


def hidden_tests(tests: Sequence[str]) -> tuple[str, ...]:
    """The others; there is at least one unless there is only one test.

    >>> hidden_tests(["assert f(1) == 2", "assert f(2) == 3"])
    ('assert f(2) == 3',)
    """
    return tuple(tests[SHOWN_TESTS:])


# %% [markdown]
# **Expected values** are literals and a little more: `set((4, 5))`, `float('inf')`, `22 / 7`. They
# are worked out by walking the parsed expression, not by evaluating text.


# %%
class UnknownFormError(ValueError):
    """A test is of a form that we do not know; the message says which."""


ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
CONVERSIONS = {f.__name__: f for f in (set, frozenset, tuple, list, dict, sorted, float, complex)}
CONSTANTS = {name: getattr(math, name) for name in ("pi", "e", "inf", "nan", "tau")}


def expected_value(node: ast.expr) -> Any:
    """The value of a literal expression.

    Raises:
      UnknownFormError: it is not one.

    >>> expected_value(ast.parse("[-1, (2.5, 'a'), set((4, 5))]", mode="eval").body)
    [-1, (2.5, 'a'), {4, 5}]
    """
    match node:
        case ast.Constant(value=value) if value is not ...:
            return value
        case ast.List(elts=items):
            return [expected_value(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(expected_value(item) for item in items)
        case ast.Set(elts=items):
            return {expected_value(item) for item in items}
        case ast.Dict(keys=keys, values=values) if all(keys):
            pairs = zip(keys, values, strict=True)
            return {expected_value(key): expected_value(value) for key, value in pairs}
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -number_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return +number_value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
            return ARITHMETIC[type(op)](number_value(left), number_value(right))
        case ast.Attribute(value=ast.Name(id="math"), attr=name) if name in CONSTANTS:
            return CONSTANTS[name]
        case ast.Call(func=ast.Name(id=name), args=items, keywords=[]) if name in CONVERSIONS:
            return CONVERSIONS[name](*map(expected_value, items))
    raise UnknownFormError(f"not a literal: {ast.unparse(node)[:80]}")


def number_value(node: ast.expr) -> int | float | complex:
    """As `expected_value`, and a number: text times a million is no literal."""
    value = expected_value(node)
    if type(value) not in (int, float, complex):
        raise UnknownFormError(f"not a number: {ast.unparse(node)[:80]}")
    return value


# %% [markdown]
# **A test, taken apart.**

# %% tags=["plumbing"]
AROUND: dict[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (set, frozenset, sorted, tuple, list, dict, len, round, sum, min, max, abs, bool, str)
}
Step = tuple[Callable[..., Any], tuple[Any, ...], tuple[tuple[str, Any], ...]]


@dataclasses.dataclass(frozen=True)
class CodeTest:
    """One test: what to call, what to do with the value, what to expect."""

    call: str
    function: str
    steps: tuple[Step, ...]  # from the inside out: a function and its further arguments
    holds: Callable[[Any], bool]  # is this value, after the steps, the right one?

    def passes(self, value: Any) -> bool:
        """Is what the call gave right? A step that does not fit the value says no."""
        try:
            for function, arguments, keywords in self.steps:
                value = function(value, *arguments, **dict(keywords))
            return self.holds(value)
        except (TypeError, ValueError, LookupError, ArithmeticError, RecursionError):
            return False


def exact_form(value: Any) -> Any:
    """A value with the types written beside it, so that == means the same types throughout.

    >>> exact_form([1]) == exact_form([True]), exact_form({1: 2.0}) == exact_form({1: 2})
    (False, False)
    """
    kind = type(value)
    if kind in (list, tuple):
        return kind, tuple(exact_form(item) for item in value)
    if kind in (set, frozenset):
        return kind, frozenset(exact_form(item) for item in value)
    if kind is dict:
        return kind, frozenset((exact_form(k), exact_form(v)) for k, v in value.items())
    return kind, value


def equals(expected: Any) -> Callable[[Any], bool]:
    """A test for the same value of the same type."""
    form = exact_form(expected)
    return lambda value: exact_form(value) == form


def is_close(expected: float, relative: float, absolute: float) -> Callable[[Any], bool]:
    """A test for a number within a tolerance; whole numbers may stand for floats here."""
    if type(expected) not in (int, float) or not all(
        type(tolerance) in (int, float) and 0 <= tolerance < math.inf
        for tolerance in (relative, absolute)
    ):
        raise UnknownFormError("a tolerance that is not a number")
    return lambda value: (
        type(value) in (int, float)
        and math.isclose(value, expected, rel_tol=relative, abs_tol=absolute)
    )


def split_call(node: ast.expr) -> tuple[str, str, tuple[Step, ...]]:
    """The call inside an expression, its function's name, and the steps around it.

    >>> call, function, steps = split_call(ast.parse("sorted(f(set([1])))", mode="eval").body)
    >>> call, function, len(steps)
    ('f(set([1]))', 'f', 1)
    """
    match node:
        case ast.Call(func=ast.Name(id=name), args=[inner, *more], keywords=words) if (
            name in AROUND
        ):
            arguments = tuple(expected_value(item) for item in more)
            keywords = tuple((word.arg or "", expected_value(word.value)) for word in words)
            call, function, steps = split_call(inner)
            return call, function, (*steps, (AROUND[name], arguments, keywords))
        case ast.Subscript(value=inner, slice=index):
            call, function, steps = split_call(inner)
            return call, function, (*steps, (operator.getitem, (expected_value(index),), ()))
        case ast.Call(func=ast.Name(id=name)) if not hasattr(builtins, name):
            return ast.unparse(node), name, ()
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
            return side, is_close(expected, 0.0, number_value(tolerance))
        case ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]):
            side, expected = other_side(left, right)
            return side, equals(expected)
        case ast.Compare(left=left, ops=[ast.Is()], comparators=[ast.Constant(value=value)]) if (
            value is None or type(value) is bool
        ):
            return left, equals(value)
        case ast.Call(
            func=ast.Name(id="isclose") | ast.Attribute(value=ast.Name(id="math"), attr="isclose"),
            args=[a, b],
            keywords=words,
        ):
            tolerances = {word.arg: number_value(word.value) for word in words}
            if not tolerances.keys() <= {"rel_tol", "abs_tol"}:
                raise UnknownFormError(f"isclose with {sorted(map(str, tolerances))}")
            side, expected = other_side(a, b)
            relative, absolute = tolerances.get("rel_tol", 1e-9), tolerances.get("abs_tol", 0.0)
            return side, is_close(expected, relative, absolute)
        case ast.Call() | ast.Subscript():
            return node, equals(True)
    raise UnknownFormError(f"no known condition: {ast.unparse(node)[:80]}")


@functools.lru_cache(maxsize=4096)
def read_test(test: str) -> CodeTest:
    """A test in MBPP's form.

    Raises:
      UnknownFormError: it is not `assert`, or not of a known form.

    >>> read_test("assert sorted(f(3)) == [1, 3]").call
    'f(3)'
    >>> read_test("assert abs(f(3) - 1.5) < 0.1").passes(1.55)
    True
    """
    try:
        match ast.parse(test.strip()).body:
            case [ast.Assert(test=condition)]:
                side, holds = split_condition(condition)
                call, function, steps = split_call(side)
                return CodeTest(call, function, steps, holds)
    except UnknownFormError:
        raise
    except (
        SyntaxError,
        TypeError,
        ValueError,
        ArithmeticError,
        RecursionError,
        MemoryError,
    ) as error:
        raise UnknownFormError(f"{type(error).__name__}: {test[:80]}") from error
    raise UnknownFormError(f"not one assert: {test[:80]}")


# %% [markdown]
# **The program** may stand in one fence, with words around it; two fenced blocks are two answers.
# Then a look at the text, before a process is spent on it. It is never parsed here: a parser, too,
# can be made to fail by what it reads.


# %%
def program_of(answer: str) -> str | None:
    """The program in an answer: all of it, or its one fenced block; None if it has neither.

    >>> program_of("Here it is:\\n```python\\nx = 1\\n```\\nDone.")
    'x = 1'
    >>> program_of("x = 1")
    'x = 1'
    >>> program_of("```\\nx = 1\\n```\\nor\\n```\\nx = 2\\n```") is None
    True
    """
    lines = answer.strip("\n").rstrip().split("\n")
    fences = [i for i, line in enumerate(lines) if line.lstrip().startswith("```")]
    if not fences:
        return "\n".join(lines)
    if len(fences) != 2:
        return None
    first, last = fences
    language = lines[first].strip().removeprefix("```").strip().lower()
    if language not in ("", "python", "py", "python3") or lines[last].strip() != "```":
        return None
    return "\n".join(lines[first + 1 : last])


def check_code(answer: str, tests: Sequence[str], limits: Limits = CODE_LIMITS) -> bool | None:
    """Does the program pass all the tests?

    Returns:
      None if it cannot be told: there is no test, or one is of an unknown form.

    Raises:
      SandboxError: no child process could be started. That is not the answer's fault.

    >>> tests = ("assert add(2, 3) == 5", "assert add(-1, 1) == 0")
    >>> check_code("def add(a, b): return a + b", tests)
    True
    >>> check_code("def add(a, b): return 5", tests)
    False
    >>> check_code("def add(a, b): return a + b", ["assert add(2, 3) > 4"]) is None
    True
    """
    try:
        cases = [read_test(test) for test in tests]
    except UnknownFormError:
        return None
    if not cases:
        return None
    if len(answer) > LONGEST_PROGRAM:
        return False
    program = program_of(answer)
    if program is None or "\0" in program:
        return False
    names = {case.function for case in cases}
    if not all(re.search(rf"\b{re.escape(name)}\b", program) for name in names):
        return False
    outcome = run_calls(program, [case.call for case in cases], limits)
    if outcome.problem:
        return False
    return all(case.passes(value) for case, value in zip(cases, outcome.values, strict=True))


# %%
doubling = ("assert double(2) == 4", "assert double('ab') == 'abab'")
[
    check_code(program, doubling)
    for program in (
        "def double(x):\n    return x + x",
        "def double(x):\n    return 4",
        "class Any:\n    __eq__ = lambda *_: True\ndef double(x):\n    return Any()",
    )
]
