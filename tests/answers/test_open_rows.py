"""Does the score tell good from bad on rows that are not in this repository?

    OPEN_ROWS=rows.jsonl bash scripts/test.sh tests/answers/test_open_rows.py -s

prints the rates by words alone and, where the model is, by meaning. Each line of the file has a
`question` and either `reference`, `domain`, `good`, `mediocre` and `attacks` (each with `reasoning`
and `answer`, attacks also with `kind`), or an `instruction` and a `response`, as Dolly has them:
then the response is the good answer, without a reference, and the attacks are made from other rows.
"""

import json
import os
import random

import pytest

from submission.bench.answers import meaning, open_answers
from submission.bench.answers.prompts import Completion, Example
from submission.essay import profiles

PATH = os.environ.get("OPEN_ROWS", "")
MACHINE_MADE = {"words_shuffled", "stitched", "keyword_list", "template", "filler"}
STORY = (
    "An umbrella stood by the door of the small house, waiting for rain. One evening a stranger "
    "knocked, wet to the bone, and the old woman gave it to him without a word. Years later it "
    "came back by post, mended, with a note in the handle."
)


def completion(said):
    return Completion("", True, said.get("reasoning", "-"), said["answer"])


def read_rows(most=400):
    """Rows with good, mediocre (or none) and attacks."""
    with open(PATH, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    if "response" not in rows[0]:
        return rows
    rng = random.Random(0)
    rows = rng.sample(rows, min(most, len(rows)))
    for row, other in zip(rows, rows[1:] + rows[:1], strict=True):
        words = row["response"].split()
        attacks = {"another row's": other["response"], "constant": STORY}
        attacks["words_shuffled"] = " ".join(rng.sample(words, len(words)))
        row |= {
            "question": row["instruction"],
            "domain": "other",
            "good": {"answer": row["response"]},
        }
        row["attacks"] = [{"kind": kind, "answer": text} for kind, text in attacks.items()]
    return rows


def rates(rows, reader):
    """The share of rows, or of attacks, for which each claim holds; every text scored by itself."""
    held = {}
    for row in rows:
        example = Example(row["question"], row.get("reference") or "", "open", domain=row["domain"])

        def score(said, example=example, with_trace="mediocre" in row):
            (alike,) = open_answers.see_batch([completion(said)], [example], reader)
            return open_answers.open_score(
                completion(said), example, alike=alike, with_trace=with_trace
            )

        good, poor = score(row["good"]), score(row["mediocre"]) if "mediocre" in row else None
        if poor is not None:
            held.setdefault("good >= mediocre + 0.05", []).append(good >= poor + 0.05)
        for attack in row["attacks"]:
            value, kind = score(attack), attack["kind"]
            if poor is None:
                held.setdefault(f"{kind} < good", []).append(value < good)
                continue
            held.setdefault("attack <= mediocre", []).append(value <= poor)
            if kind.startswith("constant"):
                held.setdefault("constant <= mediocre", []).append(value <= poor)
            if kind in MACHINE_MADE:
                held.setdefault("machine-made <= good", []).append(value <= good)
    return {claim: round(sum(values) / len(values), 3) for claim, values in held.items()}


@pytest.mark.skipif(not PATH, reason="needs a file of rows, named by OPEN_ROWS")
@pytest.mark.parametrize("reader", ["words", "meaning"])
def test_good_answers_are_told_from_bad_ones(reader):
    encoder = meaning.load_encoder(profiles.KAGGLE.rewards.encoder) if reader == "meaning" else None
    found = rates(read_rows(), encoder)
    print(f"\n{PATH}, by {reader}: {found}")
    assert min(found.values()) >= 0.6, found
