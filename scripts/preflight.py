"""Does the run fit a TPU v5e-8, and what can it do in nine hours? Asked of the TPU's compiler.

Every program of the `kaggle` profile is compiled for the slice, on any Linux machine with libtpu:
the compiler says how much memory it takes, or that it does not fit, and its text says what moves
and what is computed (`tpu/cost.py`). Nothing is run, and no weight is made. Gemma 3 1B took
15 minutes on two busy cores; Gemma 2 2B and `--compare stock` take longer.

    python scripts/preflight.py [--model gemma3_1b_it|gemma2_2b_it] [--topology v5e:2x4]
                                [--json FILE] [--compare stock] [--programs NAME ...]
    python scripts/preflight.py --plan-from FILE [--write] [--recipe R] [--helper MODEL]
                                [--topology v5e:4x4 --prompts 256]

The second makes the plan anew from what the compiler said before, in seconds: after a change of
the settings or of `tpu/assumptions.py`. FILE is one of `--json`, or `data/plan.json`. Of a recipe
with a second model, which teaches or judges, the pass of that model is compiled; of a larger slice,
where each chip has the work that it had, what its hosts exchange.

Exit code 1: something does not fit, or the plan does not end in time.
"""

import argparse
import json
import os
import pathlib
import sys
import warnings
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import absl.logging
from tpu import plan as tpu_plan
from tpu.compile import Report, compiled, one_step
from tpu.programs import PROGRAMS, make_target, programs_of, run_for
from tpu.stock import compare_with_stock
from tpu.target import ONE_HOST, tpu_devices

from submission.bench.policy.hosts import run_of_a_host
from submission.essay import profiles

ROOT = pathlib.Path(__file__).resolve().parent.parent


def check(name: str, devices: list[Any], options: argparse.Namespace) -> dict[str, Any]:
    """All programs of one model, its plan, and the comparison if one is asked for."""
    run = run_for(name, options.layers, options.recipe, options.helper, options.prompts)
    target = make_target(run, devices)
    run, programs = target.run, options.programs or programs_of(target)
    hosts = 1 if target.slice is None else len(target.slice.devices)
    where = f"{len(devices)} chips" + f" of {hosts} hosts; on each" * (hosts > 1)
    print(f"\n{name} on {where}: {target.plan}")
    reports: dict[str, Report] = {}
    for program in programs:
        is_sampler = program == "evaluation_decode"
        turns = target.run.profile.lengths.completion - 1 if is_sampler else 1
        reports[program] = compiled(program, PROGRAMS[program], target, turns)
        if program == "decode_step_512":
            reports[program] = one_step(reports[program], target)
        print(reports[program], flush=True)
    found: dict[str, Any] = {"programs": [report.as_json() for report in reports.values()]}
    if programs == programs_of(target) and all(report.cost for report in reports.values()):
        roofline = {name: report.cost.roofline_seconds for name, report in reports.items()}
        if not run.profile.grpo.steps:
            found["plan"] = tpu_plan.sft_alone(run, target.mesh.size, roofline)
            return found
        to_compile = {name: report.seconds_to_compile for name, report in reports.items()}
        found["plan"] = tpu_plan.nine_hours(run, target.mesh.size, roofline, to_compile, hosts)
        print(tpu_plan.describe(found["plan"]), flush=True)
    if options.compare:
        found["comparison"] = compare_with_stock(target, devices, programs)
    return found


def plan_again(options: argparse.Namespace) -> int:
    """The plan from an earlier one; a recipe's second model is compiled. Returns the exit code."""
    found = json.loads(options.plan_from.read_text(encoding="utf-8"))
    plan = found.get("plan", found)
    run = run_for(plan["model"], None, options.recipe, options.helper, options.prompts)
    also = "helper_pass" if run.profile.helper else ""
    if options.topology != ONE_HOST:
        try:
            also, plan = "exchange", tpu_plan.on_more_hosts(run, plan, options.topology)
        except ValueError as error:
            print(f"preflight.py: {error}", file=sys.stderr)
            return 1
    if also:
        target = make_target(run, list(tpu_devices(options.topology)))
        report = compiled(also, PROGRAMS[also], target)
        print(target.plan, report, sep="\n")
        if not report.fits:
            return 1
        for of, value in (("roofline_seconds", report.cost.roofline_seconds),
                          ("seconds_to_compile", report.seconds_to_compile)):  # fmt: skip
            plan[of][also] = value
    plan = tpu_plan.made_again(run_of_a_host(run, plan.get("hosts", 1)), plan)
    print(tpu_plan.describe(plan))
    if options.write:
        tpu_plan.write(plan, ROOT / "data")
    return 0 if plan["complete"] else 1


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    models = [name for name, one in profiles.STOCK_MODELS.items() if one.handle]
    parser.add_argument("--model", choices=models, action="append", help="default: both")
    parser.add_argument("--topology", default=ONE_HOST, help="also v5e:4x4 (four hosts), v5e:8x8")
    parser.add_argument("--json", type=pathlib.Path, help="write the results here")
    parser.add_argument(
        "--compare", choices=["stock"], help="Tunix's defaults beside ours, of --programs"
    )
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, help="default: all it has")
    parser.add_argument("--recipe", default="", choices=["", *profiles.RECIPES])
    parser.add_argument("--helper", help="its second model, by Tunix's name: gemma3_12b_it, say")
    parser.add_argument("--prompts", type=int, help="of an update of GRPO; default: the profile's")
    parser.add_argument("--layers", type=int, help="only so many layers: quick, for a trial")
    parser.add_argument("--plan-from", type=pathlib.Path, metavar="FILE",
                        help="compile nothing but a recipe's second model")  # fmt: skip
    parser.add_argument("--write", action="store_true", help="with it: data/plan.json and plan.md")
    options = parser.parse_args()
    absl.logging.set_verbosity(absl.logging.ERROR)
    warnings.filterwarnings("ignore", category=DeprecationWarning)

    if options.plan_from:
        return plan_again(options)
    devices = list(tpu_devices(options.topology))
    found = [check(name, devices, options) for name in options.model or models]
    results = {
        "topology": options.topology,
        "programs": [program for one in found for program in one["programs"]],
        "plan": found[0].get("plan"),
        "plans": [one["plan"] for one in found if "plan" in one],
    }
    if options.compare:
        results["comparison"] = [line for one in found for line in one["comparison"]]
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    all_fit = all(program["fits"] for program in results["programs"])
    in_time = all(plan["complete"] for plan in results["plans"])
    return 0 if all_fit and in_time else 1


if __name__ == "__main__":
    sys.exit(main())
