"""Breaks the real pipeline in many ways, and says what was left each time.

    python tests/faults/harness.py [--kills N] [--seed S] [--only NAME ...] [--write]

A child process runs the notebook's cells with few steps (`pipeline.py`). It is killed with its
whole process tree at random moments, inside saves too; its newest checkpoint is damaged; its disk
fills up; its batches, rewards and gradients turn to NaN; its steps become slow; it is sent
signals. Each time it goes on by itself, and what it ends with is compared with an unbroken run:
adapter and optimizer bit for bit, the log line for line, the clock aside.

All of it takes one to two hours on two cores; `--write` puts the results into RESULTS.md.
"""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path[:0] = [str(ROOT / "scripts")]

from flax import nnx  # noqa: E402

from submission.bench.policy import model  # noqa: E402
from submission.bench.run import checkpoints, metrics  # noqa: E402
from submission.essay import profiles  # noqa: E402

RESULTS = HERE / "RESULTS.md"
PATIENCE = 900.0  # seconds for any child: longer is a hang
SAVE_EVERY = {"sft": 5, "grpo": 2}  # of pipeline.py

# Kills its own process a random moment after its n-th save has begun.
KILL_IN_SAVE = """
import random, signal, threading
_write_beside, _saves = write_beside, []

def write_beside(*parts):
    _saves.append(1)
    if len(_saves) == {save}:
        threading.Timer({delay}, lambda: os.killpg(0, signal.SIGKILL)).start()
    return _write_beside(*parts)
"""


@dataclasses.dataclass
class Child:
    """One life of the pipeline."""

    out: pathlib.Path
    faults: str = ""
    changes: str = "{}"
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    log_name: str = ""  # by default the folder's

    def start(self) -> "Child":
        """Starts it, in a process group of its own."""
        self.log_path = self.out.with_name(self.log_name or f"{self.out.name}.log")
        self.log = self.log_path.open("a")
        self.log_start = self.log.tell()
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(HERE / "pipeline.py"), str(self.out), self.faults],
            env={**os.environ, "CHANGES": self.changes, **self.environment},
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return self

    def wait(self, seconds: float = PATIENCE) -> int | None:
        """Its exit code, or None if it is still at work after so many seconds."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self.log.close()
        return code

    def kill(self) -> None:
        """Kills it and all of its own children, without a chance to do anything."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()

    def said(self) -> str:
        """What this life has printed."""
        return self.log_path.read_text(errors="replace")[self.log_start :]

    def until(self, text: str) -> None:
        """Waits until it has printed something."""
        end = time.monotonic() + PATIENCE
        while text not in self.said():
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"{text!r} never came:\n{self.said()[-2000:]}")
            time.sleep(0.02)


def finish(out: pathlib.Path, **settings: Any) -> Child:
    """Runs it to its end.

    Raises:
      AssertionError: it failed, or never ended.
    """
    child = Child(out, **settings).start()
    code = child.wait()
    if code is None:
        child.kill()
    if code != 0:
        raise AssertionError(f"exit code {code}:\n{child.said()[-3000:]}")
    return child


def outcome(out: pathlib.Path) -> dict[str, Any]:
    """What a finished run has come to, the clock aside."""
    actor = out / "checkpoints" / "actor"
    last = checkpoints.checkpoint_steps(actor)[-1]
    log = [
        {k: v for k, v in x.items() if not k.endswith("seconds")}
        for x in metrics.read_lines(out / "metrics.jsonl")
    ]
    answers = json.loads((out / "answers" / "after_grpo.json").read_text())["answers"]
    digests = checkpoints.read_facts(actor / str(last))["digests"]
    return {"step": last, "digests": digests, "log": log, "answers": answers}


def is_as(whole: dict[str, Any], out: pathlib.Path) -> bool:
    """Has a run come to the same as the unbroken one?"""
    return all(value == whole[name] for name, value in outcome(out).items())


class Judge:
    """Loads what a run has left, as the judges do."""

    def __init__(self) -> None:
        stock, mesh = profiles.STOCK_MODELS["gemma3_tiny_it"], model.make_mesh()
        loaded = model.load_stock(stock, model.locate(stock, 1), mesh)
        self.policy = model.add_adapter(loaded, profiles.TINY.adapter, 0, mesh)

    def loads(self, out: pathlib.Path) -> bool:
        """Is the highest step whole, in both folders? No step at all is no fault."""
        parts = {"model_params": nnx.state(self.policy, nnx.LoRAParam)}
        for name in ("actor", "sft"):
            folder = out / "checkpoints" / name
            if steps := checkpoints.checkpoint_steps(folder):
                try:
                    checkpoints.read_step(folder / str(steps[-1]), parts)
                except checkpoints.DamagedStepError as error:
                    print(f"  {error}")
                    return False
                if name == "actor":
                    checkpoints.restore_submission(self.policy, folder)
        return True


