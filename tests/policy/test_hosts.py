"""One host: nothing waits, and nothing is asked of anybody."""

import dataclasses
import os
import subprocess
import sys
import time
import types

import pytest

from submission.bench.policy import hosts
from submission.bench.settings.host import hosts_named
from submission.essay import profiles


def test_one_host_has_all_and_asks_nobody():
    assert hosts.host_count() == 1
    assert hosts.this_host() == 0
    assert hosts.gather("said", "a test") == ["said"]
    assert hosts.my_share([1, 2, 3]) == [1, 2, 3]
    assert hosts.lead(lambda: "done", "a test") == "done"
    run = profiles.read_run({"PROFILE": "tiny"}, "cpu")
    assert hosts.run_of_this_host(run) is run


@pytest.mark.parametrize(
    ("environment", "number"),
    [
        ({"COORDINATOR": "10.0.0.2:8476", "HOSTS": "4", "HOST": "3"}, 3),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "2"}, 2),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c,d", "TPU_WORKER_ID": "1"}, 1),
    ],
)
def test_the_environment_says_which_host_this_is(environment, number):
    assert hosts_named(environment)["process_id"] == number


@pytest.mark.parametrize(
    "environment",
    [{}, {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, {"TPU_WORKER_HOSTNAMES": "localhost"}],
)
def test_one_machine_is_one_host(environment):
    assert hosts_named(environment) is None


def test_a_coordinator_needs_the_numbers():
    with pytest.raises(ValueError, match="needs HOSTS, how many there are, and HOST"):
        hosts_named({"COORDINATOR": "10.0.0.2:8476", "HOSTS": "four"})


def with_prompts(prompts, **changes):
    run = profiles.read_run({"PROFILE": "tiny"}, "cpu")
    settings = dataclasses.replace(run.profile.grpo, prompts=prompts)
    return dataclasses.replace(
        run, profile=dataclasses.replace(run.profile, grpo=settings, **changes)
    )


def test_a_host_has_its_share_of_an_update():
    run = hosts.run_of_a_host(with_prompts(16), 4)
    assert run.profile.grpo.prompts == 4
    assert run.profile.grpo.prompts % run.profile.grpo.micro_prompts == 0


def test_what_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="15 prompts of a step cannot be shared equally by 2"):
        hosts.run_of_a_host(with_prompts(15), 2)
    with pytest.raises(ValueError, match="runs on one host"):
        hosts.run_of_a_host(with_prompts(16, stages=("preferred",)), 2)


TALK = """
import os, sys, time
sys.path.insert(0, "scripts")
from submission.bench.policy import hosts
hosts.join_hosts(os.environ)
me = hosts.this_host()
print(hosts.gather({"host": me}, "names"), hosts.my_share(list(range(6))), flush=True)
print(hosts.lead(lambda: f"host {me} leads", "the lead"), flush=True)
"""


def talk(code, host_seconds=60, count=2):
    """What each of some processes prints, as hosts of one run, and its exit code."""
    from faults.hosts import free_port

    port = free_port()
    started = []
    for host in range(count):
        environment = {"COORDINATOR": f"127.0.0.1:{port}", "HOSTS": str(count), "HOST": str(host),
                       "HOST_SECONDS": str(host_seconds)}  # fmt: skip
        command = [sys.executable, "-W", "ignore", "-c", TALK + code]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(command, env={**os.environ, **environment}, **pipes))
    said = [process.communicate(timeout=300)[0] for process in started]
    return said, [process.returncode for process in started]


def test_hosts_tell_each_other():
    said, codes = talk("")
    assert codes == [0, 0]
    for host, text in enumerate(said):
        assert "[{'host': 0}, {'host': 1}] " + str([[0, 1, 2], [3, 4, 5]][host]) in text
        assert "host 0 leads" in text


def test_what_fails_on_host_0_fails_on_all():
    said, codes = talk('hosts.lead(lambda: open("/nowhere"), "a file")')
    assert all(codes)
    assert all("No such file or directory: '/nowhere'" in text for text in said)


def test_a_host_that_does_not_come_is_named():
    said, codes = talk('time.sleep(9 * me)\nhosts.gather(None, "supper")', host_seconds=4)
    assert codes[0]
    assert "Host 1 of 2 is missing: host 0 waits no longer than 4 s for it (supper)" in said[0]


def test_adapters_that_differ_stop_the_run():
    said, codes = talk('hosts.require_same(f"adapter {me}", "after update 7")')
    assert all(codes)
    assert all("adapters differ after update 7" in text for text in said)


def test_a_folder_that_one_host_does_not_see_is_refused(tmp_path):
    code = f"""
import pathlib
hosts.require_shared(pathlib.Path({str(tmp_path)!r}) if me == 0 else pathlib.Path("/nowhere"))
"""
    said, codes = talk(code)
    assert all(codes)
    assert all("Host 1 does not see" in text for text in said)


class Store:
    """The runtime's store, in memory."""

    def __init__(self):
        self.kept = {}

    def key_value_set_bytes(self, key, value, allow_overwrite):
        self.kept[key] = value

    def key_value_try_get_bytes(self, key):
        return self.kept[key]


def test_no_thread_is_in_the_runtime_when_the_process_ends(monkeypatch):
    store = Store()
    alone = types.SimpleNamespace(client=store, num_processes=1, process_id=0)
    monkeypatch.setattr(hosts, "global_state", alone)
    monkeypatch.setattr(hosts, "LOOK_SECONDS", 0.01)
    pulse = hosts.Pulse()
    pulse.start()
    while len(set(store.kept.values()) | {b"0"}) < 2:
        time.sleep(0.01)
    pulse.end()
    assert not pulse.is_alive()
    assert store.kept == {"alive/0": b"done"}
