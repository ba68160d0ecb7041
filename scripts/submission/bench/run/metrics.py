"""One line per step.

`StepLog` gathers the numbers of a step, writes them as one line of `metrics.jsonl`, and prints a
line of progress now and then. The numbers of an update are fetched from the device a step later,
so that nobody waits for them. A step whose loss or gradient is not finite changed nothing; it is
counted, and a few in a row stop the run: a dead run that looks alive is the worst of all.
"""

import collections
import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a log. One that was cut off by a kill is left out."""
    found = []
    if path.exists():
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            if isinstance(line, dict) and {"stage", "step", "seconds"} <= set(line):
                found.append(line)
    return found


def duration(seconds: float) -> str:
    """A time span for the reader.

    >>> duration(42), duration(754), duration(7290)
    ('42 s', '12:34 min', '2:01 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds // 60:.0f}:{seconds % 60:02.0f} min"
    return f"{seconds // 3600:.0f}:{seconds % 3600 // 60:02.0f} h"


class StepLog:
    """The metrics of one stage, by step (counted from 1)."""

    MUST_BE_FINITE = ("loss", "grad_norm")
    SUMMED = ("step_tokens", "rollout_seconds", "reward_seconds")
    BY_TOKEN = ("kl", "entropy")  # means over the tokens of a pass, and passes differ in them
    LONGEST_SILENCE = 300.0  # seconds without a line of progress

    def __init__(
        self,
        path: pathlib.Path,
        stage: str,
        shown: Sequence[str],
        *,
        steps: int,
        start: int = 0,
        most_skipped: int = 5,
        lines: int = 8,
        listeners: Sequence[Callable[[dict[str, Any]], None]] = (),
        plan: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A log that goes on after step `start`; what the file has beyond it is dropped.

        `plan` has the seconds that a step and its parts should take, to be shown beside theirs.
        """
        self.path, self.stage, self.shown, self.plan = path, stage, shown, plan or {}
        self.most_skipped, self._every = most_skipped, max(1, steps // lines)
        self._clock, self._listeners = clock, listeners
        self._start = self._shown_at = clock()
        self._values: dict[int, dict[str, list[Any]]] = {}
        self._began: dict[int, float] = {}
        self._planned: dict[int, int] = {}
        self._ended: list[int] = []
        before = read_lines(path)
        self.history = [x for x in before if x["stage"] == stage and x["step"] <= start]
        others = [x for x in before if x["stage"] != stage]
        draft = path.with_suffix(".tmp")
        draft.write_text("".join(json.dumps(x) + "\n" for x in [*others, *self.history]))
        os.replace(draft, path)
        self.file = path.open("a", encoding="utf-8")

    @property
    def skipped(self) -> int:
        """How many steps were left out because they were not finite."""
        return sum("skipped" in line for line in self.history)

    def begin(self, step: int, planned: int) -> None:
        """A step begins; so many are planned now."""
        self._began[step], self._planned[step] = self._clock(), planned
        self._values[step] = collections.defaultdict(list)

    def add(self, step: int, **numbers: Any) -> None:
        """Takes numbers of a step that has begun; they may still be under way on a device.

        Of several by one name the line has the mean, or the sum where that is what is meant;
        `pass_tokens`, the tokens of each pass, weigh the means over tokens.
        """
        for name, number in numbers.items():
            self._values[step][name].append(number)

    def end(self, step: int) -> None:
        """A step is over. It is written when the next one is, or with `flush`."""
        self._ended.append(step)
        while len(self._ended) > 1:
            self._write(self._ended.pop(0))

    def flush(self) -> None:
        """Writes every step that is over.

        Raises:
          FloatingPointError: too many steps in a row were not finite.
        """
        while self._ended:
            self._write(self._ended.pop(0))

    def close(self) -> None:
        """Writes what is over; a step under way is dropped."""
        self.flush()
        self.file.close()

    def _write(self, step: int) -> None:
        found = jax.device_get(dict(self._values.pop(step)))
        tokens = found.pop("pass_tokens", None)
        values = {}
        for name, several in found.items():
            if tokens is not None and name in self.BY_TOKEN and not np.any(tokens):
                continue  # no pass has looked at any
            numbers = np.asarray(several, np.float64)
            weights = tokens if name in self.BY_TOKEN else None
            summed = name in self.SUMMED
            values[name] = float(numbers.sum() if summed else np.average(numbers, weights=weights))
        line: dict[str, Any] = {
            "stage": self.stage,
            "step": step,
            "seconds": round(self._began.get(step + 1, self._clock()) - self._began.pop(step), 3),
            **{name: value for name, value in values.items() if math.isfinite(value)},
        }
        if other := line.get("rollout_seconds", 0.0) + line.get("reward_seconds", 0.0):
            line["update_seconds"] = max(0.0, line["seconds"] - other)
        bad = [name for name in self.MUST_BE_FINITE if not math.isfinite(values.get(name, 0.0))]
        if bad:
            line["skipped"] = 1
        self.history.append(line)
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        for listener in self._listeners:
            listener(line)
        self._show(line, self._planned.pop(step))
        if bad:
            print(f"{self.stage} {step}: {' and '.join(bad)} not finite; the step was left out")
        last = self.history[-self.most_skipped :]
        if len(last) == self.most_skipped and all("skipped" in x for x in last):
            raise FloatingPointError(
                f"{self.stage}: {self.most_skipped} steps in a row up to {step} were not finite "
                f"({', '.join(bad)}). None of them changed anything: the checkpoints are good. "
                "Lower the learning rate of this stage in the configuration."
            )

    def _show(self, line: dict[str, Any], planned: int) -> None:
        step, now = line["step"], self._clock()
        is_due = step % self._every == 0 or step in (1, planned)
        if not is_due and now - self._shown_at < self.LONGEST_SILENCE:
            return
        self._shown_at = now
        numbers = [f"{name} {line[name]:.3g}" for name in self.shown if name in line]
        recent = self.history[1:][-20:] or self.history  # the first one compiles
        seconds = [x["seconds"] for x in recent]
        for name, planned in self.plan.items() if len(self.history) > 1 else ():
            took = np.median([x.get(f"{name}_seconds", x["seconds"]) for x in recent])
            numbers.append(f"{name} {took:.1f} s (planned {planned:.1f})")
        if "step_tokens" in line:
            tokens = sum(x.get("step_tokens", 0.0) for x in recent)
            numbers.append(f"{tokens / max(1e-9, sum(seconds)):,.0f} tokens/s")
        to_go = float(np.median(seconds)) * (planned - step)
        until = time.strftime("%H:%M", time.localtime(time.time() + to_go))
        print(
            f"{self.stage} {step:>4}/{planned}  {'  '.join(numbers)}  "
            f"({duration(now - self._start)}, {duration(to_go)} to go, until {until})",
            flush=True,
        )


class SilentBar:
    """Stands in for Tunix's progress bar: `StepLog` prints the progress."""

    def update(self, *arguments: Any, **keywords: Any) -> None:
        """Shows nothing."""

    update_metrics = close = update


def all_finite(tree: Any) -> bool:
    """Is every number of a tree of arrays finite?"""
    return all(bool(np.isfinite(np.asarray(x, np.float32)).all()) for x in jax.tree.leaves(tree))
