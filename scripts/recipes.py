"""The recipes side by side: whole runs of the notebook, each beside its control.

    python scripts/recipes.py [--recipes NAME ...] [--seeds 0 1 2] [--out DIR] [--as-is] [--write]

Runs what is missing in DIR (by default `outputs/recipes`) on the tiny profile, one after the
other, and prints the table; with `--as-is` it runs nothing, and shows all that there is.
`--with-earlier` counts the numbers in `data/recipes.json` as done. `--write` puts the table, with
a picture and the numbers, into `data/`.
"""

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from ablate import NUMBERS as ABLATIONS

from submission.bench.run.statistics import mean_and_interval, plus_minus
from submission.essay.recipes import CHOSEN_WHEN, RECIPES

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE, PLOT = ROOT / "data" / "recipes.md", ROOT / "data" / "recipes.png"
NUMBERS = ROOT / "data" / "recipes.json"
CONTROL = "_control"  # behind a recipe's name
Found = Mapping[str, Mapping[str, Mapping[str, Any]]]  # by recipe and seed


def run_recipe(recipe: str, seed: int, out: pathlib.Path) -> bool:
    """Runs the recipe's notebook, or goes on with it; was it brought to its end?"""
    folder = out / f"{recipe}-{seed}"
    if (folder / "results.json").exists():
        return True
    asked = ["--profile", "tiny", "--recipe", recipe, "--seed", str(seed)]
    command = [sys.executable, str(ROOT / "scripts" / "run_notebook.py"), *asked]
    command += ["--out", str(folder), "--resume"]
    environment = dict(os.environ)
    if RECIPES[recipe].continues:
        environment["START_FROM"] = str(out / f"{begun_by(recipe)}-{seed}")
    with (out / f"{recipe}-{seed}.log").open("w") as log:
        told = {"stdout": log, "stderr": subprocess.STDOUT, "cwd": ROOT, "env": environment}
        return not subprocess.call(command, **told)


def begun_by(recipe: str) -> str:
    """The recipe that another one goes on from."""
    return recipe.removesuffix("_continue")


def numbers_of(folder: pathlib.Path) -> dict[str, Any]:
    """What the table needs of a run."""
    results = json.loads((folder / "results.json").read_text())
    found = results["evaluation"]
    stages = json.loads((folder / "stages.json").read_text())
    taught = [stage["name"] for stage in results["stages"] if stage["steps"]]
    # Of SFT alone, what is won is won over the stock model.
    first = found["after_sft"]["accuracy"], found["stock"]["accuracy_lenient"]
    return {
        "before": first[taught == ["sft"]],
        "after": found["after_grpo"]["accuracy"],
        "format": found["after_grpo"]["format"],
        "tokens": found["after_grpo"]["mean_tokens"],
        "minutes": round(sum(stage["seconds"] for stage in results["stages"]) / 60, 1),
        "auc": next((stage["auc"] for stage in stages.values() if "auc" in stage), None),
    }


def runs_in(out: pathlib.Path, recipe: str) -> dict[str, dict[str, Any]]:
    """The numbers of a recipe's finished runs, by seed; one that goes on began as another ended."""
    found = {}
    for path in out.glob(f"{recipe}-*/results.json"):
        seed = path.parent.name.removeprefix(f"{recipe}-")
        found[seed] = numbers_of(path.parent)
        earlier = out / f"{begun_by(recipe)}-{seed}"
        if earlier != path.parent and (earlier / "results.json").exists():
            found[seed]["before"] = numbers_of(earlier)["after"]
    return found


def told(found: Found, recipe: str, value: Any) -> str:
    """The mean of a number over a recipe's seeds, with half of its interval; a dash without any."""
    runs = [value(run) for run in found.get(recipe, {}).values()]
    runs = [run for run in runs if run is not None]
    if not runs:
        return "–"
    mean, half = mean_and_interval(runs)
    return f"{mean:.3f}{plus_minus(half)}"


def gain(run: Mapping[str, Any]) -> float:
    """What a run has won over its own warm start."""
    return run["after"] - run["before"]


def strongest(line: str) -> str:
    """The mean accuracy of a line of the ablations, with half of its interval."""
    jobs = json.loads(ABLATIONS.read_text()).values()
    mean, half = mean_and_interval([job[line]["accuracy"] for job in jobs if line in job])
    return f"{mean:.3f}{plus_minus(half)}"


