import json
import os
import pathlib
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from conftest import moved
from submission.bench.policy import updates
from submission.bench.run import checkpoints
from submission.bench.settings import config

FACTS = {"stage": "grpo", "config": "a run", "pace": {}, "state": {"draws": 3}}


def adapter(policy):
    return [np.asarray(x) for x in jax.tree.leaves(nnx.state(policy, nnx.LoRAParam))]


def moments(optimizer):
    return [np.asarray(x) for x in jax.tree.leaves(nnx.state(optimizer, nnx.optimizer.OptState))]


def same(left, right):
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def with_optimizer(policy):
    made = updates.make_optimizer(config.Optimizer(1e-3))
    return policy, nnx.Optimizer(policy, made, wrt=nnx.LoRAParam)


@pytest.fixture(scope="module")
def two_steps(make_policy, tmp_path_factory):
    """A folder with steps 2 and 4, and what was saved as each."""
    folder, saved = tmp_path_factory.mktemp("checkpoints") / "actor", {}
    for step in (2, 4):
        policy, optimizer = with_optimizer(moved(make_policy(), 0.1 * step))
        checkpoints.write_step(folder, step, policy, optimizer, {**FACTS, "number": step})
        saved[step] = adapter(policy), moments(optimizer)
    return folder, saved


@pytest.fixture
def steps(two_steps, tmp_path):
    """A copy of them, to be damaged."""
    folder = tmp_path / "actor"
    shutil.copytree(two_steps[0], folder)
    return folder


@pytest.fixture(scope="module")
def restore(make_policy):
    """Restores into a policy of another seed; returns the facts and what was loaded."""
    policy, optimizer = with_optimizer(make_policy(seed=1))
    fresh = nnx.state(policy, nnx.LoRAParam), nnx.state(optimizer, nnx.optimizer.OptState)
    fresh = jax.tree.map(jnp.copy, fresh)  # the state would change with the modules

    def start(folder, fingerprint="a run"):
        nnx.update(policy, fresh[0])
        nnx.update(optimizer, fresh[1])
        return restored(folder, policy, optimizer, fingerprint)

    return start


def restored(folder, policy, optimizer, fingerprint):
    facts = checkpoints.restore_newest(folder, policy, optimizer, fingerprint)
    return facts, adapter(policy), moments(optimizer)


def test_a_step_comes_back_bit_for_bit_with_its_facts(two_steps, restore):
    folder, saved = two_steps
    facts, found, found_moments = restore(folder)
    assert (facts["step"], facts["number"], facts["state"]) == (4, 4, {"draws": 3})
    assert same(found, saved[4][0])
    assert same(found_moments, saved[4][1])
    assert not same(found, saved[2][0])


def test_nothing_but_the_numbered_steps_is_left(two_steps):
    folder, _ = two_steps
    assert sorted(p.name for p in folder.iterdir()) == ["2", "4"]
    assert [p.name for p in folder.parent.iterdir()] == ["actor"]
    assert len(files(folder / "4")) < 50  # a Kaggle output may have 500 in all


def files(step):
    return sorted(p for p in step.rglob("*") if p.is_file())


def every_file(folder):
    return [p.relative_to(folder / "4").as_posix() for p in files(folder / "4")]


@pytest.mark.parametrize("how", ["delete", "empty", "halve", "flip"])
def test_whatever_happens_to_a_file_the_newest_good_step_is_loaded(
    two_steps, restore, tmp_path, how
):
    """Of each file of the newest step: what is loaded is a step as it was saved, or none."""
    folder, saved = two_steps
    noticed = 0
    for number, name in enumerate(every_file(folder)):
        copy = tmp_path / str(number) / "actor"
        shutil.copytree(folder, copy)
        path = copy / "4" / name
        content = path.read_bytes()
        if how == "delete":
            path.unlink()
        else:
            middle = len(content) // 2
            changed = {
                "empty": b"",
                "halve": content[:middle],
                "flip": content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
                if content
                else b"x",
            }
            path.write_bytes(changed[how])
        facts, found, found_moments = restore(copy)
        assert same(found, saved[facts["step"]][0])
        assert same(found_moments, saved[facts["step"]][1])
        noticed += facts["step"] == 2
        if facts["step"] == 2:
            assert [p.name for p in copy.iterdir() if p.name.isdigit()] == ["2"]
        shutil.rmtree(copy)
    assert noticed >= 3  # the arrays of the adapter, of the optimizer, and the facts


def test_arrays_of_another_step_are_not_taken_for_its_own(steps, restore, two_steps, capsys):
    shutil.rmtree(steps / "4" / "model_params")
    shutil.copytree(steps / "2" / "model_params", steps / "4" / "model_params")
    facts, found, _ = restore(steps)
    assert facts["step"] == 2
    assert same(found, two_steps[1][2][0])
    said = capsys.readouterr().out
    assert "actor/4 is not what was saved: model_params differs. It is now actor/4.damaged" in said


def test_steps_that_changed_their_numbers_are_not_believed(steps, restore, make_policy):
    for before, after in (("2", "x"), ("4", "2"), ("x", "4")):
        (steps / before).rename(steps / after)
    facts, found, _ = restore(steps)
    assert facts is None
    assert same(found, adapter(make_policy(seed=1)))  # nothing was loaded
    assert sorted(p.name for p in steps.iterdir()) == ["2.damaged", "4.damaged"]


