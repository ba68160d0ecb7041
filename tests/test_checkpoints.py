import errno
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from conftest import short_run
from submission import checkpoints


def test_older_outputs_are_moved_aside(tmp_path, capsys):
    out = tmp_path / "outputs"
    for expected in (None, "outputs.1", "outputs.2"):
        folder = checkpoints.open_run_folder(short_run(out))
        assert [p.name for p in folder.checkpoints.iterdir()] == []
        (folder.checkpoints / "kept").write_text("x")
        folder.release()
        if expected:
            assert (tmp_path / expected / "checkpoints" / "kept").exists()
            assert expected in capsys.readouterr().out


def test_files_that_no_run_left_stay_where_they_are(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    (tmp_path / "submission.ipynb").write_text("the product itself, when OUT is its folder")
    checkpoints.open_run_folder(short_run(tmp_path)).release()
    assert (tmp_path / "thesis.tex").exists()
    assert (tmp_path / "submission.ipynb").exists()
    assert not tmp_path.with_name(f"{tmp_path.name}.1").exists()


def test_two_runs_cannot_share_a_folder(tmp_path):
    code = (
        "import sys; sys.path.insert(0, 'scripts')\n"
        "from submission.checkpoints import RunFolder\n"
        "folder = RunFolder(sys.argv[1]); folder.lock(); print('held', flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout.readline() == "held\n"
    with pytest.raises(RuntimeError, match=r"Another run is writing.*OUT"):
        checkpoints.open_run_folder(short_run(tmp_path))
    other.communicate("\n")
    first = checkpoints.open_run_folder(short_run(tmp_path))
    checkpoints.open_run_folder(short_run(tmp_path)).release()  # the same kernel, run again
    first.release()


def test_resuming_an_empty_folder_says_that_it_starts(tmp_path, capsys):
    checkpoints.open_run_folder(short_run(tmp_path, resume=True)).release()
    assert "starts from the beginning" in capsys.readouterr().out


def test_a_finished_run_is_not_started_over_by_resume(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(RuntimeError, match=r"is finished: there is nothing to resume"):
        checkpoints.open_run_folder(short_run(tmp_path, resume=True))
    assert (tmp_path / "results.json").exists()


def test_resuming_an_unfinished_run_says_that_it_starts_over(tmp_path, capsys):
    out = tmp_path / "outputs"
    checkpoints.open_run_folder(short_run(out)).release()
    checkpoints.open_run_folder(short_run(out, resume=True)).release()
    said = capsys.readouterr().out
    assert "outputs.1" in said
    assert "cannot continue inside a run" in said


def test_too_small_a_disk_is_refused_before_training(tmp_path):
    folder = checkpoints.open_run_folder(short_run(tmp_path))
    with pytest.raises(OSError, match=r"MB left and the checkpoints need .* MB. Make room") as info:
        checkpoints.require_space(folder, 10**18)
    assert info.value.errno == errno.ENOSPC
    folder.release()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 kB."""
    mounted = tmp_path / "small"
    mounted.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(mounted)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this machine does not let a file system be mounted")
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


def test_a_full_disk_at_save_time_is_named(small_disk, make_policy):
    with pytest.raises(OSError, match=r"Could not save step 0 to .*\n.*Make room"):
        checkpoints.save_first_submission(make_policy(), small_disk)
    assert checkpoints.checkpoint_steps(small_disk / "actor") == []  # nothing half-written


def test_the_highest_digits_only_step_is_the_submission(tmp_path, make_policy):
    policy = make_policy()
    checkpoints.save_first_submission(policy, tmp_path)
    actor = tmp_path / "actor"
    for name in ("9.orbax-checkpoint-tmp", "step_7", "best"):
        (actor / name).mkdir()
    (actor / "12").write_text("a file, not a step")
    assert checkpoints.checkpoint_steps(actor) == [0]
    shutil.copytree(actor / "0", actor / "3")
    assert checkpoints.restore_submission(make_policy(seed=1), actor) == 3


def test_a_checkpoint_holds_the_adapter_as_the_judges_read_it(tmp_path, make_policy):
    policy, other = make_policy(seed=0), make_policy(seed=1)
    checkpoints.save_first_submission(policy, tmp_path)
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), nnx.state(other, nnx.LoRAParam)
    )
    path = tmp_path / "actor" / "0" / "model_params"
    restored = ocp.StandardCheckpointer().restore(path, target)
    pairs = zip(
        jax.tree.leaves(nnx.state(policy, nnx.LoRAParam)), jax.tree.leaves(restored), strict=True
    )
    for a, b in pairs:
        np.testing.assert_array_equal(a, b)


def test_no_checkpoint_is_named(tmp_path, make_policy):
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        checkpoints.restore_submission(make_policy(), tmp_path / "actor")
