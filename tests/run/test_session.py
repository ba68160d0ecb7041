"""The session's clock, and a run that another session has left unfinished."""

import dataclasses
import os
import shutil
import time

import psutil
import pytest

from conftest import short_run
from submission.bench.run import budget, run_folder
from submission.bench.settings import config


@pytest.fixture
def clocks(monkeypatch):
    """Both of the machine's clocks, moved by hand."""

    class Clocks:
        wall, steady = 1_700_000_000.0, 5_000.0

        def pass_minutes(self, minutes):
            self.wall += 60 * minutes
            self.steady += 60 * minutes

    now = Clocks()
    monkeypatch.setattr(time, "time", lambda: now.wall)
    monkeypatch.setattr(time, "monotonic", lambda: now.steady)
    return now


@pytest.fixture
def kaggle(monkeypatch, clocks):
    """A session on Kaggle that began so many minutes ago."""

    def begin(minutes_ago):
        created = clocks.wall - 60 * minutes_ago
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
        monkeypatch.setattr(psutil.Process, "create_time", lambda _: created)

    return begin


def minutes_left(out, clocks, first_cell=None, **changes):
    """Of a run that opens its folder now, for an hour."""
    run = config.changed(short_run(out, **changes), {"profile": {"hours": 1.0}})
    folder = run_folder.open_run_folder(run)
    try:
        first_cell = clocks.steady if first_cell is None else first_cell
        deadline = budget.session_deadline(run, folder, first_cell)
        return (deadline.end - clocks.steady) / 60
    finally:
        folder.release()


def test_on_kaggle_the_hours_count_from_the_sessions_first_process(tmp_path, clocks, kaggle):
    kaggle(minutes_ago=20)
    assert minutes_left(tmp_path, clocks) == pytest.approx(40)


def test_a_kernel_restarted_on_kaggle_gets_no_new_hours(tmp_path, clocks, kaggle):
    kaggle(minutes_ago=1)
    assert minutes_left(tmp_path, clocks) == pytest.approx(59)
    clocks.pass_minutes(35)
    assert minutes_left(tmp_path, clocks) == pytest.approx(24)  # unfinished, and it goes on


def test_minutes_on_kaggle_count_from_the_first_cell_and_end_with_the_session(
    tmp_path, clocks, kaggle
):
    kaggle(minutes_ago=20)
    first_cell = clocks.steady - 60 * 5
    assert minutes_left(tmp_path / "a", clocks, first_cell, minutes=30.0) == pytest.approx(25)
    assert minutes_left(tmp_path / "b", clocks, first_cell, minutes=50.0) == pytest.approx(40)


def test_the_upload_at_the_sessions_end_is_no_part_of_the_minutes_asked_for(
    tmp_path, clocks, kaggle
):
    profile = dataclasses.replace(short_run("").profile, upload_seconds=600.0)
    kaggle(minutes_ago=20)
    assert minutes_left(tmp_path / "a", clocks, profile=profile) == pytest.approx(30)
    assert minutes_left(tmp_path / "b", clocks, profile=profile, minutes=25.0) == pytest.approx(25)
    assert minutes_left(tmp_path / "c", clocks, profile=profile, minutes=45.0) == pytest.approx(30)


@pytest.mark.parametrize("age", [-5, 24 * 60])
def test_a_first_process_that_cannot_be_this_sessions_is_not_believed(
    tmp_path, clocks, kaggle, age
):
    kaggle(minutes_ago=age)
    assert minutes_left(tmp_path, clocks) == pytest.approx(60)


def test_elsewhere_a_run_that_goes_on_by_itself_keeps_its_first_clock(tmp_path, clocks):
    assert minutes_left(tmp_path, clocks, minutes=30.0) == pytest.approx(30)
    clocks.pass_minutes(12)
    assert minutes_left(tmp_path, clocks, minutes=30.0) == pytest.approx(18)
    clocks.pass_minutes(20)
    with pytest.raises(RuntimeError, match=r"began 32 minutes ago.*RESUME=1 goes on"):
        minutes_left(tmp_path, clocks, minutes=30.0)
    assert minutes_left(tmp_path, clocks, minutes=30.0, resume=True) == pytest.approx(30)
    clocks.pass_minutes(29)
    assert minutes_left(tmp_path, clocks, minutes=30.0) == pytest.approx(1)


