"""The two cells that a reader edits, and the cell of parameters: what wrong values say."""

import dataclasses
import json
import os
import subprocess
import sys

import nbformat
import papermill
import pytest

import build_notebook
from submission.bench.answers.scoring import EXTRA_PARTS, with_rewards
from submission.bench.rows import reading
from submission.bench.rows.yours import with_rows
from submission.bench.settings.config import Source
from submission.essay import profiles, rewards

RUN = profiles.read_run({"PROFILE": "tiny"}, "cpu")
ROW = {"question": "2+2?", "answer": "4", "checker": "number"}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source("bundled", str(path))


def test_rows_are_added_to_the_stage_that_they_are_for(tmp_path):
    traced = write(tmp_path / "t.jsonl", {**ROW, "trace": "2+2=4."})
    plain = write(tmp_path / "p.jsonl", ROW)
    run = with_rows(RUN, [traced], [plain])
    assert run.sft_sources == (*RUN.sft_sources, traced)
    assert run.profile.grpo_sources == (*RUN.profile.grpo_sources, plain)


@pytest.mark.parametrize(
    ("row", "stage", "message"),
    [
        (None, "grpo", r"MY_GRPO_ROWS, in the cell .*there is no file .*Upload it"),
        ({"question": "2+2?"}, "grpo", r"MY_GRPO_ROWS.* no field 'answer'.*Correct the file"),
        ({**ROW, "checker": "sum"}, "grpo", r"MY_GRPO_ROWS.*unknown checker 'sum'"),
        (ROW, "sft", r"MY_SFT_ROWS.*no trace, which SFT needs"),
        ({**ROW, "answer": ["4"]}, "grpo", r"MY_GRPO_ROWS.*'answer' is \['4'\], which is no text"),
        ([ROW], "grpo", r"MY_GRPO_ROWS.*line 1: not a JSON object"),
    ],
)
def test_rows_that_cannot_be_used_are_named_with_their_cell(tmp_path, row, stage, message):
    source = Source("bundled", str(tmp_path / "rows.jsonl"))
    if row is not None:
        source = write(tmp_path / "rows.jsonl", row)
    with pytest.raises(ValueError, match=message):
        with_rows(RUN, [source] * (stage == "sft"), [source] * (stage == "grpo"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("rows.jsonl", r"'rows.jsonl' is not a Source"),
        (Source("gsm9k", "openai/gsm8k"), r"unknown adapter 'gsm9k'.*gsm8k"),
    ],
)
def test_what_is_no_source_is_refused(source, message):
    with pytest.raises(ValueError, match=message):
        with_rows(RUN, [], [source])


def test_rows_are_read_as_people_write_them(tmp_path):
    source = write(tmp_path / "rows.jsonl", {**ROW, "answer": 4})
    file = tmp_path / "rows.jsonl"
    file.write_text(file.read_text() + "\n" + json.dumps({**ROW, "answer": True}) + "\n\n")
    assert [row.answer for row in reading.read_bundled(source)] == ["4", "yes"]


def test_the_cell_may_be_run_again_and_rows_that_are_there_are_named(tmp_path):
    source = write(tmp_path / "p.jsonl", ROW)
    once = with_rows(RUN, [], [source])
    assert with_rows(once, [], [source]) == once
    again = dataclasses.replace(source, weight=2.0)
    with pytest.raises(ValueError, match=r"MY_GRPO_ROWS.*p\.jsonl is in the mixture already"):
        with_rows(once, [], [again])


@pytest.fixture
def parts(monkeypatch):
    monkeypatch.setattr("submission.bench.answers.scoring.EXTRA_PARTS", EXTRA_PARTS)
    before = dict(EXTRA_PARTS)
    yield
    EXTRA_PARTS.clear()
    EXTRA_PARTS.update(before)


def long(prompts, completions, **columns):
    return [float(len(text) > 60) for text in completions]


def test_a_readers_reward_is_a_part_with_its_weight(parts):
    run = with_rewards(RUN, {"long": (0.5, long)})
    scorer = rewards.Scorer(run.profile.rewards)
    texts = [f"<reasoning>{'9 ' * n}</reasoning><answer>4</answer>" for n in (2, 40)]
    columns = {"answer": ["4", "4"], "checker": ["number"] * 2}
    assert scorer.parts(texts, columns)["long"] == [0.0, 1.0]
    short, much = scorer(["", ""], texts, **columns)
    assert 0 < short < much <= 1


