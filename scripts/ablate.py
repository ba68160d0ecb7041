"""What each choice is worth: the tiny run again and again, each time without one of them.

    python scripts/ablate.py [--rows NAME ...] [--seeds 0 1 2] [--jobs N] [--out DIR] [--write]

Every row is trained from the same data with the same number of steps, once per seed, in a process
of its own, and evaluated on the same held-out rows; runs that differ in GRPO only share their warm
start. What is done already is in DIR (by default `outputs/ablations`), so the command goes on
where it was broken off; with `--with-earlier`, GRPO runs in `data/ablations.json` count as done.
`--write` puts the numbers, the table and the plot into `data/`.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import datetime
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import jax
import matplotlib.pyplot as plt
import numpy as np
from after import trained
from flax import nnx

from submission.bench.answers.prompts import TURN_END
from submission.bench.policy import cluster, model, rollout, updates
from submission.bench.rows import data, prepared
from submission.bench.run import budget, checkpoints, run_folder, stages
from submission.bench.run.statistics import mean_and_interval, plus_minus
from submission.bench.settings import config
from submission.bench.show import evaluate
from submission.essay import grpo, profiles, rewards, sft

# A run that is shorter than the tiny profile's, so that each of 48 takes three minutes.
SFT_STEPS, GRPO_STEPS = 150, 30
ADAPTER = config.Adapter(rank=16, alpha=32.0)
GRPO = dict(
    steps=GRPO_STEPS, save_every=GRPO_STEPS, beta=0.02, micro_prompts=0,
    optimizer=config.Optimizer(peak_rate=8e-4),
)  # fmt: skip
NEVER = (float("inf"), float("inf"))  # a return to an earlier save would help some rows only
NO_GUARDS = config.Guards(format_lost=NEVER, length=NEVER, entropy_lost=NEVER, kl=NEVER)
TABLE, PLOT = trained.ROOT / "data" / "ablations.md", trained.ROOT / "data" / "ablations.png"
NUMBERS = trained.ROOT / "data" / "ablations.json"  # of every run, by job


# --- What can be taken away ---------------------------------------------------------------------


def without_eos() -> Any:
    """Sampled tokens come without the EOS that ended them, as from Tunix's own rollout."""
    whole = rollout.PolicyRollout.generate

    def generate(self: Any, *arguments: Any, **keywords: Any) -> Any:
        found, eos = whole(self, *arguments, **keywords), self.eos_id()
        tokens = [row[:-1] if len(row) > 1 and row[-1] == eos else row for row in found.tokens]
        return dataclasses.replace(found, tokens=tokens)

    return mock.patch.object(rollout.PolicyRollout, "generate", generate)


def same_noise() -> Any:
    """Every call of the rollout draws with the same key, as with Tunix's fixed seed."""
    whole = rollout.PolicyRollout.generate

    def generate(self: Any, *arguments: Any, **keywords: Any) -> Any:
        self.calls = 0
        return whole(self, *arguments, **keywords)

    return mock.patch.object(rollout.PolicyRollout, "generate", generate)


def stock_kl() -> Any:
    """Tunix's default estimator, whose gradient is zero in expectation."""
    whole = grpo.algorithm_config

    def settings(profile: config.Profile) -> Any:
        return dataclasses.replace(whole(profile), kl_loss_mode="kl")

    return mock.patch.object(grpo, "algorithm_config", settings)


def stock_reference() -> Any:
    """The reference is the model before the warm start: its adapter does nothing."""

    def stock(policy: nnx.Module, *_: Any) -> nnx.Module:
        graph, adapter, base = nnx.split(policy, nnx.LoRAParam, ...)
        return nnx.merge(graph, jax.tree.map(lambda x: x * 0, adapter), base, copy=False)

    return mock.patch.dict(cluster.REFERENCES, warm_start=stock)


@contextlib.contextmanager
def no_master_weights() -> Any:
    """The optimizer adds its updates to the adapter in the adapter's own dtype."""

    def plain(settings: config.Optimizer) -> Any:
        return updates.injected_adamw(settings, settings.peak_rate)

    on_sft = mock.patch.object(sft, "make_optimizer", plain)
    on_grpo = mock.patch.object(grpo, "make_optimizer", plain)
    with on_sft, on_grpo:
        yield


def no_gate() -> Any:
    """A right answer pays in full in whatever form it comes."""

    def right(completion: Any, example: Any) -> float:
        found = rewards.check(example, completion.answer) is True
        return float(found or evaluate.is_right_leniently(completion, example))

    return mock.patch.object(rewards, "reward_right", right)


