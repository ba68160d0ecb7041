"""Is this program right?

A row of the `code` kind has tests in MBPP's form, `assert add(2, 3) == 5`. Each is taken apart
here, by Python's own parser: the **call** `add(2, 3)` goes to the sandbox, the **expected
value** 5 stays. A program is right if every call gives what its test expects.

- *The same type, all the way down.* `True` is not 1, 2.0 is not 2, a list is not a tuple, also
  inside of sets and dictionaries. Python's `==` is more generous (it takes 2.0 for 2), and so
  are some reference solutions; a row whose own solution fails is dropped when it is loaded.
  Three kinds count as what they extend: a `Counter`, `defaultdict` or `OrderedDict` as a
  dictionary, a named tuple as a tuple.
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
import itertools
import math
import operator
import re
import textwrap
from collections.abc import Callable, Collection, Sequence
from typing import Any

from submission.bench.answers.sandbox import Limits, run_calls

SHOWN_TESTS = 1
TEST_REQUEST = "\nYour code must pass this test, and others like it:\n"
LONGEST_PROGRAM = 8_000  # characters; MBPP's longest reference solution has a fifth of that
CODE_LIMITS = Limits(seconds=5.0)  # a right answer needs milliseconds; an endless loop all of it


def shown_tests(tests: Sequence[str]) -> tuple[str, ...]:
    """The tests that the prompt shows; the others are hidden.

    >>> shown_tests(["assert f(1) == 2", "assert f(2) == 3"])
    ('assert f(1) == 2',)
    """
    return tuple(tests[:SHOWN_TESTS])


# **Expected values** are literals and a little more: `set((4, 5))`, `float('inf')`, `3**2`,
# `[0] * 3`, `list(range(3))`. They are worked out by walking the parsed expression, not by
# evaluating text, and none may get large: `10**10**10` is of no known form.


class UnknownFormError(ValueError):
    """A test is of a form that we do not know; the message says which."""


ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
LARGEST_EXPECTED = 10_000  # items and characters of what is repeated; bits of a power
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
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return power(number_value(left), number_value(right))
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return product(expected_value(left), expected_value(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
            return ARITHMETIC[type(op)](number_value(left), number_value(right))
        case ast.Attribute(value=ast.Name(id="math"), attr=name) if name in CONSTANTS:
            return CONSTANTS[name]
        case ast.Call(func=ast.Name(id=name), args=items, keywords=[]) if name in CONVERSIONS:
            return CONVERSIONS[name](*map(argument_value, items))
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=words) if all(
            word.arg for word in words
        ):
            return {word.arg: expected_value(word.value) for word in words}
    raise UnknownFormError(f"not a literal: {ast.unparse(node)[:80]}")


def number_value(node: ast.expr) -> int | float | complex:
    """As `expected_value`, and a number."""
    value = expected_value(node)
    if type(value) not in (int, float, complex):
        raise UnknownFormError(f"not a number: {ast.unparse(node)[:80]}")
    return value


def argument_value(node: ast.expr) -> Any:
    """As `expected_value`; a short range may stand here too, as in `list(range(3))`."""
    match node:
        case ast.Call(func=ast.Name(id="range"), args=ends, keywords=[]):
            numbers = range(*map(expected_value, ends))
            if len(numbers) > LARGEST_EXPECTED:
                raise UnknownFormError("a long range")
            return numbers
    return expected_value(node)


def power(base: Any, exponent: Any) -> Any:
    """`base ** exponent`, if it is no huge integer.

    >>> power(3, 2), power(2.0, -1)
    (9, 0.5)
    """
    if type(base) is type(exponent) is int and base.bit_length() * exponent > LARGEST_EXPECTED:
        raise UnknownFormError("a huge power")
    return base**exponent


def size_of(value: Any) -> int:
    """How many items and characters a value has, those of its items included.

    >>> size_of(["ab", (1, 2)])
    6
    """
    if type(value) in (list, tuple, set, frozenset):
        return len(value) + sum(map(size_of, value))
    if type(value) is dict:
        return len(value) + sum(map(size_of, value)) + sum(map(size_of, value.values()))
    return len(value) if type(value) in (str, bytes) else 0


def product(left: Any, right: Any) -> Any:
    """`left * right`: two numbers, or a sequence and how often it stands there.

    >>> product(2, 1.5), product("ab", 2), product(2, [0])
    (3.0, 'abab', [0, 0])
    """
    if type(left) is int:
        left, right = right, left
    if type(left) in (str, bytes, list, tuple) and type(right) is int:
        if size_of(left) * right > LARGEST_EXPECTED:
            raise UnknownFormError("a long repetition")
    elif not {type(left), type(right)} <= {int, float, complex}:
        raise UnknownFormError("a product of what is no number")
    return left * right


# **A test, taken apart.**


AROUND: dict[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (
        set,
        frozenset,
        sorted,
        tuple,
        list,
        dict,
        len,
        round,
        sum,
        min,
        max,
        abs,
        bool,
        str,
        int,
        float,
    )
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


def imports_math(node: ast.stmt) -> bool:
    """Is this an import of `math`, or from it? What the tests need of it is known here."""
    match node:
        case ast.Import(names=[ast.alias(name="math")]) | ast.ImportFrom(module="math"):
            return True
    return False


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
            case [*before, ast.Assert(test=condition)] if all(map(imports_math, before)):
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


# **The program** may stand in fences, with words around them. The opening or the closing fence may
# be missing, and the whole may be indented. Of several blocks those count up to the last one that
# defines what the tests call: helpers come before it, examples of its use after it. Of two
# definitions Python itself takes the second, so two attempts are not two chances. Then a look at
# the text, before a process is spent on it. It is never parsed here: a parser, too, can be made
# to fail by what it reads.


FENCE = re.compile(r"\s*(?P<marks>`{3,}|~{3,})\s*\{?\.?(?P<language>[\w+#-]*)[^`]*")
PYTHON = ("python", "python3", "py", "py3")


def fenced_blocks(lines: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The language and the lines of every fenced block; the last may lack its closing fence.

    >>> fenced_blocks(["Here:", "```py", "x = 1", "```", "Done."])
    [('py', ['x = 1'])]
    >>> fenced_blocks(["x = 1", "```"])
    [('', ['x = 1'])]
    """
    blocks: list[tuple[str, list[str]]] = []
    marks = ""  # those of the block that is open
    for number, line in enumerate(lines):
        if marks:
            bare = line.strip()
            if bare.startswith(marks) and not bare.strip(marks[0]):
                marks = ""
            else:
                blocks[-1][1].append(line)
        elif fence := FENCE.fullmatch(line):
            marks = fence["marks"]
            nothing_follows = not "".join(lines[number + 1 :]).strip()
            if not blocks and nothing_follows:
                return [("", list(lines[:number]))]  # a closing fence without its opening one
            blocks.append((fence["language"].lower(), []))
    return blocks


