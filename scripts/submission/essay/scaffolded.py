# %% [markdown]
# ### A fixed outline
#
# Each trace that SFT shows stands in the same outline, and in GRPO two parts of the reward hold
# the policy to it: `outline` (its headings, all of them, in order, with something under each) and
# `teacher` (like the reference trace, beyond what the question says). Both pay only as far as the
# answer is worth something.

# %%
import functools
import re
from collections.abc import Sequence
from typing import Any

# %% tags=["modules-only"]
from submission.bench.answers.prompts import Completion, Example
from submission.bench.answers.scoring import EXTRA_PARTS, EXTRA_SETUPS, Context, Parts
from submission.bench.run.stages import REQUIREMENTS
from submission.bench.settings.config import Run
from submission.essay.more_rewards import times_worth


# %%
def headings_of(outline: str) -> list[str]:
    """What stands in every trace of an outline.

    >>> headings_of("Work: {trace} Check: {answer}.")
    ['Work:', 'Check:']
    """
    fixed = (part.strip() for part in re.split(r"\{\w+\}", outline))
    return [part for part in fixed if any(map(str.isalnum, part))]


def reward_outline(completion: Completion, example: Example, headings: Sequence[str]) -> float:
    """0 or 1: begins with the first heading, has all once and in order, and text after each.

    >>> said = Completion("", True, "Work: 6*7=42. Check: 42.", "42")
    >>> row = Example("6*7?", "42", "number")
    >>> [reward_outline(said, row, h) for h in (["Work:", "Check:"], ["Check:", "Work:"])]
    [1.0, 0.0]
    """
    trace = completion.reasoning.strip()
    if not headings or not trace.startswith(headings[0]):
        return 0.0
    if any(trace.count(heading) != 1 for heading in headings):
        return 0.0
    places = [trace.index(heading) for heading in headings]
    ends = [*places[1:], len(trace)]
    sections = [
        trace[place + len(heading) : end]
        for heading, place, end in zip(headings, places, ends, strict=True)
    ]
    return float(all(any(map(str.isalnum, section)) for section in sections))


def part_outline(
    completions: Sequence[Completion], examples: Sequence[Example], parts: Parts, context: Context,
    headings: Sequence[str] = (),
) -> list[float]:  # fmt: skip
    """`reward_outline`, as far as the answer is worth something."""
    score = functools.partial(reward_outline, headings=headings)
    return times_worth(score, completions, examples, parts)


def headings_of_run(run: Run) -> list[str]:
    """The headings that the run's warm start shows; none without an outline."""
    outlines = {source.outline for source in run.sft_sources}
    return headings_of(outlines.pop()) if len(outlines) == 1 else []


def require_outline(run: Run, tokenizer: Any) -> None:
    """Raises ValueError unless all rows of SFT have one outline, with headings."""
    if not headings_of_run(run):
        raise ValueError(
            "The reward part 'outline' needs one `outline` with headings, the same in each of the "
            f"SFT sources. They have: {sorted({source.outline for source in run.sft_sources})}."
        )


def know_headings(context: Context, cluster: Any, tokenizer: Any, run: Run) -> None:
    """Lets the part `outline` look for the run's headings."""
    EXTRA_PARTS["outline"] = functools.partial(part_outline, headings=headings_of_run(run))


EXTRA_PARTS["outline"], EXTRA_SETUPS["outline"] = part_outline, know_headings
REQUIREMENTS["outline"] = require_outline
