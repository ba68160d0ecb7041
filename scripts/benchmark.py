"""Ours against stock Tunix: the same work, in one run, on this machine.

    python scripts/benchmark.py [--json FILE] [--only NAME ...] [--write]
    python scripts/benchmark.py --only small_sft small_grpo   # Gemma 3 270M, of the profile small

Each side of a measurement that has a device count or a peak of memory of its own runs in a
process of its own; where both can share one, they take turns. The first call of everything is its
warm-up: its time, compilation above all, is reported apart. On two cores it takes about ten
minutes. `--write` measures Gemma 3 270M as well and puts the table into `data/benchmarks.md`.
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # here; what measures is told by `measure`

import absl.logging
from benchmarks.small import measure_small_grpo, measure_small_sft
from benchmarks.tiny import (
    measure_grpo,
    measure_natural_rollout,
    measure_rollout,
    measure_sft,
    measure_vocabulary,
)
from machine import processor

ROOT = pathlib.Path(__file__).resolve().parent.parent
TABLE = ROOT / "data" / "benchmarks.md"


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Something to measure, and the processes it needs."""

    function: Callable[..., dict]  # its docstring's first line is the table's
    each_side: bool = False  # a process for stock and one for ours, or one for both
    devices: int = 1  # emulated ones, on a CPU


MEASUREMENTS = {
    "rollout": Measurement(measure_rollout, devices=8),
    "natural_rollout": Measurement(measure_natural_rollout),
    "sft": Measurement(measure_sft),
    "vocabulary": Measurement(measure_vocabulary, each_side=True),
    "grpo": Measurement(measure_grpo, each_side=True),
    "small_sft": Measurement(measure_small_sft, each_side=True),
    "small_grpo": Measurement(measure_small_grpo, each_side=True),
}
BY_DEFAULT = [name for name in MEASUREMENTS if not name.startswith("small")]  # no model to get


def child(name: str, side: str) -> None:
    """Measures in this process and prints the result as its last line."""
    absl.logging.set_verbosity(absl.logging.ERROR)
    measurement = MEASUREMENTS[name]
    found = measurement.function(*[side] if measurement.each_side else [])
    for part in found.values():
        part.update({key: None for key, value in part.items() if value != value})  # NaN: not known
    print(json.dumps(found))


def measure(name: str) -> dict:
    """Runs a measurement's processes, one after the other, and joins what they found."""
    measurement, joined = MEASUREMENTS[name], {"stock": {}, "ours": {}, "remarks": {}, "failed": []}
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    # As in `environment.sh`: without it a quarter of a CPU's time, on both sides, is page faults.
    keep = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"
    environment.setdefault("GLIBC_TUNABLES", f"{keep}:glibc.malloc.arena_max=1")
    if measurement.devices > 1:
        flag = f"--xla_force_host_platform_device_count={measurement.devices}"
        environment["XLA_FLAGS"] = flag
    for side in ("stock", "ours") if measurement.each_side else ("both",):
        command = [sys.executable, __file__, "--child", name, side]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            error = (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
            joined["failed"].append(f"{side}: {error}")
            continue
        for part, numbers in json.loads(done.stdout.splitlines()[-1]).items():
            joined[part].update(numbers)
    return joined


def machine() -> str:
    """Processor, cores, memory and load."""
    name = processor()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB, load {os.getloadavg()[0]:.1f} before"


def shown(number: float | None) -> str:
    """Three digits that count, or a dash."""
    if number is None or not math.isfinite(number):
        return "–"
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


def table(results: dict[str, dict]) -> str:
    """The results as Markdown, one line per number."""
    lines = ["| measurement | | stock Tunix | ours | ours / stock | |", "|---|---|---|---|---|---|"]
    for name in dict.fromkeys([*BY_DEFAULT, *results]):
        measurement = MEASUREMENTS[name]
        about = measurement.function.__doc__.splitlines()[0].rstrip(".")
        found = results.get(name)
        if found is None:
            lines.append(f"| {name}: {about} | | – | – | – | not measured |")
            continue
        what = dict.fromkeys([*found["stock"], *found["ours"], *found["remarks"]])
        first = f"{name}: {about}"
        for key in what:
            stock, ours = found["stock"].get(key), found["ours"].get(key)
            ratio = ours / stock if ours and stock else None
            cells = (first, key, shown(stock), shown(ours), shown(ratio))
            lines.append(f"| {' | '.join(cells)} | {found['remarks'].get(key, '')} |")
            first = ""
        lines += [f"| {first} | | – | – | – | failed, {error} |" for error in found["failed"]]
    return "\n".join(lines)


def document(report: dict) -> str:
    """The committed page."""
    return f"""# Ours against stock Tunix

Measured, with equal work on both sides, by

```
{report["command"]}
```

on {report["machine"]}; {report["date"]}; {report["versions"]}. What each line measures is
described in `scripts/benchmarks/`. Emulated devices share the
machine's cores: they show what work is saved, not what links cost. Seconds
and bytes of other machines differ; ratios less so.

{table(report["measurements"])}
"""


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path, help="write the numbers to this file")
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, help="measure these")
    parser.add_argument("--write", action="store_true", help=f"put the table into {TABLE.name}")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.child:
        child(*chosen.child)
        return 0
    only = f"--only {' '.join(chosen.only)}" if chosen.only else ""
    if chosen.write and only:
        parser.error("--write is for a whole run: the table would lose what is not measured")
    results, where = {}, machine()
    for name in chosen.only or (MEASUREMENTS if chosen.write else BY_DEFAULT):
        start = time.perf_counter()
        results[name] = measure(name)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("jax", "google-tunix")]
    report = {
        "command": " ".join(["python scripts/benchmark.py", *([only] if only else ["--write"])]),
        "machine": where,
        "date": datetime.date.today().isoformat(),
        "versions": ", ".join([f"Python {platform.python_version()}", *versions]),
        "measurements": results,
    }
    print(table(results))
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1) + "\n")
    if chosen.write:
        TABLE.write_text(document(report))
    return 1 if any(found["failed"] for found in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
