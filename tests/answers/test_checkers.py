import concurrent.futures
import doctest
import subprocess
import sys
import time

import pytest

from submission.bench.answers import (
    answer_text,
    boolean_answers,
    checkers,
    choice_answers,
    claims,
    math_answers,
    measures,
    number_answers,
    number_forms,
    prompts,
    text_answers,
)
from submission.bench.answers.prompts import Example
from submission.bench.answers.sandbox import SandboxError, Worker
from submission.bench.rows import data
from submission.bench.run import budget
from submission.bench.settings import config
from submission.bench.show import evaluate


def gives(gold, answer, kind, choices=(), question=""):
    return checkers.check(Example(question, gold, kind, choices=choices), answer)


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
        ("42", "forty-two"),
        ("42", "#### 42"),
        ("42", "42 (6 × 7)"),
        ("42", "42, because 6 * 7 = 42."),
        ("42", "17 + 25 = 42"),
        ("42", "42 o'clock"),
        ("42", "42 kg·m/s^2"),
        ("42", r"42\,\mathrm{m}"),
        ("1.5", "6/4"),
        ("1.5", r"1\frac{1}{2}"),
        ("1.5", "one and a half"),
        ("1234.5", "1.234,50"),
        ("100000", "1,00,000"),
        ("1000000", "10⁶"),
        ("1000000", "10**6"),
        ("1000000", "a million"),
        ("1/3", r"0.\overline{3}"),
        ("1/3", "1/3 ≈ 0.33"),
        ("0.5", "1/2, or 0.5"),
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
        ("42", "forty-three"),
        ("42", "42 (forty-three)"),
        ("42", "17 + 25"),
        ("42", "17 + 25 = 43"),
        ("42", "42, because 6 * 7 = 43"),
        ("42", "42 pears and 3 apples"),
        ("42", "42..."),
        ("42", "42?"),
        ("42", "42 ± 1"),
        ("42", "> 42"),
        ("42", "42π"),
        ("42", "12:42"),
        ("42", "half of it is 42"),
        ("42", "-x = 42"),
        ("1/3", "0.333"),
        ("20", "20%"),
        ("3.5", "3,5"),
        ("42", "42" * 300),
    ],
)
def test_wrong_numbers(gold, answer):
    assert gives(gold, answer, "number") is False


SENTENCES = [  # answer, the number that it claims: right for this one, and for no other
    ("Kim ordered 5 pens.", "5"),
    ("After buying dinner, Ali has $32 remaining.", "32"),
    ("Thus, Mitchell made $21 more selling lemonade during the weekend.", "21"),
    ("John has 21 more candies than James.", "21"),
    ("There are 17 students that are not on varsity.", "17"),
    ("In all, the alarm rang 22 times.", "22"),
    ("In seven days, Brian will walk 35 miles.", "35"),
    ("The two of them rowed 1,110.5 miles that day.", "1110.5"),
    ("Mia scored 104 games after 3 years.", "104"),  # the 3 is the question's
    ("If they share equally, each gets 120.0 dollars.", "120"),
    ("This means that Sasha makes a loss of -$90 a day.", "-90"),
    ("Ali has about 32 dollars.", None),
    ("She has at most 32 pens.", None),
    ("Kim has 12 or 13 pens.", None),
    ("Kim has 12 pens, and Bo has 13.", None),
    ("It is not 32 pens that she has.", None),
    ("She has 32 pens, no, wait.", None),
    ("Half of what she has is 32.", None),
    ("She ran 32 quadrillion miles.", None),
    ("Does she have 32 pens?", None),
    ("A bad answer is 32 pens.", None),
]


@pytest.mark.parametrize(("answer", "claim"), SENTENCES)
def test_a_sentence_claims_its_one_number(answer, claim):
    asked = "How many are there after 3 years?"
    golds = ("5", "12", "13", "32", "21", "17", "22", "35", "1110.5", "104", "3", "120", "-90", "7")
    right = [gold for gold in golds if checkers.check_number(gold, answer, asked)]
    assert right == ([] if claim is None else [claim])


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
@pytest.mark.parametrize("length", [checkers.LONGEST_ANSWER, 100_000])
def test_no_answer_takes_long_to_check(kind, length):
    nasty = (
        "a",
        "(",
        "1,000",
        "=",
        "yes,",
        "*",
        "1=",
        "=1",
        "x=",
        "\\frac{",
        "1 is ",
        "$",
        "ﷺ",
        "½",
    )
    for piece in nasty:
        answer = ("1" + piece * length)[: length - 1] + "2"
        start = time.process_time()
        gives("B" if kind == "choice" else "1", answer, kind, THREE)
        assert time.process_time() - start < 0.2, piece


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
        ("12:30", "number", ()),
        ("40 or 42", "number", ()),
        ("9^{9^{9^{9}}}", "number", ()),
        ("a" * 401, "text", ()),
    ],
)
def test_a_gold_that_cannot_be_read_cannot_be_checked(gold, kind, choices):
    assert gives(gold, "anything", kind, choices) is None


def test_another_name_of_the_gold_text_is_right_too():
    names = ("USA", "U.S.")
    assert gives("United States", "the US", "text", names) is True
    assert gives("United States", "USA (United States)", "text", names) is True
    assert gives("United States", "USA or Canada", "text", names) is False


def test_a_letter_that_is_also_the_text_of_a_choice_is_that_text():
    vitamins = ("C", "A", "B")
    assert gives("A", "C", "choice", vitamins) is True
    assert gives("A", "A", "choice", vitamins) is False


