# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# ### Which prompts are worth a group
#
# A group whose completions all earn the same teaches nothing. If a prompt succeeds with probability *p*, the variance of a right-or-wrong reward is *p*(1 − *p*): that is how much there is to learn from it. Nobody knows *p*, but the rewards of the run itself measure it, by cell (source, kind of answer, difficulty). `learnability` draws in proportion to it, with a floor, so that no cell is forgotten. `phases` draws easy rows first and hard ones last.

# %% tags=["modules-only"]
from submission.bench.rows.curriculum import WEIGHTINGS, Cell, CellState
from submission.bench.settings.config import Curriculum


# %%
def learnable(state: CellState, cell: Cell, settings: Curriculum, progress: float) -> float:
    """4 *p*(1 − *p*), but no less than the floor allows."""
    spread = 4 * state.success * (1 - state.success)
    return settings.floor + (1 - settings.floor) * spread


def in_phase(state: CellState, cell: Cell, settings: Curriculum, progress: float) -> float:
    """Easy rows in the first third of a stage, all but the hardest in the second, then all."""
    return float(cell[2] <= (0.34, 0.67, 1.0)[min(2, int(3 * progress))])


WEIGHTINGS.update(learnability=learnable, phases=in_phase)
