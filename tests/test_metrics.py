import json

import numpy as np
import pytest

from submission import metrics


def make_log(tmp_path, steps=4, clock=lambda: 0.0):
    return metrics.StepLog(tmp_path / "m.jsonl", "sft", steps, ("loss",), clock=clock)


def read(tmp_path):
    return [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]


def test_numbers_that_come_late_land_in_their_step(tmp_path):
    log = make_log(tmp_path)
    log.record(1, "reward", 0.5)
    log.record(2, "reward", 0.6)
    log.record(1, "loss", 3.0)
    log.record(2, "loss", 2.0)
    log.close()
    assert [(x["step"], x["reward"], x["loss"]) for x in read(tmp_path)] == [
        (1, 0.5, 3.0),
        (2, 0.6, 2.0),
    ]


def test_a_step_lasts_from_batch_to_batch(tmp_path):
    now = [0.0]
    log = make_log(tmp_path, clock=lambda: now[0])
    for step, _ in enumerate(log.timed("abc"), 1):
        now[0] += step
        log.record(step, "loss", 1.0)
    log.close()
    assert [x["seconds"] for x in read(tmp_path)] == [1.0, 2.0, 3.0]
    assert metrics.total_seconds(log.history) == 6.0


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_trap_2_a_step_that_is_not_finite_stops_the_run(tmp_path, name, value):
    log = make_log(tmp_path)
    with pytest.raises(FloatingPointError, match=rf"sft, step 3: {name} is .*learning rate"):
        log.record(3, name, value)


def test_progress_is_shown(tmp_path, capsys):
    log = make_log(tmp_path, steps=30)
    for step in range(1, 31):
        log.record(step, "loss", 1.0)
    log.close()
    lines = capsys.readouterr().out.splitlines()
    assert 10 <= len(lines) <= 20
    assert lines[-1].startswith("sft   30/30  loss 1 ")


def test_only_named_events_are_kept(tmp_path):
    log = make_log(tmp_path)
    backend = log.logging_options({"a/train/loss": ("loss", 1)}).create_backends()[0]
    backend.log_scalar("a/train/loss", np.float32(2.0), step=0)
    backend.log_scalar("/jax/other", 1.0, step=0)
    backend.log_scalar("a/train/loss", 1.0)
    log.close()
    assert [(x["step"], x["loss"]) for x in read(tmp_path)] == [(1, 2.0)]
