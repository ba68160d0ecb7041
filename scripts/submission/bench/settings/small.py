"""The profile `small`: the same on a real Gemma, on a CPU."""

import dataclasses

from submission.bench.settings.config import (
    Chip,
    Grpo,
    Lengths,
    Optimizer,
    Profile,
    Sft,
    StockModel,
)


def small_profile(tiny: Profile, model: StockModel) -> Profile:
    """`tiny` with a real Gemma, its tokenizer, and what they need; bundled rows."""
    return dataclasses.replace(
        tiny,
        name="small",
        model=model,
        lengths=Lengths(prompt=64, completion=112),  # the tags are several pieces each
        sft=Sft(
            steps=80, rows=4, length=288, shortest=288,
            optimizer=Optimizer(peak_rate=5e-4), save_every=20, minimum_kept=0.9,
        ),
        grpo=Grpo(
            steps=60, prompts=8, generations=8,  # a minute each, on two cores
            optimizer=Optimizer(peak_rate=1.5e-4), save_every=10,
            beta=0.02,
        ),
        # Tunix's sampler makes the logits of whole prompts: 2.7 GB for 40 of them, and 13 for 200.
        evaluation=dataclasses.replace(tiny.evaluation, rows=200, batch_size=40),
        # Of 262,144 pieces, 288 tokens' logits are 0.3 GB; four such chunks are an update of SFT.
        vocabulary_chunk=288,
        chip=Chip(memory_gib=10.0),
        hours=4.0,
        host_gib=12.0,  # measured at its height: 11
    )  # fmt: skip
