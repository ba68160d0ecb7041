# %% [markdown]
# ### The clock
#
# A session is killed at its end, whatever it is doing. So there is one deadline, set when
# the notebook starts, and every stage gets a share of what is left. A stage is stopped in
# the only way that Tunix knows: its iterator ends, and the trainer saves and returns.

# %%
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


# %%
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


def until(deadline: Deadline, items: Iterable[Item]) -> Iterator[Item]:
    """Hands items on for as long as one more step is likely to end in time.

    A step is taken to last as long as the longest one so far. The first item is always
    handed on: Tunix fetches it before it starts.

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
