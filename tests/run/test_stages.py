"""A run that was broken off and went on ends with the bits of one that was not."""

import dataclasses
import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from conftest import moved, session_of, short_run, timeless
from submission.bench.policy import updates
from submission.bench.rows import curriculum, packing
from submission.bench.run import budget, checkpoints, stages
from submission.essay import grpo, sft


class KilledError(Exception):
    """Stands for a kill: nothing is saved any more."""


def arrays(folder, step, policy, run):
    """What a step on the disk holds, bit for bit."""
    made = updates.make_optimizer(run.profile.sft.optimizer)
    optimizer = nnx.Optimizer(policy, made, wrt=nnx.LoRAParam)
    if run.profile.grpo.micro_prompts not in (0, run.profile.grpo.prompts):
        passes = run.profile.grpo.prompts // run.profile.grpo.micro_prompts
        optimizer = nnx.Optimizer(policy, optax.MultiSteps(made, passes), wrt=nnx.LoRAParam)
    parts = checkpoints.saved_parts(policy, optimizer)
    found, _ = checkpoints.read_step(folder / str(step), parts)
    assert set(found) == {"model_params", "optimizer_state"}
    return [np.asarray(x) for x in jax.tree.leaves(found)]


def lines(session, stage):
    text = session.folder.metrics.read_text().splitlines()
    return timeless(x for x in map(json.loads, text) if x["stage"] == stage)


def requires_equal(left, right):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


class Broken:
    """Counts the batches of a stage; breaks it off in one of them."""

    def __init__(self, monkeypatch, owner, name):
        self.arm(None, None, None)
        original = getattr(owner, name)

        def counted(*arguments, **keywords):
            self.count += 1
            if self.count == self.at and self.how == "killed":
                raise KilledError
            if self.count == self.at:
                self.session.stop.signal = signal.SIGTERM
            return original(*arguments, **keywords)

        monkeypatch.setattr(owner, name, counted)

    def arm(self, session, how, at):
        self.count, self.session, self.how, self.at = 0, session, how, at


# --- SFT ----------------------------------------------------------------------------------------


def train_sft(session, policy, tokenizer, rows):
    return sft.train_sft(policy, tokenizer, rows["sft"], session, session.deadline)


@pytest.fixture(scope="module")
def whole_sft(make_policy, tokenizer, rows, mesh, tmp_path_factory):
    with session_of(short_run(tmp_path_factory.mktemp("whole") / "run"), mesh) as session:
        report = train_sft(session, make_policy(), tokenizer, rows)
        saved = arrays(session.folder.checkpoints / "sft", 4, make_policy(), session.run)
        return report, saved, lines(session, "sft")


@pytest.mark.parametrize(
    ("how", "at", "from_step"),
    [
        pytest.param("killed", 2, 0, marks=pytest.mark.slow),
        ("killed", 4, 2),
        pytest.param("asked", 1, 1, marks=pytest.mark.slow),
        pytest.param("asked", 3, 3, marks=pytest.mark.slow),
    ],
)
def test_sft_broken_off_goes_on_as_if_it_had_not_been(
    whole_sft, make_policy, tokenizer, rows, mesh, tmp_path, monkeypatch, capsys, how, at, from_step
):
    report, saved, log = whole_sft
    run = short_run(tmp_path / "run")
    broken = Broken(monkeypatch, stages.Stage, "rate")
    expected = KilledError if how == "killed" else budget.StoppedBySignalError
    with session_of(run, mesh) as session:
        # The rate is asked for twice a step: by the log and by the update.
        broken.arm(session, how, 2 * at)
        with pytest.raises(expected):
            train_sft(session, make_policy(), tokenizer, rows)
        assert session.folder.finished_stage("sft") is None
    broken.arm(None, None, None)
    with session_of(run, mesh) as session:
        again = train_sft(session, make_policy(), tokenizer, rows)
        said = capsys.readouterr().out
        assert (f"sft goes on after step {from_step}" in said) == bool(from_step)
        requires_equal(arrays(session.folder.checkpoints / "sft", 4, make_policy(), run), saved)
        assert lines(session, "sft") == log
    for name in ("steps", "tokens", "planned", "skipped"):
        assert again[name] == report[name]


def test_a_finished_sft_is_not_made_again(whole_sft, make_policy, tokenizer, rows, mesh, tmp_path):
    run = short_run(tmp_path / "run")
    with session_of(run, mesh) as session:
        policy = make_policy()
        report = train_sft(session, policy, tokenizer, rows)
        stages.save_first_submission(policy, session)
        other = make_policy(seed=1)
        again = train_sft(session, other, tokenizer, rows)
        assert again == report
        requires_equal(*(jax.tree.leaves(nnx.state(p, nnx.LoRAParam)) for p in (policy, other)))
        saved = session.folder.checkpoints / "actor" / "0"
        before = saved.stat().st_mtime_ns
        stages.save_first_submission(policy, session)  # it is there
        assert saved.stat().st_mtime_ns == before
        # Its only save is lost: it is said, and nothing is trained on a stock policy.
        for step in (session.folder.checkpoints / "sft").iterdir():
            (step / checkpoints.FACTS).write_text("{}")
        with pytest.raises(RuntimeError, match=r"SFT is over, but no save of it .* loads"):
            train_sft(session, make_policy(), tokenizer, rows)


