"""What is kept of a run on the real Gemma."""

import json

import keep_small_run
import pytest

from conftest import ROOT

ROWS = [json.loads(x) for x in (ROOT / "data" / "held_out.jsonl").read_text().splitlines()[:50]]
OTHERS = [{"question": f"Somebody else's question {i}?"} for i in range(30)]


def rates(right, n):
    return {"n": n, "format": 1.0, "accuracy": right, "accuracy_lenient": right,
            "accuracy_ci95": [right - 0.1, right + 0.1]}  # fmt: skip


def finished(folder, profile="small", seed=0):
    (folder / "answers").mkdir(parents=True)
    stages = dict(zip(keep_small_run.STAGES, (0.1, 0.5, 0.6), strict=True))
    for stage, right in stages.items():
        answers = [
            {"question": row["question"], "completion": f"{stage} says {right}"}
            for pair in zip(ROWS, OTHERS + OTHERS, strict=False)
            for row in pair
        ]
        (folder / "answers" / f"{stage}.json").write_text(json.dumps({"answers": answers}))
    evaluation = {
        stage: rates(right, 100) | {"by_domain": {"math": rates(right, 50), "arc": rates(0.2, 50)}}
        for stage, right in stages.items()
    }
    results = {"profile": profile, "recipe": "warm_start_grpo", "seed": seed, "wall_seconds": 99.0,
               "evaluation": evaluation, "stock_plain": {"below": ["arc"]}}  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results))
    steps = [{"stage": "grpo", "step": i} | dict.fromkeys(keep_small_run.CURVES, i / 9)
             for i in range(9)]  # fmt: skip
    lines = [{"stage": "sft", "step": 1, "loss": 2.0}, *steps]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


def keep(monkeypatch, folder, to):
    monkeypatch.setattr("sys.argv", ["keep_small_run.py", str(folder), "--to", str(to)])
    keep_small_run.main()


def test_it_keeps_the_results_as_they_are_and_twenty_bundled_rows(monkeypatch, tmp_path):
    for seed in (0, 1):
        keep(monkeypatch, finished(tmp_path / f"run{seed}", seed=seed), tmp_path / "kept")
    kept = json.loads((tmp_path / "kept" / "seed-1.json").read_text())
    results = json.loads((tmp_path / "run1" / "results.json").read_text())
    assert results.items() <= kept.items()
    assert kept["made"]["command"].endswith("--seed 1")
    assert len(kept["samples"]) == 20
    assert len(kept["curves"]["right"]) == 9
    page = (tmp_path / "kept" / "README.md").read_text()
    assert "Seed 0" in page
    assert "Seed 1" in page
    assert "| arc | 50 | 0.200 |" in page
    assert "question: arc." in page  # where it is below the stock model
    assert "Somebody else" not in page + json.dumps(kept)
    assert (tmp_path / "kept" / "curves.png").stat().st_size > 5000


def test_a_run_of_another_profile_or_without_an_end_is_refused(monkeypatch, tmp_path, capsys):
    for folder in (finished(tmp_path / "tiny", "tiny"), tmp_path / "nothing"):
        with pytest.raises(SystemExit):
            keep(monkeypatch, folder, tmp_path / "kept")
        assert str(folder) in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()
