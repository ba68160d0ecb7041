"""Hundreds of right and wrong answers, in the many forms that people write them."""

import collections
import json
import pathlib

import pytest

from submission.bench import answers
from submission.bench.answers import checkers
from submission.bench.answers.prompts import Example
from submission.essay import rewards

FILE = pathlib.Path(__file__).resolve().parent.parent.parent / "data" / "reward_cases.jsonl"
CASES = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def names():
    counts = collections.Counter()
    for case in CASES:
        name = f"{case['checker']}-{'right' if case['right'] else 'wrong'}-{case['form']}"
        counts[name] += 1
        yield f"{name}-{counts[name]}".replace(" ", "_")


@pytest.mark.parametrize("case", CASES, ids=names())
def test_the_checker_and_the_reward_say_what_a_person_would(case):
    example = Example(
        case["question"],
        case["gold"],
        case["checker"],
        choices=tuple(case["choices"]),
        tests=tuple(case.get("tests", ())),
    )
    assert checkers.check(example, case["answer"]) is case["right"]
    trace = "We read the question, do one step after the other, look back, and see what comes out."
    right, this = rewards.combined(
        [""] * 2,
        [
            f"<reasoning>{trace}</reasoning><answer>{answer}</answer>"
            for answer in (case["gold"], case["answer"])
        ],
        **{
            name: [value] * 2
            for name, value in example.columns().items()
            if name in ("question", "answer", "checker", "choices", "tests")
        },
    )
    assert this >= right if case["right"] else this <= right - 0.3


def test_there_are_many_cases_and_every_kind_has_right_and_wrong_ones():
    assert len(CASES) >= 320
    counts = collections.Counter((case["checker"], case["right"]) for case in CASES)
    assert set(counts) == {
        (kind, right)
        for kind in ("number", "choice", "boolean", "text", "code")
        for right in (True, False)
    }
    assert all(
        counts[kind, right] >= 20
        for kind in ("number", "choice", "boolean", "text")
        for right in (True, False)
    )


def test_no_case_is_listed_twice():
    told = collections.Counter((case["question"], case["answer"]) for case in CASES)
    assert [case for case, count in told.items() if count > 1] == []


def test_the_notebook_says_how_many_there_are():
    attacks = FILE.with_name("reward_hacks.jsonl").read_text(encoding="utf-8").splitlines()
    told = " ".join(answers.__doc__.split())
    assert f"{len(CASES):,} answers in the forms that people write" in told
    assert f"{len(attacks):,} attacks" in told
