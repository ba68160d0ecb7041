"""What holds for every answer, whatever stands in it."""

import concurrent.futures
import itertools
import random
import time
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from submission.bench.answers import checkers
from submission.bench.answers.claims import parse_number
from submission.bench.answers.prompts import Example

ROWS = (
    Example("What is 6 times 7?", "42", "number"),
    Example("Which is a metal?", "B", "choice", choices=("air", "iron", "a tree")),
    Example("Is water wet?", "yes", "boolean"),
    Example("Say sun cat backwards.", "cat sun", "text"),
    Example("Which country?", "United States", "text", choices=("USA", "U.S.")),
    Example("Write a poem.", "", "open"),
)
PIECES = (
    "42 42 43 -42 6 7 0 . , ; : ! ? = + - − – * × · / ^ % $ € ( ) [ ] { } ** __ ` ' \" \\ \\frac{ "
    "\\boxed{ \\text{ } \\pi √ ½ ⁶ ² ﷺ ٤ ４ π i e x A B C D yes no true not never or and because "
    "is the a cat sun iron air maybe answer Answer: million forty-two half point USA \\(  \n"
).split(" ")
ANSWERS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join),
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.text(max_size=40),
    st.binary(max_size=20).map(lambda data: data.decode("latin-1")),
)
SETTINGS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
DRESSINGS = (
    *("{}", "**{}**", "$\\boxed{{{}}}$", "The answer is {}.", "Answer: {}", "So, it is {}", "({})"),
    *("x = {}", "\\({}\\)", "#### {}", "{} pears", "She has {} pears left.", "`{}`", "{}\n"),
)
JOINS = (
    *(" or ", " and ", ", ", "; ", " to ", "-", " - ", "/", "\n", " (", ") ", ". ", ": ", " = "),
    *(" because ", " not ", ", not ", " vs ", " | ", "} {", " ± ", " × ", "^", " + ", " "),
)
NUMBERS = st.integers(-(10**7), 10**7)


@SETTINGS
@given(ANSWERS)
def test_a_checker_never_raises_and_says_right_or_wrong(answer):
    for row in ROWS:
        assert checkers.check(row, answer) in ((None,) if row.checker == "open" else (True, False))


@SETTINGS
@given(ANSWERS, ANSWERS)
def test_whether_a_row_can_be_checked_depends_on_the_row_alone(gold, answer):
    for kind in ("choice", "boolean", "text"):
        row = Example("", gold, kind, choices=("air", "iron"))
        assert (checkers.check(row, answer) is None) == (checkers.check(row, gold) is None)


@SETTINGS
@given(NUMBERS, st.sampled_from(DRESSINGS), NUMBERS)
def test_a_dressed_number_is_the_number_and_no_other(number, dressing, other):
    row = Example("", str(number), "number")
    assert checkers.check(row, dressing.format(number)) is True
    assert checkers.check(row, dressing.format(f"{number:,}")) is True
    assert checkers.check(row, dressing.format(f"{number}.00")) is True
    assert checkers.check(row, dressing.format(other)) is (number == other)
    assert checkers.check(row, dressing.format(f"{number}.5")) is False


@SETTINGS
@given(st.integers(2, 10**6), st.integers(2, 10**6), st.sampled_from(JOINS))
def test_two_numbers_are_no_answer_however_they_are_joined(first, second, join):
    if first == second:
        second += 1
    for gold in (first, second):
        answer = f"{first}{join}{second}"
        assert checkers.check(Example("", str(gold), "number"), answer) is False, answer


