"""What nine hours allow, by what the compiler says of each program and by what others measured.

The compiler gives each program's least time, at the chip's peaks, and how long it takes to
compile. What it cannot know stands in `assumptions.py`, once *likely* and once *cautious*. A plan
can be made again from an earlier one without compiling: what the compiler said is in it.
"""

import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from submission.bench.policy import memory, model, rollout
from submission.bench.rows import packing
from submission.bench.run import budget
from submission.bench.settings import config
from submission.essay import grpo
from tpu.assumptions import ASSUMPTIONS
from tpu.cost import HBM_BYTES_PER_SECOND
from tpu.target import OF_A_HOST, chips_of

COMPLETIONS_MEASURED = 1024  # of the assumption about rewards
ROLLOUTS = 8  # drawn to see how fast a batch shrinks
SLOTS_USED = packing.GOOD_USE  # share of a packed row that holds tokens
CASES = ("likely", "cautious")
COLUMNS = {  # how a session is spent, in order, and what a reader calls it
    "before_first_update": "before the first update",
    "sft": "SFT",
    "compilation": "compiling GRPO",
    "grpo": "GRPO",
    "evaluation": "evaluations",
    "reserve": "reserve",
}
WHAT_IF = {  # what the plan hangs on most, worse than the sources have it
    "every completion runs to the limit": {"shortest": 1.0},
    "decoding reaches a quarter of the roofline's speed": {"decoding": 0.25},
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A session in which the assumptions have certain values."""

    run: config.Run
    chips: int
    plan: memory.MemoryPlan
    stock: nnx.Module  # its shapes
    roofline: Mapping[str, float]  # seconds of each program
    to_compile: Mapping[str, float]  # seconds, here
    assumed: Mapping[str, float]
    hosts: int = 1  # each with so many chips, and this share of an update

    @property
    def exchanging(self) -> float:
        """Seconds a pass in which the hosts tell each other their gradients."""
        return self.roofline["exchange"] / self.assumed["passes"] if self.hosts > 1 else 0.0

    @property
    def rows(self) -> int:
        """Sequences of a rollout on each chip."""
        return round(self.plan.rollout_prompts * self.run.profile.grpo.generations / self.chips)

    # --- A rollout ------------------------------------------------------------------------------

    def seen(self, past: int) -> int:
        """Cached tokens that a decode step reads of a sequence, summed over the layers."""
        window = self.stock.config.sliding_window_size
        local = [layer.attn.attn_type.name == "LOCAL_SLIDING" for layer in self.stock.layers]
        return sum(min(past, window) if is_local else past for is_local in local)

    def step_seconds(self, past: int, rows: int) -> float:
        """A decode step, of fewer rows than were compiled or with another past.

        The weights are read whatever there is; the rest grows with the rows, and with what is seen
        of the past. (For 64 rows instead of 128 the compiler itself says 1 % more.)
        """
        segment, first = self.run.profile.generation.segment, self.run.profile.lengths.prompt
        last = first + (self.segments - 1) * segment
        share = (self.seen(past) - self.seen(first)) / max(1, self.seen(last) - self.seen(first))
        ends = self.roofline["decode_first"], self.roofline["decode"]
        whole = (ends[0] + share * (ends[1] - ends[0])) / segment
        fixed = min(whole, self.weights_seconds)
        return fixed + (whole - fixed) * rows / self.rows

    @functools.cached_property
    def weights_seconds(self) -> float:
        """To read every weight once."""
        count = memory.parameter_count(self.stock.config)
        return count * jnp.dtype(self.run.model.dtype).itemsize / HBM_BYTES_PER_SECOND

    @property
    def segments(self) -> int:
        """How many segments a rollout has at most; its first token comes from the prefill."""
        profile = self.run.profile
        return math.ceil((profile.lengths.completion - 1) / profile.generation.segment)

    def lengths(self) -> np.ndarray:
        """Tokens of completions_UN: updates that were drawn, completions of one."""
        limit, settings = self.run.profile.lengths.completion, self.run.profile.grpo
        shortest = max(1, round(self.assumed["shortest"] * limit))
        size = (ROLLOUTS, settings.prompts * settings.generations)
        return np.random.default_rng(0).integers(shortest, limit, size, endpoint=True)

    def rollout_seconds(self, lengths_N: np.ndarray) -> float:
        """The least time for completions of these lengths, one rollout after another."""
        return sum(
            self._one_rollout(part.reshape(self.chips, -1))
            for part in lengths_N.reshape(-1, self.chips * self.rows)
        )

    def _one_rollout(self, lengths_DR: np.ndarray) -> float:
        """As the engine decodes: in segments, and after each with as few rows as still go on."""
        profile, size = self.run.profile, self.rows
        sizes = rollout.batch_sizes(size, profile.generation.least_share)
        join = 2 * memory.cache_bytes(self.run, size) / HBM_BYTES_PER_SECOND
        seconds = self.roofline["prefill"]
        for index in range(1, profile.lengths.completion, profile.generation.segment):
            going = (lengths_DR > index).sum(axis=1).max()
            if not going:
                break
            if index > 1:
                size = min(one for one in sizes if one >= going)
                seconds += join * size / self.rows
            steps = min(index + profile.generation.segment, lengths_DR.max()) - index
            seconds += steps * self.step_seconds(profile.lengths.prompt + index - 1, size)
        return float(seconds)

    @property
    def judging_seconds(self) -> float:
        """The least time of a judge for a rollout, in turn with the policy."""
        helper, settings = self.run.profile.helper, self.run.profile.grpo
        if helper is None or helper.rubrics is None:
            return 0.0
        looks = self.assumed["judged"] * settings.prompts * settings.generations
        return math.ceil(looks / helper.rubrics.rows) * self.roofline["helper_pass"]

    def passes_seconds(self, lengths_N: np.ndarray) -> float:
        """The least time of the passes of an update, sorted and trimmed as the learner does."""
        profile, settings = self.run.profile, self.run.profile.grpo
        prompt, limit = profile.lengths.prompt, profile.lengths.completion
        step = profile.generation.completion_step
        teacher = settings.reference == "helper"
        reference = self.roofline["helper_pass" if teacher else "reference_log_probs"]
        reference *= 1 + (settings.iterations > 1)
        whole = settings.iterations * self.roofline["grpo_step"] + reference
        longest = np.sort(lengths_N)[:: -self.plan.micro_prompts * settings.generations]
        widths = np.minimum(-(-longest // step) * step, limit)
        return float(((prompt + widths) / (prompt + limit) * whole).sum())

    # --- The stages -----------------------------------------------------------------------------

    def saving(self, step: float, every: int) -> float:
        """Seconds of saves for each step, of those that are made every so many, or by time."""
        share = max(1 / every, step / (60 * self.run.profile.save_minutes))
        return self.assumed["save"] * share

    @functools.cached_property
    def grpo(self) -> dict[str, float]:
        """Seconds of an update of GRPO, in parts."""
        lengths = self.lengths()
        generated = np.mean([self.rollout_seconds(one) for one in lengths])
        passes = np.mean([self.passes_seconds(one) for one in lengths]) + self.judging_seconds
        settings = self.run.profile.grpo
        told = settings.prompts / self.plan.micro_prompts * self.exchanging
        parts = {
            "rollout": float(generated) / self.assumed["decoding"],
            "rewards": self.assumed["rewards"] * lengths.shape[1] / COMPLETIONS_MEASURED,
            "update": float(passes) / self.assumed["passes"] + told + self.assumed["host"],
        }
        return {**parts, "step": sum(parts.values())}

    @property
    def sft_step(self) -> float:
        """Seconds. Which length rows get, the examples decide: the dearer update is assumed."""
        least = max(self.roofline["sft_step"], self.roofline["sft_step_longest"])
        return least / self.assumed["passes"] + self.exchanging

    @property
    def evaluation(self) -> float:
        """Seconds, once compiled: every batch runs until its longest answer is cut."""
        profile = self.run.profile
        rows = profile.evaluation.rows * len(profile.evaluation.sources) / self.hosts
        steps = math.ceil(rows / self.plan.evaluation_rows) * profile.lengths.completion
        return steps * self.assumed["evaluation_step"] + self.assumed["evaluation_checks"]

    def compiled_programs(self) -> dict[str, int]:
        """How many programs of each kind GRPO has: by length of the past, rows, and width."""
        profile = self.run.profile
        lengths = profile.lengths.prompt // profile.generation.prompt_step
        sizes = len(rollout.batch_sizes(self.rows, profile.generation.least_share))
        widths = math.ceil(profile.lengths.completion / profile.generation.completion_step)
        return {
            "prefill": lengths,
            "decode": (lengths + self.segments - 1) * sizes,
            "grpo_step": widths,
            "reference_log_probs": widths,
        }

    def compiling(self, programs: Mapping[str, int]) -> float:
        """Seconds to compile so many of each."""
        seconds = sum(self.to_compile[name] * count for name, count in programs.items())
        return self.assumed["compiling"] * seconds

    def before_first_update(self) -> dict[str, float]:
        """Seconds from the first cell until the first update of the weights begins, in parts.

        One after the other, as in the notebook; nothing overlaps.
        """
        said, profile = self.assumed, self.run.profile
        small = len(profile.evaluation.sources) + len(profile.grpo_sources)
        rows = said["traces"] + said["small_source"] * small
        first_step = max(("sft_step", "sft_step_longest"), key=self.to_compile.__getitem__)
        return {
            "installation": said["installation"],
            "imports": said["imports"],
            "attaching the model": said["attaching"],
            "reading rows": min(rows, 60 * profile.preparation_minutes),
            "tokenising": said["tokenising"],
            "loading the model": said["loading"],
            "compiling the evaluation": self.compiling({"evaluation_decode": 1}),
            "evaluating the stock model": self.evaluation,
            "compiling the update": self.compiling({first_step: 1}),
        }

    def session(self) -> dict[str, Any]:
        """How the hours are spent."""
        profile, settings = self.run.profile, self.run.profile.grpo
        before, programs = self.before_first_update(), self.compiled_programs()
        hours = {
            "before_first_update": sum(before.values()) / 3600,
            "compilation": self.compiling(programs) / 3600,
            "evaluation": 2 * self.evaluation / 3600,
        }
        left = profile.hours - sum(hours.values())
        sft_step = self.sft_step + self.saving(self.sft_step, profile.sft.save_every)
        hours["sft"] = min(profile.sft.steps * sft_step / 3600, profile.sft_share * left)
        sft_steps = min(profile.sft.steps, int(hours["sft"] * 3600 / sft_step + 0.5))
        # What the notebook keeps back for the end; one evaluation is among those above already.
        kept_back = 1.5 * (2 * self.evaluation + self.assumed["save"]) - self.evaluation
        kept_back += self.grpo["step"]
        kept_back += budget.seconds_to_spare(grpo.SPARE_SECONDS, self.grpo["step"])
        kept_back += profile.closing_seconds + profile.upload_seconds
        update = self.grpo["step"] + self.saving(self.grpo["step"], settings.save_every)
        steps = min(settings.steps, int(((left - hours["sft"]) * 3600 - kept_back) / update))
        hours["grpo"] = steps * update / 3600
        hours["reserve"] = profile.hours - sum(hours.values())
        row_tokens = profile.sft.length
        rows = packing.rows_per_update(
            profile.sft.rows, profile.sft.shortest, row_tokens, self.chips
        )
        return {
            "mean_completion_tokens": round(float(self.lengths().mean())),
            "sft_tokens": round(self.hosts * sft_steps * rows * row_tokens * SLOTS_USED),
            "grpo_steps": steps,
            "completions": self.hosts * steps * settings.prompts * settings.generations,
            "hours_by_stage": {name: round(hours[name], 3) for name in COLUMNS},
            "total_hours": round(sum(hours.values()), 3),
            "complete": sft_steps == profile.sft.steps,
            "sft_steps": sft_steps,
            "seconds_of_sft_step": round(self.sft_step, 2),
            "seconds_of_grpo": {name: round(value, 1) for name, value in self.grpo.items()},
            "seconds_per_update": round(update, 2),  # with its share of the saves
            "seconds_before_first_update": {name: round(x, 1) for name, x in before.items()},
            "seconds_kept_back": round(kept_back, 1),
            "programs_compiled_for_grpo": programs,
        }


# Tokens of glaive's rows: of a log-normal distribution through its published percentiles of
# characters, at 4.4 a token, 68 % fit 256 + 1,792; cautious: all do, and fill 2,048.
LONG_ROWS = {"likely": (0.68, 1450), "cautious": (1.0, 2048)}


def sft_alone(run: config.Run, chips: int, roofline: Mapping[str, float]) -> dict[str, Any]:
    """Hours of a run that has nothing but passes through the rows of one source."""
    (source,), settings, found = run.sft_sources, run.profile.sft, {}
    rows = packing.rows_per_update(settings.rows, settings.shortest, settings.shortest, chips)
    for case, (kept, tokens) in LONG_ROWS.items():
        whole = settings.epochs * source.look * kept * tokens
        updates = math.ceil(whole / (rows * settings.shortest * SLOTS_USED))
        seconds = roofline["sft_step"] / getattr(ASSUMPTIONS["passes"], case)
        hours = updates * seconds / 3600
        found[case] = {"updates": updates, "step": round(seconds, 2), "hours": round(hours, 2)}
        print(f"{run.recipe}, {case}: {kept * source.look:,.0f} rows of {tokens} tokens, "
              f"{settings.epochs:g} times: {updates:,} updates of {rows} × {settings.shortest} "
              f"tokens, {seconds:.2f} s each: {hours:.2f} hours.")  # fmt: skip
    fits = found["likely"]["hours"] < run.profile.hours
    return {"model": run.model.name, **found, "complete": fits}


def nine_hours(
    run: config.Run,
    chips: int,
    roofline: Mapping[str, float],
    to_compile: Mapping[str, float],
    hosts: int = 1,
) -> dict[str, Any]:
    """The likely session, the cautious one beside it, and what both follow from.

    Args:
      run: the run; of several hosts, as one of them has it.
      chips: how many; of several hosts, of each.
      roofline: least seconds of each program, by the compiler.
      to_compile: seconds that each took to compile here.
      hosts: how many.
    """
    stock = model.abstract_stock(model.tunix_config(run.model))
    plan = memory.plan_memory(run, chips)

    def session(which: str, **changes: float) -> dict[str, Any]:
        assumed = {name: getattr(one, which) for name, one in ASSUMPTIONS.items()} | changes
        return Case(run, chips, plan, stock, roofline, to_compile, assumed, hosts).session()

    return {
        "model": run.model.name,
        **session("likely"),
        "cautious": session("cautious"),
        "completions_if": {
            name: {which: session(which, **changes)["completions"] for which in CASES}
            for name, changes in WHAT_IF.items()
        },
        "assumptions": {name: dataclasses.asdict(one) for name, one in ASSUMPTIONS.items()},
        "chips": chips,
        "hosts": hosts,
        "roofline_seconds": dict(roofline),
        "seconds_to_compile": {name: round(value, 1) for name, value in to_compile.items()},
    }


def made_again(run: config.Run, plan: Mapping[str, Any]) -> dict[str, Any]:
    """The plan that follows today from what the compiler said when another one was made."""
    compiled = plan["roofline_seconds"], plan["seconds_to_compile"]
    return nine_hours(run, plan["chips"], *compiled, plan.get("hosts", 1))


def on_more_hosts(run: config.Run, plan: Mapping[str, Any], topology: str) -> dict[str, Any]:
    """An earlier plan for a larger slice, whose chips have the work that was compiled.

    (In SFT each has fewer rows than that. An update is taken to last as long.)

    Raises:
      ValueError: in GRPO a chip has other work.
    """
    chips = chips_of(topology)
    settings = run.profile.grpo
    before = plan["completions"] / plan["grpo_steps"] / settings.generations / plan["chips"]
    if settings.prompts != before * chips:
        raise ValueError(
            f"{settings.prompts} prompts on {chips} chips are other work for a chip than was "
            f"compiled. Leave out --plan-from, or ask for --prompts {before * chips:.0f}."
        )
    each = chips_of(OF_A_HOST)
    return {**plan, "chips": each, "hosts": chips // each}


# --- For the reader -----------------------------------------------------------------------------


def as_table(plan: Mapping[str, Any]) -> str:
    """Both cases side by side, as Markdown."""
    head = ["", *COLUMNS.values(), "updates", "completions"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for case, one in (("likely", plan), ("cautious", plan["cautious"])):
        hours = [f"{one['hours_by_stage'][name]:.2f} h" for name in COLUMNS]
        made = [f"{one['grpo_steps']:,}", f"{one['completions'] / 1e6:.2f} million"]
        lines.append(f"| {' | '.join([case, *hours, *made])} |")
    return "\n".join(lines)


def as_markdown(plan: Mapping[str, Any]) -> str:
    """What the notebook includes: the table, and the assumptions that decide most."""
    cases = (plan, plan["cautious"])
    passes, decoding = (
        "{:.0%} ({:.0%})".format(*(plan["assumptions"][name][case] for case in CASES))
        for name in ("passes", "decoding")
    )
    host = "{:.0f} s ({:.0f} s)".format(
        *(sum(plan["assumptions"][x][case] for x in ("rewards", "host")) for case in CASES)
    )
    tokens = "{:.0f} ({:.0f})".format(*(one["mean_completion_tokens"] for one in cases))
    step = "{:.1f} s ({:.1f} s)".format(*(one["seconds_of_grpo"]["step"] for one in cases))
    made = plan["completions"] // plan["grpo_steps"]
    return (
        f"{as_table(plan)}\n\n"
        f"Assumed (in brackets: cautious): updates reach {passes} of the speed that the compiler\n"
        f"allows, decoding {decoding}; completions have {tokens} tokens on average; the host\n"
        f"takes {host}. An update of GRPO, {made:,} completions, takes {step}.\n"
    )


def describe(plan: Mapping[str, Any]) -> str:
    """The plan in a few lines."""
    lines = []
    for case, one in (("likely", plan), ("cautious", plan["cautious"])):
        hours = ", ".join(f"{name} {value:.2f}" for name, value in one["hours_by_stage"].items())
        ends = "" if one["complete"] else " The steps of the warm start do NOT all fit."
        lines += [
            f"Plan for {plan['model']}, {case}: {one['sft_tokens'] / 1e6:.0f} million SFT tokens, "
            f"{one['grpo_steps']:,} updates of {one['seconds_of_grpo']['step']:.1f} s, "
            f"{one['completions']:,} completions.{ends}",
            f"  Hours: {hours}; {one['total_hours']:.2f} in all.",
        ]
    return "\n".join(lines)


def write(plan: Mapping[str, Any], folder: pathlib.Path) -> None:
    """Writes `plan.json`, and `plan.md`, the table that the notebook includes."""
    command = "python scripts/preflight.py --plan-from data/plan.json --write"
    text = json.dumps({"command": command, **plan}, indent=1)
    (folder / "plan.json").write_text(text + "\n", encoding="utf-8")
    (folder / "plan.md").write_text(as_markdown(plan), encoding="utf-8")
