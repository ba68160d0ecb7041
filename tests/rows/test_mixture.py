import dataclasses
import doctest
import json
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from submission.bench.answers.prompts import Example, example_from_mapping
from submission.bench.rows import adapters, mixture
from submission.bench.rows.mixture import Decontaminator, mixture_shares, question_tokens
from submission.bench.settings.config import MixtureShares, Source


def test_the_examples_in_the_prose_hold():
    result = doctest.testmod(mixture)
    assert result.attempted
    assert not result.failed


# --- Shares ---------------------------------------------------------------------------------

SOURCES = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=2),
    st.tuples(st.integers(0, 1_000_000), st.floats(0.01, 10)),
    min_size=1,
    max_size=12,
).filter(lambda sources: any(count for count, _ in sources.values()))
SETTINGS = st.builds(MixtureShares, temperature=st.floats(0, 1), cap=st.floats(0.05, 1))


def share(sources, settings):
    counts = {name: count for name, (count, _) in sources.items()}
    return mixture_shares(counts, {name: weight for name, (_, weight) in sources.items()}, settings)


@given(SOURCES, SETTINGS)
def test_shares_add_up_and_none_is_over_the_cap(sources, settings):
    shares = share(sources, settings)
    with_rows = sum(count > 0 for count, _ in sources.values())
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares) == list(sources)
    for name, value in shares.items():
        assert (value > 0) == (sources[name][0] > 0)
        assert value <= max(settings.cap, 1 / with_rows) + 1e-9


@given(SOURCES, SETTINGS)
def test_what_is_under_the_cap_keeps_its_proportions(sources, settings):
    shares = share(sources, settings)
    raw = {name: w * n**settings.temperature for name, (n, w) in sources.items() if n}
    top = max(shares.values())
    free = [name for name in raw if shares[name] < top - 1e-9]
    for one in free:
        for other in raw:
            if other in free:
                assert shares[one] * raw[other] == pytest.approx(shares[other] * raw[one])
            else:  # what is at the cap would have had at least as much
                assert raw[other] >= raw[one] * (1 - 1e-9)


@given(SOURCES, SETTINGS, st.randoms(use_true_random=False))
def test_shares_depend_neither_on_the_order_nor_on_the_scale(sources, settings, rng):
    names = list(sources)
    rng.shuffle(names)
    other = share({name: (sources[name][0], 3 * sources[name][1]) for name in names}, settings)
    assert other == pytest.approx(share(sources, settings))


def test_temperature_one_is_as_many_as_there_are_and_zero_is_alike():
    counts, weights = {"a": 900, "b": 100}, {"a": 1.0, "b": 1.0}
    assert mixture_shares(counts, weights, MixtureShares(1, cap=1)) == {"a": 0.9, "b": 0.1}
    assert mixture_shares(counts, weights, MixtureShares(0, cap=1)) == {"a": 0.5, "b": 0.5}


def test_what_is_over_the_cap_goes_to_the_others_in_proportion():
    counts = {"big": 10_000, "mid": 400, "small": 100}
    shares = mixture_shares(counts, dict.fromkeys(counts, 1.0), MixtureShares(0.5, cap=0.4))
    assert shares == pytest.approx({"big": 0.4, "mid": 0.4, "small": 0.2})


def test_one_source_gets_all_whatever_the_cap():
    assert mixture_shares({"a": 5, "b": 0}, {"a": 1, "b": 1}, MixtureShares()) == {"a": 1, "b": 0}


def test_no_rows_at_all_is_an_error():
    with pytest.raises(ValueError, match="No source has both rows and weight"):
        mixture_shares({"a": 0, "b": 3}, {"a": 1, "b": 0}, MixtureShares())


