"""The write-up says what the results, the plan and the configuration say, in 1,500 words."""

import json

import make_writeup
import pytest
from test_page import answers, results  # noqa: F401 (fixtures)

from conftest import ROOT
from submission.essay import profiles

PLAN = json.loads((ROOT / "data" / "plan.json").read_text())


def test_the_picture_of_the_plan_shows_the_likely_session():
    hours = make_writeup.hours_of(PLAN)
    assert hours["GRPO"] == PLAN["hours_by_stage"]["grpo"]
    assert sorted(hours.values()) == sorted(PLAN["hours_by_stage"].values())
    assert PLAN["model"] == profiles.KAGGLE.model.name


def test_it_is_short_enough_and_has_every_fact(results):  # noqa: F811
    text = make_writeup.writeup(results, PLAN)
    assert make_writeup.words(text) <= make_writeup.MOST_WORDS
    assert f"{PLAN['completions']:,} completions" in text
    assert f"{PLAN['cautious']['completions']:,}" in text
    for source in profiles.KAGGLE.grpo_sources:
        assert source.location in text
    assert "gain -0.167" in text  # of these made-up answers
    assert "{" not in text.replace("{question}", "")


def test_the_files_are_written_and_a_missing_run_is_named(results, tmp_path, capsys):  # noqa: F811
    (tmp_path / "results.json").write_text(json.dumps(results))
    out = tmp_path / "out"
    arguments = ["--results", str(tmp_path / "results.json"), "--out", str(out)]
    assert make_writeup.main(arguments) == 0
    assert {p.name for p in out.iterdir()} == {"writeup.md", "idea.png", "plan.png", "cover.png"}
    assert "of 1500 words" in capsys.readouterr().out
    assert make_writeup.main(["--results", str(tmp_path / "none.json")]) == 1
    assert "Run `bash scripts/run.sh` first" in capsys.readouterr().err


def test_paragraphs_are_unwrapped_and_tables_are_not():
    text = "# A\n\none\ntwo\n\n| a |\n|---|\n\n```\nx\ny\n```\n\n1. p\n2. q"
    assert make_writeup.unwrapped(text) == text.replace("one\ntwo", "one two")


@pytest.mark.parametrize(("text", "count"), [("a b", 2), ("| a | 1,000 |", 2), ("", 0)])
def test_words_are_counted(text, count):
    assert make_writeup.words(text) == count
