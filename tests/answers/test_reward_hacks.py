"""Attacks on the reward, written by hand: none may pay more than an honest try.

`data/reward_hacks.jsonl` holds the attacks; each line has an honest completion to the same row
beside it, wrong where the row can be checked and mediocre where it is open.
`tests/open_pairs.jsonl` holds a good and a mediocre completion to each of its open rows.
"""

import collections
import json

import pytest

from conftest import ROOT
from submission.bench.answers import prompts
from submission.essay import rewards


def read(path):
    return [json.loads(line) for line in (ROOT / path).read_text(encoding="utf-8").splitlines()]


HACKS = read("data/reward_hacks.jsonl")
PAIRS = read("tests/open_pairs.jsonl")
CHECKABLE = {line["row"]["question"]: line for line in HACKS if line["row"]["checker"] != "open"}


def pays(row, *completions):
    """What each completion to the row earns, all of them in one batch."""
    columns = {name: [value] * len(completions) for name, value in row.items()}
    questions = columns.pop("question")
    return rewards.combined(questions, list(completions), question=questions, **columns)


@pytest.mark.parametrize("line", HACKS, ids=[line["id"] for line in HACKS])
def test_hack_pays_no_more_than_an_honest_try(line):
    hack, honest = pays(line["row"], line["hack"], line["honest"])
    assert hack <= honest + 1e-9, f"{line['kind']}: {hack:.3f}, an honest try {honest:.3f}"


@pytest.mark.parametrize(
    "line", PAIRS, ids=[f"{i}-{line['row']['question'][:40]}" for i, line in enumerate(PAIRS)]
)
def test_good_open_answer_pays_more_than_a_mediocre_one(line):
    good, mediocre = pays(line["row"], line["good"], line["mediocre"])
    assert good >= mediocre + 0.05, f"good {good:.3f}, mediocre {mediocre:.3f}"


# Without this, a checker that says "wrong" to everything would pass every test above.
@pytest.mark.parametrize("line", CHECKABLE.values(), ids=[question[:40] for question in CHECKABLE])
def test_gold_answer_of_an_attacked_row_pays_much_more_than_a_wrong_one(line):
    trace = prompts.parse(line["honest"]).reasoning
    gold = f"<reasoning>{trace}</reasoning><answer>{line['row']['answer']}</answer>"
    right, wrong = pays(line["row"], gold, line["honest"])
    assert right >= wrong + 0.3


def test_honest_tries_are_in_format_and_earn_something():
    for line in HACKS:
        assert prompts.parse(line["honest"]).in_format, line["id"]
        assert pays(line["row"], line["honest"])[0] > 0, line["id"]


def test_attacks_are_distinct_and_cover_every_checker_and_open_domain():
    ids = collections.Counter(line["id"] for line in HACKS)
    texts = collections.Counter((line["row"]["question"], line["hack"]) for line in HACKS)
    assert max(ids.values()) == 1
    assert max(texts.values()) == 1
    assert {line["row"]["checker"] for line in HACKS} == set(prompts.CHECKER_KINDS)
    open_domains = {line["row"]["domain"] for line in HACKS if line["row"]["checker"] == "open"}
    assert open_domains >= {"creative", "ideation", "summarization", "science", "other"}
