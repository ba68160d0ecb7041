"""The model card of a trained model: what it is, what it learned from, and how it did."""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from submission.bench.settings import config
from submission.bench.show import report
from submission.essay import profiles

NOT_MEASURED = "No results.json lies beside this checkpoint: it has not been evaluated."


def results_beside(step: pathlib.Path) -> dict[str, Any] | None:
    """The results of the run that a step belongs to; None if there are none."""
    path = step.resolve().parent.parent.parent / "results.json"
    return json.loads(path.read_text()) if path.exists() else None


def data_table(run: config.Run, results: Mapping[str, Any] | None = None) -> str:
    """What each stage read, or without results was to read, as Markdown."""
    asked = {"sft": run.sft_sources, "grpo": run.profile.grpo_sources,
             "held_out": run.profile.evaluation.sources}  # fmt: skip
    read = [(stage, s.location, s.licence) for stage, sources in asked.items() for s in sources]
    if results and "data" in results:
        read = [(row["stage"], row["location"], row["licence"]) for row in results["data"]]
    rows = []
    for stage, location, licence in read:
        title = {"sft": "SFT", "grpo": "GRPO", "held_out": "evaluation"}[stage]
        ours = location in (profiles.BUNDLED, "data/held_out.jsonl")
        rows.append((title, location, f"{licence}, made for this project" if ours else licence))
    # What limits the use of the model most stands first.
    rows.sort(key=lambda row: not re.search(r"NC|none|unstated", row[2], re.IGNORECASE))
    head = ["| stage | source | licence |", "|---|---|---|"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def recipe_table(run: config.Run) -> str:
    """The hyper-parameters, as Markdown."""
    profile, sft, grpo = run.profile, run.profile.sft, run.profile.grpo
    rows = {
        "adapter": f"LoRA, rank {profile.adapter.rank}, alpha {profile.adapter.alpha:g}",
        "SFT": f"{sft.steps} steps at most, {sft.rows} rows of {sft.shortest} tokens, or "
        f"fewer of up to {sft.length}, "
        f"peak rate {sft.optimizer.peak_rate:g}",
        "GRPO": f"{grpo.steps} steps at most, {grpo.prompts} prompts × {grpo.generations} "
        f"completions, peak rate {grpo.optimizer.peak_rate:g}, KL weight {grpo.beta:g}",
        "lengths": f"prompt {profile.lengths.prompt}, completion {profile.lengths.completion} "
        "tokens",
        "seed": run.seed,
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows.items())])


def model_card(run: config.Run, base: str, results: Mapping[str, Any] | None) -> str:
    """The card, as Markdown with the header that model hubs read."""
    licence, use = "apache-2.0", "The stock model is this project's own."
    if run.model.handle:
        licence = "gemma"
        use = "Use is subject to the [Gemma Terms of Use](https://ai.google.dev/gemma/terms)."
    return f"""---
license: {licence}
base_model: {base}
pipeline_tag: text-generation
language: en
tags: [lora, grpo, reasoning]
---

# {run.model.name}, taught to show its work

It answers one question with its reasoning first:
`<reasoning>…</reasoning><answer>…</answer>`. A LoRA adapter was warm-started on examples of the
format and then improved by GRPO with exact checkers, in Google's Tunix (recipe `{run.recipe}`).

The prompt is the chat template beside the tokenizer: one user turn, no system turn. Decode
greedily, up to `<eos>`.

## Scores

{NOT_MEASURED if results is None else report.results_table(results)}

## Data

{data_table(run, results)}

## Recipe

{recipe_table(run)}

## Limits

It was taught to answer single questions in English. Its traces can be wrong, and a right answer
does not prove that the trace led to it. {use}
"""
