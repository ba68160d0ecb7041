"""The profile `small`: the same on a real Gemma, on a CPU."""

import dataclasses
from collections.abc import Mapping

from submission.bench.settings.config import (
    Chip,
    Curriculum,
    Evaluation,
    Generation,
    Lengths,
    Optimizer,
    Profile,
    Source,
    StockModel,
)

REAL = ("arc_easy", "arc_challenge", "gsm8k", "strategyqa")  # rows of their split "test"


def small_profile(tiny: Profile, model: StockModel, sources: Mapping[str, Source]) -> Profile:
    """`tiny` with a real Gemma, its tokenizer, and what they need.

    It learns from bundled rows. Evaluation has real ones as well; without a network it has none.

    Args:
      tiny: what is the same.
      model: the real Gemma.
      sources: rows on the hub, by name.
    """
    (bundled,) = tiny.evaluation.sources
    real = [  # each a domain of its own in the tables
        dataclasses.replace(sources[name], split="test", rows=60, minutes=2.0, domain=name)
        for name in REAL
    ]
    return dataclasses.replace(
        tiny,
        name="small",
        model=model,
        lengths=Lengths(prompt=96, completion=112),  # the tags are several pieces each
        sft=dataclasses.replace(
            tiny.sft,
            steps=240, rows=4, length=288, shortest=288, save_every=20,
            optimizer=Optimizer(peak_rate=8e-4),
        ),
        grpo=dataclasses.replace(
            tiny.grpo,
            steps=300, save_every=5, parts=2,
            optimizer=Optimizer(peak_rate=1e-4),  # at 4e-4 it forgets its sums within 20 steps
            curriculum=Curriculum("learnability", guessed=0.0),
        ),
        evaluation=Evaluation(
            (dataclasses.replace(bundled, weight=5.0), *real),
            rows=200,
            batch_size=40,  # Tunix's sampler makes the logits of whole prompts: 4 GB for 40
        ),
        generation=Generation(segment=24, prompt_step=48, completion_step=28, alike=32),
        # Of 262,144 pieces, 288 tokens' logits are 0.3 GB; four such chunks are an update of SFT.
        vocabulary_chunk=288,
        chip=Chip(memory_gib=10.0),
        hours=2.5,
        host_gib=12.0,  # measured at its height: 11
    )  # fmt: skip
