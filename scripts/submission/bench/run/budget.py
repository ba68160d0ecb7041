"""The clock.

A session is killed at its end, whatever it is doing. So there is one deadline, counted from where
the session began, and every stage gets a share of what is left. A stage is stopped in the only way
that Tunix knows: its iterator ends, and the trainer saves and returns.

The **progress** of a stage runs from 0 to 1. A stage that is limited by steps counts the steps.
One that is limited by time counts the steps that its time will hold, estimated anew at every step
from the last twenty. The learning rate and the weights of the reward follow the progress, so that
both reach their end in ten minutes as in nine hours.
"""

import collections
import contextlib
import dataclasses
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import psutil

from submission.bench.policy.hosts import gather, lead
from submission.bench.run.run_folder import RunFolder, read_json, write_json
from submission.bench.settings.config import Run

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Deadline:
    """A point in time after which no step may be begun; the clock can be a fake one."""

    end: float  # on `clock`, in seconds
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def after(cls, minutes: float, clock: Callable[[], float] = time.monotonic) -> "Deadline":
        """The deadline so many minutes from now."""
        return cls(clock() + 60 * minutes, clock)

    @property
    def left(self) -> float:
        """Seconds left; negative when it is too late."""
        return self.end - self.clock()

    def share(self, part: float) -> "Deadline":
        """The deadline of a stage that may use `part` of what is left."""
        return dataclasses.replace(self, end=self.clock() + part * max(0.0, self.left))

    def before(self, seconds: float) -> "Deadline":
        """The deadline of what has to end so many seconds earlier."""
        return dataclasses.replace(self, end=self.end - seconds)


def session_deadline(run: Run, folder: RunFolder, first_cell: float) -> Deadline:
    """The end of the session but for its upload, or that of the minutes asked for, if it is first.

    On Kaggle a session is as old as its first process, whatever its kernels have done since.
    Elsewhere a run that goes on by itself keeps the clock of its first start, which its folder
    remembers; `RESUME=1` gives it a new one.

    Args:
      run: has the minutes that were asked for.
      folder: of the run.
      first_cell: when the first cell ran, on the monotonic clock.

    Raises:
      RuntimeError: the time is over.
    """
    left = lead(lambda: _seconds_left(run, folder, first_cell), "the deadline")
    return Deadline(time.monotonic() + left)


def _seconds_left(run: Run, folder: RunFolder, first_cell: float) -> float:
    whole, now = 3600 * run.profile.hours, time.monotonic()
    session = whole - run.profile.upload_seconds
    asked, age = 60 * run.minutes if run.minutes else session, now - first_cell
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        started = time.time() - psutil.Process(1).create_time()
        if age < started < whole:  # an older one is not of this session
            print(f"The session began {(started - age) / 60:.0f} minutes before the first cell.")
            return min(asked - age, session - started)
        return asked - age
    clock = folder.path / "clock.json"
    began = time.time() - age
    if folder.goes_on and not run.resume:
        began = min(began, read_json(clock, {}).get("began", began))
        if (ago := time.time() - began) > asked:
            raise RuntimeError(
                f"The run in {folder.path} began {ago / 60:.0f} minutes ago, and its time is over. "
                "RESUME=1 goes on with a new clock, RESUME=0 starts anew."
            )
    write_json(clock, {"began": began})
    return began + asked - time.time()


def seconds_to_spare(most: float, typical: float) -> float:
    """How much longer than a typical step one may last; of short steps, nine more are enough."""
    return min(most, 9 * typical)


