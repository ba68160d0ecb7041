"""The chapters of the notebook, as importable modules; their face is the reward.

>>> combined(["6 times 7?"], ["<answer>42</answer>"], answer=["42"], checker=["number"])
[0.0]
"""

from submission.bench.answers.prompts import parse
from submission.essay.rewards import combined, components

__all__ = ["combined", "components", "parse"]
