# %% [markdown]
# ### From easy to hard, with weights that move
#
# Easy prompts first, hard ones last; and while they get harder, a right answer comes to count for
# more and the form of the trace for less. Three parts of the reward go with it: `structure` (as
# many steps as the row is hard), `confidence` (right and sure pays best) and `brief`. To take
# something from every long completion or to add it to every short one is the same to a group's
# advantages, so `brief` adds.

# %%
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from IPython.display import Markdown

# %% tags=["modules-only"]
from submission.bench.answers.prompts import Completion, Example
from submission.bench.answers.scoring import EXTRA_PARTS, EXTRA_SETUPS, Context, Parts
from submission.bench.settings.config import Rewards, Run
from submission.essay.more_rewards import part_structure  # noqa: F401 - it is registered there
from submission.essay.recipes import ANNEALED
from submission.essay.rewards import components, total

# %%
BRIEF = 150  # tokens of a completion


def part_brief(
    completions: Sequence[Completion], examples: Sequence[Example], parts: Parts, context: Context,
    tokenizer: Any = None,
) -> list[float]:  # fmt: skip
    """1 where a completion in format has no more than 150 tokens; words without a tokenizer."""
    count = tokenizer.encode if tokenizer else str.split
    return [float(c.in_format and len(count(c.text)) <= BRIEF) for c in completions]


def count_tokens(context: Context, cluster: Any, tokenizer: Any, run: Run) -> None:
    """Lets the part `brief` count by the run's tokenizer."""
    EXTRA_PARTS["brief"] = functools.partial(part_brief, tokenizer=tokenizer)


EXTRA_PARTS["brief"], EXTRA_SETUPS["brief"] = part_brief, count_tokens


def means_by_phase(history: Sequence[Mapping[str, Any]], borders: Sequence[float]) -> dict:
    """Mean reward, format, accuracy and length of the samples, in each phase of the stage.

    >>> means_by_phase([{"reward": 0.0}, {"reward": 1.0}, {"reward": 0.5}], (1 / 3, 2 / 3))["hard"]
    {'reward': 0.5}
    """
    edges = [round(border * len(history)) for border in (0.0, *borders, 1.0)]
    found = {}
    for phase, first, last in zip(("easy", "medium", "hard"), edges, edges[1:], strict=False):
        names = ("reward", "in_format", "right", "tokens")
        columns = {n: [x[n] for x in history[first:last] if n in x] for n in names}
        found[phase] = {n: round(float(np.mean(v)), 4) for n, v in columns.items() if v}
    return found


# %% [markdown]
# What four completions of one row earn: at the start, in the middle and at the end of the stage,
# without the stated confidence, and by the default's weights.

# %%
FOUR_COMPLETIONS = {
    "right, in steps, sure": "<reasoning>6*7=42. 42-2=40.\nConfidence: 90%</reasoning><answer>40</answer>",
    "right, nothing shown": "<reasoning>It should be 40.</reasoning><answer>40</answer>",
    "wrong, in steps, sure": "<reasoning>6*7=48. 48-2=46.\nConfidence: 90%</reasoning><answer>46</answer>",
    "right, out of format": "6*7=42. 42-2=40. The answer is 40.",
}  # fmt: skip


def table_of_rewards() -> str:
    """What each completion earns by each configuration, as Markdown."""
    weights = Rewards(**ANNEALED)
    silent = dataclasses.replace(weights, extras={**weights.extras, "confidence": 0.0})
    by = {"start": (weights, 0.0), "middle": (weights, 0.5), "end": (weights, 1.0),
          "end, no confidence": (silent, 1.0), "default": (Rewards(), 0.0)}  # fmt: skip
    lines = [f"| completion | {' | '.join(by)} |", "|---" * (1 + len(by)) + "|"]
    for name, text in FOUR_COMPLETIONS.items():
        earned = []
        for weights, progress in by.values():
            parts = components([""], [text], weights, answer=["40"], checker=["number"],
                               difficulty=[0.25])  # fmt: skip
            one = {part: values[0] for part, values in parts.items()}
            earned.append(f"{total(one, weights, progress):.3f}")
        lines.append(f"| {name} | {' | '.join(earned)} |")
    return "\n".join(lines)


Markdown(table_of_rewards())