CHOICES = ("Lyon", "a cat", "not a cat", "-1", "1")
PLACES = ("Paris", "Lyon", "the Rhone", "seven", "8")
TIMES = ("4 July 1776", "5 July 1776", "7:00 PM", "8:00 PM", "2:3", "3:2")
GOLDS = (  # a question, its checker, its choices, and golds that differ
    ("What is the capital of France?", "text", (), PLACES),
    ("In what order come a cat and a dog?", "text", (), ("a, b", "b, a", "cat", "dog")),
    ("When was it?", "text", (), TIMES),
    ("How many millions in 3 dozen years, in $?", "number", (), ("42", "43", "-42", "0.42", "3")),
    ("Expand it.", "number", (), ("x^2+1", "x^2-1", r"2\pi", r"\frac{\pi}{2}", "1, 2")),
    ("Which?", "choice", CHOICES, ("A", "B", "C", "D", "E")),
    ("Is 91 a prime number or not?", "boolean", (), ("yes", "no")),
)
SECOND = (
    *(
        ", because it is ",
        ", since it is ",
        ", that is, ",
        ", so ",
        ", so it is ",
        ", not ",
        " is ",
    ),
    *(" = ", ", or rather ", ". It is ", ", which is ", " and ", " (", ") ", " because ", "; "),
    *("\n", ", and the answer is ", " and not ", ". Actually, ", " > ", " -> ", ", then ", ": "),
)
WHERE = ("{}", "The answer is {}.", "It is {}.")


@pytest.mark.parametrize(("question", "kind", "choices", "golds"), GOLDS)
def test_an_answer_is_right_for_one_of_two_golds_at_most(question, kind, choices, golds):
    said = [choices["ABCDE".index(g)] for g in golds] if choices else []
    for join, dressing in itertools.product(SECOND, WHERE):
        for first, second in itertools.permutations([*golds, *said], 2):
            answer = dressing.format(f"{first}{join}{second}")
            rows = [Example(question, gold, kind, choices=choices) for gold in golds]
            right = [row.answer for row in rows if checkers.check(row, answer)]
            assert len(right) < 2, (answer, right)


@SETTINGS
@given(st.integers(1, 999), st.integers(2, 999))
def test_a_fraction_is_read_exactly_in_all_its_forms(over, under):
    value = Fraction(over, under)
    gold = Example("", f"{value.numerator}/{value.denominator}", "number")
    if value.denominator > 1:
        whole, rest = divmod(value.numerator, value.denominator)
        forms = [f"{value}", rf"\frac{{{over}}}{{{under}}}", rf"$\dfrac{{{over}}}{{{under}}}$"]
        if whole:
            forms += [f"{whole} {rest}/{value.denominator}"]
            forms += [rf"{whole}\frac{{{rest}}}{{{value.denominator}}}"]
        for form in forms:
            assert checkers.check(gold, form) is True, form
            assert parse_number(f"-{form}".replace("-$", "$-")) == -value
        assert checkers.check(gold, f"{float(value):.6f}") is (
            Fraction(f"{float(value):.6f}") == value
        )


@SETTINGS
@given(st.lists(ANSWERS, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_neither_order_nor_neighbours_change_what_is_said(answers, shuffler: random.Random):
    pairs = [(row, answer) for row in ROWS for answer in answers]
    alone = {pair: checkers.check(*pair) for pair in pairs}
    shuffler.shuffle(pairs)
    assert {pair: checkers.check(*pair) for pair in pairs} == alone


@settings(SETTINGS, max_examples=30)
@given(st.lists(ANSWERS, min_size=1, max_size=8))
def test_a_worker_thread_says_the_same_as_the_main_thread(answers):
    pairs = [(row, answer) for row in ROWS for answer in answers]
    here = [checkers.check(*pair) for pair in pairs]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda pair: checkers.check(*pair), pairs)) == here


@settings(SETTINGS, max_examples=40)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=4), st.sampled_from(ROWS))
def test_a_hundred_times_the_length_does_not_take_the_time_of_an_endless_loop(pieces, row):
    for length in (checkers.LONGEST_ANSWER, 100 * checkers.LONGEST_ANSWER):
        answer = (" ".join(pieces) * length)[:length]
        start = time.process_time()
        checkers.check(row, answer)
        assert time.process_time() - start < 0.5


@pytest.mark.parametrize("dressing", DRESSINGS[:7])
@pytest.mark.parametrize("choice", range(4))
def test_every_letter_is_its_choice_and_no_other(choice, dressing):
    choices = ("air", "iron", "a tree", "water")
    for said in range(4):
        for text in ("ABCD"[said], choices[said], f"({'ABCD'[said]}) {choices[said]}"):
            row = Example("", "ABCD"[choice], "choice", choices=choices)
            assert checkers.check(row, dressing.format(text)) is (said == choice), text
