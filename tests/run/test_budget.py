import itertools
import os
import random
import signal
import threading

import pytest

from conftest import Clock
from submission.bench.run.budget import (
    Deadline,
    Pace,
    StoppedBySignalError,
    StopRequest,
    until,
)
from submission.bench.settings.limits import within


def run(seconds_per_step, limit):
    """Steps of the given lengths under a limit; returns (steps done, time at the end)."""
    clock = Clock()
    done = 0
    for seconds in until(Deadline(limit, clock), seconds_per_step):
        clock.now += seconds
        done += 1
    return done, clock.now


def test_everything_runs_when_there_is_time():
    assert run([1.0] * 5, 100)[0] == 5


def test_a_step_that_would_not_finish_is_not_begun():
    assert run([1.0] * 100, 10.5) == (10, 10.0)


def test_the_longest_step_so_far_is_the_measure():
    # After the one slow step, another like it must still fit.
    assert run([1.0, 4.0, 1.0, 1.0, 1.0, 1.0], 9.5) == (3, 6.0)


def test_the_first_step_runs_even_without_time():
    assert run([1.0, 1.0], 0.0) == (1, 1.0)


def test_shares_are_of_what_is_left():
    clock = Clock()
    deadline = Deadline.after(10, clock)
    clock.now = 300
    assert deadline.left == 300
    assert deadline.share(0.5).left == 150
    clock.now = 1000
    assert deadline.share(0.5).left == 0


@pytest.mark.parametrize("limit", [0.5, 3.3, 7.9])
def test_the_end_is_never_after_the_deadline_once_a_step_is_known(limit):
    done, end = run([0.5] * 100, limit)
    assert end <= limit
    assert done == int(limit / 0.5)


# --- The pace of a stage ------------------------------------------------------------------------


def pace_of(seconds, steps, limit, **settings):
    """Runs a stage on a fake clock; returns the pace, progress by step, plans, and the end."""
    clock = Clock()
    pace = Pace(steps, Deadline(limit, clock), **settings)
    progress, planned = [], []
    for step in pace.steps():
        clock.now += seconds[step] if isinstance(seconds, list) else seconds
        progress.append(pace.progress)
        planned.append(pace.planned)
    return pace, progress, planned, clock.now


def test_with_time_enough_progress_is_the_share_of_steps():
    pace, progress, planned, _ = pace_of(1.0, steps=5, limit=1000)
    assert progress == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert planned == [5] * 5
    assert not pace.by_time
    assert pace.ended == ""


@pytest.mark.parametrize("limit", [10.0, 33.3, 100.0])
def test_without_it_progress_still_goes_from_0_to_1(limit):
    pace, progress, planned, end = pace_of(1.0, steps=1000, limit=limit)
    assert pace.by_time
    assert pace.ended == "its time is up"
    assert progress[0] == 0.0
    assert progress[-1] == pytest.approx(1.0, abs=0.02)
    assert progress == sorted(progress)
    assert end <= limit
    assert limit - end < 2
    assert abs(planned[-1] - len(progress)) <= 1


def test_progress_reaches_its_end_when_steps_grow_slower():
    seconds = [1.0 + 0.05 * i for i in range(1000)]
    _, progress, _, end = pace_of(seconds, steps=1000, limit=200.0)
    assert progress == sorted(progress)
    assert progress[-1] > 0.97
    assert end <= 200


def test_the_first_step_compiles_and_is_no_measure():
    pace, progress, _, end = pace_of([30.0] + [1.0] * 99, steps=100, limit=60.0)
    assert len(progress) == 31
    assert end == 60.0
    assert pace.ended == "its time is up"


def test_with_spare_seconds_a_step_ten_times_as_slow_still_ends_in_time():
    for slow in range(3, 90):
        seconds = [1.0] * 100
        seconds[slow] = 10.0
        _, _, _, end = pace_of(seconds, steps=100, limit=60.0, spare=100.0)
        assert end <= 60.0


@pytest.mark.parametrize("minutes", [40, 60, 120])
@pytest.mark.parametrize("first", [140.0, 400.0])
def test_a_stage_of_long_steps_uses_its_time_and_ends_at_a_low_rate(minutes, first):
    limit = 60.0 * minutes
    seconds = [first] + [140.0 + 5 * (i % 3) for i in range(99)]
    pace, progress, planned, end = pace_of(seconds, steps=60, limit=limit, spare=100.0)
    assert pace.by_time
    assert 0.9 * limit <= end <= limit
    assert progress[-1] > 0.9
    assert abs(planned[-1] - len(progress)) <= 1


