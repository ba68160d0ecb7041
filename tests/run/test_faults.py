"""A quick part of the fault harness: `python tests/faults/harness.py` has all of it."""

import random
import sys

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests" / "faults"))

import harness


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A folder, and what an unbroken run comes to."""
    folder = tmp_path_factory.mktemp("faults")
    child = harness.finish(folder / "whole")
    assert "goes on" not in child.said()
    return folder, {**harness.outcome(folder / "whole"), "seconds": 40.0}


@pytest.mark.slow
def test_killed_at_random_and_inside_a_save_it_ends_with_the_same_bits(unbroken):
    found = harness.kills(*unbroken, 2, random.Random(6))
    assert found["kills"] == 2
    assert found["good"], found


@pytest.mark.slow
def test_the_harness_would_notice_another_result(unbroken):
    folder, whole = unbroken
    assert harness.is_as(whole, folder / "whole")
    other = {**whole, "digests": {**whole["digests"], "model_params": "0"}}
    assert not harness.is_as(other, folder / "whole")
    assert whole["step"] == 6
    assert [x["step"] for x in whole["log"]] == [*range(1, 25), *range(1, 7)]


def test_work_lost_is_counted_by_stage():
    first = "sft    1/24  loss 4\nsft    2/24  loss 4\nsft    3/24  loss 3\n"
    assert harness.work_lost(first) == 0
    # A life that ended before its stage had begun has lost nothing.
    assert harness.work_lost(first + "profile tiny\nsft goes on after step 2\nsft    3/24  x") == 1
    assert harness.work_lost(first + first) == 3
    over = "sft is over: 24 steps\ngrpo    1/6  reward 0\ngrpo    2/6  reward 0\n"
    assert harness.work_lost(over + "sft is over\ngrpo goes on after step 0\ngrpo    1/6  r") == 2
