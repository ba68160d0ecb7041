"""Breaks a run on several hosts: the part `hosts` of the harness.

The hosts are processes on this machine, each of which runs the notebook's cells with few steps. One
of them, or all, are killed at random moments, inside saves too, and all are started again; what
they end with is compared with an unbroken run, adapter and optimizer bit for bit. One is stopped
with SIGSTOP, and the others have to end in time, and to name it.
"""

import contextlib
import dataclasses
import os
import pathlib
import random
import shutil
import signal
import socket
import sys
import time
from collections.abc import Sequence

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent)]

import harness  # noqa: E402

# A run of seconds in which GRPO has something to learn from.
CHANGES = (
    "{'sft': dataclasses.replace(TINY.sft, steps=60, save_every=15),"
    " 'evaluation': dataclasses.replace(TINY.evaluation, rows=16, batch_size=16, samples=2),"
    " 'grpo': dataclasses.replace(TINY.grpo, steps=4, prompts=8, generations=4, save_every=2)}"
)
WAIT = 30.0  # seconds that a host waits for another, where one is to be missed
PATIENT = 150.0  # and elsewhere: hosts that share a core come late
SAVES = 7  # four in SFT, the one between, two in GRPO
LEAVES_DIGEST = """
import atexit

def _leave_digest():
    adapter = digest(nnx.state(lora_policy, nnx.LoRAParam))
    pathlib.Path(os.environ["DIGEST"]).write_text(adapter)

atexit.register(_leave_digest)
"""


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@dataclasses.dataclass
class Hosts:
    """One life of a run on several hosts."""

    out: pathlib.Path
    count: int = 2
    faults: dict[int, str] = dataclasses.field(default_factory=dict)  # by host
    wait: float = PATIENT
    changes: str = CHANGES

    def start(self) -> "Hosts":
        """Starts them all."""
        port, cores = free_port(), sorted(os.sched_getaffinity(0))
        self.children = []
        for host in range(self.count):
            self.digest_of(host).unlink(missing_ok=True)
            environment = {
                "COORDINATOR": f"127.0.0.1:{port}",
                "HOSTS": str(self.count),
                "HOST": str(host),
                "HOST_SECONDS": str(self.wait),
                "DIGEST": str(self.digest_of(host)),
            }
            child = harness.Child(
                self.out,
                LEAVES_DIGEST + self.faults.get(host, ""),
                self.changes,
                environment,
                log_name=f"{self.out.name}.{host}.log",
            ).start()
            os.sched_setaffinity(child.process.pid, {cores[host % len(cores)]})
            self.children.append(child)
        return self

    def digest_of(self, host: int) -> pathlib.Path:
        """Where a host leaves the fingerprint of its adapter."""
        return self.out.with_name(f"{self.out.name}.{host}.digest")

    def codes(self, seconds: float = harness.PATIENCE) -> list[int | None]:
        """The exit codes; None of one that is still at work when so many seconds are over."""
        end = time.monotonic() + seconds
        return [child.wait(max(0.0, end - time.monotonic())) for child in self.children]

    def end(self, hosts: Sequence[int] | None = None) -> None:
        """Kills some, or all that are left."""
        for host in range(self.count) if hosts is None else hosts:
            if self.children[host].process.poll() is None:
                self.children[host].kill()

    def said(self) -> str:
        """What all of them have printed in this life."""
        return "\n".join(child.said() for child in self.children)

    def digests(self) -> set[str]:
        """The adapters that they ended with; one that was killed at its end has left none."""
        left = filter(pathlib.Path.exists, map(self.digest_of, range(self.count)))
        return {path.read_text() for path in left}


def finish(hosts: Hosts) -> Hosts:
    """Runs them to their end.

    Raises:
      AssertionError: one failed, or never ended.
    """
    codes = hosts.start().codes()
    hosts.end()
    if any(codes):
        raise AssertionError(f"exit codes {codes}:\n{hosts.said()[-4000:]}")
    return hosts