LINE = re.compile(r"^(sft|grpo)(?: +(\d+)/\d+  | goes on after step (\d+))", re.MULTILINE)


def work_lost(log: str) -> int:
    """Most steps of a stage that were made before a kill and had to be made again.

    Args:
      log: what all lives of a run have printed, one after the other; they print every step.
    """
    lost, reached = 0, {"sft": 0, "grpo": 0}
    for stage, made, restored in LINE.findall(log):
        start = int(restored) if restored else int(made) - 1
        lost = max(lost, reached[stage] - start)
        reached[stage] = int(restored or made)
    return lost


# --- Kills --------------------------------------------------------------------------------------


def kills(folder: pathlib.Path, whole: dict[str, Any], number: int, rng: random.Random) -> dict:
    """`number` kills, one to three in each run, every run to its end and compared."""
    judge, left, runs = Judge(), number, 0
    survived = unloadable = most_lost = in_saves = 0
    while left > 0:
        runs += 1
        out, here = folder / f"kills{runs}", min(left, rng.randint(1, 3))
        made = 0
        while made < here:
            fault = ""
            if inside_save := rng.random() < 0.4:  # of up to nine: five in SFT, one between, three
                delay = round(rng.uniform(0, 0.3), 3)
                fault = KILL_IN_SAVE.format(save=rng.randint(1, 9), delay=delay)
            child = Child(out, fault, environment={"RESUME": rng.choice(["", "1"])}).start()
            code = child.wait(PATIENCE if inside_save else rng.uniform(2, whole["seconds"]))
            if code is None:
                child.kill()
            if code == 0 or (out / "results.json").exists():
                break  # it was faster than its murderer
            if code not in (None, -signal.SIGKILL):
                raise AssertionError(f"exit code {code}:\n{child.said()[-3000:]}")
            made, left, in_saves = made + 1, left - 1, in_saves + inside_save
            unloadable += not judge.loads(out)
        else:
            finish(out)
        most_lost = max(most_lost, work_lost(out.with_suffix(".log").read_text(errors="replace")))
        same = is_as(whole, out)
        survived += made if same else 0
        print(f"run {runs}: {made} kills, {'the same' if same else 'NOT THE SAME'}", flush=True)
        shutil.rmtree(out)
    done = number - left
    return {
        "kills": done,
        "of them inside a save": in_saves,
        "survived with the same adapter, optimizer and log": survived,
        "moments at which the highest step did not load": unloadable,
        "most steps made again after a kill (an interval is 5 in SFT, 2 in GRPO)": most_lost,
        "good": survived == done and not unloadable and most_lost <= max(SAVE_EVERY.values()),
    }


# --- Damage -------------------------------------------------------------------------------------