def test_a_run_that_starts_anew_has_a_new_clock(tmp_path, clocks):
    minutes_left(tmp_path / "out", clocks)
    clocks.pass_minutes(50)
    assert minutes_left(tmp_path / "out", clocks, resume=False) == pytest.approx(60)
    assert minutes_left(tmp_path / "out", clocks, seed=7) == pytest.approx(60)


# --- What another session has left --------------------------------------------------------------


def attach(place, out, results=None):
    """Attaches what an unfinished run in `out` has left, as Kaggle does: nobody may write there."""
    if results is not None:
        (out / "results.json").write_text(results)
    shutil.copytree(out, place)
    for name, _, files in os.walk(place, topdown=False):
        for file in files:
            os.chmod(os.path.join(name, file), 0o444)
        os.chmod(name, 0o555)


@pytest.fixture
def killed(tmp_path, monkeypatch):
    """A run that was killed: its folder, in a session that is over."""
    out = tmp_path / "earlier" / "outputs"
    folder = run_folder.open_run_folder(short_run(out))
    folder.release()
    (folder.checkpoints / "actor" / "2").mkdir(parents=True)
    (folder.checkpoints / "actor" / "2" / "facts.json").write_text("{}")
    monkeypatch.setattr(run_folder, "ATTACHED", tmp_path / "input")
    return out


@pytest.mark.parametrize("below", ["my-notebook/outputs", "notebooks/user/my-notebook/outputs"])
def test_an_attached_unfinished_run_is_copied_and_goes_on(tmp_path, killed, capsys, below):
    attach(tmp_path / "input" / below, killed)
    new = tmp_path / "working" / "outputs"
    folder = run_folder.open_run_folder(short_run(new))
    assert folder.goes_on
    assert (new / "checkpoints" / "actor" / "2" / "facts.json").read_text() == "{}"
    told = capsys.readouterr().out
    assert "An unfinished run is attached" in told
    assert "goes on where it was saved" in told
    (new / "checkpoints" / "actor" / "2" / "facts.json").write_text("changed")
    for entry in [new, *new.rglob("*")]:  # the copy may be written, whatever the original allows
        assert entry.stat().st_mode & 0o200
    folder.release()
    again = run_folder.open_run_folder(short_run(new))  # and it is not copied a second time
    assert (new / "checkpoints" / "actor" / "2" / "facts.json").read_text() == "changed"
    again.release()


@pytest.mark.parametrize("case", ["finished", "another configuration", "told not to", "too deep"])
def test_what_is_not_this_run_unfinished_is_left_alone(tmp_path, killed, case):
    below = "a/b/c/d/e/f/outputs" if case == "too deep" else "a/outputs"
    attach(tmp_path / "input" / below, killed, results="{}" if case == "finished" else None)
    changes = {"another configuration": {"seed": 3}, "told not to": {"resume": False}}
    new = tmp_path / "working"
    folder = run_folder.open_run_folder(short_run(new, **changes.get(case, {})))
    assert not folder.goes_on
    assert not (new / "checkpoints" / "actor").exists()
    folder.release()


def test_of_several_the_one_saved_last_goes_on(tmp_path, killed):
    attach(tmp_path / "input" / "old" / "outputs", killed)
    (killed / "checkpoints" / "actor" / "3").mkdir()
    later = time.time() + 100
    os.utime(killed / "checkpoints" / "actor" / "3", (later, later))
    attach(tmp_path / "input" / "new" / "outputs", killed)
    run_folder.open_run_folder(short_run(tmp_path / "working")).release()
    assert (tmp_path / "working" / "checkpoints" / "actor" / "3").exists()


def test_a_copy_that_broke_off_is_made_again(tmp_path, killed, monkeypatch):
    attach(tmp_path / "input" / "a" / "outputs", killed)
    new = tmp_path / "working"

    def break_off(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run_folder, "write_json", break_off)
        with pytest.raises(KeyboardInterrupt):
            run_folder.open_run_folder(short_run(new))
    folder = run_folder.open_run_folder(short_run(new))
    assert folder.goes_on
    folder.release()
