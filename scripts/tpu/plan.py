"""What nine hours allow, by what the compiler says of each program."""

import math
from typing import Any

from submission.bench.policy import memory, rollout
from submission.bench.rows import packing
from submission.essay import grpo
from tpu.compile import Report
from tpu.cost import HBM_BYTES_PER_SECOND
from tpu.programs import Target, segments, sft_size

EFFICIENCY = 0.5  # of the roofline's speed, assumed in the plan
HOST_SECONDS = 3.0  # per GRPO update, assumed: rewards, tokens and metrics on the host
SAVE_SECONDS = 30.0  # of a checkpoint, assumed: written, read back, and half as much again
SLOTS_USED = packing.GOOD_USE  # share of a packed row that holds tokens


def nine_hours(target: Target, reports: dict[str, Report]) -> dict[str, Any]:
    """What the session can do, if every program runs at a share of its roofline's speed.

    All completions are taken to be as long as they may be.
    """
    run, profile, settings = target.run, target.run.profile, target.run.profile.grpo
    seconds = {name: report.cost.roofline_seconds for name, report in reports.items()}
    prompts, micro = target.plan.rollout_prompts, target.plan.micro_prompts
    completions = settings.prompts * settings.generations
    rollouts, passes = settings.prompts // prompts, settings.prompts // micro
    rows_per_chip = prompts * settings.generations / target.mesh.size
    join = 2 * memory.cache_bytes(run, rows_per_chip) / HBM_BYTES_PER_SECOND

    # The past grows by a segment each time, and what is read with it.
    segment = (seconds["decode_first"] + seconds["decode"]) / 2
    rollout_seconds = seconds["prefill"] + segments(profile) * (segment + join)
    update = rollouts * rollout_seconds
    update += settings.iterations * passes * seconds["grpo_step"]
    update += passes * seconds["reference_log_probs"] * (1 + (settings.iterations > 1))
    update = update / EFFICIENCY + HOST_SECONDS

    # Each length of the past and each size of the batch is a program of its own.
    lengths = profile.lengths.prompt // profile.generation.prompt_step
    pasts = lengths + segments(profile) - 1
    sizes = len(rollout.batch_sizes(round(rows_per_chip), profile.generation.least_share))
    programs = dict.fromkeys(reports, 1)
    programs |= {"prefill": lengths, "decode_first": 0, "decode": pasts * sizes}
    widths = math.ceil(profile.lengths.completion / profile.generation.completion_step)
    programs |= {
        "decode_step_512": 0,
        "sft_step_longest": 0,
        "grpo_step": widths,
        "reference_log_probs": widths,
    }
    compilation = sum(reports[name].seconds_to_compile * n for name, n in programs.items())
    evaluation_rows = profile.evaluation.rows * len(profile.evaluation.sources)
    batches = math.ceil(evaluation_rows / target.plan.evaluation_rows)

    hours = {
        "set_up": (profile.download_minutes + profile.preparation_minutes) / 60,
        "compilation": compilation / 3600,
        "evaluation": 3 * batches * seconds["evaluation_decode"] / EFFICIENCY / 3600,
    }
    left = profile.hours - sum(hours.values())
    # Which length the rows get, the examples decide: the dearer and smaller update is assumed.
    sft_seconds = max(seconds["sft_step"], seconds["sft_step_longest"])
    sft_rows, sft_length = sft_size(target, profile.sft.length)
    sft_steps = profile.sft.steps
    hours["sft"] = sft_steps * sft_seconds / EFFICIENCY / 3600
    hours["sft"] = min(hours["sft"], profile.sft_share * left)
    sft_steps = min(sft_steps, int(hours["sft"] * 3600 * EFFICIENCY / sft_seconds + 0.5))
    # What the notebook keeps back for the end of the run; evaluations are above already.
    kept_back = (0.5 + 1.5) * hours["evaluation"] / 3 * 3600  # half more of one, and a second one
    kept_back += grpo.SPARE_STEPS * update + profile.closing_seconds + SAVE_SECONDS
    grpo_steps = min(settings.steps, int(((left - hours["sft"]) * 3600 - kept_back) / update))
    hours["grpo"] = grpo_steps * update / 3600
    hours["reserve"] = profile.hours - sum(hours.values())
    return {
        "model": run.model.name,
        "sft_tokens": round(sft_steps * sft_rows * sft_length * SLOTS_USED),
        "grpo_steps": grpo_steps,
        "completions": grpo_steps * completions,
        "hours_by_stage": {name: round(value, 3) for name, value in hours.items()},
        "total_hours": round(sum(hours.values()), 3),
        "complete": sft_steps == profile.sft.steps,
        "assumptions": {
            "efficiency": EFFICIENCY,
            "chips": target.mesh.size,
            "prompt_tokens": profile.lengths.prompt,
            "completion_tokens": profile.lengths.completion,
            "prompts_per_update": settings.prompts,
            "completions_per_prompt": settings.generations,
            "prompts_per_rollout": prompts,
            "prompts_per_pass": micro,
            "segments_per_rollout": segments(profile),
            "steps_per_segment": profile.generation.segment,
            "join_seconds": join,
            "updates_per_rollout": settings.iterations,
            "host_seconds_per_update": HOST_SECONDS,
            "seconds_per_update": update,
            "sft_steps": sft_steps,
            "sft_rows": sft_rows,
            "sft_row_tokens": sft_length,
            "sft_slots_used": SLOTS_USED,
            "evaluations": 3,
            "evaluation_rows": evaluation_rows,
            "evaluation_batch": target.plan.evaluation_rows,
            "download_minutes": profile.download_minutes,
            "preparation_minutes": profile.preparation_minutes,
            "compiled_programs": programs,
            "seconds_to_compile": {
                name: round(report.seconds_to_compile, 1) for name, report in reports.items()
            },
            "sft_share": profile.sft_share,
            "seconds_kept_back": kept_back,
            "roofline_seconds": seconds,
        },
    }


def describe(plan: dict[str, Any]) -> str:
    """The plan in a few lines."""
    assumed = plan["assumptions"]
    hours = ", ".join(f"{name} {value:.2f}" for name, value in plan["hours_by_stage"].items())
    ends = "" if plan["complete"] else " The steps of the warm start do NOT all fit."
    return (
        f"Plan for {plan['model']}, at {assumed['efficiency']:.0%} of the roofline's speed, all "
        f"completions {assumed['completion_tokens']} tokens long:\n"
        f"  {plan['sft_tokens'] / 1e6:.0f} million SFT tokens, {plan['grpo_steps']:,} updates of "
        f"{assumed['seconds_per_update']:.1f} s, {plan['completions']:,} completions.{ends}\n"
        f"  Hours: {hours}; {plan['total_hours']:.2f} in all."
    )