@contextlib.contextmanager
def cached_programs(folder: pathlib.Path):
    """Inside, what is started compiles each program once: most of such a short run."""
    names = {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    yield
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def kill_somehow(hosts: Hosts, whole_seconds: float, rng: random.Random) -> str:
    """One life that ends by a kill, and what was killed; empty if it was over before."""
    victims = [rng.randrange(hosts.count)] if rng.random() < 0.7 else list(range(hosts.count))
    inside_save = rng.random() < 0.4  # which host 0 alone writes
    if inside_save:
        delay = round(rng.uniform(0, 0.3), 3)
        fault = harness.KILL_IN_SAVE.format(save=rng.randint(1, SAVES), delay=delay)
        hosts.faults = {0: fault}
        victims = [0]
    hosts.start()
    if not inside_save:
        time.sleep(rng.uniform(3, whole_seconds))
        hosts.end(victims)
    began = time.monotonic()
    codes = hosts.codes(whole_seconds + 10 * hosts.wait)
    took = time.monotonic() - began
    left = [host for host, code in enumerate(codes) if code is None]
    hosts.end()
    hosts.faults = {}
    if left:
        raise AssertionError(f"hosts {left} were at work after {took:.0f} s:\n{hosts.said()}")
    if not any(codes):
        return ""
    where = " in a save" if inside_save else ""
    return f"host {victims[0]}{where}" if len(victims) == 1 else "all hosts"


def kills(folder: pathlib.Path, count: int, number: int, rng: random.Random) -> dict:
    """`number` kills, one to three in each run, every run to its end and compared."""
    judge = harness.Judge()
    began = time.monotonic()
    whole = finish(Hosts(folder / "hosts", count))
    seconds = time.monotonic() - began
    expected, adapters = harness.outcome(whole.out), whole.digests()
    left, survived, runs, unloadable = number, 0, 0, 0
    killed: dict[str, int] = {}
    while left > 0:
        runs += 1
        out, made = folder / f"kills{runs}", 0
        for _ in range(min(left, rng.randint(1, 3))):
            if not (what := kill_somehow(Hosts(out, count, wait=WAIT), seconds, rng)):
                break
            made, left = made + 1, left - 1
            killed[what] = killed.get(what, 0) + 1
            unloadable += not judge.loads(out)
        if not (out / "results.json").exists():
            finish(Hosts(out, count))
        same = harness.is_as(expected, out) and Hosts(out, count).digests() == adapters
        survived += made if same else 0
        print(f"run {runs}: {made} kills, {'the same' if same else 'NOT THE SAME'}", flush=True)
        shutil.rmtree(out)
    return {
        "hosts killed": number - left,
        **{f"of them, {what}": times for what, times in sorted(killed.items())},
        "resumed to the same adapter, optimizer and log": survived,
        "moments at which the highest step did not load": unloadable,
        "each host ended with the same adapter": len(adapters) == 1,
        "good": survived == number - left and not unloadable and len(adapters) == 1,
    }


def hang(folder: pathlib.Path, count: int) -> dict:
    """One host is stopped in GRPO; how long do the others need to end, and do they name it?"""
    hosts = Hosts(folder / "hang", count, wait=2 * WAIT).start()
    hosts.children[0].until("grpo    1/")
    stopped = count - 1
    os.kill(hosts.children[stopped].process.pid, signal.SIGSTOP)
    began = time.monotonic()
    for child in hosts.children[:stopped]:
        child.wait(20 * hosts.wait)
    took = time.monotonic() - began
    named = [f"Host {stopped} of {count} is missing" in c.said() for c in hosts.children[:stopped]]
    codes = [child.process.poll() for child in hosts.children[:stopped]]
    hosts.end()
    return {
        f"one of {count} hosts hangs; seconds that the others may wait": hosts.wait,
        "seconds until they had ended": round(took, 1),
        "they ended with an error that names it": all(named) and None not in codes and all(codes),
        "good": all(named) and None not in codes and all(codes) and took < hosts.wait,
    }


def everything(folder: pathlib.Path, number: int, rng: random.Random) -> dict:
    """A host that hangs, and then `number` kills, on two hosts."""
    with cached_programs(folder / "programs"):
        found = hang(folder, 2), kills(folder, 2, number, rng)
    return {**found[0], **found[1], "good": all(part["good"] for part in found)}
