"""When GRPO collapses.

A policy can collapse: it forgets the format, writes until it is cut off, says the same to
everything, or runs away from the warm start. The completions of a step are sampled before
anything is learned from them, so their means tell in time. Each sign has two limits. Beyond
the first there is a warning. Beyond the second the stage goes back to its last good save and on
from there at half the learning rate; when that has not helped twice, it ends there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from submission.bench.settings.config import Guards


def running_means(history: Sequence[Mapping[str, Any]], name: str, window: int) -> list[float]:
    """Means of a metric over each run of `window` lines that have it.

    >>> running_means([{"kl": 1.0}, {"kl": 3.0}, {}, {"kl": 5.0}], "kl", 2)
    [2.0, 4.0]
    """
    values = [line[name] for line in history if name in line]
    return [float(np.mean(values[i : i + window])) for i in range(len(values) - window + 1)]


def sampled_reward(
    history: Sequence[Mapping[str, Any]], guards: Guards
) -> tuple[float, float] | None:
    """Mean reward of the last steps and its standard error; None as long as they are too few.

    >>> sampled_reward([{"reward": 0.25}, {"reward": 0.75}], Guards(window=2))
    (0.5, 0.25)
    """
    rewards = [line["reward"] for line in history if "reward" in line][-guards.window :]
    if len(rewards) < guards.window:
        return None
    return float(np.mean(rewards)), float(np.sqrt(np.var(rewards, ddof=1) / len(rewards)))


def signs_of_collapse(
    history: Sequence[Mapping[str, Any]], guards: Guards, most_tokens: int
) -> tuple[list[str], bool]:
    """What is wrong with the last steps, in words, and whether any of it is past its limit.

    Args:
      history: lines of the log, since the start of the stage or its last return.
      guards: the limits.
      most_tokens: the longest completion there can be.
    """
    found: list[tuple[str, float, float, float]] = []  # text, value, warning, limit; more is worse

    def look(name: str, text: str, value: Any, limits: tuple[float, float]) -> None:
        if means := running_means(history, name, guards.window):
            found.append((f"{text} ({name} {means[-1]:.3g})", value(means), *limits))

    look("in_format", "the format is being forgotten", lambda m: (max(m) - m[-1]) / max(0.1, *m),
         guards.format_lost)  # fmt: skip
    look("tokens", "completions run into their limit", lambda m: m[-1] / most_tokens,
         guards.length)  # fmt: skip
    look("entropy", "it says the same to everything", lambda m: 1 - m[-1] / max(1e-6, m[0]),
         guards.entropy_lost)  # fmt: skip
    look("kl", "it runs away from the warm start", lambda m: m[-1], guards.kl)
    signs = [text for text, value, warning, _ in found if value > warning]
    return signs, any(value > limit for _, value, _, limit in found)
