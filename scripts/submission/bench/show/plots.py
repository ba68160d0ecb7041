"""Plots.

They show the numbers of `metrics.jsonl` and `results.json`. Colours are Okabe and Ito's, which
colour-blind readers can tell apart; dashes and hatches do the same in grey.
"""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from submission.bench.show.evaluate import wilson
from submission.bench.show.pictures import show
from submission.bench.show.report import STAGE_TITLES

BLUE, ORANGE, GREEN, GREY, PINK = "#0072B2", "#E69F00", "#009E73", "#999999", "#CC79A7"
COLOURS = {"stock": GREY, "after_sft": ORANGE, "after_grpo": BLUE}
DASHES = ("-", "--", ":")
HATCHES = ("", "//", "xx", "..")

Lines = Sequence[Mapping[str, Any]]


def smooth(values: Sequence[float], window: int) -> np.ndarray:
    """Running mean over the last `window` values."""
    sums = np.cumsum([0.0, *values])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (sums[ends] - sums[starts]) / (ends - starts)


def series(lines: Lines, name: str) -> tuple[list[int], np.ndarray]:
    """Steps and values of a metric, where it was measured."""
    found = [(line["step"], line[name]) for line in lines if name in line]
    return [step for step, _ in found], np.array([value for _, value in found], float)


