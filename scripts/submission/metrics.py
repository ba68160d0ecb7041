# %% [markdown]
# ### One line per step
#
# Tunix reports every number it knows to a logging backend, some of them one step late.
# `StepLog` gathers them by step, writes one line per step to `metrics.jsonl`, and prints a
# progress line now and then. A step whose loss or gradient is not finite stops the run: a
# dead run that looks alive is the worst of all.

# %%
import collections
import json
import math
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from tunix.sft import metrics_logger

Batch = TypeVar("Batch")


# %%
class StepLog:
    """The metrics of one stage, gathered by step."""

    MUST_BE_FINITE = ("loss", "grad_norm")

    def __init__(
        self,
        path: pathlib.Path,
        stage: str,
        steps: int,
        shown: tuple[str, ...],
        lines: int = 15,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path, self.stage, self.steps, self.shown = path, stage, steps, shown
        self._every = max(1, steps // lines)
        self._clock, self._start = clock, clock()
        self._open: dict[int, dict[str, float]] = collections.defaultdict(dict)
        self._began: dict[int, float] = {}
        self.history: list[dict[str, Any]] = []
        self.file = path.open("a", encoding="utf-8")

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Passes batches on and takes the time between them: one batch is one step."""
        step = 0
        for batch in batches:
            step += 1
            self._began[step] = self._clock()
            yield batch
        self._began[step + 1] = self._clock()

    def record(self, step: int, name: str, value: Any) -> None:
        """Takes one number of a step (counted from 1).

        Raises:
          FloatingPointError: a loss or gradient is not finite.
        """
        number = float(np.mean(np.asarray(value, dtype=np.float64)))
        if name in self.MUST_BE_FINITE and not math.isfinite(number):
            raise FloatingPointError(
                f"{self.stage}, step {step}: {name} is {number}. The last checkpoint is good; "
                "lower the learning rate of this stage in the configuration."
            )
        self._open[step][name] = number
        for earlier in sorted(s for s in self._open if s < step - 1):
            self._write(earlier)

    def _write(self, step: int) -> None:
        values = self._open.pop(step)
        end = self._began.get(step + 1, self._clock())
        seconds = round(end - self._began.get(step, self._start), 3)
        line = {"stage": self.stage, "step": step, "seconds": seconds, **values}
        self.history.append(line)
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        if step % self._every == 0 or step in (1, self.steps):
            numbers = "  ".join(
                f"{name} {values[name]:.3g}" for name in self.shown if name in values
            )
            elapsed = self._clock() - self._start
            print(f"{self.stage} {step:>4}/{self.steps}  {numbers}  ({elapsed:.0f} s)", flush=True)

    def close(self) -> None:
        """Writes what is still open."""
        for step in sorted(self._open):
            self._write(step)
        self.file.close()
        if len(self.history) < self.steps:
            done = f"{len(self.history)} of {self.steps} steps"
            print(f"{self.stage} stopped after {done}: its time is up")

    def logging_options(self, events: dict[str, tuple[str, int]]) -> Any:
        """Tunix's logging options with this log as the only backend.

        Args:
          events: the events to keep, as (our name, what to add to Tunix's step).
        """

        class Backend:
            """Receives every scalar that JAX and Tunix report; keeps those in `events`.

            It stays registered with JAX when its stage is over; from then on it is deaf.
            """

            def log_scalar(self, event: str, value: Any, **keywords: Any) -> None:
                if event in events and "step" in keywords and not log.file.closed:
                    name, offset = events[event]
                    log.record(keywords["step"] + offset, name, value)

            def close(self) -> None:
                pass

        log = self
        return metrics_logger.MetricsLoggerOptions(
            log_dir=str(self.path.parent), backend_kwargs={"custom_backend": [lambda: Backend()]}
        )


class SilentBar:
    """Stands in for Tunix's progress bar: `StepLog` prints the progress."""

    def update_metrics(self, *arguments: Any, **keywords: Any) -> None:
        """Shows nothing."""

    def update(self, n: int = 1) -> None:
        """Shows nothing."""

    def close(self) -> None:
        """Nothing to close."""


def total_seconds(history: list[dict[str, Any]]) -> float:
    """Seconds of all steps of a stage."""
    return round(sum(line["seconds"] for line in history), 1)


def all_finite(tree: Any) -> bool:
    """Is every number of a tree of arrays finite?"""
    return all(bool(np.isfinite(np.asarray(x, np.float32)).all()) for x in jax.tree.leaves(tree))