class Pace:
    """Which steps a stage makes, and how far it is with them.

    A step that would not end in time is not begun. It is taken to last as long as the longest of
    the last ones, and, where `spare` is given, that many seconds more than the typical one: what
    comes after the last stage cannot wait. Of short steps nine more are spare enough; and if one
    has been seen to last longer than typical, twice that is kept. The first step after a start
    compiles and is no measure, and what is typical, the median, is not known before two others;
    until then a step is taken to last `first` seconds.
    """

    RECENT, FEWEST = 20, 2

    def __init__(
        self,
        steps: int,
        deadline: Deadline,
        *,
        start: int = 0,
        first: float = 0.0,
        spare: float = 0.0,
        told_to_stop: Callable[[], bool] = lambda: False,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """Steps `start` to `steps` (counted from 0) under a deadline; `state` is from a save."""
        self.limit, self.deadline, self.start, self.spare = steps, deadline, start, spare
        self.first, self.told_to_stop = first, told_to_stop
        self.progress = 0.0  # of the step under way: 0 at the first, 1 at the last
        self.planned = steps  # how many steps there will be
        self.by_time = bool(state and state["by_time"])  # has time ever been the limit?
        self._next = float(state["next"]) if state else 0.0
        self.typical = 0.0  # seconds a step; 0: not known yet
        self.ended = ""  # why there was no further step, if it was not the last one

    def state(self) -> dict[str, Any]:
        """What a save has to keep."""
        return {"by_time": self.by_time, "next": self._next}

    def steps(self) -> Iterator[int]:
        """The numbers of the steps, counted from 0, for as long as the next one fits."""
        recent: collections.deque[float] = collections.deque(maxlen=self.RECENT)
        needed, before, worst = max(gather(self.first, "the clock")), None, 0.0
        for made, step in enumerate(range(self.start, self.limit)):
            left = min(gather(self.deadline.left, "the clock"))
            if before is not None and made != 1:
                recent.append(max(0.0, before - left))
                if len(recent) >= self.FEWEST:
                    self.typical = statistics.median(recent)
                    worst = max(worst, recent[-1] - self.typical)
                spare = max(seconds_to_spare(self.spare, self.typical), 2 * worst)
                spare = spare if self.spare else 0.0
                needed = max(max(recent), self.typical + spare)
            if self.told_to_stop():
                self.ended = self.ended or "it was told to stop"
                return
            if left <= 0 or left < needed:
                self.ended = "its time is up"
                return
            self._plan(step, left - needed)
            before = left
            yield step

    def _plan(self, step: int, spare: float) -> None:
        """Works out `planned` and `progress`; `spare` seconds are left beside this step's."""
        remaining = self.limit - step
        if self.typical and (fit := 1 + int(spare / self.typical)) < remaining:
            self.by_time, remaining = True, fit
        self.planned = step + remaining
        if not self.by_time:
            self.progress = step / max(1, self.limit - 1)
        else:
            self.progress = 1.0 if remaining == 1 else max(self.progress, self._next)
        rest = (1 - self.progress) / max(1, remaining - 1)
        self._next = min(1.0, self.progress + rest)


def until(deadline: Deadline, items: Iterable[Item]) -> Iterator[Item]:
    """Hands items on for as long as one more, as slow as the slowest yet, would end in time.

    The first is always handed on.

    >>> now = iter(range(100))
    >>> list(until(Deadline(end=4, clock=lambda: next(now)), "abcdefgh"))
    ['a', 'b', 'c', 'd']
    """
    longest, last = 0.0, None
    for item in items:
        left = deadline.left
        if last is not None:
            longest = max(longest, last - left)
            if left < longest:
                return
        last = left
        yield item


# **Asked to stop.** SIGTERM and SIGINT end the stage under way after its step: it saves, and the
# run ends with an error that names the signal. A second signal does not wait.


class StoppedBySignalError(RuntimeError):
    """The run was asked to stop, and did so in good order."""


class StopRequest:
    """Whether this process has been asked to stop."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def of_any_host(self) -> bool:
        """Has one of the hosts been asked to stop? Then this one has."""
        asked = [number for number in gather(self.signal, "a request to stop") if number]
        self.signal = self.signal or next(iter(asked), None)
        return bool(self)

    def _note(self, number: int, _: Any) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        print(f"{signal.Signals(number).name}: the step under way is finished first", flush=True)

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Inside, a first signal is only noted. (Python lets the main thread alone hear any.)"""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Raises StoppedBySignalError if there has been a signal."""
        if self.signal is not None:
            name = signal.Signals(self.signal).name
            raise StoppedBySignalError(f"{name}: what was done is saved; RESUME=1 goes on from it")
