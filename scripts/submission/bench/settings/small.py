"""The profile `small`: the same on a real Gemma, on a CPU."""

import dataclasses
from collections.abc import Mapping

from submission.bench.settings.config import (
    Adapter,
    Chip,
    Evaluation,
    Generation,
    Grpo,
    Lengths,
    Optimizer,
    Profile,
    Rewards,
    Sft,
    Source,
    StockModel,
)

BUNDLED, HELD_OUT = "data/train.jsonl", "data/held_out.jsonl"
# Worked traces by number of steps and questions on plain facts with a reason before the letter.
WARM_START = Source("bundled", BUNDLED, ("tasks/sft/steps",), weight=3.0)
FACTS = Source("bundled", "data/facts.jsonl", ("facts/",), weight=2.0)
PROBLEMS = Source("bundled", BUNDLED, ("tasks/grpo",), weight=2.0)


def small_profile(model: StockModel, sources: Mapping[str, Source]) -> Profile:
    """Gemma 3 270M, bundled rows and real ones.

    Bundled rows have most of the weight: without a network it runs on them alone.

    Args:
      model: which one.
      sources: rows on the hub, by name.
    """

    def of_the_hub(name: str, **changes: object) -> Source:
        return dataclasses.replace(sources[name], minutes=2.0, **changes)

    return Profile(
        name="small",
        model=model,
        lengths=Lengths(prompt=96, completion=112),  # the tags are several pieces each
        adapter=Adapter(rank=16, alpha=32.0),
        sft=Sft(
            steps=200, rows=4, length=288, shortest=288,
            optimizer=Optimizer(peak_rate=5e-4), save_every=20, minimum_kept=0.1,
        ),
        grpo=Grpo(
            steps=60, prompts=16, generations=8, micro_prompts=2,
            optimizer=Optimizer(peak_rate=1e-4), save_every=5,
            beta=0.0,
        ),
        rewards=Rewards(shortest=2, longest=40, slope=20),  # words of a trace
        evaluation=Evaluation(
            (
                Source("bundled", HELD_OUT, rows=200, weight=5.0),
                of_the_hub("arc_easy", split="test", rows=500),
                of_the_hub("arc_challenge", split="test", rows=70),
                of_the_hub("gsm8k", split="test", rows=70),
                of_the_hub("strategyqa", split="test", rows=70),
            ),
            # Tunix's sampler makes the logits of whole prompts: 4 GB for 40 of them.
            rows=500, batch_size=40,
        ),
        sft_sources={"warm_start_grpo": (WARM_START, FACTS)},
        grpo_sources=(PROBLEMS, of_the_hub("arc_easy", weight=1.5)),
        generation=Generation(segment=24, prompt_step=48, completion_step=28),
        # Of 262,144 pieces, 288 tokens' logits are 0.3 GB; four such chunks are an update of SFT.
        vocabulary_chunk=288,
        chip=Chip(memory_gib=10.0),
        hours=3.0,
        host_gib=12.0,  # measured at its height: 11
    )  # fmt: skip