# --- The same question ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 3 + 4?", "what is 3+4"),
        ("What is 3 − 4?", "What is 3-4?"),
        ("What is 3 × 4?", "What is 3 * 4 ?"),
        ("What is 12 ÷ 4?", "What is 12/4?"),
        ("It costs $1,234,567.", "it costs 1234567"),
        ("Don’t you know?", "Don't you know"),
        ("Ｗｈａｔ ｉｓ ７?", "what is 7"),
        ("Straße", "STRASSE"),
        ("A  well-known\n\tT-shirt…", "a well known T shirt"),
        ("**Why** is _the_ sky “blue”?", "Why is the sky blue?"),
        ("From 1914–1918", "from 1914 - 1918"),
        ("the covid-19 and/or x-ray", "the Covid 19 and or X ray"),
        ("half: ½", "half 1/2"),
    ],
)
def test_case_punctuation_and_spelling_of_signs_do_not_matter(one, other):
    assert question_tokens(one) == question_tokens(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3 + 4", "3 - 4"),
        ("3 + 4", "3 4"),
        ("3*4", "3/4"),
        ("3 * 4", "3 4"),
        ("x - y", "x + y"),
        ("x - y", "x y"),
        ("f(x)/g(x)", "f(x) g(x)"),
        ("(3) - (4)", "(3) (4)"),
        ("-5", "5"),
        ("1.5", "15"),
        ("1.5", "1 5"),
        ("10⁶", "106"),
        ("10^6", "10 6"),
        ("½", "12"),
        ("2 < 3", "2 > 3"),
        ("50%", "50"),
        ("2 ≤ x", "2 ≥ x"),
        ("1,234", "1 234"),
        ("the cat", "the cats"),
        ("?", "!"),
    ],
)
def test_numbers_and_signs_do_matter(one, other):
    assert question_tokens(one) != question_tokens(other)


@given(st.text(max_size=200))
def test_any_text_has_tokens(text):
    tokens = question_tokens(text)
    assert tokens
    assert all(isinstance(token, str) for token in tokens)


@given(st.text("aA9 -+*/.,'()", max_size=40))
def test_plain_text_is_taken_apart_alike_on_the_fast_way_and_on_the_slow(text):
    assert question_tokens(f"{text} e")[:-1] == question_tokens(f"{text} é")[:-1]


def choice(question, *choices, gold="A"):
    listed = "".join(f"\n{chr(65 + i)}) {text}" for i, text in enumerate(choices))
    return Example(question + listed, gold, "choice", choices=choices)


@pytest.mark.parametrize("label", ["{}) ", "({}) ", "{}. ", "{}: "])
def test_the_listing_of_choices_is_taken_out_whatever_the_labels(label):
    choices = ("x", "y (z)")
    listed = ", ".join(
        label.format(letter) + text for letter, text in zip("AB", choices, strict=True)
    )
    row = Example(f"Which one? {listed} Say the letter.", "A", "choice", choices=choices)
    assert mixture.without_choices(row).split() == "Which one? Say the letter.".split()


def test_choices_that_are_not_listed_leave_the_question_alone():
    row = Example("Which one?", "A", "choice", choices=("x", "y"))
    assert mixture.without_choices(row) == "Which one?"


def test_the_first_of_several_duplicates_stays():
    rows = [
        Example("What is 3 + 4?", "7", "number"),
        Example("What is 3 - 4?", "-1", "number"),
        Example("what is 3+4 ?", "7", "number"),
        choice("Which is a planet?", "Mars", "Moon"),
        choice("Which is a planet?", "Moon", "Mars", gold="B"),
        choice("which is a planet", "Mars", "Moon"),
    ]
    keys = [mixture.question_key(row) for row in rows]
    assert [keys.index(key) for key in keys] == [0, 1, 0, 3, 4, 3]


# --- Decontamination ------------------------------------------------------------------------

EGGS = (
    "Hana collects 54 eggs every morning. She gives 12 of them to her neighbour and bakes with 6 "
    "more. She sells the rest at the market for $2 each. How much does she make in a day?"
)
BRIDGE = (
    "The old bridge was closed after the flood because two of its pillars had moved. Engineers "
    "spent the winter measuring the cracks, and the council voted to repair rather than replace it."
)
PLAIN_QUESTIONS = (
    EGGS,
    "Why do cats purr when they fall asleep on someone they trust?",
    "Could a penguin cross the Sahara desert on foot within a single week?",
    "What is 17 + 25?",
    "Sort from small to large: 77 38 56",
    f"Summarise in one sentence.\n{BRIDGE}",
    "Write a function to find the smallest missing element in a sorted array.",
)
CHOICES = choice(
    "Which gas do green plants take from the air to make sugar?",
    "oxygen",
    "carbon dioxide",
    "helium",
    "neon",
    gold="B",
)
HELD_OUT = [*(Example(question, "", "open") for question in PLAIN_QUESTIONS), CHOICES]
HELD = Decontaminator(HELD_OUT)
FILLER = "The weather was fine that day, and nobody in the village had any plans at all. "


