import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from conftest import session_of, short_run
from submission.bench.run import checkpoints, guards, stages
from submission.bench.settings import config
from submission.essay import grpo, profiles

LIMITS = config.Guards(window=4)
GOOD = {"in_format": 0.95, "tokens": 30.0, "entropy": 0.3, "kl": 0.03}


def history(*changes, before=8):
    return [GOOD] * before + [{**GOOD, **change} for change in changes]


def signs(lines):
    return guards.signs_of_collapse(lines, LIMITS, most_tokens=80)


def test_a_healthy_stage_has_no_signs_nor_has_one_that_has_just_begun():
    assert signs(history()) == ([], False)
    assert signs(history(before=2)) == ([], False)
    # GRPO sharpens, and its traces grow: that is no collapse.
    assert signs(history(*[{"entropy": 0.1, "tokens": 60.0, "kl": 0.2}] * 8)) == ([], False)


@pytest.mark.parametrize(
    ("name", "warning", "limit", "text"),
    [
        ("in_format", 0.75, 0.5, "the format is being forgotten (in_format 0.75)"),
        ("tokens", 75.0, 79.0, "completions run into their limit (tokens 75)"),
        ("entropy", 0.01, 0.001, "it says the same to everything (entropy 0.01)"),
        ("kl", 1.0, 3.0, "it runs away from the warm start (kl 1)"),
    ],
)
def test_each_sign_has_a_warning_and_a_limit(name, warning, limit, text):
    assert signs(history(*[{name: warning}] * 4)) == ([text], False)
    found, past_limit = signs(history(*[{name: limit}] * 4))
    assert len(found) == 1
    assert past_limit


def test_one_bad_step_is_no_collapse():
    assert signs(history({"in_format": 0.5, "kl": 1.2})) == ([], False)


def test_a_format_that_was_never_there_is_not_lost():
    assert signs([{**GOOD, "in_format": 0.0}] * 12) == ([], False)
    assert signs([{**GOOD, "in_format": 0.01}] * 8 + [{**GOOD, "in_format": 0.0}] * 4)[1] is False


def test_lines_without_the_numbers_are_left_out():
    assert signs(history(*[{"skipped": 1}] * 4)) == ([], False)
    assert signs([{"loss": 1.0}] * 20) == ([], False)


# --- What the stage does ------------------------------------------------------------------------


def arrays(module):
    return [np.asarray(x) for x in jax.tree.leaves(nnx.state(module, nnx.LoRAParam))]


@pytest.fixture
def train(make_policy, tokenizer, rows, mesh, tmp_path, monkeypatch):
    """Runs six steps of GRPO with the signs given, a save every two."""

    def start(signs_of, **changes):
        monkeypatch.setattr(grpo, "signs_of_collapse", lambda lines, **_: signs_of(lines))
        run = short_run(tmp_path / "run")
        settings = dataclasses.replace(run.profile.grpo, **{"steps": 6, **changes})
        run = dataclasses.replace(run, profile=dataclasses.replace(run.profile, grpo=settings))
        policy = make_policy()
        with session_of(run, mesh) as session:
            stages.save_first_submission(policy, session)
            report = grpo.train_grpo(policy, tokenizer, rows["grpo"], session, session.deadline)
        return report, session.folder.checkpoints / "actor", policy

    return start


def last(lines):
    return lines[-1]["step"] if lines else 0


def test_past_the_limit_it_goes_back_to_the_last_good_save_at_half_the_rate(train, capsys):
    """Warned from step 3 on, so that the save of step 4 is not a good one; past it at 4."""
    report, actor, _ = train(lambda lines: (["x"] * (last(lines) in (3, 4)), last(lines) == 4))
    said = capsys.readouterr().out
    assert "grpo 5: past the limit; back to the save of step 2, and on at 0.5 of" in said
    assert report["returns"] == [5]
    assert (actor / "4.astray").is_dir()
    assert checkpoints.checkpoint_steps(actor) == [0, 2, 6]
    rates = [line["learning_rate"] for line in report["history"]]
    end = profiles.TINY.grpo.optimizer.peak_rate * profiles.TINY.grpo.optimizer.end_share
    assert rates[5] == pytest.approx(0.5 * end)
    assert len(rates) == 6


@pytest.mark.slow
def test_the_warm_start_is_a_good_save_and_the_stage_ends_when_nothing_helps(
    train, make_policy, capsys
):
    """Always past the limit: back to step 0 three times, and the submission is the warm start."""
    report, actor, policy = train(lambda lines: (["x"], bool(lines)), steps=8)
    said = capsys.readouterr().out
    assert said.count("back to the save of step 0") == 3
    assert "it went astray again and again" in said
    assert len(report["returns"]) == 3
    assert report["steps"] == 6
    for a, b in zip(arrays(policy), arrays(make_policy()), strict=True):
        np.testing.assert_array_equal(a, b)
    loaded = make_policy(seed=1)
    checkpoints.restore_submission(loaded, actor)
    for a, b in zip(arrays(loaded), arrays(make_policy()), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_save_that_earned_more_than_the_end_stays_and_is_named(train, monkeypatch):
    scores = dict(enumerate([0.5, 0.8, 0.6, 0.7, 0.4, 0.5], start=1))
    monkeypatch.setattr(
        grpo, "sampled_reward", lambda lines, guards: (scores[last(lines)], 0.1) if lines else None
    )
    report, actor, _ = train(lambda lines: ([], False), save_every=1)
    assert checkpoints.checkpoint_steps(actor) == [0, 2, 4, 5, 6]
    assert report["better_save"] == 2
    facts = checkpoints.read_facts(actor / "2")
    assert facts["score"] == [0.8, 0.1]


@pytest.mark.slow
def test_a_save_that_is_better_by_chance_only_is_not_named(train, monkeypatch):
    monkeypatch.setattr(
        grpo, "sampled_reward", lambda lines, guards: (0.5 + 0.2 * (last(lines) == 2), 0.1)
    )
    report, _, _ = train(lambda lines: ([], False), save_every=1)
    assert report["better_save"] is None


@pytest.mark.slow
def test_the_last_good_save_stays_when_all_later_ones_are_not(train):
    """Signs from step 3 on, a save at every step, and three of them are kept."""
    _, actor, _ = train(lambda lines: (["x"] * (last(lines) >= 2), False), save_every=1)
    assert checkpoints.checkpoint_steps(actor) == [0, 2, 4, 5, 6]