def page(found: Found, command: str) -> str:
    """The page, as Markdown."""
    lines = [
        "# Recipes side by side",
        "",
        f"By `{command}`, {datetime.date.today()}: whole runs of each recipe's notebook on the "
        "tiny profile, 600 held-out rows, greedy. Means over seeds; ± is half of a 95 % interval "
        "over them (Student's t). *Gain* is over the recipe's own warm start; of SFT alone, over "
        "the stock model, leniently; of `zero_cost_continue` over the run "
        "that it goes on from. *Control* is the gain of the same run without what is its own, "
        "which its [chapter](../README.md#further-recipes) names. *AUC* is how well its model "
        "tells right from wrong traces that it has not seen. What to beat is the strongest SFT "
        f"alone, {strongest('sft_only_best')}, and GRPO on it, {strongest('best')} "
        "([ablations](ablations.md)).",
        "",
        "| recipe | seeds | warm start | at the end | gain | control | AUC | minutes of training |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in (name for name in found if not name.endswith(CONTROL)):
        cells = [
            f"`{name}`: {RECIPES[name].about}", str(len(found[name])),
            *(told(found, name, lambda run, key=key: run[key]) for key in ("before", "after")),
            told(found, name, gain), told(found, name + CONTROL, gain),
            told(found, name, lambda run: run["auc"]),
            f"{np.mean([run['minutes'] for run in found[name].values()]):.1f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "![Gains, controls and their seeds](recipes.png)", "", "## When to choose it", ""]
    lines += [f"- `{name}`: {CHOSEN_WHEN[name]}" for name in found if name in CHOSEN_WHEN]
    return "\n".join(lines) + "\n"


def plot(found: Found, path: pathlib.Path) -> None:
    """Gains over the warm start, a ring for each seed, the controls in grey."""
    names = [name for name in found if not name.endswith(CONTROL)][::-1]
    figure, axis = plt.subplots(figsize=(9, 0.45 * len(names) + 0.9), layout="constrained")
    for suffix, colour, label in (("", "#0072B2", "recipe"), (CONTROL, "#999999", "its control")):
        for height, name in enumerate(names):
            values = [gain(run) for run in found.get(name + suffix, {}).values()]
            shown = label if height == 0 else None
            axis.plot(values, [height] * len(values), "o", color=colour, markerfacecolor="none",
                      label=shown)  # fmt: skip
            if values:
                axis.plot(np.mean(values), height, "|", color=colour, markersize=16,
                          markeredgewidth=2)  # fmt: skip
    axis.axvline(0, color="black", linewidth=0.8, linestyle=":")
    axis.set_yticks(range(len(names)), names)
    axis.margins(y=0.25)
    axis.set_xlabel("gain in accuracy over the warm start (ring: a seed; bar: their mean)")
    axis.legend(fontsize=8, loc="lower right")
    axis.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=67)
    plt.close(figure)


def main(arguments: Sequence[str]) -> int:
    """Runs what is missing; 0 only if all of it is there."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    measured = [name for name in RECIPES if name in CHOSEN_WHEN or name.endswith(CONTROL)]
    parser.add_argument("--recipes", nargs="+", choices=measured, default=measured)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "outputs" / "recipes")
    parser.add_argument("--as-is", action="store_true", help="show what is there, run nothing")
    parser.add_argument("--with-earlier", action="store_true", help=f"take over {NUMBERS.name}")
    parser.add_argument("--write", action="store_true", help="put page and picture into data/")
    options = parser.parse_args(arguments)
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    kept = json.loads(NUMBERS.read_text()) if options.with_earlier else {}
    failed = []
    for seed in options.seeds:
        for recipe in () if options.as_is else options.recipes:
            if str(seed) not in kept.get(recipe, {}) and not run_recipe(recipe, seed, out):
                failed.append(f"{recipe}, seed {seed}, failed: see {out}/{recipe}-{seed}.log")
    found = {}
    for recipe in measured:
        runs = kept.get(recipe, {}) | runs_in(out, recipe)
        if runs and (recipe in options.recipes or options.with_earlier):
            found[recipe] = dict(sorted(runs.items()))
    shown = [x for x in arguments if x not in ("--out", str(options.out), "--as-is")]
    text = page(found, " ".join(["python scripts/recipes.py", *shown]))
    print(text)
    if options.write:
        PAGE.write_text(text)
        NUMBERS.write_text(json.dumps(found, indent=1) + "\n")
        plot(found, PLOT)
    print(*failed, sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
