"""What `benchmark.py` measures on Gemma 3 270M: an update of SFT and a step of GRPO.

Its vocabulary of 262,144 pieces is two thirds of the work, as with the larger models.
"""

import dataclasses
import itertools
import resource
from collections.abc import Iterator

import numpy as np

from benchmarks.tiny import grpo_numbers, grpo_steps, padded_batches, sft_steps, useful
from benchmarks.tools import parts_of, step_seconds
from submission.bench.rows import data, packing, prepared

# Of the first 2,000 rows of GSM8K for training, in Gemma's pieces: mean and standard deviation of
# the logarithm. 99 % have at most 351 pieces in all.
PROMPT, TARGET, CORRELATION = (4.172, 0.300), (4.542, 0.390), 0.51
LONGEST = 352
PACKED = 3, 480  # rows and slots: attention costs the square of a row, and these are full
MEMORY = "GiB of the process at its height"


def gsm8k_lengths(vocabulary: int) -> Iterator[data.Tokens]:
    """Random tokens, as long as GSM8K's questions and solutions, for ever; none too long."""
    rng = np.random.default_rng(0)
    while True:
        one, other = rng.normal(size=2)
        other = CORRELATION * one + (1 - CORRELATION**2) ** 0.5 * other
        sizes = [round(np.exp(m + s * z)) for (m, s), z in ((PROMPT, one), (TARGET, other))]
        if sum(sizes) <= LONGEST:
            yield data.Tokens(*(rng.integers(4, vocabulary, size).tolist() for size in sizes))


def peak() -> float:
    """GiB that this process has had at its height."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure_small_sft(side: str, steps: int = 6, skip: int = 2) -> dict:
    """SFT steps of Gemma 3 270M on rows of GSM8K's lengths, 4 padded against 3 packed ones."""
    run, mesh, tokenizer, make = parts_of("small")
    policy, pad_id = make(), tokenizer.pad_id()
    examples = gsm8k_lengths(policy.config.num_embed)
    if side == "stock":
        stream, chunk = padded_batches(examples, 4, LONGEST, pad_id), None
    else:
        stream = packing.packed_batches(examples, *PACKED, pad_id)
        chunk = run.profile.vocabulary_chunk
    batches = list(itertools.islice(stream, steps))
    targets, share = useful(batches)
    stamps = sft_steps(policy, mesh, batches, stock_step=side == "stock", chunk=chunk)
    seconds = step_seconds(stamps, skip)
    numbers = {
        "seconds a step": seconds,
        "ms a target token": 1000 * seconds / targets,
        "share of slots used": share,
        MEMORY: peak(),
    }
    rows, length = PACKED
    slots = f"4 × {LONGEST} slots, {rows} × {length}; {targets:.0f} target tokens a step ({side})"
    return {side: numbers, "remarks": {"seconds a step": slots}}


def measure_small_grpo(side: str, steps: int = 3, skip: int = 1) -> dict:
    """Whole GRPO steps of Gemma 3 270M, 8 × 8 completions of 96 + 112, forced lengths."""
    run, mesh, tokenizer, make = parts_of("small")
    evaluation = dataclasses.replace(
        run.profile.evaluation, sources=run.profile.evaluation.sources[:1]
    )
    settings = dataclasses.replace(run.profile.grpo, prompts=8, micro_prompts=1)
    profile = dataclasses.replace(run.profile, evaluation=evaluation, grpo=settings)
    run = dataclasses.replace(run, profile=profile)
    rows = prepared.rows_of_run(run, tokenizer)["grpo"]
    found = grpo_numbers(side, grpo_steps(side, run, rows, mesh, tokenizer, make, steps), skip)
    found[side][MEMORY] = peak()
    return found
