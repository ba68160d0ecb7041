"""A program compiled for the chips of a slice: does it fit, and what does it cost?"""

import dataclasses
import re
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from submission.bench.policy import memory
from tpu.cost import HBM_GIB, Cost, cost_of
from tpu.programs import Target
from tpu.target import constraints_forced

# What is in memory while a program runs, and is not among its arguments.
BESIDE = {
    "prefill": ("reference", "optimizer"),
    "decode_first": ("reference", "optimizer"),
    "decode": ("reference", "optimizer"),
    "decode_step_512": ("reference", "optimizer"),
    "reference_log_probs": ("policy", "optimizer"),
    "grpo_step": ("reference",),
    "evaluation_decode": ("reference", "optimizer"),
    "helper_pass": ("policy", "reference", "optimizer"),
}


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of one program."""

    name: str
    model: str
    fits: bool
    hbm_gib: float  # its own; of a program that does not fit, what it would need
    beside_gib: float  # what else is in memory meanwhile
    cost: Cost | None
    seconds_to_compile: float

    def as_json(self) -> dict[str, Any]:
        """As in the file that `--json` writes."""
        cost = self.cost
        return {
            "name": self.name,
            "model": self.model,
            "fits": self.fits,
            "hbm_gib": round(self.hbm_gib, 3),
            "beside_gib": round(self.beside_gib, 3),
            "flops": cost and cost.flops,
            "bytes": cost and cost.bytes,
            "collectives": cost and cost.collectives,
            "roofline_seconds": cost and cost.roofline_seconds,
            "bound": cost and cost.bound,
            "seconds_to_compile": round(self.seconds_to_compile, 1),
        }

    def __str__(self) -> str:
        """One line of the table."""
        memory_used = f"{self.hbm_gib:6.2f} + {self.beside_gib:4.2f} GiB"
        start = f"{self.name:34} {'fits' if self.fits else 'DOES NOT FIT':12} {memory_used}"
        if self.cost is None:
            return start
        cost = self.cost
        links = ", ".join(
            f"{one['count'] - one['scalars']:.0f} {kind} ({one['bytes'] / 1e9:.2f} GB)"
            for kind, one in sorted(cost.collectives.items())
            if one["count"] > one["scalars"]
        )
        scalars = sum(one["scalars"] for one in cost.collectives.values())
        links = f"{links or 'links unused'}" + f"; {scalars:.0f} of scalars" * (scalars > 0)
        return (
            f"{start} {cost.flops / 1e12:8.2f} TFLOP {cost.bytes / 1e9:8.1f} GB "
            f"{cost.roofline_seconds:8.3f} s ({cost.bound})  {links}  "
            f"[compiled in {self.seconds_to_compile:.0f} s]"
        )


def needed_gib(message: str) -> float:
    """What a program would need, from the compiler's words for "out of memory".

    >>> needed_gib("Ran out of memory in memory space hbm. Used 18.20G of 15.75G hbm.")
    18.2

    Raises:
      ValueError: the message is about something else.
    """
    for pattern in (r"Used ([\d.]+)([MGT]) of", r"\(([\d.]+)([MGT])\) exceeds available HBM"):
        if found := re.search(pattern, message):
            return float(found[1]) * {"M": 1 / 1024, "G": 1, "T": 1024}[found[2]]
    raise ValueError(f"Not understood: {message[:500]}")


def beside_gib(target: Target, name: str) -> float:
    """Memory per chip of what a program of GRPO leaves lying, a second model included."""
    _, adapter, _ = target.parts()
    entries = sum(leaf.size for leaf in jax.tree.leaves(adapter))
    width = jnp.dtype(target.run.model.dtype).itemsize
    sizes = {"policy": width, "reference": width, "optimizer": 3 * 4}  # float32: master, moments
    if target.run.profile.grpo.prompts > target.plan.micro_prompts:
        sizes["optimizer"] += width  # gradients of the passes so far
    lying = entries * sum(sizes[part] for part in BESIDE.get(name, ()))
    chips, helper = target.mesh.size, target.run.profile.helper
    if name == "helper_pass":
        lying += memory.weight_bytes(target.run.model) / (1 if target.plan.replicated else chips)
    elif helper:
        lying += memory.weight_bytes(helper.model) / (1 if target.plan.helper_whole else chips)
    return lying / 2**30


def compiled(name: str, lower: Callable[[Target], Any], target: Target, turns: int = 1) -> Report:
    """Compiles one program; one that does not fit is a result, not an error.

    Args:
      name: of the program, for the report.
      lower: makes it from the target.
      target: the run on its chips.
      turns: of loops whose length is an argument, as in Tunix's sampler.
    """
    beside = beside_gib(target, name)
    start, busy = time.monotonic(), time.process_time()
    try:
        with constraints_forced(), target.mesh:
            cost = cost_of(lower(target).compile(), turns)
        needed = cost.hbm_gib
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        needed, cost = needed_gib(str(error)), None
    jax.clear_caches()  # or the compiled programs would add up to gigabytes
    fits = cost is not None and needed + beside <= HBM_GIB
    # Where other work has the cores, the process's own time says what an idle machine would take.
    seconds = min(time.monotonic() - start, time.process_time() - busy)
    return Report(name, target.run.model.name, fits, needed, beside, cost, seconds)


def one_step(report: Report, target: Target) -> Report:
    """Of a segment of decode steps, one."""
    steps = target.run.profile.generation.segment
    return dataclasses.replace(report, cost=report.cost and report.cost.share(1 / steps))
