"""Tables, plots and the page to take away."""

import json
import re

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import screens
from matplotlib import image
from notebooks import page as notebook_page

import build_notebook
from conftest import ROOT
from submission.bench.answers.prompts import Example, parse
from submission.bench.show import evaluate, pictures, plots, report

RIGHT = "<reasoning>6*7</reasoning><answer>42</answer>"
ROWS = [Example(f"6*7, number {i}?", "42", "number", domain="math") for i in range(6)]
SAID = {
    "stock": ["42"] * 6,
    "after_sft": [RIGHT, RIGHT, RIGHT.replace("42", "43"), "<reasoning>6", "41", RIGHT],
    "after_grpo": [RIGHT] * 5 + [RIGHT.replace("42", "<b>43</b>")],
}
STOPPED = {name: ["reasoning>6" not in text[-11:] for text in said] for name, said in SAID.items()}


@pytest.fixture
def answers():
    return {
        name: [
            evaluate.judge(row, parse(text), 3, stopped)
            for row, text, stopped in zip(ROWS, said, STOPPED[name], strict=True)
        ]
        for name, said in SAID.items()
    }


@pytest.fixture
def results(answers):
    evaluation = {name: evaluate.summarise(rows) for name, rows in answers.items()}
    return {
        "profile": "tiny", "model": "m", "recipe": "r", "seed": 0, "wall_seconds": 60.0,
        "submission": "after_grpo",
        "stages": [{"name": "sft", "steps": 9}, {"name": "grpo", "steps": 9}],
        "evaluation": evaluation,
        "stock_plain": evaluate.stock_plain(evaluation, "after_grpo"),
    }  # fmt: skip


def histories(steps=40):
    rng = np.random.default_rng(0)
    sft = [{"step": i, "seconds": 1.0, "loss": 4 / i} for i in range(1, steps)]
    names = ("in_format", "right", "flat_groups", "kl", "entropy", "from_in_format", "from_right")
    grpo = [
        {
            "step": i, "seconds": 4.0, "rollout_seconds": 2.0, "reward_seconds": 0.5,
            "update_seconds": 1.5, "tokens": 40 + i,
            **{name: float(value) for name, value in zip(names, rng.random(7), strict=True)},
        }
        for i in range(1, steps)
    ]  # fmt: skip
    return {"sft": sft, "grpo": grpo}


def test_every_answer_is_of_one_kind(answers):
    table = report.kinds_table(answers)
    assert table.splitlines() == [
        "| | stock | after SFT | after GRPO |",
        "|---|---|---|---|",
        "| cut off before its end | 0 | 1 | 0 |",
        "| right, but out of format | 6 | 0 | 0 |",
        "| right, in format | 0 | 3 | 5 |",
        "| wrong and out of format | 0 | 1 | 0 |",
        "| wrong, in format | 0 | 1 | 1 |",
    ]


def test_a_save_on_the_way_that_is_submitted_is_named(results):
    told = report.results_table(results | {"submission": "after_sft"})
    assert "What is submitted is after SFT, saved again." in told
    assert "saved again" not in report.results_table(results)


def test_a_stage_that_a_recipe_leaves_out_is_named(results):
    assert "of which" not in report.results_table(results)
    results["stages"][1]["steps"] = 0
    told = report.results_table(results).splitlines()
    assert next(line for line in told if "of which" in line).startswith("| after GRPO, of which")


def test_domains_in_which_the_trained_model_is_below_the_plain_stock_model_are_named(results):
    told = report.kind_table(results).splitlines()
    plain = {"accuracy": 1.0, "by_domain": {"math": 1.0}, "below": ["math"]}
    assert results["stock_plain"] == plain
    assert told[-1] == "Below what stock Gemma answers to the plain question: math."
    results["stock_plain"]["below"] = []
    assert report.kind_table(results).splitlines() == told[:-2]


NOTHING_EARNED = [
    {**line, "from_in_format": 0.0, "from_right": 0.0} for line in histories()["grpo"]
]


@pytest.mark.parametrize(
    "stages",
    [
        histories(),
        histories(2),
        {"sft": [], "grpo": []},
        {"sft": [], "grpo": NOTHING_EARNED},
        {"sft": [], "grpo": NOTHING_EARNED[:1]},
    ],
)
def test_curves_are_drawn_however_short_a_stage_was(stages, tmp_path):
    plots.plot_sft(stages["sft"], tmp_path / "sft.png")
    plots.plot_grpo(stages["grpo"], tmp_path / "learning.png")
    assert (tmp_path / "sft.png").exists() == bool(stages["sft"])
    assert (tmp_path / "learning.png").exists() == bool(stages["grpo"])
    if stages["grpo"]:
        drawn = image.imread(tmp_path / "learning.png")
        assert drawn.shape[0] > 500
        assert drawn.std() > 0.01
    assert not plt.get_fignums()


def test_the_plan_of_the_picture_fills_the_session(tmp_path):
    hours = json.loads((ROOT / "data" / "plan.json").read_text())["hours_by_stage"]
    assert sum(hours.values()) == pytest.approx(9.0, abs=0.02)
    pictures.draw_plan(hours, tmp_path / "plan.png")
    pictures.draw_idea(tmp_path / "idea.png")
    assert all(image.imread(tmp_path / f"{x}.png").std() > 0.01 for x in ("plan", "idea"))


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(build_notebook.NOTEBOOK, as_version=4)


def test_the_page_needs_nothing_from_elsewhere_and_its_folds_are_closed(committed):
    text = notebook_page.page(committed)
    assert not re.search(r"<script|<link|(?:src|srcset)=.https?:", text)
    assert text.count("<details><summary>") == 7
    assert "def check(" in text


def test_what_a_model_writes_is_no_markup(answers):
    table = report.samples_table(answers, 6)
    assert "<b>43</b>" not in table
    assert "&lt;b&gt;43&lt;/b&gt;" in table
    assert "<script>" not in report.coloured("<script>1</script><answer>2</answer>")


def test_wins_and_losses_are_counted_and_shown(answers):
    told, chosen = report.wins_and_losses(answers, "after_sft", "after_grpo", 1)
    assert told.startswith("3 rows won, 1 lost")
    assert [len(rows) for rows in chosen.values()] == [2, 2, 2]


@pytest.mark.skipif(screens.BROWSER is None, reason="needs a browser: apt-get install chromium")
def test_a_browser_shows_the_notebook_within_25_screens_and_what_is_looked_for_early(committed):
    found = screens.probe(screens.rendered(committed))
    assert found["height"] <= 25 * screens.HEIGHT
    assert not found["wide"]
    assert found["pictures"] >= 5
    at = {name: 1 + int(y / screens.HEIGHT) for name, y in found["at"].items()}
    most = {"result": 1, "how to run": 1, "prompt": 3, "settings": 4, "data counts": 8}
    most |= {"reward": 12, "learner": 15}
    assert at.keys() == most.keys()
    assert all(at[name] <= most[name] for name in most), at
