import doctest

import pytest

from submission import budget, checkers, config, data, evaluate, prompts, rewards
from submission.prompts import Example


def gives(gold, answer, kind, choices=()):
    return checkers.check(Example("", gold, kind, choices=choices), answer)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("42", "42"),
        ("42", " 42. "),
        ("42", "+42"),
        ("42", "42.0"),
        ("42", "**42**"),
        ("42", "**42** pears."),
        ("42", "$42$"),
        ("42", r"\boxed{42}"),
        ("42", r"$\boxed{42}$"),
        ("42", "The answer is 42."),
        ("42", "So the final answer is: 42"),
        ("42", "It is 42."),
        ("42", "42 pears"),
        ("42", "$42"),
        ("42", "84/2"),
        ("-5", "-5"),
        ("-5", "−5"),
        ("-5", "-$5"),
        ("1234", "1,234"),
        ("1234567.5", "1,234,567.50"),
        ("0.5", ".5"),
        ("0.5", "50%"),
        ("0.5", "1/2"),
        ("1200", "1.2e3"),
        ("1,234", "1234"),
    ],
)
def test_right_numbers(gold, answer):
    assert gives(gold, answer, "number") is True


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("5", "-5"),
        ("42", "41"),
        ("42", "42.0001"),
        ("42", "42 or 43"),
        ("42", "42, 43"),
        ("42", "42 43"),
        ("42", "4 2"),
        ("42", "about 42"),
        ("42", "not 42"),
        ("42", "42-42"),
        ("42", "42/0"),
        ("1234", "1,2,3,4"),
        ("1234", "12,34"),
        ("0", "."),
        ("0", ""),
        ("42", "forty-two"),
        ("42", "42" * 300),
    ],
)
def test_wrong_numbers(gold, answer):
    assert gives(gold, answer, "number") is False


THREE = ("18", "19", "a cat")


@pytest.mark.parametrize(
    "answer", ["B", "b", "(B)", "B)", "B) 19", "19", "The answer is B.", "**B**"]
)
def test_right_choices(answer):
    assert gives("B", answer, "choice", THREE) is True


@pytest.mark.parametrize(
    "answer",
    ["A", "C", "A or B", "A B C", "B and C", "18", "B) 18", "A) 19", "", "not B", "D", "1"],
)
def test_wrong_choices(answer):
    assert gives("B", answer, "choice", THREE) is False


@pytest.mark.parametrize(
    "answer", ["yes", "Yes.", "True", "**yes**", "Yes, it is more.", "The answer is yes"]
)
def test_right_booleans(answer):
    assert gives("yes", answer, "boolean") is True


@pytest.mark.parametrize(
    "answer",
    ["no", "yes and no", "yes or no", "Unknown", "maybe", "not yes", "yes, or maybe", "yes no", ""],
)
def test_wrong_booleans(answer):
    assert gives("yes", answer, "boolean") is False


def test_right_and_wrong_text():
    assert gives("7, 12, 31", "7 12 31.", "text") is True
    assert gives("sun cat", "Sun  Cat", "text") is True
    assert gives("sun cat", "cat sun", "text") is False
    assert gives("sun", "sun cat", "text") is False
    assert gives("sun", "", "text") is False


@pytest.mark.parametrize(
    ("gold", "kind", "choices"),
    [
        ("about ten", "number", ()),
        ("E", "choice", ("1", "2")),
        ("", "choice", ()),
        ("perhaps", "boolean", ()),
        (" ", "text", ()),
    ],
)
def test_a_gold_that_cannot_be_read_cannot_be_checked(gold, kind, choices):
    assert gives(gold, "anything", kind, choices) is None


@pytest.mark.parametrize("chapter", [budget, checkers, config, data, evaluate, prompts, rewards])
def test_the_examples_in_the_prose_hold(chapter):
    result = doctest.testmod(chapter)
    assert result.attempted
    assert not result.failed