def with_rewards(**changes: Any) -> Callable[[config.Profile], config.Profile]:
    """A change of the weights."""
    return lambda profile: config.changed(profile, {"rewards": changes})


def with_grpo(**changes: Any) -> Callable[[config.Profile], config.Profile]:
    """A change of the settings of GRPO."""
    return lambda profile: config.changed(profile, {"grpo": changes})


def ended_by_turn() -> Any:
    """The targets of SFT end with Gemma's mark of a turn, where the judges' sampler goes on."""

    tokenize = data.tokenize

    def tokenized(tokenizer: Any, example: Any) -> data.Tokens:
        whole = tokenize(tokenizer, example)
        return data.Tokens(whole.prompt, [*whole.target[:-1], *tokenizer.encode(TURN_END)])

    return mock.patch.object(data, "tokenize", tokenized)


def as_in_profile(**changes: Any) -> Callable[[config.Profile], config.Profile]:
    """GRPO as the tiny profile has it, ten times as long, with changes."""

    def changed(profile: config.Profile) -> config.Profile:
        return dataclasses.replace(profile, grpo=dataclasses.replace(profiles.TINY.grpo, **changes))

    return changed


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table."""

    title: str
    patches: tuple[Callable[[], Any], ...] = ()
    change: Callable[[config.Profile], config.Profile] = lambda profile: profile
    warm_start: str = "float32"  # a key of WARM_STARTS; empty: none
    against: str = "full"  # the line to compare it with


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """What a row of the table begins with; alone, it is a line of the table too."""

    alone: str  # the name of that line
    title: str
    against: str = "full"  # the line to compare it with
    dtype: str = "float32"
    patches: tuple[Callable[[], Any], ...] = ()
    traces: tuple[str, ...] = ("tasks/sft/",)  # in three styles
    steps: int = SFT_STEPS
    adapter: config.Adapter = ADAPTER


WARM_STARTS = {
    "float32": WarmStart("sft_only", "warm start only"),
    "worked_only": WarmStart(
        "sft_only_worked", "warm start only, without guesses", traces=profiles.WORKED.select
    ),
    "careful": WarmStart(
        "sft_only_careful", "warm start only, the most careful traces only",
        traces=profiles.CAREFUL.select,
    ),
    "best": WarmStart(
        "sft_only_best", "warm start only, those, 600 updates, rank 4",
        against="sft_only_careful", traces=profiles.CAREFUL.select, steps=profiles.TINY.sft.steps,
        adapter=profiles.TINY.adapter,
    ),
    "ended_by_turn": WarmStart(
        "sft_only_ended_by_turn", "warm start only, its targets end with `<end_of_turn>`",
        against="sft_only", patches=(ended_by_turn,),
    ),
    "bfloat16": WarmStart(
        "sft_only_half", "warm start only, in bfloat16", against="bfloat16", dtype="bfloat16"
    ),
    "no_master": WarmStart(
        "sft_only_no_master", "warm start only, in bfloat16 without float32 master weights",
        against="bfloat16", dtype="bfloat16", patches=(no_master_weights,),
    ),
}  # fmt: skip
STOCK = (without_eos, same_noise, stock_kl, stock_reference, no_master_weights)
ROWS = {
    "full": Row("all of it"),
    "no_sft": Row("no warm start: GRPO from the stock model", warm_start=""),
    "worked_only": Row(
        "a warm start without guesses: worked traces only", warm_start="worked_only"
    ),
    "careful": Row("a warm start on the most careful traces only", warm_start="careful"),
    "best": Row(
        "on 600 updates, GRPO as the profile has it",
        change=as_in_profile(), warm_start="best", against="sft_only_best",
    ),
    "best_learnability": Row(
        "the same, with prompts drawn by learnability",
        change=as_in_profile(curriculum=config.Curriculum("learnability")), warm_start="best",
        against="best",
    ),
    "greedy": Row("`top_p=None`: all completions of a group alike", change=with_grpo(top_p=None)),
    "slow": Row(
        "at a tenth of the rate, as without LoRA",
        change=with_grpo(optimizer=config.Optimizer(peak_rate=8e-5)),
    ),
    "ended_by_turn": Row(
        "the warm start's targets end with `<end_of_turn>`, not with EOS",
        warm_start="ended_by_turn",
    ),
    "no_eos": Row("no EOS in the sampled tokens", (without_eos,)),
    "same_noise": Row("the same noise at every step", (same_noise,)),
    "stock_kl": Row("Tunix's KL estimator, stock reference", (stock_kl, stock_reference)),
    "no_length": Row(
        "no reward for the length", change=with_rewards(length=0.0, right=0.9, late={})
    ),
    "no_gate": Row("no format gate: right answers pay in any form", (no_gate,)),
    "learnability": Row(
        "prompts drawn by learnability",
        change=with_grpo(curriculum=config.Curriculum("learnability")),
    ),
    "bfloat16": Row("all of it, in bfloat16", warm_start="bfloat16"),
    "no_master": Row(
        "in bfloat16 without float32 master weights",
        (no_master_weights,), warm_start="no_master", against="bfloat16",
    ),
    "stock": Row(
        "in bfloat16, all of Tunix's defaults at once",
        STOCK, warm_start="no_master", against="bfloat16",
    ),
}  # fmt: skip
LINES = {**{start.alone: start for start in WARM_STARTS.values()}, **ROWS}  # of the table
STOCK_GEMMA = "stock_gemma"  # its first line, which has no accuracy but a lenient one
TITLES = {STOCK_GEMMA: "the stock model, leniently"}
TITLES |= {name: line.title for name, line in LINES.items()}


# --- One run ------------------------------------------------------------------------------------


@dataclasses.dataclass
class Bench:
    """What all runs of a process share."""

    out: pathlib.Path
    run: config.Run
    tokenizer: Any
    mesh: Any
    rows: Mapping[str, Any]

    @classmethod
    def of(cls, out: pathlib.Path, seed: int, start: "WarmStart") -> "Bench":
        """Reads tokenizer and rows."""
        asked = {"PROFILE": "tiny", "RUN_SEED": str(seed), "RESUME": "0"}
        run = profiles.read_run(asked, "cpu")
        warm = {run.recipe: (dataclasses.replace(profiles.CAREFUL, select=start.traces),)}
        profile = dataclasses.replace(
            run.profile,
            adapter=start.adapter,
            sft=dataclasses.replace(run.profile.sft, steps=start.steps, save_every=start.steps),
            grpo=dataclasses.replace(run.profile.grpo, **GRPO),
            guards=NO_GUARDS,
            sft_sources=warm,
        )
        run = dataclasses.replace(run, profile=profile)
        tokenizer = model.load_tokenizer(model.locate(run.model, 1))
        return cls(out, run, tokenizer, model.make_mesh(), prepared.rows_of_run(run, tokenizer))

    def policy(self, dtype: str) -> nnx.Module:
        """The stock model with a fresh adapter."""
        stock = dataclasses.replace(self.run.model, dtype=dtype)
        loaded = model.load_stock(stock, model.locate(stock, 1), self.mesh)
        return model.add_adapter(loaded, self.run.profile.adapter, self.run.seed, self.mesh)

    def evaluated(self, policy: nnx.Module) -> dict[str, Any]:
        """Scores on the held-out rows."""
        profile, lengths = self.run.profile, self.run.profile.lengths
        sampler = model.make_sampler(policy, self.tokenizer, self.run.cache_length)
        with self.mesh:
            answered = evaluate.answer_greedily(
                sampler, self.rows["held_out"].examples, profile.evaluation.batch_size,
                lengths.prompt, lengths.completion,
            )  # fmt: skip
        found = evaluate.summarise(answered)
        names = ("n", "format", "accuracy", "accuracy_lenient", "stopped", "mean_tokens")
        return {name: found[name] for name in names}

    @contextlib.contextmanager
    def session(self, run: config.Run, name: str) -> Any:
        """A session in a folder of its own, which is removed when all went well."""
        folder = self.out / "work" / name
        opened = run_folder.open_run_folder(dataclasses.replace(run, out=str(folder)))
        yield stages.Session(run, self.mesh, opened, budget.Deadline.after(24 * 3600))
        opened.release()
        shutil.rmtree(folder)

    def warm_start(self, name: str) -> dict[str, Any]:
        """Trains a warm start and keeps its adapter."""
        start = WARM_STARTS[name]
        policy, label = self.policy(start.dtype), f"sft_{name}-{self.run.seed}"
        found = {STOCK_GEMMA: self.evaluated(policy)} if name == "float32" else {}
        with applied(start.patches), self.session(self.run, label) as session:
            sft.train_sft(policy, self.tokenizer, self.rows["sft"], session, session.deadline)
        facts = {"stage": "sft", "config": "", "pace": {}, "state": {}}
        shutil.rmtree(self.out / label, ignore_errors=True)
        checkpoints.write_step(self.out / label, 0, policy, None, facts)
        return found | {start.alone: self.evaluated(policy)}

    def reinforced(self, name: str) -> dict[str, Any]:
        """Trains a row with GRPO on its warm start."""
        row = ROWS[name]
        run = dataclasses.replace(self.run, profile=row.change(self.run.profile))
        dtype = WARM_STARTS[row.warm_start].dtype if row.warm_start else "float32"
        policy = self.policy(dtype)
        if row.warm_start:
            start = self.out / f"sft_{row.warm_start}-{run.seed}" / "0"
            checkpoints.restore_adapter(policy, start)
        with applied(row.patches), self.session(run, f"{name}-{run.seed}") as session:
            report = grpo.train_grpo(
                policy, self.tokenizer, self.rows["grpo"], session, session.deadline
            )
        curves = {
            key: [round(line[key], 4) for line in report["history"] if key in line]
            for key in ("reward", "in_format", "right", "flat_groups", "kl", "entropy", "tokens")
        }
        return {name: self.evaluated(policy) | {"curves": curves}}


@contextlib.contextmanager
def applied(patches: Sequence[Callable[[], Any]]) -> Any:
    """All of them at once."""
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch())
        yield


def do(out: pathlib.Path, job: str) -> None:
    """One job, `kind:name:seed`; its result is in a file of its own when it is done."""
    kind, name, seed = job.split(":")
    warm_start = WARM_STARTS[name if kind == "sft" else ROWS[name].warm_start or "float32"]
    start, bench = time.monotonic(), Bench.of(out, int(seed), warm_start)
    found = bench.warm_start(name) if kind == "sft" else bench.reinforced(name)
    seconds = round(time.monotonic() - start, 1)
    run_folder.write_json(result_file(out, job), {"seed": int(seed), "seconds": seconds, **found})


def result_file(out: pathlib.Path, job: str) -> pathlib.Path:
    """Where the result of a job is kept."""
    return out / f"{job.replace(':', '-')}.json"


# --- All of them --------------------------------------------------------------------------------


def jobs_of(rows: Sequence[str], seeds: Sequence[int]) -> list[list[str]]:
    """The jobs, in parts: the second of a seed needs what the first leaves."""
    starts = dict.fromkeys(ROWS[name].warm_start for name in rows)
    parts = []
    for seed in seeds:
        parts.append([f"sft:{name}:{seed}" for name in starts if name])
        parts.append([f"grpo:{name}:{seed}" for name in rows])
    return parts


def take(cores: Iterator[int]) -> None:
    """Keeps a thread, and the processes that it starts, on one core.

    Models this small gain little from a second core: two jobs on a core each end in the time that
    one takes on both.
    """
    if hasattr(os, "sched_setaffinity"):  # not on macOS
        os.sched_setaffinity(0, {next(cores)})


def run_job(out: pathlib.Path, job: str) -> str:
    """Runs a job in a process of its own, unless it is done; returns what went wrong."""
    if result_file(out, job).exists():
        return ""
    start = time.monotonic()
    log = out / f"{job.replace(':', '-')}.log"
    command = [sys.executable, "-W", "ignore", __file__, "--out", str(out), "--job", job]
    with log.open("w") as file:
        code = subprocess.call(command, stdout=file, stderr=subprocess.STDOUT)
    print(f"{job}: {'done' if code == 0 else f'exit {code}'}, {time.monotonic() - start:.0f} s",
          flush=True)  # fmt: skip
    return "" if code == 0 else f"{job} failed: see {log}"


def results_in(out: pathlib.Path) -> dict[str, dict[int, dict[str, Any]]]:
    """What is there, by row and seed."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for path in sorted(out.glob("*.json")):
        job = json.loads(path.read_text())
        for name in {*TITLES} & {*job}:
            found.setdefault(name, {})[job["seed"]] = job[name]
    return found


