"""What TensorBoard and Weights & Biases get is what the log holds."""

import collections
import struct
import sys
import threading
import types

import pytest
from tensorboardX.proto import event_pb2

from submission.bench.run import metrics, run_folder
from submission.bench.show import tracking
from submission.essay import profiles

RUN = profiles.read_run({"PROFILE": "tiny"}, "cpu")


@pytest.fixture
def folder(tmp_path):
    return run_folder.RunFolder(str(tmp_path))


def scalars_in(path):
    """Every number in TensorBoard's files: (tag, step) -> value."""
    found = {}
    for file in sorted(path.rglob("events*")):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            for value in event.summary.value:
                found[value.tag, event.step] = round(value.simple_value, 4)
    return found


def log_steps(folder, listeners, steps, start=0):
    log = metrics.StepLog(folder.metrics, "sft", (), steps=9, start=start, listeners=listeners)
    for step in steps:
        log.begin(step, 9)
        log.add(step, loss=step / 2)
        log.end(step)
    log.close()


def session(folder, steps, start=0, seconds=30.0):
    """What a run does with its boards."""
    found = tracking.boards(RUN, folder)
    log_steps(folder, found, steps, start)
    tracking.close_boards(found, seconds)
    return found


def test_tensorboard_has_every_number_of_the_log(folder):
    session(folder, [1, 2, 3])
    found = scalars_in(folder.path / "tensorboard")
    losses = {step: v for (tag, step), v in found.items() if tag == "sft/loss"}
    assert losses == {1: 0.5, 2: 1.0, 3: 1.5}
    assert ("sft/seconds", 1) in found


def test_a_run_that_goes_on_has_each_step_once_and_none_that_was_dropped(folder):
    session(folder, [1, 2, 3])
    session(folder, [3], start=2)  # killed after step 3; the last save was that of step 2
    assert len(list((folder.path / "tensorboard").iterdir())) == 1
    found = scalars_in(folder.path / "tensorboard")
    assert sorted(step for tag, step in found if tag == "sft/loss") == [1, 2, 3]


def test_what_an_earlier_session_wrote_stays_if_there_is_nothing_to_add(folder):
    session(folder, [1, 2, 3])
    session(folder, [], start=3)
    assert ("sft/loss", 3) in scalars_in(folder.path / "tensorboard")


# --- Weights & Biases, by a stand-in ----------------------------------------------------------


class Server:
    """A stand-in for the package `wandb` and its server: it keeps what each run id was told.

    `trouble` names calls (init, log, finish) that raise, or do not return while `hung` is unset.
    """

    def __init__(self):
        self.settings, self.finished, self.trouble = [], [], {}
        self.history = collections.defaultdict(dict)
        self.hung = threading.Event()

    def meets(self, call):
        if self.trouble.get(call) == "raises":
            raise ConnectionError(f"no {call}")
        if self.trouble.get(call) == "hangs":
            assert self.hung.wait(60)

    def init(self, **settings):
        self.settings.append(settings)
        self.meets("init")
        return Opened(self, settings["id"], settings["mode"])


class Opened:
    def __init__(self, server, name, mode):
        self.server, self.name = server, name
        self.told = server.history[name]
        self.step = 0 if mode == "offline" else len(self.told)  # offline, nobody is asked

    def log(self, numbers, step, commit):
        self.server.meets("log")
        assert commit
        assert step not in self.told
        self.told[step] = numbers

    def finish(self):
        self.server.meets("finish")
        self.server.finished.append(self.name)


@pytest.fixture
def server(monkeypatch):
    """A server that is asked, by a user who has a key."""
    found = Server()
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=found.init))
    monkeypatch.setenv("WANDB_PROJECT", "gemma")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    yield found
    found.hung.set()


def test_weights_and_biases_is_asked_only_when_a_project_is_named(folder, server, monkeypatch):
    monkeypatch.delenv("WANDB_PROJECT")
    session(folder, [1])
    assert not server.settings
    monkeypatch.setenv("WANDB_PROJECT", "gemma")
    session(folder, [2], start=1)
    (asked,) = server.settings
    assert asked["project"] == "gemma"
    assert asked["mode"] == "online"
    assert asked["config"]["grpo.beta"] == RUN.profile.grpo.beta


