"""Keeps what a run of the profile `small` came to, in `data/small_run/`.

    bash scripts/run.sh --profile small --out outputs_small
    python scripts/keep_small_run.py outputs_small

`seed-S.json` is the run's `results.json`, and with it how it was made, the curves of GRPO, and
twenty bundled rows at equal distances, with what the model said at each stage. `README.md`
and `curves.png` are made anew from all such files.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from machine import processor

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEPT = ROOT / "data" / "small_run"
SAMPLES = 20
CURVES = ("right", "in_format", "flat_groups", "tokens", "entropy")
STAGES = ("stock", "after_sft", "after_grpo")


def samples(folder: pathlib.Path) -> list[dict[str, str]]:
    """Bundled rows at equal distances, with what was said at each stage; others' are not ours."""
    lines = (ROOT / "data" / "held_out.jsonl").read_text().splitlines()
    bundled = {json.loads(line)["question"] for line in lines}
    said = {
        stage: json.loads((folder / "answers" / f"{stage}.json").read_text())["answers"]
        for stage in STAGES
    }
    rows = [i for i, row in enumerate(said["stock"]) if row["question"] in bundled]
    return [
        {"question": said["stock"][i]["question"]}
        | {stage: answers[i]["completion"] for stage, answers in said.items()}
        for i in rows[:: max(1, len(rows) // SAMPLES)][:SAMPLES]
    ]


def kept(folder: pathlib.Path, options: str = "", machine: str = "") -> dict[str, Any]:
    """What `seed-S.json` holds of a run, made with further options of `run.sh` on a machine.

    Raises:
      FileNotFoundError: the run has not ended.
      ValueError: it is a run of another profile.
    """
    results = json.loads((folder / "results.json").read_text())
    if results["profile"] != "small":
        raise ValueError(f"{folder} holds a run of the profile {results['profile']!r}")
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    steps = [line for line in lines if line["stage"] == "grpo"]
    ended = (folder / "results.json").stat().st_mtime
    command = f"bash scripts/run.sh --profile small --recipe {results['recipe']}"
    return results | {
        "made": {
            "command": f"{command} --seed {results['seed']} {options}".strip(),
            "machine": machine or f"{os.cpu_count()} cores, {processor()}",
            "date": datetime.datetime.fromtimestamp(ended, datetime.UTC).date().isoformat(),
        },
        "curves": {name: [round(line[name], 4) for line in steps] for name in CURVES},
        "samples": samples(folder),
    }


def table(run: Mapping[str, Any]) -> str:
    """Format and accuracy by stage and domain; the plain question read leniently for stock."""
    stages = [run["evaluation"][name] for name in STAGES]
    lines = [
        "| | n | stock, plain question, lenient | after SFT | after GRPO |",
        "|---|---|---|---|---|",
    ]
    formats = " | ".join(f"{stage['format']:.3f}" for stage in stages)
    lines.append(f"| all rows, in the format | {stages[0]['n']} | {formats} |")
    for domain in (None, *stages[0]["by_domain"]):
        stock, sft, grpo = (stage["by_domain"][domain] if domain else stage for stage in stages)
        low, high = grpo["accuracy_ci95"]
        lines.append(
            f"| {domain or 'all rows, right'} | {grpo['n']} | {stock['accuracy_lenient']:.3f} "
            f"| {sft['accuracy']:.3f} | {grpo['accuracy']:.3f} ({low:.3f} to {high:.3f}) |"
        )
    return "\n".join(lines)


def page(runs: Sequence[Mapping[str, Any]]) -> str:
    """`README.md`: the tables, and the first run's samples."""
    parts = [
        "# Gemma 3 270M through the notebook",
        "Written by `scripts/keep_small_run.py`. *math*, *logic* and *other* are the bundled rows; "
        "the rest are the first rows of public test splits, from which nothing is learned.",
        "![Shares of sampled completions by step of GRPO](curves.png)",
    ]
    for run in runs:
        made = run["made"]
        parts += [
            f"## Seed {run['seed']}",
            f"`{made['command']}`: {run['wall_seconds'] / 60:.0f} minutes, {made['machine']}, "
            f"{made['date']}.",
            table(run),
        ]
        if below := run["stock_plain"]["below"]:
            parts.append(
                f"Below the stock model's answers to the plain question: {', '.join(below)}."
            )
    parts += ["## Samples", f"Bundled rows of seed {runs[0]['seed']} at equal distances."]
    for sample in runs[0]["samples"]:
        said = [f"{stage}: {sample[stage]}" for stage in STAGES]
        parts.append("\n".join(("```text", sample["question"], *said, "```")))
    return "\n\n".join(parts) + "\n"


def draw(runs: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
    """The curves of all runs."""
    import matplotlib.pyplot as plt

    from submission.bench.show.plots import BLUE, GREEN, ORANGE, smooth

    names = {"right": "right", "flat_groups": "flat groups", "entropy": "entropy, nats per token"}
    figure, axis = plt.subplots(figsize=(8, 3), layout="constrained")
    for run in runs:
        for (name, label), colour in zip(names.items(), (BLUE, ORANGE, GREEN), strict=True):
            values = run["curves"][name]
            told = label if run is runs[0] else None
            axis.plot(range(1, len(values) + 1), smooth(values, 10), color=colour, label=told)
    axis.set(xlabel="step of GRPO", ylabel="mean of ten steps", ylim=(0, 1.02))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, ncols=3)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main() -> None:
    """Keeps a run, and makes page and picture anew."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path, help="where the run left its files")
    parser.add_argument("--options", default="", help='further ones of run.sh: "--minutes 130"')
    parser.add_argument("--machine", default="", help="what it ran on; default: this one")
    parser.add_argument("--to", type=pathlib.Path, default=KEPT, help="default: data/small_run")
    options = parser.parse_args()
    try:
        run = kept(options.folder, options.options, options.machine)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    options.to.mkdir(parents=True, exist_ok=True)
    file = options.to / f"seed-{run['seed']}.json"
    file.write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    runs = [json.loads(path.read_text()) for path in sorted(options.to.glob("seed-*.json"))]
    (options.to / "README.md").write_text(page(runs), encoding="utf-8")
    draw(runs, options.to / "curves.png")
    print(table(run))


if __name__ == "__main__":
    main()