def at_the_margin(lines: Sequence[str]) -> tuple[str, str]:
    """The lines as one text at the left margin: as they are, and with the first line's indent back.

    It may have been lost while all the others still have theirs.

    >>> at_the_margin(["x = 1", "  y = 2"])[1] == at_the_margin(["  x = 1", "  y = 2"])[0]
    True
    """
    first, *rest = list(itertools.dropwhile(lambda line: not line.strip(), lines)) or [""]
    indents = [re.match(r"[ \t]*", line)[0] for line in rest if line.strip()]
    lost = min(indents, key=len, default="")
    return tuple(textwrap.dedent("\n".join([start + first, *rest])) for start in ("", lost))


def programs_of(answer: str, names: Collection[str] = ()) -> tuple[str, ...]:
    """The program in an answer, in the ways in which it can be read; none if it has no Python.

    It is the Python blocks, or all of the answer.

    Args:
      names: what the tests call; blocks after the last that defines one of them are left out.

    >>> programs_of("Here it is:\\n```python\\nx = 1\\n```\\nDone.")
    ('x = 1',)
    >>> programs_of("x = 1"), programs_of("```js\\nx = 1\\n```")
    (('x = 1',), ())
    """
    lines = answer.lstrip("\ufeff").replace("\xa0", " ").strip("\r\n").rstrip().split("\n")
    blocks = fenced_blocks(lines)
    if not blocks:
        if lines[0].strip().lower() in PYTHON:
            lines = lines[1:]
        return tuple(dict.fromkeys(at_the_margin(lines)))
    tagged = [block for language, block in blocks if language in PYTHON]
    programs = [at_the_margin(b) for b in tagged or [b for language, b in blocks if not language]]
    called = "|".join(map(re.escape, names))
    definition = re.compile(rf"^\s*(?:(?:def|class)\s+(?:{called})\b|(?:{called})\s*=)", re.M)
    defining = [i for i, program in enumerate(programs) if names and definition.search(program[0])]
    if defining:
        programs = programs[: defining[-1] + 1]
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
    names = {case.function for case in cases}
    programs = programs_of(answer, names)
    if not programs or "\0" in programs[0]:
        return False
    if not all(re.search(rf"\b{re.escape(name)}\b", programs[0]) for name in names):
        return False
    outcome = run_calls(programs, [case.call for case in cases], limits)
    if outcome.problem:
        return False
    return all(case.passes(value) for case, value in zip(cases, outcome.values, strict=True))
