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


def test_killed_at_random_and_inside_a_save_it_ends_with_the_same_bits(unbroken):
    found = harness.kills(*unbroken, 2, random.Random(6))
    assert found["kills"] == 2
    assert found["good"], found


def test_the_harness_would_notice_another_result(unbroken):
    folder, whole = unbroken
    assert harness.is_as(whole, folder / "whole")
    other = {**whole, "digests": {**whole["digests"], "model_params": "0"}}
    assert not harness.is_as(other, folder / "whole")
    assert whole["step"] == 6
    assert [x["step"] for x in whole["log"]] == [*range(1, 25), *range(1, 7)]


def test_work_lost_is_counted_by_stage():
    child = harness.Child(ROOT)
    child.said = lambda: "sft is over: 24 steps\ngrpo goes on after step 2\n"
    assert harness.work_lost({"sft": 24, "grpo": 5}, child) == 3
    child.said = lambda: "sft: 100%"
    assert harness.work_lost({"sft": 4}, child) == 4
