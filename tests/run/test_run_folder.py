import dataclasses
import errno
import json
import os
import subprocess
import sys

import pytest

from conftest import short_run
from submission.bench.run import run_folder
from submission.essay import profiles


def unfinished(out, **changes):
    """What a killed run leaves."""
    folder = run_folder.open_run_folder(short_run(out, **changes))
    folder.release()
    return folder


def test_older_outputs_are_moved_aside(tmp_path, capsys):
    out = tmp_path / "outputs"
    for expected in (None, "outputs.1", "outputs.2"):
        folder = run_folder.open_run_folder(short_run(out, resume=False))
        assert [p.name for p in folder.checkpoints.iterdir()] == []
        (folder.checkpoints / "kept").write_text("x")
        (out / "report.html").write_text("x")
        (out / "tensorboard").mkdir()
        folder.release()
        if expected:
            left = {path.name for path in (tmp_path / expected).iterdir()}
            assert {"report.html", "tensorboard"} <= left
            assert (tmp_path / expected / "checkpoints" / "kept").exists()
            assert (tmp_path / expected / "run.json").exists()
            assert expected in capsys.readouterr().out


def test_files_that_no_run_left_stay_where_they_are(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    (tmp_path / "submission.ipynb").write_text("the product itself, when OUT is its folder")
    unfinished(tmp_path)
    assert (tmp_path / "thesis.tex").exists()
    assert (tmp_path / "submission.ipynb").exists()
    assert not tmp_path.with_name(f"{tmp_path.name}.1").exists()


def test_two_runs_cannot_share_a_folder(tmp_path):
    code = (
        "import sys; sys.path.insert(0, 'scripts')\n"
        "from submission.bench.run.run_folder import RunFolder\n"
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
        run_folder.open_run_folder(short_run(tmp_path))
    other.communicate("\n")
    first = run_folder.open_run_folder(short_run(tmp_path))
    run_folder.open_run_folder(short_run(tmp_path)).release()  # the same kernel, run again
    first.release()


def test_resuming_an_empty_folder_says_that_it_starts(tmp_path, capsys):
    run_folder.open_run_folder(short_run(tmp_path, resume=True)).release()
    assert "starts from the beginning" in capsys.readouterr().out


def test_a_finished_run_is_not_started_over_by_resume(tmp_path):
    unfinished(tmp_path).results.write_text("{}")
    with pytest.raises(RuntimeError, match=r"is finished: there is nothing to resume"):
        run_folder.open_run_folder(short_run(tmp_path, resume=True))
    assert (tmp_path / "results.json").exists()
    run_folder.open_run_folder(short_run(tmp_path / "other")).release()  # the lock is let go of


@pytest.mark.parametrize("resume", [None, True])
def test_an_unfinished_run_of_the_same_configuration_goes_on(tmp_path, capsys, resume):
    out = tmp_path / "outputs"
    (unfinished(out).checkpoints / "kept").write_text("x")
    # Where and how long may differ.
    folder = run_folder.open_run_folder(short_run(out, resume=resume, minutes=5.0))
    assert (folder.checkpoints / "kept").exists()
    assert "goes on where it was saved" in capsys.readouterr().out
    folder.release()


def test_told_not_to_an_unfinished_run_is_moved_aside(tmp_path):
    out = tmp_path / "outputs"
    (unfinished(out).checkpoints / "kept").write_text("x")
    run_folder.open_run_folder(short_run(out, resume=False)).release()
    assert (tmp_path / "outputs.1" / "checkpoints" / "kept").exists()


def changed_run(out, **changes):
    run = short_run(out, **changes)
    grpo = dataclasses.replace(run.profile.grpo, beta=0.5)
    return dataclasses.replace(run, profile=dataclasses.replace(run.profile, grpo=grpo), seed=3)


def test_an_unfinished_run_of_another_configuration_is_refused_with_the_difference(tmp_path):
    out = tmp_path / "outputs"
    unfinished(out)
    with pytest.raises(ValueError, match="another configuration") as error:
        run_folder.open_run_folder(changed_run(out, resume=True))
    assert "\n  grpo.beta: 0.02 -> 0.5\n  seed: 0 -> 3\n" in str(error.value)
    # Without the demand to resume, the older one is kept aside.
    run_folder.open_run_folder(changed_run(out)).release()
    assert (tmp_path / "outputs.1" / "run.json").exists()


def test_what_a_run_is_does_not_depend_on_where_it_runs(monkeypatch):
    settings = run_folder.settings_of(short_run("/a"))
    assert settings == run_folder.settings_of(short_run("/b", minutes=3.0))
    assert settings["grpo.optimizer.peak_rate"] == profiles.TINY.grpo.optimizer.peak_rate
    assert not [name for name in settings if "compilation_cache" in name]
    sources = [name for name in settings if name.startswith("sft_sources.")]
    assert "sft_sources.warm_start_grpo.0.location" in sources


def test_too_small_a_disk_is_refused_before_training(tmp_path):
    folder = run_folder.open_run_folder(short_run(tmp_path))
    with pytest.raises(OSError, match=r"MB left and the checkpoints need .* MB. Make room") as info:
        run_folder.require_space(folder, 10**18)
    assert info.value.errno == errno.ENOSPC
    folder.release()


def test_a_finished_stage_is_known_again_and_a_torn_file_is_not_believed(tmp_path):
    folder = run_folder.open_run_folder(short_run(tmp_path))
    assert folder.finished_stage("sft") is None
    folder.finish_stage({"name": "sft", "steps": 4})
    assert folder.finished_stage("sft") == {"name": "sft", "steps": 4}
    folder.stages.write_text('{"sft": {"na')
    assert folder.finished_stage("sft") is None
    folder.release()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_not_another_run(tmp_path, monkeypatch, number):
    def refused(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(run_folder.fcntl, "lockf", refused)
    with pytest.warns(UserWarning, match="cannot be locked"):
        run_folder.open_run_folder(short_run(tmp_path / "run")).release()


def test_a_run_is_rebuilt_from_what_it_wrote_down():
    for asked in ({"PROFILE": "tiny"}, {"PROFILE": "kaggle", "RECIPE": "learnability"}):
        settings = run_folder.settings_of(profiles.read_run({**asked, "RUN_SEED": "3"}, "cpu"))
        assert run_folder.settings_of(run_folder.run_of(json.loads(json.dumps(settings)))) == (
            settings
        )