def test_a_warm_start_that_had_no_time_for_a_step_is_over_all_the_same(
    make_policy, tokenizer, rows, mesh, tmp_path, capsys
):
    with session_of(short_run(tmp_path / "run"), mesh) as session:
        for _ in range(2):
            late = budget.Deadline.after(0)
            report = sft.train_sft(make_policy(), tokenizer, rows["sft"], session, late)
            assert report["steps"] == 0
    assert "sft is over: 0 steps" in capsys.readouterr().out


# --- GRPO ---------------------------------------------------------------------------------------


def grpo_run(out, kind="uniform", **changes):
    run = short_run(out)
    settings = dataclasses.replace(
        run.profile.grpo,
        curriculum=dataclasses.replace(run.profile.grpo.curriculum, kind=kind),
        **changes,
    )
    return dataclasses.replace(run, profile=dataclasses.replace(run.profile, grpo=settings))


def train_grpo(session, policy, tokenizer, rows):
    stages.save_first_submission(policy, session)
    return grpo.train_grpo(policy, tokenizer, rows["grpo"], session, session.deadline)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "at", "changes"),
    [
        ("killed", 3, {"kind": "learnability"}),
        ("asked", 1, {}),
        ("killed", 3, {"micro_prompts": 2, "iterations": 2}),
    ],
)
def test_grpo_broken_off_goes_on_as_if_it_had_not_been(
    make_policy, tokenizer, rows, mesh, tmp_path, monkeypatch, capsys, how, at, changes
):
    broken = Broken(monkeypatch, curriculum.PromptSampler, "draw")
    start = moved(make_policy(), 0.2)  # the reference is not stock
    last = 3 * changes.get("iterations", 1)

    def policy():
        other = make_policy()
        nnx.update(other, jax.tree.map(jnp.array, adapter))
        return other

    adapter = jax.tree.map(np.asarray, nnx.state(start, nnx.LoRAParam))
    with session_of(grpo_run(tmp_path / "whole", **changes), mesh) as session:
        report = train_grpo(session, policy(), tokenizer, rows)
        saved = arrays(session.folder.checkpoints / "actor", last, make_policy(), session.run)
        log = lines(session, "grpo")
    run = grpo_run(tmp_path / "broken", **changes)
    expected = KilledError if how == "killed" else budget.StoppedBySignalError
    with session_of(run, mesh) as session:
        broken.arm(session, how, at)
        with pytest.raises(expected):
            train_grpo(session, policy(), tokenizer, rows)
    broken.arm(None, None, None)
    with session_of(run, mesh) as session:
        again = train_grpo(session, policy(), tokenizer, rows)
        actor = session.folder.checkpoints / "actor"
        assert f"grpo goes on after step {2 if how == 'killed' else at}" in capsys.readouterr().out
        requires_equal(arrays(actor, last, make_policy(), run), saved)
        assert lines(session, "grpo") == log
        assert checkpoints.restore_submission(make_policy(), actor) == last
    for name in ("steps", "tokens"):
        assert again[name] == report[name]


# --- Saves --------------------------------------------------------------------------------------


@pytest.fixture
def sft_with(make_policy, tokenizer, rows, mesh, tmp_path):
    """Runs SFT with some settings of the profile changed; returns folder and report."""

    def start(minutes=None, **changes):
        run = short_run(tmp_path / "run")
        run = dataclasses.replace(run, profile=dataclasses.replace(run.profile, **changes))
        with session_of(run, mesh) as session:
            report = train_sft(session, make_policy(), tokenizer, rows)
        return session, report

    return start


def test_saves_are_due_by_time_too(sft_with, monkeypatch):
    written = []
    write = stages.write_step
    monkeypatch.setattr(
        stages, "write_step", lambda *parts: written.append(parts[1]) or write(*parts)
    )
    sft_with(save_minutes=0.0)
    assert written == [1, 2, 3, 4]


def test_a_disk_that_is_full_for_a_while_costs_a_save_and_not_the_run(
    sft_with, monkeypatch, capsys
):
    write, failing = stages.write_step, [True, True, False]

    def sometimes(*parts):
        if failing.pop(0):
            raise checkpoints.SaveError("Could not save step 2: No space left on device")
        return write(*parts)

    monkeypatch.setattr(stages, "write_step", sometimes)
    session, report = sft_with()
    assert "No space left on device Training goes on." in capsys.readouterr().out
    assert report["steps"] == 4
    assert checkpoints.checkpoint_steps(session.folder.checkpoints / "sft") == [4]


def test_without_a_last_save_the_run_fails_and_says_why(sft_with, monkeypatch):
    def never(*parts):
        raise checkpoints.SaveError("Could not save: No space left on device")

    monkeypatch.setattr(stages, "write_step", never)
    with pytest.raises(OSError, match="No space left on device"):
        sft_with()


def test_an_adapter_that_is_not_finite_is_not_saved(sft_with, monkeypatch):
    monkeypatch.setattr(stages, "all_finite", lambda tree: False)
    with pytest.raises(FloatingPointError, match="the adapter is not finite after update 2"):
        sft_with()


@pytest.mark.slow
def test_five_bad_batches_in_a_row_stop_the_run_and_fewer_do_not(sft_with, monkeypatch, capsys):
    inputs = packing.packed_model_input

    def spoiled(batch):
        found = inputs(batch)
        return {**found, "positions": found["positions"] * np.nan}

    monkeypatch.setattr(sft, "packed_model_input", spoiled)
    _, report = sft_with(most_skipped=5)
    assert report["skipped"] == report["steps"] == 4
    assert "sft 4: loss and grad_norm not finite; the step was left out" in capsys.readouterr().out
