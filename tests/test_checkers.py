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
        ("42", "x = 42"),
        ("42", "(42)"),
        ("42", "42!"),
        ("42", r"\text{42}"),
        ("42", r"\[42\]"),
        ("42", "42 km/h"),
        ("42", "USD 42"),
        ("42", "I think it is 42."),
        ("1000000", "10^6"),
        ("1200", "1.2 x 10^3"),
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
        ("42", "84/2"),
        ("1.5", "6/4"),
        ("42", "42 million"),
        ("42", "42k"),
        ("42", "42M"),
        ("42", "42 dozen"),
        ("42", "42 hundred thousand"),
        ("42", "42 or forty"),
        ("42", "42 is wrong"),
        ("42", "42 minus one"),
        ("42", "42 but maybe less"),
        ("42", "42 not sure"),
        ("42", "--42"),
        ("-42", "--42"),
        ("10", "10 cannot be"),
        ("42", "41 = 42"),
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
    "answer",
    [
        "B",
        "b",
        "(B)",
        "B)",
        "B) 19",
        "b) 19",
        "B, 19",
        "B - 19",
        "[B]",
        "19 (B)",
        "19",
        "The answer is B.",
        "The correct option is B",
        "Option B) 19",
        "**B**",
    ],
)
def test_right_choices(answer):
    assert gives("B", answer, "choice", THREE) is True


@pytest.mark.parametrize(
    "answer",
    [
        "A",
        "C",
        "A or B",
        "A B C",
        "B and C",
        "18",
        "B) 18",
        "A) 19",
        "",
        "not B",
        "D",
        "1",
        "18 (B)",
        "19 (A)",
    ],
)
def test_wrong_choices(answer):
    assert gives("B", answer, "choice", THREE) is False


@pytest.mark.parametrize(
    "answer",
    [
        "yes",
        "Yes.",
        "True",
        "**yes**",
        "Yes, it is more.",
        "The answer is yes",
        "yes!",
        "Yes, because 5 and 6 are more.",
    ],
)
def test_right_booleans(answer):
    assert gives("yes", answer, "boolean") is True


@pytest.mark.parametrize(
    "answer",
    [
        "no",
        "yes and no",
        "yes or no",
        "Unknown",
        "maybe",
        "not yes",
        "yes, or maybe",
        "yes no",
        "",
        "yes, never",
        "Yes, nope",
        "yes, n",
        "yes, the answer is incorrect",
        "Yes, this is wrong",
    ],
)
def test_wrong_booleans(answer):
    assert gives("yes", answer, "boolean") is False


@pytest.mark.parametrize(
    "answer", ["no", "No.", "False", "No, it could not.", "No, that is not true."]
)
def test_right_negative_booleans(answer):
    assert gives("no", answer, "boolean") is True
    assert gives("yes", answer, "boolean") is False


@pytest.mark.parametrize("kind", ["number", "choice", "boolean", "text"])
def test_no_answer_takes_long_to_check(kind):
    import time

    nasty = ("1 " + "a" * 397 + "!", "(" * 400, "1,000" * 80, "=" * 400, "yes," * 100, "*" * 399)
    start = time.perf_counter()
    for answer in nasty:
        gives("B" if kind == "choice" else "1", answer, kind, THREE)
    assert time.perf_counter() - start < 0.05


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
