import pytest

from submission.budget import Deadline, until


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


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
