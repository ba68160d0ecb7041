import json

import jax.numpy as jnp
import numpy as np
import pytest

from submission.bench.run import metrics


def make_log(path, **changes):
    settings = {"steps": 4, "clock": lambda: 0.0, **changes}
    return metrics.StepLog(path / "m.jsonl", settings.pop("stage", "sft"), ("loss",), **settings)


def make_step(log, step, planned=4, **numbers):
    log.begin(step, planned)
    log.add(step, **numbers)
    log.end(step)


def make_timed_steps(path, count, seconds, planned, plan=None, **numbers):
    now = [0.0]
    log = make_log(path, steps=planned, plan=plan, clock=lambda: now[0])
    for step in range(1, count + 1):
        log.begin(step, planned)
        now[0] += seconds
        log.add(step, loss=1.0, **numbers)
        log.end(step)
    log.close()


def read(path):
    return [json.loads(line) for line in (path / "m.jsonl").read_text().splitlines()]


def test_numbers_of_a_step_make_one_line_with_means(tmp_path):
    log = make_log(tmp_path)
    make_step(log, 1, loss=jnp.float32(3.0), reward=0.5)
    log.begin(2, 4)
    log.add(2, loss=2.0)
    log.add(2, loss=jnp.float32(4.0))  # a second pass of the same update
    log.end(2)
    log.close()
    assert [(x["step"], x["loss"]) for x in read(tmp_path)] == [(1, 3.0), (2, 3.0)]
    assert read(tmp_path)[0]["reward"] == 0.5


def test_tokens_and_times_of_the_parts_of_a_step_are_summed(tmp_path):
    log = make_log(tmp_path)
    log.begin(1, 4)
    for _ in range(2):  # two rollouts for one update
        log.add(1, step_tokens=100, rollout_seconds=1.5, reward=0.5)
    log.end(1)
    log.close()
    (line,) = read(tmp_path)
    assert (line["step_tokens"], line["rollout_seconds"], line["reward"]) == (200, 3.0, 0.5)


def test_means_over_tokens_are_weighed_by_the_tokens_of_each_pass(tmp_path):
    """The passes of an update are sorted by length: the mean of their means would be 1.4."""
    log = make_log(tmp_path)
    log.begin(1, 4)
    log.add(1, kl=2.6, entropy=jnp.float32(0.5), loss=1.0, pass_tokens=jnp.int32(11_200))
    log.add(1, kl=0.2, entropy=jnp.float32(1.5), loss=2.0, pass_tokens=jnp.int32(960))
    log.end(1)
    log.close()
    (line,) = read(tmp_path)
    assert line["kl"] == pytest.approx((2.6 * 11_200 + 0.2 * 960) / 12_160)
    assert line["entropy"] == pytest.approx((0.5 * 11_200 + 1.5 * 960) / 12_160)
    assert line["loss"] == 1.5
    assert "pass_tokens" not in line


def test_a_step_is_written_when_the_next_one_ends_or_when_asked(tmp_path):
    log = make_log(tmp_path)
    make_step(log, 1, loss=1.0)
    assert read(tmp_path) == []  # its numbers may still be under way on the device
    make_step(log, 2, loss=1.0)
    assert [x["step"] for x in read(tmp_path)] == [1]
    log.flush()
    assert [x["step"] for x in read(tmp_path)] == [1, 2]


def test_a_step_lasts_from_batch_to_batch(tmp_path):
    now = [0.0]
    log = make_log(tmp_path, clock=lambda: now[0])
    for step in (1, 2, 3):
        log.begin(step, 3)
        now[0] += step
        log.add(step, loss=1.0)
        log.end(step)
    log.close()
    assert [x["seconds"] for x in read(tmp_path)] == [1.0, 2.0, 3.0]
    assert sum(line["seconds"] for line in log.history) == 6.0


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_step_that_is_not_finite_is_counted_and_five_in_a_row_stop_the_run(
    tmp_path, name, value, capsys
):
    log = make_log(tmp_path)
    for step in range(1, 5):
        make_step(log, step, **{name: value})
    make_step(log, 5, loss=1.0)  # a good one between
    for step in range(6, 11):
        make_step(log, step, **{name: value})
    with pytest.raises(FloatingPointError, match=rf"5 steps in a row up to 10 .*{name}.*rate"):
        log.flush()
    assert f"sft 1: {name} not finite; the step was left out" in capsys.readouterr().out
    assert log.skipped == 9
    assert all(name not in line for line in read(tmp_path) if "skipped" in line)  # no NaN in JSON