def accuracies(found: Mapping[str, Mapping[int, dict]], name: str) -> list[float]:
    """The accuracy of a line, by seed; of the stock model, the lenient one."""
    field = "accuracy_lenient" if name == STOCK_GEMMA else "accuracy"
    return [run[field] for run in found[name].values()]


def difference(found: Mapping[str, Mapping[int, dict]], name: str) -> str:
    """How much a row lies above or below the one to compare with, seed by seed."""
    if name == STOCK_GEMMA or name == (against := LINES[name].against) or against not in found:
        return ""
    pairs = [
        found[name][seed]["accuracy"] - found[against][seed]["accuracy"]
        for seed in found[name]
        if seed in found[against]
    ]
    if not pairs:
        return ""
    mean, half = mean_and_interval(pairs)
    return f"{mean:+.3f}{plus_minus(half)}"


def table(found: Mapping[str, Mapping[int, dict]], command: str) -> str:
    """The table, as Markdown."""
    lines = [
        "# What each choice is worth",
        "",
        f"By `{command}`, {datetime.date.today()}: the tiny model, 600 held-out rows, greedy. "
        f"{GRPO_STEPS} steps of GRPO at rank {ADAPTER.rank} on {SFT_STEPS} of SFT, of an earlier "
        "version; lines on 600 updates, and those of `top_p`, of a tenth of the rate and of "
        "`<end_of_turn>`, are of this one. ± is half a 95 % interval over seeds "
        "(Student's t). Differences, seed by seed, are to *all of it*; without master weights, to "
        "*all of it, in bfloat16*; on 600 updates, to those. No guards against a collapse.",
        "",
        "| | seeds | accuracy | difference | format | ended by itself | tokens |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, title in TITLES.items():
        if name not in found:
            continue
        runs = list(found[name].values())
        mean, half = mean_and_interval(accuracies(found, name))
        others = [np.mean([run[x] for run in runs]) for x in ("format", "stopped", "mean_tokens")]
        lines.append(
            f"| {title} | {len(runs)} | {mean:.3f}{plus_minus(half)} | {difference(found, name)} | "
            f"{others[0]:.3f} | {others[1]:.3f} | {others[2]:.1f} |"
        )
    return "\n".join(lines) + "\n"


def plot(found: Mapping[str, Mapping[int, dict]], path: pathlib.Path) -> None:
    """One dot per seed, and the mean, a line per row."""
    names = [name for name in TITLES if name in found][::-1]
    figure, axis = plt.subplots(figsize=(9, 0.165 * len(names) + 0.8), layout="constrained")
    for height, name in enumerate(names):
        values = accuracies(found, name)
        axis.plot(values, [height] * len(values), "o", color="#0072B2", markerfacecolor="none")
        axis.plot(np.mean(values), height, "|", color="black", markersize=12, markeredgewidth=2)
    if "full" in found:
        axis.axvline(
            np.mean(accuracies(found, "full")), color="black", linewidth=0.8, linestyle=":"
        )
    axis.set_yticks(range(len(names)), [TITLES[name] for name in names], fontsize=8)
    axis.set_xlabel("accuracy (ring: a seed; bar: their mean)")
    axis.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=67)
    plt.close(figure)


