"""Weights that move with the difficulty, and an outline for the traces."""

import dataclasses

import pytest

from conftest import short_run
from submission.bench.answers.prompts import Completion, Example
from submission.bench.answers.scoring import EXTRA_PARTS, EXTRA_SETUPS, Context, current_weights
from submission.bench.rows import curriculum as drawing
from submission.bench.rows import data
from submission.bench.run import stages
from submission.bench.settings import config
from submission.essay import curriculum, profiles, recipes, rewards, scaffolded

ROW = Example("What is 6 times 7?", "42", "number", trace="6*7=42.", difficulty=0.25)


def test_the_weights_move_from_the_trace_to_the_answer():
    weights = config.Rewards(**recipes.ANNEALED)
    starts, ends = (current_weights(weights, progress) for progress in (0.0, 1.0))
    assert (starts["right"], starts["structure"]) == (0.40, 0.45)
    assert (ends["right"], ends["structure"]) == (0.60, 0.25)
    assert starts["confidence"] == ends["confidence"] == 0.15


def test_the_table_is_computed_and_says_what_the_weights_say():
    lines = curriculum.table_of_rewards().splitlines()
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    table = {row[0]: dict(zip(head[1:], map(float, row[1:]), strict=True)) for row in rows}
    assert len(table) == 4
    assert all(len(row) == 5 for row in table.values())
    shown, bare = table["right, in steps, sure"], table["right, nothing shown"]
    assert shown["start"] - bare["start"] > shown["end"] - bare["end"] > 0
    assert table["wrong, in steps, sure"]["end"] < bare["end"]
    assert set(table["right, out of format"].values()) == {0.0}


def test_what_is_brief_is_counted_by_the_runs_tokenizer(tokenizer):
    said = Completion("6 * 7 = 42 " * 20, True, "so", "42")
    part = EXTRA_PARTS["brief"]
    try:
        assert part([said], [ROW], {}, Context()) == [1.0]  # 100 words
        EXTRA_SETUPS["brief"](Context(), None, tokenizer, None)
        assert len(tokenizer.encode(said.text)) > curriculum.BRIEF
        assert EXTRA_PARTS["brief"]([said], [ROW], {}, Context()) == [0.0]
    finally:
        EXTRA_PARTS["brief"] = part


@pytest.mark.parametrize(("progress", "drawn"), [(0.0, 1), (0.29, 1), (0.31, 2), (0.71, 3)])
def test_harder_rows_come_at_the_borders(progress, drawn):
    settings = recipes.BY_DIFFICULTY
    hard = [0.2, 0.5, 0.9]
    weights = [
        drawing.in_phase(None, ("source", "number", difficulty), settings, progress)
        for difficulty in hard
    ]
    assert sum(weights) == drawn


def test_an_outline_is_in_every_trace_and_the_reward_knows_its_headings(tokenizer):
    profile = recipes.RECIPES["scaffolded"].applied(profiles.TINY)
    run = dataclasses.replace(short_run("unused"), profile=profile)
    rows = data.load_mixture(
        run.sft_sources, tokenizer, profile.lengths, needs_trace=True, minimum_kept=0.5
    )
    headings = scaffolded.headings_of_run(run)
    assert headings == ["Work:", "Check:"]
    for example in rows.examples[:50]:
        said = Completion("", True, example.trace, example.answer)
        assert scaffolded.reward_outline(said, example, headings) == 1.0
        assert rewards.reward_right(said, example)
    assert len(rows.examples) > 1500  # the outline fits the limit


@pytest.mark.parametrize(
    "trace",
    ["6*7=42.", "Check: 42. Work: 6*7=42.", "Work: Check: 42.", "Work: 6*7=42. Check:",
     "Work: a. Work: b. Check: c.", "I say Work: 6*7=42. Check: 42."],
)  # fmt: skip
def test_an_outline_that_is_not_kept_pays_nothing(trace):
    said = Completion("", True, trace, "42")
    assert scaffolded.reward_outline(said, ROW, ["Work:", "Check:"]) == 0.0


def test_an_outline_pays_only_with_the_answer():
    said = Completion("", True, "Work: 6*7=42. Check: 42.", "42")
    values = scaffolded.part_outline(
        [said, said], [ROW, ROW], {"right": [1.0, 0.0], "open": [0.0, 0.0]}, Context(),
        headings=["Work:", "Check:"],
    )  # fmt: skip
    assert values == [1.0, 0.0]


def test_the_part_outline_without_an_outline_is_refused(tokenizer):
    run = config.changed(
        short_run("unused"),
        {"profile": {"rewards": {"extras": {"outline": 0.1}}, "grpo": {"reference": "warm_start"}}},
    )
    with pytest.raises(ValueError, match="needs one `outline` with headings"):
        stages.require_chapters(run, tokenizer)