def test_no_step_is_begun_without_time():
    pace, progress, _, _ = pace_of(1.0, steps=5, limit=0.0)
    assert progress == []
    assert pace.ended == "its time is up"


def test_a_clock_that_jumps_ends_the_stage_and_nothing_worse():
    pace, progress, _, _ = pace_of([1.0, 1.0, 1.0, 3600.0, 1.0], steps=5, limit=100.0)
    assert len(progress) == 4
    assert pace.ended == "its time is up"
    _, progress, _, _ = pace_of([1.0, 1.0, -3600.0, 1.0, 1.0], steps=5, limit=100.0)
    assert len(progress) == 5


def test_a_stage_that_goes_on_has_the_progress_of_one_that_was_not_broken():
    _, whole, _, _ = pace_of(1.0, steps=6, limit=1000)
    _, rest, _, _ = pace_of(1.0, steps=6, limit=1000, start=3, state={"by_time": False, "next": 0})
    assert rest == whole[3:]
    clock = Clock()
    first = Pace(1000, Deadline(50.0, clock))
    for _ in itertools.islice(first.steps(), 20):
        clock.now += 1.0
    _, rest, _, _ = pace_of(1.0, steps=1000, limit=30.0, start=20, state=first.state())
    assert rest[0] == pytest.approx(0.4, abs=0.05)
    assert rest[-1] == pytest.approx(1.0, abs=0.04)


# --- Nine hours ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_nine_hours_never_end_late_and_use_97_percent(seed):
    """The notebook's own stages on a fake clock; every duration is random."""
    rng, clock, hours = random.Random(seed), Clock(), 9 * 3600.0
    closing = 30.0
    deadline = Deadline(hours, clock).before(closing)

    def lasts(mean):
        seconds = mean * rng.lognormvariate(0, 0.25)
        clock.now += seconds
        return seconds

    def stage(limit, steps, mean, **settings):
        pace = Pace(steps, limit, **settings)
        for step in pace.steps():
            lasts(mean + (300 if step == 0 else 0))
            if step % 25 == 24:
                lasts(8)
        return pace

    lasts(1500)  # downloads
    evaluation = lasts(rng.choice((120, 240)))
    stage(deadline.before(2 * evaluation).share(0.3), 900, rng.choice((2.5, 12.0)))
    save, evaluation = lasts(8), lasts(100)
    limit = deadline.before(1.5 * (evaluation + save))
    pace = stage(limit, 4000, rng.choice((15.0, 22.0, 40.0)), spare=100.0)
    assert pace.by_time
    lasts(save)
    evaluation = lasts(evaluation)
    lasts(15)
    assert clock.now <= hours
    assert hours - clock.now <= 0.03 * hours


# --- Signals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_stage_after_its_step(number, capsys):
    stop, clock, made = StopRequest(), Clock(), []
    pace = Pace(10, Deadline(100, clock), told_to_stop=lambda: bool(stop))
    before = signal.getsignal(number)
    with stop.heard():
        for step in pace.steps():
            if step == 2:
                os.kill(os.getpid(), number)
            made.append(step)  # the step under way is finished
    assert made == [0, 1, 2]
    assert pace.ended == "it was told to stop"
    assert signal.getsignal(number) is before
    with pytest.raises(StoppedBySignalError, match=f"{number.name}: what was done is saved"):
        stop.check()
    assert f"{number.name}: the step under way is finished first" in capsys.readouterr().out


def test_a_second_signal_does_not_wait():
    stop = StopRequest()
    with stop.heard():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_outside_the_main_thread_nothing_is_heard_and_nothing_breaks():
    stop, worked = StopRequest(), []

    def inside():
        with stop.heard():
            worked.append(True)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert worked == [True]
    stop.check()


def test_a_first_step_that_is_not_likely_to_fit_is_not_begun():
    """It compiles, and what the stage before needed for that says how long."""
    clock = Clock()
    assert list(Pace(9, Deadline(100, clock), first=101).steps()) == []
    pace = Pace(9, Deadline(100, clock), first=60)
    steps = pace.steps()
    assert next(steps) == 0
    clock.now = 50  # so long did it take; the second may compile, too
    assert list(steps) == []
    assert pace.ended == "its time is up"


# --- What may hang ----------------------------------------------------------------------------


def hang_in_python():
    while True:
        pass


def test_a_loop_that_was_left_behind_ends():
    before = set(threading.enumerate())
    with pytest.raises(TimeoutError):
        within(0.2, hang_in_python)
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()


def test_a_timeout_of_its_own_is_passed_on():
    def refused():
        raise TimeoutError("the server is busy")

    with pytest.raises(TimeoutError, match="the server is busy"):
        within(5, refused)
