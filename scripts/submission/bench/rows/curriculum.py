"""Which prompts are worth a group.

A group whose completions all earn the same teaches nothing. If a prompt succeeds with
probability *p*, the variance of a right-or-wrong reward is *p*(1 − *p*): so much it could teach. (A
coin's throw that nothing can teach has as much.) Nobody knows *p*, but the rewards of the run
itself measure it. Prompts fall into **cells** (source, kind of answer, difficulty), and each cell
keeps a running success rate. How often a cell is drawn from is its share of the mixture, times a
weight: none (`uniform`), that variance (`learnability`), or 0 or 1 by its difficulty (`phases`).

Where an answer can be guessed, a wrong trace is often paid like a right one. Such rows, choices and
yes/no, can be given another weight (`guessed`), or none.
"""

import collections
import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from submission.bench.answers.prompts import Example
from submission.bench.settings.config import Curriculum, pick

Cell = tuple[str, str, float]
GUESSED = ("boolean", "choice")  # checkers of answers that a guess often meets


def cell_of(example: Example, source: str = "") -> Cell:
    """The cell of a row: its source, its checker and its difficulty in tenths.

    >>> cell_of(Example("6*7?", "42", "number", difficulty=0.33), "gsm8k")
    ('gsm8k', 'number', 0.3)
    """
    return source, example.checker, round(example.difficulty, 1)


@dataclasses.dataclass
class CellState:
    """The rows of a cell, in the shuffled order of the present epoch, and how they fare."""

    rows: Sequence[Example]
    share: float  # of the mixture
    success: float = 0.5  # unknown: worth trying
    taken: int = 0

    order: list[int] = dataclasses.field(default_factory=list)  # of the present epoch
    epoch: int = -1

    def next_row(self, seed: str) -> Example:
        """Epoch after epoch, each in its own order."""
        epoch, place = divmod(self.taken, len(self.rows))
        self.taken += 1
        if epoch != self.epoch:
            self.epoch, self.order = epoch, list(range(len(self.rows)))
            random.Random(f"{seed}/{epoch}").shuffle(self.order)
        return self.rows[self.order[place]]


def learnable(state: CellState, cell: Cell, settings: Curriculum, progress: float) -> float:
    """4 *p*(1 − *p*), but no less than the floor, so that no cell is forgotten."""
    spread = 4 * state.success * (1 - state.success)
    return settings.floor + (1 - settings.floor) * spread


def in_phase(state: CellState, cell: Cell, settings: Curriculum, progress: float) -> float:
    """Easy rows first; after the borders all but the hardest, and then all."""
    phase = sum(progress >= border for border in settings.borders)
    return float(cell[2] <= (0.34, 0.67, 1.0)[phase])


# What a cell's share is multiplied with, by the name of the curriculum.
WEIGHTINGS: dict[str, Callable[[CellState, Cell, Curriculum, float], float]] = {
    "uniform": lambda *_: 1.0,
    "learnability": learnable,
    "phases": in_phase,
}


class PromptSampler:
    """Draws the prompts of GRPO, and learns from their success which to draw next."""

    def __init__(
        self,
        groups: Mapping[str, Sequence[Example]],
        shares: Mapping[str, float],
        settings: Curriculum,
        seed: int,
    ) -> None:
        """Groups of rows by source, and the sources' shares of the mixture."""
        pick("curriculum", settings.kind, WEIGHTINGS)
        self.settings, self.seed, self.draws = settings, seed, 0
        rows: dict[Cell, list[Example]] = collections.defaultdict(list)
        for source, examples in groups.items():
            for example in examples:
                rows[cell_of(example, source)].append(example)
        self.cells = {
            cell: CellState(found, shares[cell[0]] * len(found) / len(groups[cell[0]]))
            for cell, found in sorted(rows.items())
        }
        # A question is its cell's, so that rewards find their way back.
        self.cell_of_question = {
            example.question: cell for cell, state in self.cells.items() for example in state.rows
        }

    def state(self) -> dict[str, Any]:
        """What a save has to keep: draws, and by cell how many were taken and how they fared."""
        cells = [[*cell, x.taken, x.success] for cell, x in self.cells.items()]
        return {"draws": self.draws, "cells": cells, "seed": self.seed}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a save, of this run or of an earlier one with the same rows.

        Raises:
          KeyError: the rows are others.
        """
        found = [(self.cells[tuple(x[:-2])], *x[-2:]) for x in state["cells"]]
        self.draws, self.seed = state["draws"], state["seed"]
        for cell, taken, success in found:
            cell.taken, cell.success = taken, success

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Goes on where the sampler of an earlier run was, so that the rows are fresh."""
        try:
            self.restore(state)
        except KeyError as error:
            print(f"The earlier run had other rows ({error}): these are drawn from the beginning.")

    def weight(self, cell: Cell, progress: float) -> float:
        """How often to draw from a cell, up to a factor."""
        state, settings = self.cells[cell], self.settings
        kind = settings.guessed if cell[1] in GUESSED else 1.0
        return state.share * kind * WEIGHTINGS[settings.kind](state, cell, settings, progress)

    def draw(self, count: int, progress: float) -> list[Example]:
        """The next `count` rows, no question twice among them if the cells allow it."""
        cells = list(self.cells)
        weights = [self.weight(cell, progress) for cell in cells]
        if not sum(weights):  # no row of this phase: all of them
            weights = [self.cells[cell].share for cell in cells]
        rng = random.Random(f"{self.seed}/draw {self.draws}")
        self.draws += 1
        drawn: dict[str, Example] = {}
        extra: list[Example] = []
        while len(drawn) + len(extra) < count:
            cell = rng.choices(cells, weights)[0]
            row = self.cells[cell].next_row(f"{self.seed}/{cell}")
            if row.question not in drawn:
                drawn[row.question] = row
            elif self.cells[cell].taken > 2 * len(self.cells[cell].rows) + count:
                extra.append(row)
        return [*drawn.values(), *extra]

    def record(self, questions: Sequence[str], success: Sequence[float]) -> None:
        """Takes the success (0 to 1) of completions into their cells' running rates."""
        by_cell: dict[Cell, list[float]] = collections.defaultdict(list)
        for question, value in zip(questions, success, strict=True):
            by_cell[self.cell_of_question[str(question)]].append(float(value))
        for cell, values in by_cell.items():
            keep = self.settings.memory ** len(values)
            state = self.cells[cell]
            state.success = keep * state.success + (1 - keep) * sum(values) / len(values)
