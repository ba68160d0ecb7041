# %% [markdown]
# ### Evaluation, as the judges do it
#
# Held-out rows, greedy decoding, Tunix's stock sampler, no `eos_tokens`. Three numbers, the
# accuracy with its 95 % interval (Wilson):
#
# - **format**: strictly in format, and ended by the tokenizer's eos;
# - **accuracy**: in format, and right;
# - **lenient accuracy**: right, with the format forgiven. Stock Gemma knows nothing of our
#   tags, so this is the number that a gain has to be measured against.

# %%
import collections
import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

# %% tags=["modules-only"]
from submission.checkers import LONGEST_ANSWER, check
from submission.prompts import Completion, Example, parse, render_prompt
from submission.rollout import ended, mark_cut


# %%
LAST_NUMBER = re.compile(r"[-−]?\d(?:[\d,]*\d)?(?:\.\d+)?(?!.*\d)", re.DOTALL)


def is_right_leniently(completion: Completion, example: Example) -> bool:
    """Right with the format forgiven, by one rule for all three evaluations.

    Stock Gemma ends in sentences ("Altogether she sold 48 + 24 = 72 clips."), so for a number
    the last one in its last line counts too.
    """
    answer = completion.lenient_answer
    if check(example, answer) is True:
        return True
    last = LAST_NUMBER.search(answer[-LONGEST_ANSWER:])
    return example.checker == "number" and last is not None and check(example, last[0]) is True


@dataclasses.dataclass(frozen=True)
class Answered:
    """One held-out row with what the model made of it."""

    example: Example
    completion: Completion
    tokens: int  # without the EOS
    stopped: bool
    right: bool
    right_leniently: bool


def answer_greedily(
    sampler: Any,
    examples: Sequence[Example],
    batch_size: int,
    max_prompt_length: int,
    max_generation_steps: int,
) -> list[Answered]:
    """Completions of all examples, by greedy decoding without `eos_tokens`."""
    answered: list[Answered] = []
    for start in range(0, len(examples), batch_size):
        batch = list(examples[start : start + batch_size])
        # The last batch is filled up: another size would be compiled anew.
        prompts = [render_prompt(e.question) for e in batch]
        prompts += [prompts[-1]] * (min(batch_size, len(examples)) - len(batch))
        output = sampler(
            prompts,
            max_generation_steps=max_generation_steps,
            max_prompt_length=max_prompt_length,
            temperature=0,
            top_k=1,
            top_p=None,
            echo=False,
        )
        for example, text, tokens in zip(batch, output.text, output.tokens, strict=False):
            completion = parse(mark_cut(text, tokens, max_generation_steps))
            answered.append(
                Answered(
                    example,
                    completion,
                    len(tokens),
                    ended(tokens, max_generation_steps),
                    completion.in_format and check(example, completion.answer) is True,
                    is_right_leniently(completion, example),
                )
            )
    return answered


# %%
def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share.

    >>> [round(x, 3) for x in wilson(50, 100)]
    [0.404, 0.596]
    """
    if n == 0:
        return 0.0, 1.0
    z, p = 1.959964, successes / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
    return max(0.0, low), min(1.0, high)


def summarise(answered: Sequence[Answered]) -> dict[str, Any]:
    """The numbers of one evaluation, as they stand in `results.json`."""
    checkable = [a for a in answered if a.example.checker not in ("open", "code")]
    n = len(checkable)

    def share(flags: Sequence[bool]) -> float:
        return round(sum(flags) / len(flags), 4) if flags else 0.0

    by_domain = collections.defaultdict(list)
    for row in checkable:
        by_domain[row.example.domain].append(row)
    return {
        "n": n,
        "format": share([a.completion.in_format for a in checkable]),
        "accuracy": share([a.right for a in checkable]),
        "accuracy_ci95": [round(x, 4) for x in wilson(sum(a.right for a in checkable), n)],
        "accuracy_lenient": share([a.right_leniently for a in checkable]),
        "open_score": None,
        "stopped": share([a.stopped for a in answered]),
        "mean_tokens": round(float(np.mean([a.tokens for a in answered])), 1),
        "by_domain": {
            domain: {
                "n": len(rows),
                "format": share([a.completion.in_format for a in rows]),
                "accuracy": share([a.right for a in rows]),
                "accuracy_ci95": [
                    round(x, 4) for x in wilson(sum(a.right for a in rows), len(rows))
                ],
                "accuracy_lenient": share([a.right_leniently for a in rows]),
            }
            for domain, rows in sorted(by_domain.items())
        },
    }