def test_a_choice_of_choices_is_right_by_its_own_text_only():
    colours = ("red", "green", "blue", "Both A and B")
    assert gives("D", "Both A and B", "choice", colours) is True
    assert gives("D", "A and B", "choice", colours) is False


@pytest.mark.parametrize(
    ("gold", "answer", "question"),
    [
        ("42", "17+25", "What is 17+25?"),
        ("1000", "10^3", "What is 10^3?"),
        ("1.5", r"\frac{6}{4}", "What is 6/4?"),
        ("x^2+2x+1", "(x+1)^2", "Expand $(x + 1)^2$."),
    ],
)
def test_repeating_the_question_is_wrong(gold, answer, question):
    assert gives(gold, answer, "number", question=question) is False
    assert gives(gold, gold, "number", question=question) is True


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        (r"\frac{\sqrt{3}}{2}", "√3/2", True),
        (r"\frac{\sqrt{3}}{2}", r"$\frac{3}{2\sqrt{3}}$", True),
        (r"\frac{\sqrt{3}}{2}", "0.866025403784", False),
        (r"\frac{\sqrt{3}}{2}", r"\frac{\sqrt{3}}{2} or 1", False),
        ("2\\pi", "The circumference is 2π cm.", True),
        ("2\\pi", "3\\pi = 2\\pi", False),
        ("x^2+1", "f(x) = 1 + x²", True),
        ("x^2+1", "x", False),
        ("x^2+1", "x =", False),
        ("[0,1)", "x \\in [0, 1)", True),
        ("[0,1)", "(0,1)", False),
        ("(1,2)", "(2,1)", False),
        ("-2, 1", "1, -2", True),
        ("-2, 1", "-2", False),
    ],
)
def test_formulas(gold, answer, right):
    assert gives(gold, answer, "number") is right


def test_a_plain_gold_is_never_given_to_math_verify(monkeypatch):
    monkeypatch.setattr(math_answers, "math_worker", None)
    for answer in (r"\sqrt{1764}", "17+25", "6 \\cdot 7", "42"):
        assert gives("42", answer, "number") is (answer == "42")


def test_an_endless_formula_is_wrong_and_the_next_one_is_still_checked():
    assert gives("2\\pi", "\\pi \\cdot 2", "number") is True  # the child is there now
    start = time.monotonic()
    assert gives("2\\pi", "9^{9^{9^{9}}} + 1", "number") is False
    assert time.monotonic() - start < math_answers.MATH_SECONDS + 1
    assert gives("2\\pi", "\\pi + \\pi", "number") is True


def test_formulas_are_checked_off_the_main_thread():
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = [f"{n}\\pi/{n}" for n in range(2, 10)]
        assert all(pool.map(lambda answer: gives("\\pi", answer, "number"), answers))


def test_a_child_that_cannot_be_started_is_no_wrong_answer(monkeypatch):
    broken = Worker("import a_module_that_is_not_there")
    monkeypatch.setattr(math_answers, "math_worker", lambda: broken)
    math_answers.math_verdict.cache_clear()
    with pytest.raises(SandboxError):
        gives("3\\pi", "π + 2π", "number")


def test_a_formula_that_kills_the_child_is_wrong(monkeypatch):
    fragile = Worker(
        "import os\ndef answer(request):\n    return 'x' not in request[-1] or os._exit(1)"
    )
    monkeypatch.setattr(math_answers, "math_worker", lambda: fragile)
    math_answers.math_verdict.cache_clear()
    assert gives("5\\pi", "5x", "number") is False
    assert gives("5\\pi", "\\pi + 4\\pi", "number") is True
    math_answers.math_verdict.cache_clear()
    fragile.close()


def test_importing_the_checkers_starts_nothing():
    code = (
        "import sys; sys.path.insert(0, 'scripts')\n"
        "from submission.bench.answers import checkers, math_answers\n"
        "assert 'sympy' not in sys.modules\n"
        "assert not math_answers.math_worker.cache_info().currsize"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_code_is_checked_without_a_gold_program_and_at_any_usual_length():
    row = Example("", "", "code", tests=("assert double(2) == 4", "assert double(5) == 10"))
    comments = "# doubling is adding a number to itself\n" * 20
    assert checkers.check(row, f"{comments}def double(x):\n    return x + x") is True
    assert checkers.check(row, "def double(x):\n    return 4") is False
    assert checkers.check(Example("", "", "code"), "def double(x): return 4") is None


CHAPTERS = [
    *(answer_text, boolean_answers, budget, choice_answers, claims, config, data, evaluate),
    *(math_answers, measures, number_answers, number_forms, prompts, text_answers),
]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_examples_in_the_prose_hold(chapter):
    result = doctest.testmod(chapter)
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize(
    ("question", "answer", "said"),
    [
        ("Is 91 a prime number?", "No, it is a prime number.", None),
        ("Is 91 a prime number?", "No, it is composite.", False),
        ("Is 91 a prime number?", "Yes, it is not a prime number.", None),
        ("Is 12 + 5 more than 20?", "No, 20 is more than 17.", False),
        ("Is 12 + 5 more than 20?", "No, 12 + 5 is more than 20.", None),
        ("Is a whale a mammal?", "Yes, hardly.", None),
        ("Is a whale a mammal?", "Yes, a whale is no fish.", True),
    ],
)
def test_an_explanation_may_not_say_the_contrary(question, answer, said):
    assert boolean_answers.parse_boolean(answer, question) is said