def main(arguments: Sequence[str]) -> int:
    """Runs what is missing; 0 only if all of it is there."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="at once, each on one core"
    )
    parser.add_argument("--out", type=pathlib.Path, default=trained.ROOT / "outputs" / "ablations")
    parser.add_argument(
        "--write", action="store_true", help="put numbers, table and plot into data/"
    )
    parser.add_argument("--with-earlier", action="store_true", help=f"take over {NUMBERS.name}")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    os.chdir(trained.ROOT)  # the configuration's paths are relative to the repository
    if options.job:
        do(out, options.job)
        return 0
    if options.with_earlier:
        for job, result in json.loads(NUMBERS.read_text()).items():
            # Warm starts are made anew where they are needed: their adapters are not kept.
            name = job if job.startswith("grpo") else f"earlier-{job}"
            run_folder.write_json(out / f"{name}.json", result)
    trouble: list[str] = []
    cores = itertools.cycle(range(os.cpu_count() or 1))
    with concurrent.futures.ThreadPoolExecutor(
        options.jobs, initializer=take, initargs=(cores,)
    ) as pool:
        for part in jobs_of(options.rows, options.seeds):
            trouble += filter(None, pool.map(lambda job: run_job(out, job), part))
    found = results_in(out)
    shown = [x for x in arguments if x not in ("--out", str(options.out))]
    told = table(found, " ".join(["python scripts/ablate.py", *shown]))
    print(told)
    if options.write:
        TABLE.write_text(told)
        paths = sorted(out.glob("*.json"))
        jobs = {x.stem.removeprefix("earlier-"): json.loads(x.read_text()) for x in paths}
        NUMBERS.write_text(json.dumps(jobs, separators=(",", ":")) + "\n")
        plot(found, PLOT)
    print(*trouble, sep="\n")
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