def test_a_step_of_another_configuration_is_refused(steps, restore):
    with pytest.raises(ValueError, match=r"another configuration .a run, not that run"):
        restore(steps, fingerprint="that run")


def test_half_written_folders_are_no_steps(steps, restore, make_policy):
    shutil.copytree(steps / "4", steps / "9.orbax-checkpoint-tmp")
    shutil.copytree(steps / "4", steps.parent / "actor.unfinished" / "9")
    facts, _, _ = restore(steps)
    assert facts["step"] == 4
    policy, optimizer = with_optimizer(make_policy())
    checkpoints.write_step(steps, 6, policy, optimizer, FACTS)
    assert not (steps.parent / "actor.unfinished").exists()
    assert checkpoints.checkpoint_steps(steps) == [2, 4, 6]


def test_what_is_read_back_otherwise_does_not_count_as_saved(steps, make_policy, monkeypatch):
    """A disk that returns other bytes than were written."""
    read = checkpoints.read_arrays

    def other(path, like):
        return jax.tree.map(lambda x: x + 1, read(path, like))

    monkeypatch.setattr(checkpoints, "read_arrays", other)
    policy, optimizer = with_optimizer(make_policy())
    with pytest.raises(checkpoints.SaveError, match=r"Could not save step 6 .*not what was saved"):
        checkpoints.write_step(steps, 6, policy, optimizer, FACTS)
    assert checkpoints.checkpoint_steps(steps) == [2, 4]
    assert (steps / "6.damaged").is_dir()


def test_a_removed_step_is_gone_and_a_half_removed_one_is_no_step(steps):
    checkpoints.remove_step(steps, 2)
    assert sorted(p.name for p in steps.iterdir()) == ["4"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 120 kB."""
    mounted = tmp_path / "small"
    mounted.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    command = ["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", str(mounted)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this machine does not let a file system be mounted")
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


def test_a_full_disk_at_save_time_is_named_and_nothing_is_left(small_disk, make_policy):
    with pytest.raises(OSError, match=r"Could not save step 0 to .*\n.*Make room"):
        checkpoints.write_step(small_disk / "actor", 0, make_policy(), None, FACTS)
    assert list((small_disk / "actor").glob("*")) == []
    assert not (small_disk / "actor.unfinished").exists()


def test_the_highest_digits_only_step_is_the_submission(steps, make_policy, two_steps):
    for name in ("9.orbax-checkpoint-tmp", "step_7", "best"):
        (steps / name).mkdir()
    (steps / "12").write_text("a file, not a step")
    assert checkpoints.checkpoint_steps(steps) == [2, 4]
    policy = make_policy(seed=1)
    assert checkpoints.restore_submission(policy, steps) == 4
    assert same(adapter(policy), two_steps[1][4][0])


def test_a_checkpoint_holds_the_adapter_as_the_judges_read_it(two_steps, make_policy):
    folder, saved = two_steps
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype),
        nnx.state(make_policy(seed=1), nnx.LoRAParam),
    )
    restored = ocp.StandardCheckpointer().restore(folder / "4" / "model_params", target)
    assert same([np.asarray(x) for x in jax.tree.leaves(restored)], saved[4][0])


def test_a_run_its_actor_and_a_step_are_all_found(tmp_path, two_steps):
    actor = tmp_path / "checkpoints" / "actor"
    shutil.copytree(two_steps[0], actor)
    assert checkpoints.find_step(tmp_path) == actor / "4"
    assert checkpoints.find_step(tmp_path / "checkpoints") == actor / "4"
    assert checkpoints.find_step(actor) == actor / "4"
    assert checkpoints.find_step(actor / "2") == actor / "2"


def test_no_checkpoint_is_named(tmp_path, make_policy):
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        checkpoints.restore_submission(make_policy(), tmp_path / "actor")


def test_the_facts_are_readable(two_steps):
    facts = json.loads(pathlib.Path(two_steps[0] / "4" / checkpoints.FACTS).read_text())
    assert facts["config"] == "a run"
    assert set(facts["digests"]) == {"model_params", "optimizer_state"}


def test_an_earlier_step_can_be_saved_again_as_the_last_one(steps, make_policy, two_steps):
    policy = make_policy(seed=1)
    assert checkpoints.save_again(steps, 2, policy) == 5
    assert same(adapter(policy), two_steps[1][2][0])
    other = make_policy(seed=1)
    assert checkpoints.restore_submission(other, steps) == 5
    assert same(adapter(other), two_steps[1][2][0])


def test_a_finished_run_keeps_the_optimizer_of_its_highest_step_alone(steps, restore, two_steps):
    shutil.copytree(steps / "2", steps.with_name("sft") / "2")
    checkpoints.drop_optimizers(steps.parent)
    kept = {path.parent.parent.name for path in steps.parent.rglob("optimizer_state")}
    assert kept == {"actor"}
    assert (steps / "4" / "optimizer_state").is_dir()
    facts, found, found_moments = restore(steps)
    assert same(found, two_steps[1][4][0])
    assert same(found_moments, two_steps[1][4][1])
    shutil.rmtree(steps / "4")  # what is left of an earlier step still loads, and says so
    facts, found, _ = restore(steps)
    assert facts["step"] == 2
    assert same(found, two_steps[1][2][0])