def test_a_run_is_told_whole_and_finished(folder, server):
    session(folder, [1, 2])
    (name,) = server.finished
    assert [line["sft/loss"] for line in server.history[name].values()] == [0.5, 1.0]
    assert server.history[name][1]["sft/step"] == 2


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_run_that_goes_on_tells_no_step_twice(folder, server, monkeypatch, mode):
    monkeypatch.setenv("WANDB_MODE", mode)
    session(folder, [1, 2, 3])
    session(folder, [3, 4], start=2)
    assert len(set(server.finished)) == 1
    told = server.history[server.finished[0]]
    assert [line["sft/step"] for line in told.values()] == [1, 2, 3, 4]


def test_what_the_server_has_not_got_is_told_again(folder, server):
    session(folder, [1, 2, 3])
    del server.history[server.finished[0]][2]  # the machine was gone before it was sent
    session(folder, [4], start=3)
    assert sorted(server.history[server.finished[0]]) == [0, 1, 2, 3]


def test_each_run_has_an_id_of_its_own(tmp_path, server):
    """Also where the folder has the same name and the run the same configuration."""
    for place in ("a", "b"):
        (tmp_path / place / "outputs").mkdir(parents=True)
        session(run_folder.RunFolder(str(tmp_path / place / "outputs")), [1])
    assert len(set(server.finished)) == 2


def test_a_new_run_in_an_old_folder_has_a_new_id(folder, server):
    session(folder, [1])
    folder.move_aside()
    session(folder, [1])
    assert len(set(server.finished)) == 2


def test_without_a_key_nobody_is_asked_for_one(folder, server, monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    session(folder, [1])
    assert server.settings[0]["mode"] == "offline"
    assert "no WANDB_API_KEY" in capsys.readouterr().out
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    session(folder, [2], start=1)
    assert server.settings[1]["mode"] == "online"


@pytest.mark.parametrize("call", ["init", "log", "finish"])
def test_a_board_that_raises_is_left_out_and_the_log_goes_on(folder, server, call):
    server.trouble[call] = "raises"
    with pytest.warns(UserWarning, match=f"Weights & Biases takes no more lines.*: no {call}"):
        session(folder, [1, 2, 3])
    assert len(metrics.read_lines(folder.metrics)) == 3
    assert ("sft/loss", 3) in scalars_in(folder.path / "tensorboard")


@pytest.mark.parametrize("call", ["init", "log", "finish"])
def test_a_board_that_hangs_keeps_nobody_waiting_but_for_a_moment_at_the_end(folder, server, call):
    server.trouble[call] = "hangs"  # until the test is over
    with pytest.warns(UserWarning, match=r"Weights & Biases has not ended in 0\.5 s"):
        found = session(folder, [1, 2, 3], seconds=0.5)
    assert [board.is_alive() for board in found] == [False, True]
    assert len(metrics.read_lines(folder.metrics)) == 3
    assert ("sft/loss", 3) in scalars_in(folder.path / "tensorboard")


@pytest.mark.parametrize("call", ["__init__", "add_scalar", "close"])
@pytest.mark.parametrize("trouble", ["raises", "hangs"])
def test_tensorboard_harms_nobody_either(folder, server, monkeypatch, call, trouble):
    server.trouble[call] = trouble
    monkeypatch.setattr(
        tracking.tensorboardX.SummaryWriter, call, lambda *_, **__: server.meets(call)
    )
    with pytest.warns(UserWarning, match="TensorBoard"):
        session(folder, [1, 2, 3], seconds=0.5)
    assert len(metrics.read_lines(folder.metrics)) == 3
    assert len(server.history[server.finished[0]]) == 3


def test_without_the_package_the_run_goes_on(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setenv("WANDB_PROJECT", "gemma")
    with pytest.warns(UserWarning, match="Weights & Biases"):
        session(folder, [1])
    assert len(metrics.read_lines(folder.metrics)) == 1


# --- Weights & Biases itself ------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["offline", "disabled", "online"])
def test_the_real_package_takes_the_log_without_a_network(folder, monkeypatch, mode):
    """`online` has no key, and becomes `offline`."""
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_PROJECT", "gemma")
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setenv("NETRC", str(folder.path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    found = [board.is_alive() for board in session(folder, [1, 2, 3])]
    found += [board.is_alive() for board in session(folder, [3, 4], start=2)]
    assert found == [False] * 4
    assert wandb.run is None
    kept = run_folder.read_json(folder.path / "wandb" / "run.json", {})
    assert kept["lines"] == 4
    files = list((folder.path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == (0 if mode == "disabled" else 2)
    assert all(kept["id"] in file.name for file in files)