def damage(folder: pathlib.Path, whole: dict[str, Any], rng: random.Random) -> dict:
    """After a kill in GRPO, the newest step is damaged in several ways; each run goes on."""
    out = folder / "damaged"
    child = Child(out, KILL_IN_SAVE.format(save=9, delay=60)).start()
    child.until("grpo    5/6")
    child.kill()
    results = {}
    for name in ("truncated", "deleted", "flipped", "swapped", "half-written folder"):
        copy = folder / "damaged_copy"
        shutil.copytree(out, copy)
        actor = copy / "checkpoints" / "actor"
        steps = checkpoints.checkpoint_steps(actor)
        step = actor / str(steps[-1])
        files = [p for p in step.rglob("*") if p.is_file() and p.stat().st_size > 100]
        victim = rng.choice(sorted(files))
        content = victim.read_bytes()
        if name == "truncated":
            victim.write_bytes(content[: len(content) // 2])
        elif name == "deleted":
            victim.unlink()
        elif name == "flipped":
            place = rng.randrange(len(content))
            flipped = bytes([content[place] ^ 1])
            victim.write_bytes(content[:place] + flipped + content[place + 1 :])
        elif name == "swapped":
            shutil.rmtree(step / "model_params")
            shutil.copytree(actor / str(steps[0]) / "model_params", step / "model_params")
        else:
            shutil.copytree(step, actor / "99.orbax-checkpoint-tmp-1")
            shutil.copytree(step, copy / "checkpoints" / "actor.unfinished" / "99")
        finish(copy)
        results[f"newest step {name}: ended as unbroken"] = is_as(whole, copy)
        print(f"{name}: {results[f'newest step {name}: ended as unbroken']}", flush=True)
        shutil.rmtree(copy)
    return {**results, "good": all(results.values())}


# --- Signals ------------------------------------------------------------------------------------


def signals(folder: pathlib.Path, whole: dict[str, Any], rng: random.Random) -> dict:
    """SIGTERM in every stage; it ends in good order, goes on, and comes to the same."""
    out, results = folder / "signals", {}
    moments = {
        "getting ready": "JAX 0",
        "first evaluation": "parameters are trained",
        "SFT": "sft    7/24",
        "second evaluation": "slots used",
        "GRPO": "grpo    3/6",
        "last evaluation": "is the last step",
    }
    for name, text in moments.items():
        child = Child(out).start()
        child.until(text)
        child.process.send_signal(signal.SIGTERM)
        code = child.wait()
        said = child.said()
        clean = code == -signal.SIGTERM or (code == 1 and "StoppedBySignalError: SIGTERM" in said)
        results[f"SIGTERM in {name}: ended in good order"] = clean
        print(f"{name}: exit {code}", flush=True)
    finish(out)
    results["afterwards, ended as unbroken"] = is_as(whole, out)
    return {**results, "good": all(results.values())}


# --- What is injected ---------------------------------------------------------------------------

NAN_BATCH = """
_input = packed_model_input

def packed_model_input(batch):
    found = _input(batch)
    spoiled = (found["input_tokens"].sum() % 3) == 0
    return {**found, "positions": jnp.where(spoiled, jnp.nan, 1.0) * found["positions"]}
"""
NAN_REWARD = """
_check, _calls = check, []

def check(example, answer):
    _calls.append(1)
    return float("nan") if len(_calls) % 40 == 0 else _check(example, answer)
"""
REWARD_RAISES = """
_check, _calls = check, []

def check(example, answer):
    _calls.append(1)
    if len(_calls) % 40 == 0:
        raise RuntimeError("no process could be started")
    return _check(example, answer)
"""
REWARD_HANGS = """
PROFILES["tiny"] = dataclasses.replace(
    PROFILES["tiny"], rewards=dataclasses.replace(PROFILES["tiny"].rewards, seconds=2.0)
)
run = read_run(os.environ, jax.default_backend())
profile = run.profile
_right, _calls = reward_right, []

def reward_right(completion, example):
    _calls.append(1)
    while len(_calls) == 70:
        time.sleep(0.01)
    if len(_calls) == 50:
        time.sleep(1000)
    return _right(completion, example)
"""
SLOW_STEP = """
_draw = PromptSampler.draw

def _slow_draw(self, *arguments):
    if self.draws == 4:
        time.sleep(15)
    return _draw(self, *arguments)

PromptSampler.draw = _slow_draw
"""
CLOCK_JUMPS = """
_monotonic = time.monotonic
_jump = []

def _jumping():
    return _monotonic() + 36000 * bool(_jump)

Deadline = functools.partial(Deadline, clock=_jumping)
_draw = PromptSampler.draw

def _draw_and_jump(self, *arguments):
    _jump.extend([1] * (self.draws == 2))
    return _draw(self, *arguments)

PromptSampler.draw = _draw_and_jump
"""
FULL_DISK = """
_write_beside, _saves = write_beside, []

def write_beside(*parts):
    _saves.append(1)
    if len(_saves) in (1, 2):
        raise OSError(28, "No space left on device")
    return _write_beside(*parts)
"""
INJECTED = {
    "NaN in a batch": (NAN_BATCH, "the step was left out"),
    "NaN as a reward": (NAN_REWARD, '"failed": '),
    "a reward that raises": (REWARD_RAISES, '"failed": '),
    "rewards that hang, in Python and outside": (REWARD_HANGS, '"failed": 2.0'),
    "a step ten times as slow": (SLOW_STEP, ""),
    "a clock that jumps ten hours": (CLOCK_JUMPS, "its time is up"),
    "a disk that is full for a while": (FULL_DISK, "Training goes on"),
}


def injected(folder: pathlib.Path, whole: dict[str, Any], rng: random.Random) -> dict:
    """Faults inside; each run ends by itself with a submission that loads."""
    judge, results = Judge(), {}
    for number, (name, (fault, expected)) in enumerate(INJECTED.items()):
        out = folder / f"injected{number}"
        child = finish(out, faults=fault)
        told = child.said() + (out / "metrics.jsonl").read_text()
        good = judge.loads(out) and expected in told and (out / "results.json").exists()
        results[f"{name}: ended, said so, and the submission loads"] = good
        print(f"{name}: {good}", flush=True)
    return {**results, "good": all(results.values())}


def budgets(folder: pathlib.Path, whole: dict[str, Any], rng: random.Random) -> dict:
    """Runs limited by time, with more steps than fit: each ends before its deadline.

    All at once, so that each is slow and not evenly so.
    """
    results, good, children = {}, True, {}
    more = "{'sft': dataclasses.replace(TINY.sft, steps=5000, save_every=200), 'grpo': "
    more += "dataclasses.replace(TINY.grpo, steps=5000)}"
    start = time.monotonic()
    for minutes in (2, 5, 10, 15):
        environment = {"MINUTES": str(minutes)}
        children[minutes] = Child(folder / f"budget{minutes}", "", more, environment).start()
    for minutes, child in children.items():
        code, seconds = child.wait(PATIENCE + 60 * minutes), time.monotonic() - start
        kept = child.out / "stages.json"
        stages = json.loads(kept.read_text()) if kept.exists() else {}
        steps = ", ".join(f"{name} {x['steps']} steps" for name, x in stages.items())
        results[f"{minutes} minutes"] = f"exit {code} after {seconds / 60:.2f} min: {steps}"
        # The clock of a run starts in its first cell; Python's own start comes before.
        good = good and seconds <= 60 * minutes + 10 and code == 0
        print(f"{minutes} minutes: {results[f'{minutes} minutes']}", flush=True)
    return {**results, "good": good}


def overhead(folder: pathlib.Path, whole: dict[str, Any], rng: random.Random) -> dict:
    """Seconds in saves, of an unbroken run of the tiny profile as it is."""
    out = folder / "whole_tiny"
    finish(out, changes="{'sft': TINY.sft, 'grpo': TINY.grpo, 'evaluation': TINY.evaluation}")
    results = json.loads((out / "results.json").read_text())
    stages = json.loads((out / "stages.json").read_text())
    saving = sum(x["saving_seconds"] for x in stages.values())
    share = saving / results["wall_seconds"]
    return {"seconds in saves": saving, "share of the run": round(share, 4), "good": share <= 0.03}


def several_hosts(folder: pathlib.Path, _: dict[str, Any], number: int, rng: random.Random) -> dict:
    """What `hosts.py` breaks."""
    import hosts

    return hosts.everything(folder, number, rng)


PARTS: dict[str, Callable[..., dict]] = {
    "kills": kills,
    "damage": damage,
    "signals": signals,
    "injected": injected,
    "budgets": budgets,
    "overhead": overhead,
    "hosts": several_hosts,
}


def table(found: dict[str, dict], before: str = "") -> str:
    """The results for RESULTS.md; of a part that was not run now, those of before."""
    lines = [
        "# What was broken, and what was left",
        "",
        "By `python tests/faults/harness.py --write`; a part alone by `--only PART`.",
        "",
        "| part | what | | on |",
        "|---|---|---|---|",
    ]
    for name in PARTS:
        if name not in found:
            lines += [line for line in before.splitlines() if line.startswith(f"| {name} |")]
        for what, value in found.get(name, {}).items():
            if what != "good":
                shown = ("yes" if value else "NO") if isinstance(value, bool) else value
                lines.append(f"| {name} | {what} | {shown} | {datetime.date.today()} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Runs the parts asked for; 0 only if all of them came out well."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="how many; default 50")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="these parts")
    parser.add_argument("--write", action="store_true", help=f"put the table into {RESULTS.name}")
    parser.add_argument("--folder", type=pathlib.Path, help="keep everything here")
    options = parser.parse_args(arguments)
    rng = random.Random(options.seed)
    folder = options.folder or pathlib.Path(tempfile.mkdtemp(prefix="faults"))
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    if "goes on" in finish(folder / "whole").said():
        raise AssertionError(f"{folder} is not empty: the run to compare with was not unbroken.")
    whole = {**outcome(folder / "whole"), "seconds": time.monotonic() - start}
    print(f"unbroken: {whole['seconds']:.0f} s", flush=True)
    found = {}
    before = RESULTS.read_text() if RESULTS.exists() else ""
    for name in options.only or PARTS:
        more = (options.kills,) if name in ("kills", "hosts") else ()
        found[name] = PARTS[name](folder, whole, *more, rng)
        if options.write:  # part by part: all of it takes long
            RESULTS.write_text(table(found, before))
    print(table(found))
    if options.folder is None:
        shutil.rmtree(folder)
    return 0 if all(results["good"] for results in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
