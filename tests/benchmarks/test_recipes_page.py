"""The page that shows recipes side by side."""

import json

import recipes


def run(before, after, auc=None):
    numbers = {"format": 1.0, "tokens": 40.0, "minutes": 3.0}
    return {"before": before, "after": after, "auc": auc, **numbers}


FOUND = {
    "judged": {"0": run(0.40, 0.60, 0.85), "1": run(0.42, 0.66, 0.87)},
    "judged_control": {"0": run(0.40, 0.41), "1": run(0.42, 0.40)},
}


def row(text, name):
    (line,) = (line for line in text.splitlines() if line.startswith(f"| `{name}`"))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_a_recipe_stands_beside_its_control_and_the_strongest_warm_start():
    text = recipes.page(FOUND, "a command")
    assert "strongest SFT alone, 0.7" in text
    seeds, before, after, gain, control, auc, minutes = row(text, "judged")
    assert seeds == "2"
    shown = [x.split(" ± ")[0] for x in (before, after, gain, control, auc)]
    assert shown == ["0.410", "0.630", "0.220", "-0.005", "0.860"]
    assert gain.endswith("± 0.254")  # two seeds: 12.7 standard errors
    assert minutes == "3.0"
    assert "`judged_control`" not in text


def test_what_was_not_run_is_a_dash():
    assert row(recipes.page({"judged": FOUND["judged"]}, "x"), "judged")[4] == "–"


def test_the_picture_is_drawn(tmp_path):
    recipes.plot(FOUND, tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 5_000


def test_a_finished_run_beside_earlier_numbers(tmp_path, monkeypatch, capsys):
    kept = tmp_path / "recipes.json"
    kept.write_text(json.dumps({"judged": {"0": FOUND["judged"]["0"]}}))
    monkeypatch.setattr(recipes, "NUMBERS", kept)
    folder = tmp_path / "judged-1"
    folder.mkdir()
    scores = {"accuracy": 0.5, "accuracy_lenient": 0.5, "format": 1.0, "mean_tokens": 40.0}
    stages = [
        {"name": "sft", "steps": 9, "seconds": 60},
        {"name": "grpo", "steps": 9, "seconds": 9},
    ]
    results = {"evaluation": dict.fromkeys(("stock", "after_sft", "after_grpo"), scores)}
    (folder / "results.json").write_text(json.dumps({**results, "stages": stages}))
    (folder / "stages.json").write_text("{}")
    assert recipes.main(["--as-is", "--with-earlier", "--out", str(tmp_path)]) == 0
    assert row(capsys.readouterr().out, "judged")[:2] == ["2", "0.450 ± 0.635"]