def test_a_line_that_a_kill_cut_off_is_no_data_and_does_not_spoil_the_next(tmp_path):
    log = make_log(tmp_path)
    make_step(log, 1, loss=1.0)
    make_step(log, 2, loss=2.0)
    log.close()
    with (tmp_path / "m.jsonl").open("a") as file:
        file.write('{"stage": "sft", "step": 3, "sec')
    log = make_log(tmp_path, start=2)
    make_step(log, 3, loss=3.0)
    log.close()
    assert [(x["step"], x["loss"]) for x in read(tmp_path)] == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_going_on_after_a_save_drops_what_came_after_it_and_keeps_other_stages(tmp_path):
    log = make_log(tmp_path)
    for step in (1, 2, 3):
        make_step(log, step, loss=float(step))
    log.close()
    make_log(tmp_path, stage="grpo").close()
    log = make_log(tmp_path, start=2)
    assert [x["step"] for x in log.history] == [1, 2]
    log.close()
    other = make_log(tmp_path, stage="grpo", start=0)
    other.close()
    assert [(x["stage"], x["step"]) for x in read(tmp_path)] == [("sft", 1), ("sft", 2)]


def test_progress_shows_speed_and_planned_end(tmp_path, capsys):
    make_timed_steps(tmp_path, 30, seconds=2.0, planned=30, step_tokens=100)
    lines = capsys.readouterr().out.splitlines()
    assert 8 <= len(lines) <= 12
    assert lines[1].startswith("sft    3/30  loss 1  50 tokens/s  (")
    assert "54 s to go, until " in lines[1]
    assert lines[-1].startswith("sft   30/30  loss 1 ")


def test_slow_steps_are_shown_every_five_minutes(tmp_path, capsys):
    make_timed_steps(tmp_path, 100, seconds=22.0, planned=4000)
    shown = [int(line.split()[1].split("/")[0]) for line in capsys.readouterr().out.splitlines()]
    assert shown[:4] == [1, 15, 29, 43]


PLAN = {"rollout": 8.1, "update": 10.0, "step": 20.7}


def test_seconds_stand_beside_those_that_were_planned(tmp_path, capsys):
    make_timed_steps(tmp_path, 3, 22.0, 3, plan=PLAN, rollout_seconds=9.8, reward_seconds=1.2)
    first, *others = capsys.readouterr().out.splitlines()
    assert "planned" not in first  # that step compiles
    for line in others:
        assert "rollout 9.8 s (planned 8.1)  update 11.0 s (planned 10.0)" in line
        assert "step 22.0 s (planned 20.7)" in line


def test_without_a_plan_no_line_speaks_of_one(tmp_path, capsys):
    make_timed_steps(tmp_path, 3, 22.0, 3, rollout_seconds=9.8)
    assert "planned" not in capsys.readouterr().out


def test_one_slow_step_does_not_hide_how_fast_the_others_are(tmp_path, capsys):
    now = [0.0]
    log = make_log(tmp_path, plan={"step": 2.0}, steps=9, clock=lambda: now[0])
    for step, seconds in enumerate([90, 3, 3, 3, 60, 3, 3, 3, 3], 1):
        log.begin(step, 9)
        now[0] += seconds
        log.end(step)
    log.close()
    assert capsys.readouterr().out.count("step 3.0 s (planned 2.0)") == 8


def test_where_the_time_of_a_step_goes_adds_up(tmp_path):
    make_timed_steps(tmp_path, 2, 4.0, 2, rollout_seconds=2.0, reward_seconds=0.5)
    assert [line["update_seconds"] for line in read(tmp_path)] == [1.5, 1.5]
    make_timed_steps(tmp_path, 1, 1.0, 1)  # SFT has no such parts
    assert "update_seconds" not in read(tmp_path)[-1]
