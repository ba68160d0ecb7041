"""Tables.

They show the numbers that also stand in `results.json`, and what the model said.
"""

import collections
import html
from collections.abc import Mapping, Sequence
from typing import Any

from submission.bench.show.evaluate import Answered

STAGE_TITLES = {"stock": "stock", "after_sft": "after SFT", "after_grpo": "after GRPO"}


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
    idle = {f"after_{stage['name']}" for stage in results["stages"] if not stage["steps"]}
    for name, row in results["evaluation"].items():
        title = STAGE_TITLES.get(name, "an earlier save of GRPO")
        title += ", of which there was none" * (name in idle)
        low, high = row["accuracy_ci95"]
        lines.append(
            f"| {title} | {row['n']} | {row['format']:.3f} | {row['accuracy']:.3f} "
            f"({low:.3f} to {high:.3f}) | {row['accuracy_lenient']:.3f} | {row['stopped']:.3f} "
            f"| {row['mean_tokens']:.1f} |"
        )
    scores = [results["evaluation"][name].get("open_score_lenient") for name in STAGE_TITLES]
    if (submission := results.get("submission", "after_grpo")) != "after_grpo":
        told = STAGE_TITLES.get(submission, "the earlier save of GRPO")
        lines += ["", f"The last step was worse. What is submitted is {told}, saved again."]
    if None not in scores:
        told = (f"{t} {s:.3f}" for t, s in zip(STAGE_TITLES.values(), scores, strict=True))
        lines += ["", f"Rows without a gold answer, lenient open score: {', '.join(told)}."]
    return "\n".join(lines)


def kind_table(results: Mapping[str, Any]) -> str:
    """Accuracy by kind of answer, lenient for stock, as Markdown; of open ones, by domain."""
    head = "| kind of answer | n | stock (plain question, lenient) | after SFT | after GRPO |"
    lines = [head, "|---|---|---|---|---|"]
    stages = results["evaluation"]
    for kind, row in stages["after_grpo"]["by_kind"].items():
        stock, sft = (stages[s]["by_kind"][kind] for s in ("stock", "after_sft"))
        lines.append(
            f"| {kind} | {row['n']} | {stock['accuracy_lenient']:.3f} | {sft['accuracy']:.3f} "
            f"| {row['accuracy']:.3f} |"
        )
    for domain, row in stages["after_grpo"]["open_by_domain"].items():
        scores = (stages[s]["open_by_domain"][domain]["open_score_lenient"] for s in STAGE_TITLES)
        told = " | ".join(f"{score:.3f}" for score in scores)
        lines.append(f"| {domain} (open score, lenient) | {row['n']} | {told} |")
    if below := results["stock_plain"]["below"]:
        lines += ["", f"Below what stock Gemma answers to the plain question: {', '.join(below)}."]
    return "\n".join(lines)


def kind_of(row: Answered) -> str:
    """What became of an answer, in words."""
    if row.failed:
        return "could not be checked"
    if row.right:
        return "right, in format"
    if row.completion.in_format:
        return "wrong, in format"
    if not row.stopped:
        return "cut off before its end"
    return "right, but out of format" if row.right_leniently else "wrong and out of format"


def kinds_table(answers: Mapping[str, Sequence[Answered]]) -> str:
    """How many answers came out how, of the rows that can be checked, as Markdown."""
    counts = {
        name: collections.Counter(kind_of(row) for row in rows if row.example.checker != "open")
        for name, rows in answers.items()
    }
    kinds = sorted({kind for count in counts.values() for kind in count})
    titles = [STAGE_TITLES.get(name, "an earlier save") for name in answers]
    lines = [f"| | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for kind in kinds:
        lines.append(f"| {kind} | {' | '.join(str(count[kind]) for count in counts.values())} |")
    return "\n".join(lines)


COLOURS_OF_PARTS = {  # of a completion; text is black where nothing is marked
    "reasoning": "color:#0072B2",
    "answer": "color:#009E73;font-weight:bold",
}
MARKS = {  # sign and background of an answer, by its kind; of all others ✗
    "right, in format": ("✓", "#E2F3EC"),
    "right, but out of format": ("✓ out of format", "#FFF4D6"),
}


def coloured(text: str, longest: int = 300) -> str:
    """A completion as HTML: the trace blue, the answer green, the tags grey.

    >>> coloured("<answer>42</answer>").count("span")
    6
    """
    shown = html.escape(text[:longest] + ("…" if len(text) > longest else ""))
    for name, style in COLOURS_OF_PARTS.items():
        start, end = f"&lt;{name}&gt;", f"&lt;/{name}&gt;"
        shown = shown.replace(
            start, f"<span style='color:#999'>{start}</span><span style='{style}'>"
        )
        shown = shown.replace(end, f"</span><span style='color:#999'>{end}</span>")
    return shown.replace("\n", "↵")


def samples_table(answers: Mapping[str, Sequence[Answered]], count: int) -> str:
    """The first `count` held-out rows, never chosen by hand, as an HTML table."""

    def cell(row: Answered) -> str:
        sign, background = MARKS.get(kind_of(row), ("✗", "#FBE3DF"))
        text = coloured(row.completion.text)
        return f"<td style='text-align:left;background:{background}'>{sign} {text}</td>"

    rows = zip(*(answers[name][:count] for name in STAGE_TITLES), strict=True)
    body = "".join(
        f"<tr><td style='text-align:left'>{html.escape(group[0].example.question)}<br><b>"
        f"{html.escape(group[0].example.answer)}</b></td>{''.join(map(cell, group))}</tr>"
        for group in rows
    )
    head = "".join(f"<th>{title}</th>" for title in ("question", *STAGE_TITLES.values()))
    return f"<table><tr>{head}</tr>{body}</table>"


def wins_and_losses(
    answers: Mapping[str, Sequence[Answered]], before: str, after: str, count: int
) -> tuple[str, dict[str, list[Answered]]]:
    """What a stage has won and lost: both numbers in words, and the first rows of each."""
    pairs = list(enumerate(zip(answers[before], answers[after], strict=False)))
    won = [i for i, (old, new) in pairs if new.right and not old.right]
    lost = [i for i, (old, new) in pairs if old.right and not new.right]
    told = f"{len(won)} rows won, {len(lost)} lost; the first {count} of each:"
    chosen = [*won[:count], *lost[:count]]
    return told, {name: [answers[name][i] for i in chosen] for name in STAGE_TITLES}


def row_in_colour(prompt: str, target: str, end: str) -> str:
    """A prompt and the target behind it, as HTML."""
    shown = html.escape(prompt).replace("\n", "↵<br>")
    return f"<code>{shown}{coloured(target, 2_000)}<b>{html.escape(end)}</b></code>"


def domain_rows(mixtures: Mapping[str, Any]) -> str:
    """The first row of each domain, of whatever stage, as Markdown."""
    first: dict[str, Any] = {}
    for mixture in mixtures.values():
        for example in mixture.examples:
            first.setdefault(example.domain, example)
    lines = ["| domain | question | answer | checked as |", "|---|---|---|---|"]
    for domain, example in sorted(first.items()):
        question, answer = (text[:160].replace("\n", " ").replace("|", "/")
                            for text in (example.question, example.answer))  # fmt: skip
        lines.append(f"| {domain} | {question} | {answer} | {example.checker} |")
    return "\n".join(lines)
