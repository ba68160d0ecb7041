"""One group of each step of GRPO, kept and shown.

A group is the completions of one prompt. `groups.jsonl` has one for each step, the first whose
completions do not all earn the same.
"""

import html
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from submission.bench.show.report import coloured


class GroupLog:
    """Writes the groups of a run; a step that is made again is written again."""

    def __init__(self, path: pathlib.Path, size: int) -> None:
        """The log at a path, of groups of so many completions."""
        self.path, self.size = path, size

    def keep(
        self,
        step: int,
        prompts: Sequence[str],
        completions: Sequence[str],
        rewards: Sequence[float],
        advantages: Sequence[float],
    ) -> None:
        """Takes the completions of a step, group after group."""
        rewards_G = np.asarray(rewards, float).reshape(-1, self.size)
        first = int(np.argmax(np.ptp(rewards_G, axis=1) > 1e-6))
        group = slice(first * self.size, (first + 1) * self.size)
        line = {
            "step": step,
            "prompt": str(prompts[group.start]),
            "completions": [str(text) for text in completions[group]],
            "rewards": [float(x) for x in rewards[group]],
            "advantages": [float(x) for x in np.ravel(advantages)[group]],
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read_groups(path: pathlib.Path) -> list[dict[str, Any]]:
    """The groups by step; of a step that was made again, the last."""
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for _, line in sorted({line["step"]: line for line in lines}.items())]


def group_table(group: Mapping[str, Any], advantages: Sequence[float]) -> str:
    """A group as an HTML table, the completion with the highest reward first."""
    question = group["prompt"].split("user\n", 1)[-1].split("<end_of_turn>")[0]
    rows = zip(group["completions"], group["rewards"], advantages, strict=True)
    body = "".join(
        f"<tr><td style='text-align:left'>{coloured(text)}</td><td>{reward:.3f}</td>"
        f"<td>{advantage:+.2f}</td></tr>"
        for text, reward, advantage in sorted(rows, key=lambda row: -row[1])
    )
    head = (
        f"<th>step {group['step']}: {html.escape(question)}</th><th>reward</th><th>advantage</th>"
    )
    return f"<table><tr>{head}</tr>{body}</table>"
