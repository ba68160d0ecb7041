"""Does the run fit a TPU v5e-8, and what can it do in nine hours? Asked of the TPU's compiler.

Every program of the `kaggle` profile is compiled for the slice, on any Linux machine with libtpu:
the compiler says how much memory it takes, or that it does not fit, and its text says what moves
and what is computed (`tpu/cost.py`). Nothing is run, and no weight is made. Gemma 3 1B took
15 minutes on two busy cores; Gemma 2 2B and `--compare stock` take longer.

    python scripts/preflight.py [--model gemma3_1b_it|gemma2_2b_it] [--topology v5e:2x4]
                                [--json FILE] [--compare stock] [--programs NAME ...]
    python scripts/preflight.py --plan-from FILE [--write]

The second makes the plan anew from what the compiler said before, in seconds: after a change of
the settings or of `tpu/assumptions.py`. FILE is one of `--json`, or `data/plan.json`.

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
from tpu.programs import PROGRAMS, make_target, run_for
from tpu.stock import compare_with_stock
from tpu.target import tpu_devices

from submission.essay import profiles

ROOT = pathlib.Path(__file__).resolve().parent.parent


def check(name: str, devices: list[Any], options: argparse.Namespace) -> dict[str, Any]:
    """All programs of one model, its plan, and the comparison if one is asked for."""
    target = make_target(run_for(name, options.layers), devices)
    print(f"\n{name} on {len(devices)} chips: {target.plan}")
    reports: dict[str, Report] = {}
    for program in options.programs:
        is_sampler = program == "evaluation_decode"
        turns = target.run.profile.lengths.completion - 1 if is_sampler else 1
        reports[program] = compiled(program, PROGRAMS[program], target, turns)
        if program == "decode_step_512":
            reports[program] = one_step(reports[program], target)
        print(reports[program], flush=True)
    found: dict[str, Any] = {"programs": [report.as_json() for report in reports.values()]}
    if len(reports) == len(PROGRAMS) and all(report.cost for report in reports.values()):
        found["plan"] = tpu_plan.nine_hours(
            target.run,
            target.mesh.size,
            {name: report.cost.roofline_seconds for name, report in reports.items()},
            {name: report.seconds_to_compile for name, report in reports.items()},
        )
        print(tpu_plan.describe(found["plan"]), flush=True)
    if options.compare:
        found["comparison"] = compare_with_stock(target, devices, options.programs)
    return found


def plan_again(path: pathlib.Path, write: bool) -> int:
    """The plan from an earlier one; returns the exit code."""
    found = json.loads(path.read_text(encoding="utf-8"))
    plan = found.get("plan", found)
    plan = tpu_plan.made_again(run_for(plan["model"], None), plan)
    print(tpu_plan.describe(plan))
    if write:
        tpu_plan.write(plan, ROOT / "data")
    return 0 if plan["complete"] else 1


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    models = [name for name, one in profiles.STOCK_MODELS.items() if one.handle]
    parser.add_argument("--model", choices=models, action="append", help="default: both")
    parser.add_argument("--topology", default="v5e:2x4", help="also v5e:4x4, v5e:8x8")
    parser.add_argument("--json", type=pathlib.Path, help="write the results here")
    parser.add_argument(
        "--compare", choices=["stock"], help="Tunix's defaults beside ours, of --programs"
    )
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--layers", type=int, help="only so many layers: quick, for a trial")
    parser.add_argument("--plan-from", type=pathlib.Path, metavar="FILE", help="compile nothing")
    parser.add_argument("--write", action="store_true", help="with it: data/plan.json and plan.md")
    options = parser.parse_args()
    absl.logging.set_verbosity(absl.logging.ERROR)
    warnings.filterwarnings("ignore", category=DeprecationWarning)

    if options.plan_from:
        return plan_again(options.plan_from, options.write)
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