def test_a_readers_reward_pays_in_format_only(parts):
    run = with_rewards(
        RUN, {"always": (0.5, lambda prompts, completions, **_: [1.0] * len(prompts))}
    )
    scorer = rewards.Scorer(run.profile.rewards)
    assert scorer(["", ""], ["4", ""], answer=["4"] * 2, checker=["number"] * 2) == [0.0, 0.0]


def test_it_may_ask_for_every_field_of_a_row(parts):
    def traced(prompts, completions, trace, choices, tests, domain, source, **_):
        return [0.0] * len(trace)

    with_rewards(RUN, {"traced": (0.1, traced)})


@pytest.mark.parametrize("name", ["right", "in_format", "longest"])
def test_the_name_of_another_part_is_refused(parts, name):
    with pytest.raises(ValueError, match=f"'{name}'.*there is a part or setting of this name"):
        with_rewards(RUN, {name: (0.1, long)})


@pytest.mark.parametrize(
    ("weight", "function", "message"),
    [
        (0.1, lambda prompts, completions, **_: [1.0], "gave 1 values for 3 completions"),
        (0.1, lambda prompts, completions, **_: [float("nan")] * 3, "gave nan. Keep"),
        (0.1, lambda prompts, completions, **_: [2.0] * 3, "gave 2.0. Keep"),
        (0.1, lambda prompts: [0.0] * 3, "failed with TypeError.*is called as f"),
        (0.0, long, "the weight is 0.0. Choose"),
        (7, long, "the weight is 7. Choose"),
    ],
)
def test_a_reward_that_is_not_sound_is_refused_before_anything_is_trained(
    parts, weight, function, message
):
    with pytest.raises(ValueError, match=f"'mine', in the cell \"Change the reward\": .*{message}"):
        with_rewards(RUN, {"mine": (weight, function)})
    assert "mine" not in EXTRA_PARTS


# --- The cell of parameters ---------------------------------------------------------------------


def asked(tmp_path, environment=(), **parameters):
    """What the notebook's first cells say with these parameters, as papermill sets them."""
    path, out = tmp_path / "in.ipynb", tmp_path / "out.ipynb"
    notebook = build_notebook.build()
    last = next(i for i, c in enumerate(notebook.cells) if c.source.startswith("asked = "))
    notebook.cells = notebook.cells[: last + 1]
    nbformat.write(notebook, path)
    papermill.execute_notebook(str(path), str(out), parameters=parameters, prepare_only=True)
    cells = [c.source for c in nbformat.read(out, as_version=4).cells if c.cell_type == "code"]
    code = "\n".join([*cells, "print(run.minutes, run.out)"])
    kept = {k: v for k, v in os.environ.items() if k not in ("MINUTES", "RUN_SEED", "PROFILE")}
    (tmp_path / "code.py").write_text(code)
    command = [sys.executable, str(tmp_path / "code.py")]
    kept |= {"JAX_PLATFORMS": "cpu", **dict(environment)}
    return subprocess.run(command, capture_output=True, text=True, env=kept)


def test_papermill_sets_what_the_cell_of_parameters_says(tmp_path):
    said = asked(tmp_path, MINUTES=5, RUN_SEED=7).stdout
    assert "profile tiny, model gemma3_tiny_it, seed 7" in said
    assert "5.0 outputs" in said


def test_the_environment_wins_over_the_cell(tmp_path):
    assert "seed 3" in asked(tmp_path, {"RUN_SEED": "3"}, RUN_SEED=7).stdout


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PROFILE", "laptop", "Unknown profile 'laptop'"),
        ("MODEL", "gemma9", "Unknown model 'gemma9'"),
        ("MINUTES", "soon", "MINUTES='soon' is not a number"),
        ("RESUME", "yes", "Unknown RESUME 'yes'"),
    ],
)
def test_a_wrong_parameter_is_named_with_its_cell(name, value, message):
    with pytest.raises(ValueError, match=f"{message}.*the notebook's cell of parameters"):
        profiles.read_run({name: value}, "cpu")
