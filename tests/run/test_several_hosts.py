"""Several hosts, as processes on this machine: the whole notebook, cut short."""

import pytest
from faults import hosts
from faults.hosts import harness

from submission.bench.run import metrics

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("hosts")
    with hosts.cached_programs(found / "programs"):
        yield found


@pytest.fixture(scope="module")
def alone(folder):
    """The same run in one process."""
    out = folder / "alone"
    harness.finish(out, changes=hosts.CHANGES)
    return out


@pytest.fixture(scope="module")
def two(folder):
    return hosts.finish(hosts.Hosts(folder / "two", 2))


def furthest(one, other, stage, name):
    """The greatest difference of a number, over the steps of a stage."""
    logs = [
        [line[name] for line in metrics.read_lines(out / "metrics.jsonl") if line["stage"] == stage]
        for out in (one, other)
    ]
    assert len(logs[0]) == len(logs[1]) > 0
    return max(abs(a - b) for a, b in zip(*logs, strict=True))


def require_same_run(alone, several):
    assert len(several.digests()) == 1  # bit for bit
    assert furthest(alone, several.out, "sft", "loss") <= 1e-5
    assert furthest(alone, several.out, "grpo", "loss") <= 1e-4
    # They have drawn the same rows, written the same completions, and earned the same.
    for name in ("tokens", "reward", "right", "step_tokens"):
        assert furthest(alone, several.out, "grpo", name) <= 1e-6
    assert furthest(alone, several.out, "sft", "step_tokens") == 0
    ours, theirs = (harness.outcome(out)["answers"] for out in (alone, several.out))
    same = sum(a["completion"] == b["completion"] for a, b in zip(ours, theirs, strict=True))
    assert same >= 0.95 * len(ours)


def test_two_hosts_compute_what_one_does(alone, two):
    require_same_run(alone, two)


def test_four_hosts_compute_what_one_does(alone, folder):
    four = hosts.finish(hosts.Hosts(folder / "four", 4))
    require_same_run(alone, four)
    assert not any("Traceback" in child.said() for child in four.children)


def test_host_0_alone_has_written(two):
    names = {path.name for path in two.out.iterdir()}
    assert {"metrics.jsonl", "results.json", "checkpoints", "plots"} <= names
    assert not any(name.startswith((".handed", "host")) for name in names)
    log = metrics.read_lines(two.out / "metrics.jsonl")
    assert len(log) == len({(line["stage"], line["step"]) for line in log})


def test_a_host_that_hangs_is_named_in_time(folder, two):
    found = hosts.hang(folder, 2)
    assert found["good"], found


def test_host_0_is_killed_and_all_go_on_to_the_same_adapter(folder, two):
    """The other cases, at random moments: `python tests/faults/harness.py --only hosts`."""
    run = hosts.Hosts(folder / "killed", wait=hosts.WAIT).start()
    run.children[0].until("grpo    3/")
    run.end([0])
    assert run.children[1].wait(10 * run.wait) not in (None, 0)
    run.end()
    again = hosts.finish(hosts.Hosts(run.out))
    assert "goes on after step 2" in again.said()
    assert again.digests() == two.digests()
    assert harness.is_as(harness.outcome(two.out), run.out)
