# %% [markdown]
# ### Showing what happened
#
# Tables and plots show the numbers that also stand in `results.json` and `metrics.jsonl`.

# %%
import html
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

# %% tags=["modules-only"]
from submission.evaluate import Answered, wilson

# %% tags=["plumbing"]
STAGE_TITLES = {"stock": "stock", "after_sft": "after SFT", "after_grpo": "after GRPO"}
LINES = (("#0072B2", "-"), ("#E69F00", ":"), ("#009E73", "--"))
# Okabe and Ito's colours, told apart by colour-blind readers; markers tell them apart in grey.
COLOURS = {"stock": "#999999", "after_sft": "#E69F00", "after_grpo": "#0072B2"}


def results_table(results: Mapping[str, Any]) -> str:
    """The headline table, as Markdown."""
    lines = [
        f"Profile `{results['profile']}`, model `{results['model']}`, recipe "
        f"`{results['recipe']}`, seed {results['seed']}, "
        f"{results['wall_seconds'] / 60:.1f} minutes.",
        "",
        "| | n | format | accuracy (95 % interval) | lenient accuracy | stopped | tokens |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, title in STAGE_TITLES.items():
        row = results["evaluation"][name]
        low, high = row["accuracy_ci95"]
        lines.append(
            f"| {title} | {row['n']} | {row['format']:.3f} | {row['accuracy']:.3f} "
            f"({low:.3f} to {high:.3f}) | {row['accuracy_lenient']:.3f} | {row['stopped']:.3f} "
            f"| {row['mean_tokens']:.1f} |"
        )
    scores = [results["evaluation"][name].get("open_score_lenient") for name in STAGE_TITLES]
    if None not in scores:
        told = (f"{t} {s:.3f}" for t, s in zip(STAGE_TITLES.values(), scores, strict=True))
        lines += ["", f"Rows without a gold answer, lenient open score: {', '.join(told)}."]
    return "\n".join(lines)


def domain_table(results: Mapping[str, Any]) -> str:
    """Accuracy by domain, lenient for stock, as Markdown."""
    lines = ["| domain | n | stock (lenient) | after SFT | after GRPO |", "|---|---|---|---|---|"]
    stages = results["evaluation"]
    for domain, row in stages["after_grpo"]["by_domain"].items():
        stock, sft = (stages[s]["by_domain"][domain] for s in ("stock", "after_sft"))
        lines.append(
            f"| {domain} | {row['n']} | {stock['accuracy_lenient']:.3f} | {sft['accuracy']:.3f} "
            f"| {row['accuracy']:.3f} |"
        )
    for domain, row in stages["after_grpo"]["open_by_domain"].items():
        scores = (stages[s]["open_by_domain"][domain]["open_score_lenient"] for s in STAGE_TITLES)
        told = " | ".join(f"{score:.3f}" for score in scores)
        lines.append(f"| {domain} (open score, lenient) | {row['n']} | {told} |")
    return "\n".join(lines)


def samples_table(answers: Mapping[str, Sequence[Answered]], count: int) -> str:
    """The first `count` held-out rows, never chosen by hand, as an HTML table."""

    def cell(row: Answered) -> str:
        text = html.escape(row.completion.text[:300]).replace("\n", "↵")
        return f"{'✓' if row.right else '✗'} <code>{text}</code>"

    rows = zip(*(answers[name][:count] for name in STAGE_TITLES), strict=True)
    body = "".join(
        f"<tr><td>{html.escape(group[0].example.question)}<br><b>"
        f"{html.escape(group[0].example.answer)}</b></td>"
        + "".join(f"<td style='text-align:left'>{cell(row)}</td>" for row in group)
        + "</tr>"
        for group in rows
    )
    head = "".join(f"<th>{title}</th>" for title in ("question", *STAGE_TITLES.values()))
    return f"<table><tr>{head}</tr>{body}</table>"


def trace_lengths(answered: Sequence[Answered]) -> dict[str, float]:
    """How much work is shown: quartiles of the words in the traces that are in format."""
    words = [len(a.completion.reasoning.split()) for a in answered if a.completion.in_format]
    quartiles = np.percentile(words, [25, 50, 75]) if words else [0.0] * 3
    return dict(zip(("lower", "median", "upper"), map(float, quartiles), strict=True))


def smooth(values: Sequence[float], window: int) -> np.ndarray:
    """Running mean over the last `window` values."""
    sums = np.cumsum([0.0, *values])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (sums[ends] - sums[starts]) / (ends - starts)


def plot_learning(histories: Mapping[str, Sequence[Mapping[str, Any]]], path: pathlib.Path) -> None:
    """The learning curves of both stages: loss, reward and parts, flat groups, KL and entropy."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.5), layout="constrained")
    panels = (
        ("sft", "SFT: loss of the target, nats per token", ("loss",)),
        ("grpo", "GRPO: reward and its parts, mean of a step", ("reward", "in_format", "right")),
        ("grpo", "GRPO: share of groups that teach nothing", ("flat_groups",)),
        ("grpo", "GRPO: KL from the warm start and entropy, nats per token", ("kl", "entropy")),
    )
    for axis, (stage, title, names) in zip(axes.flat, panels, strict=True):
        lines = histories[stage]
        for name, (colour, dash) in zip(names, LINES, strict=False):
            points = [(line["step"], line[name]) for line in lines if name in line]
            if not points:
                continue
            steps, values = zip(*points, strict=True)
            window = max(1, len(values) // 20)
            axis.plot(steps, values, color=colour, alpha=0.25, linewidth=1)
            axis.plot(steps, smooth(values, window), dash, color=colour, label=name)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if len(names) > 1:
            axis.legend(fontsize=9)
    figure.savefig(path, dpi=120)
    plt.show()
    plt.close(figure)


def plot_before_after(results: Mapping[str, Any], path: pathlib.Path) -> None:
    """Format and accuracy of the three stages with 95 % intervals, all rows and by domain.

    By domain it is the lenient accuracy: the strict one of stock Gemma is 0 everywhere.
    """
    stages = results["evaluation"]
    groups = [("format", None, "format"), ("accuracy", None, "accuracy")]
    groups += [("lenient\naccuracy", None, "accuracy_lenient")]
    groups += [(name, name, "accuracy_lenient") for name in stages["stock"]["by_domain"]]
    figure, axis = plt.subplots(figsize=(10, 4), layout="constrained")
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
            hatch=("", "//", "xx")[i],
            label=title,
        )
    axis.set_xticks(np.arange(len(groups)), [label for label, _, _ in groups])
    axis.axvline(2.5, color="black", linewidth=0.8, linestyle=":")
    axis.set_ylim(0, 1.05)
    axis.set_ylabel("share of held-out rows")
    axis.set_title("Right of the dotted line: lenient accuracy by domain", fontsize=10)
    figure.legend(fontsize=9, ncols=3, loc="outside upper center")
    axis.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.show()
    plt.close(figure)
