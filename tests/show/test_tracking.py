"""What TensorBoard and Weights & Biases get is what the log holds."""

import struct
import sys
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


def log_steps(folder, listener, steps, start=0):
    log = metrics.StepLog(folder.metrics, "sft", (), steps=9, start=start, listeners=[listener])
    for step in steps:
        log.begin(step, 9)
        log.add(step, loss=step / 2)
        log.end(step)
    log.close()


def test_tensorboard_has_every_number_of_the_log(folder):
    board = tracking.TensorBoard(folder)
    log_steps(folder, board, [1, 2, 3])
    board.close()
    found = scalars_in(folder.path / "tensorboard")
    losses = {step: v for (tag, step), v in found.items() if tag == "sft/loss"}
    assert losses == {1: 0.5, 2: 1.0, 3: 1.5}
    assert ("sft/seconds", 1) in found


def test_a_run_that_goes_on_has_each_step_once_and_none_that_was_dropped(folder):
    board = tracking.TensorBoard(folder)
    log_steps(folder, board, [1, 2, 3])
    board.close()
    board = tracking.TensorBoard(folder)
    log_steps(folder, board, [3], start=2)  # killed after step 3; the last save was that of step 2
    board.close()
    assert len(list((folder.path / "tensorboard").iterdir())) == 1
    found = scalars_in(folder.path / "tensorboard")
    assert sorted(step for tag, step in found if tag == "sft/loss") == [1, 2, 3]


def test_a_board_that_fails_is_told_no_more_and_the_log_goes_on(folder):
    calls = []

    def broken(line):
        calls.append(line)
        raise OSError("no connection")

    with pytest.warns(UserWarning, match="takes no more lines of the log: no connection"):
        log_steps(folder, broken, [1, 2, 3])
    assert len(calls) == 1
    assert len(metrics.read_lines(folder.metrics)) == 3


def test_weights_and_biases_is_asked_only_when_a_project_is_named(folder, monkeypatch):
    asked, logged = {}, []
    opened = types.SimpleNamespace(log=logged.append)
    fake = types.SimpleNamespace(init=lambda **settings: asked.update(settings) or opened)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    assert len(tracking.boards(RUN, folder)) == 1
    assert not asked
    monkeypatch.setenv("WANDB_PROJECT", "gemma")
    _, listener = tracking.boards(RUN, folder)
    assert asked["project"] == "gemma"
    assert asked["config"]["grpo.beta"] == RUN.profile.grpo.beta
    log_steps(folder, listener, [1])
    assert logged[0]["sft/loss"] == 0.5
    assert logged[0]["sft/step"] == 1


def test_without_the_package_the_run_goes_on(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setenv("WANDB_PROJECT", "gemma")
    with pytest.warns(UserWarning, match="Weights & Biases"):
        assert len(tracking.boards(RUN, folder)) == 1