def reason(question, **fields):
    return HELD.reason(Example(question, "", "open", **fields))


@pytest.mark.parametrize("held", HELD_OUT, ids=lambda e: e.question[:20])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        str.upper,
        lambda text: text.replace(".", " ;").replace("?", "").replace(",", ""),
        lambda text: f"  {text}\n\n",
        lambda text: text.replace(" ", "  \n"),
        lambda text: f"Answer this question: {text}",
        lambda text: f"{text} Think step by step, then give your answer.",
        lambda text: FILLER + text + " " + FILLER,
        lambda text: FILLER * 20 + text + " " + FILLER * 20,
        lambda text: f"Example 12. {text}",
    ],
    ids="same upper punctuation edges spaces prefix suffix inside deep numbered".split(),
)
def test_a_held_out_question_is_found_in_other_clothes(held, change):
    row = dataclasses.replace(held, question=change(held.question))
    assert HELD.reason(row)


@pytest.mark.parametrize(
    "question",
    [
        "When they fall asleep on someone they trust, why do cats purr?",
        "On foot, could a penguin cross the Sahara desert within a single week?",
        "How much does Hana make in a day? She collects 54 eggs every morning, gives 12 of them to "
        "her neighbour and bakes with 6 more; she sells the rest at the market for $2 each.",
        "17 + 25 is what?",
        "In a sorted array, write a function to find the smallest missing element.",
        "A story. " + BRIDGE.split(". ")[1] + " Then spring came.",
        EGGS.replace("How much does she make in a day?", "What does she earn?"),
    ],
)
def test_the_same_words_in_another_order_and_copied_passages_are_found(question):
    assert reason(question)


def test_choices_in_another_order_other_wrong_ones_or_none_are_found():
    stem = "Which gas do green plants take from the air to make sugar?"
    assert HELD.reason(choice(stem, "neon", "helium", "carbon dioxide", "oxygen", gold="C"))
    assert HELD.reason(choice(stem, "carbon dioxide", "methane", "argon"))
    assert reason(stem)
    assert reason("To make sugar, which gas do green plants take from the air?")


def test_a_common_stem_with_other_choices_is_another_question():
    held = Decontaminator([choice("Which of these is a mammal?", "dog", "trout", "crow")])
    assert held.reason(choice("Which of these is a mammal?", "trout", "dog", "crow", gold="B"))
    assert not held.reason(choice("Which of these is a mammal?", "ant", "whale", "wren", gold="B"))


@pytest.mark.parametrize(
    "question",
    [
        "What is 17 + 26?",
        "What is 17 - 25?",
        "What is 17 + 25 + 3?",
        "What is 3 + 17 + 25?",
        "What is 117 + 25?",
        "Sort from small to large: 77 38 57",
        "Sort from small to large: 77 38 56 91",
        EGGS.replace("54", "55"),
        EGGS.replace("12", "6").replace("bakes with 6", "bakes with 12"),
        "Why do dogs bark when they fall off a boat?",
        "Could a camel cross the Sahara desert in a single day?",
        "Write a function to find the largest even number in a list.",
        "Write a function to find the second smallest number in a list.",
        "Summarise in one sentence.\nThe new bridge opened in spring, and the whole town came.",
        "Which gas fills most balloons at a fair?",
        "",
        "?",
    ],
)
def test_other_questions_are_left_alone(question):
    assert reason(question) == ""


