"""The settings of further recipes: second models, and stages between SFT and GRPO."""

import dataclasses
from collections.abc import Mapping

from submission.bench.settings.config import Adapter, Optimizer, StockModel


@dataclasses.dataclass(frozen=True)
class Rubrics:
    """What a judge asks of a completion: lines and their weights, by domain.

    Raises:
      ValueError: a rubric has no line, or no weight above 0.
    """

    lines: Mapping[str, tuple[tuple[str, float], ...]]  # under "", for all other domains
    only_open: bool = False  # on rows that a checker decides, the judge is not asked
    line_tokens: int = 64  # of a line and what stands around it, at most
    rows: int = 64  # prompts at a time

    def __post_init__(self) -> None:
        for domain, lines in {"": (), **self.lines}.items():
            weights = [weight for _, weight in lines]
            if min(weights, default=-1.0) < 0 or not sum(weights):
                raise ValueError(
                    f"The rubric of {domain or 'all other domains'} has the weights {weights}: "
                    "give each of its lines one, none below 0 and not all of them 0."
                )

    def of(self, domain: str) -> tuple[tuple[str, float], ...]:
        """The lines that count for a domain."""
        return tuple(line for line in self.lines.get(domain, self.lines[""]) if line[1])


@dataclasses.dataclass(frozen=True)
class Helper:
    """A second model, which teaches or judges: a stock Gemma, with an adapter or without one."""

    model: StockModel
    adapter: Adapter | None = None
    step: str = ""  # folder of the saved step that holds the adapter
    rubrics: Rubrics | None = None  # of a judge
    chips: int = 0  # of its own, the last ones; 0: it takes turns with the policy on all


@dataclasses.dataclass(frozen=True)
class TraceModel:
    """A reward model of the trace: what it is trained on."""

    prompts: int = 1024  # of the rows of SFT
    generations: int = 4  # completions of each
    apart: float = 0.2  # share of the prompts that it is measured on, and not trained
    penalty: float = 0.01  # of the squared weights, per example
    shuffled: bool = False  # the control: labels at random


@dataclasses.dataclass(frozen=True)
class Pairs:
    """SimPO on the policy's own completions."""

    prompts: int  # that completions are sampled of
    steps: int  # updates
    pairs: int  # of an update
    save_every: int
    optimizer: Optimizer
    generations: int = 8
    beta: float = 2.0  # of the mean log-probability
    margin: float = 0.5  # by which the better one should lie above the other, times beta
    shuffled: bool = False  # the control: which of a pair is the better one, at random