def draw_curves(axis: Any, lines: Lines, names: Mapping[str, str]) -> None:
    """A pale line for what was measured, and a strong one for its running mean."""
    for (name, label), colour, dash in zip(
        names.items(),
        itertools.cycle((BLUE, ORANGE, GREEN, PINK)),
        itertools.cycle(DASHES),
        strict=False,
    ):
        steps, values = series(lines, name)
        if steps:
            axis.plot(steps, values, color=colour, alpha=0.25, linewidth=1)
            running = smooth(values, max(1, len(values) // 20))
            axis.plot(steps, running, dash, color=colour, label=label)
    if len(names) > 1 and axis.lines:
        axis.legend(fontsize=8, ncols=len(names), loc="upper center")


def draw_stack(axis: Any, lines: Lines, names: Mapping[str, str]) -> None:
    """Running means on top of each other; what is missing in a line counts as 0."""
    if not lines:
        return
    steps = [line["step"] for line in lines]
    window = max(1, len(steps) // 20)
    found = {
        label: smooth([line.get(name, 0.0) for line in lines], window)
        for name, label in names.items()
    }
    found = {label: values for label, values in found.items() if values.any()}
    if not found:  # nothing was earned
        return
    areas = axis.stackplot(steps, *found.values(), labels=list(found), edgecolor="black",
                           linewidth=0.3, colors=(BLUE, ORANGE, GREEN, PINK))  # fmt: skip
    for area, hatch in zip(areas, HATCHES, strict=False):
        area.set_hatch(hatch)
    tops = np.sum(list(found.values()), axis=0)
    axis.set_ylim(0, 1.4 * np.percentile(tops, 95))  # room for the legend; outliers are cut off
    axis.legend(fontsize=8, ncols=len(found), loc="upper center")


def plot_sft(lines: Lines, path: pathlib.Path) -> None:
    """The learning curve of the warm start; nothing where a recipe has none."""
    if not lines:
        return
    figure, axis = plt.subplots(figsize=(10, 2.6), layout="constrained")
    draw_curves(axis, lines, {"loss": "loss"})
    axis.set(xlabel="step of SFT", ylabel="loss, nats per token")
    axis.grid(alpha=0.3)
    show(figure, path)


def plot_grpo(lines: Lines, path: pathlib.Path) -> None:
    """The learning curves of GRPO; nothing where a recipe has none."""
    if not lines:
        return
    figure, axes = plt.subplots(3, 2, figsize=(10, 8), layout="constrained")
    parts = {"in_format": "format", "right": "right answer", "length": "length", "open": "open"}
    draw_stack(axes[0, 0], lines, {f"from_{name}": label for name, label in parts.items()})
    axes[0, 0].set(title="the reward and what it is made of", ylabel="mean reward")
    shares = {"in_format": "in format", "right": "right"}
    draw_curves(axes[0, 1], lines, shares)
    axes[0, 1].set(title="sampled completions", ylabel="share", ylim=(-0.02, 1.25))
    draw_curves(axes[1, 0], lines, {"flat_groups": "flat groups"})
    axes[1, 0].set(title="groups that are flat", ylabel="share", ylim=(-0.02, 1.02))
    draw_curves(axes[1, 1], lines, {"tokens": "tokens"})
    axes[1, 1].set(title="length of a completion", ylabel="tokens, mean")
    draw_curves(axes[2, 0], lines, {"kl": "KL from the warm start", "entropy": "entropy"})
    axes[2, 0].set(title="KL and entropy", ylabel="nats per token")
    kinds = {"rollout": "rollout", "reward": "rewards", "update": "reference, update, save"}
    kinds = {f"{name}_seconds": label for name, label in kinds.items()}
    draw_stack(axes[2, 1], lines[1:], kinds)  # the first one compiles
    axes[2, 1].set(title="where the time of a step goes", ylabel="seconds")
    for axis in axes.flat:
        axis.set_xlabel("step of GRPO")
        axis.grid(alpha=0.3)
    show(figure, path)


def plot_kinds(lines: Lines, path: pathlib.Path) -> None:
    """How often a sampled completion was right, by kind of answer and step; nothing without any."""
    if not lines:
        return
    start = "right_"
    kinds = sorted({name for line in lines for name in line if name.startswith(start)})
    figure, axis = plt.subplots(figsize=(10, 2.2), layout="constrained")
    draw_curves(axis, lines, {name: name.removeprefix(start) for name in kinds})
    axis.set(xlabel="step of GRPO", ylabel="right, share", ylim=(-0.02, 1.3))
    axis.grid(alpha=0.3)
    show(figure, path)


def plot_before_after(results: Mapping[str, Any], path: pathlib.Path) -> None:
    """Format and accuracy of the three stages with 95 % intervals, all rows and by domain.

    By domain it is the lenient accuracy: the strict one of stock Gemma is 0 everywhere.
    """
    stages = results["evaluation"]
    groups = [("format", None, "format"), ("accuracy", None, "accuracy")]
    groups += [("lenient\naccuracy", None, "accuracy_lenient")]
    groups += [(name, name, "accuracy_lenient") for name in stages["stock"]["by_domain"]]
    figure, axis = plt.subplots(figsize=(10, 3.4), layout="constrained")
    for i, (name, title) in enumerate(STAGE_TITLES.items()):
        heights, lows, highs = [], [], []
        for _, domain, field in groups:
            row = stages[name]["by_domain"][domain] if domain else stages[name]
            low, high = wilson(round(row[field] * row["n"]), row["n"])
            heights.append(row[field])
            lows.append(max(0.0, row[field] - low))
            highs.append(max(0.0, high - row[field]))
        axis.bar(
            np.arange(len(groups)) + 0.27 * (i - 1),
            heights,
            0.25,
            yerr=(lows, highs),
            capsize=2,
            color=COLOURS[name],
            edgecolor="black",
            linewidth=0.5,
            hatch=HATCHES[i],
            label=title,
        )
    axis.set_xticks(np.arange(len(groups)), [label for label, _, _ in groups])
    axis.axvline(2.5, color="black", linewidth=0.8, linestyle=":")
    axis.set_ylim(0, 1.05)
    axis.set_ylabel("share of held-out rows")
    axis.set_title("Right of the dotted line: lenient accuracy by domain", fontsize=10)
    figure.legend(fontsize=9, ncols=3, loc="outside upper center")
    axis.grid(axis="y", alpha=0.3)
    show(figure, path)