def test_what_the_adapter_adds_to_a_task_is_no_passage_of_another():
    """The end of a task and the words behind it are eight words that few rows share."""

    def program(task, test="assert f(1) == 2"):
        row = {"text": task, "code": "def f(x):\n    return 2", "test_list": [test],
               "test_setup_code": "", "challenge_test_list": []}  # fmt: skip
        return adapters.ADAPTERS["mbpp"](row, Source("mbpp", "", checker="code"))

    held = [
        program("Write a function to reverse the words in a given string."),
        program("Write a function to find the perimeter of a triangle."),
        program("Write a python function to merge three dictionaries into one expression."),
    ]
    others = (
        "sum of squares,largest of four numbers,median,volume of a cube,index of a word,last digit"
    )
    held += [program(f"Write a function to find the {other}.") for other in others.split(",")]
    guard = mixture.Decontaminator(held)
    for task in (
        "Write a function to count the vowels in a given string.",
        "Write a function to find the perimeter of a rectangle.",
    ):
        assert guard.reason(program(task)) == ""
    for task in (
        "Write a function to reverse words in a given string.",
        "Write a function to merge three dictionaries into one expression.",
    ):
        assert guard.reason(program(task, "assert g(3) == 4")) != ""


def test_what_many_held_out_rows_share_is_their_template():
    task = "You are given a task. Write a short Python function that solves it, and nothing else: "
    subjects = "primes palindromes vowels matrices dates fractions".split()
    held = Decontaminator([Example(f"{task}count the {s}.", "", "open") for s in subjects])
    assert held.reason(Example(f"{task}count the vowels.", "", "open"))
    assert not held.reason(Example(f"{task}reverse a linked list in place.", "", "open"))


def test_which_look_found_it_is_said():
    assert reason(PLAIN_QUESTIONS[1]) == "copies of held-out rows"
    assert reason(FILLER + BRIDGE) == "rows with a passage of held-out rows"
    assert reason("17 + 25 is what?") == "near-copies of held-out rows"


@settings(max_examples=200)
@given(st.text(max_size=60), st.sampled_from(HELD_OUT), st.text(max_size=60))
def test_whatever_stands_around_a_long_question_it_is_found(before, held, after):
    if len(question_tokens(held.question)) > mixture.RUN:
        question = f"{before} . {held.question} . {after}"
        assert HELD.reason(dataclasses.replace(held, question=question))


@given(st.text(max_size=300))
def test_no_text_makes_it_fail(text):
    assert HELD.reason(Example(text, "", "open", choices=(text[:5], text[5:]))) is not None


def test_the_bundled_training_rows_stay():
    def rows(path):
        with open(path, encoding="utf-8") as lines:
            return [example_from_mapping(json.loads(line), path) for line in lines]

    held, train = rows("data/held_out.jsonl"), rows("data/train.jsonl")
    decontaminator = Decontaminator(held)
    assert all(decontaminator.reason(row) for row in held)
    dropped = sum(bool(decontaminator.reason(row)) for row in train)
    assert dropped <= 0.003 * len(train)


def long_rows(rng, count, words):
    """Rows of so many words, half of them function words, some numbers."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["".join(rng.choices(letters, k=rng.randint(3, 9))) for _ in range(5_000)]
    weights = [1 / (rank + 1) for rank in range(len(vocabulary))]
    small = sorted(mixture.FUNCTION_WORDS)
    made = []
    for _ in range(count):
        text = rng.choices(vocabulary, weights, k=words)
        for i in range(0, words, 2):
            text[i] = rng.choice(small) if rng.random() < 0.95 else str(rng.randint(1, 2_000))
        made.append(Example(" ".join(text), "", "open"))
    return made


def test_rows_are_looked_up_by_the_thousand_in_time_linear_in_their_length():
    rng = random.Random(0)
    held = Decontaminator([row for size in (8, 20, 45, 120) for row in long_rows(rng, 125, size)])

    def seconds_per_row(words):
        rows, times = long_rows(rng, 300, words), []
        for _ in range(3):
            start = time.process_time()
            found = [held.reason(row) for row in rows]
            times.append((time.process_time() - start) / len(rows))
        assert not any(found)
        return min(times)

    assert seconds_per_row(300) < 1 / 2_000  # measured: 1 / 5,000
    assert seconds_per_row(1_200) < 8 * seconds_per_row(300)
