"""run.sh's other half: options, exit codes, and what a failed start leaves alone."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import nbformat
import pytest
import run_notebook

from conftest import ROOT

SHOW = "import os; print({name: os.environ.get(name) for name in %r})"
NAMES = ["PROFILE", "RECIPE", "MINUTES", "RUN_SEED", "RESUME"]
SCORES = {
    "n": 1,
    "format": 1.0,
    "accuracy": 1.0,
    "accuracy_ci95": [0.2, 1.0],
    "accuracy_lenient": 1.0,
    "stopped": 1.0,
    "mean_tokens": 3.0,
    "open_score": None,
    "open_score_lenient": None,
}
RESULTS = {
    "profile": "tiny",
    "model": "m",
    "recipe": "r",
    "seed": 0,
    "wall_seconds": 60.0,
    "submission": "after_grpo",
    "stages": [],
    "evaluation": dict.fromkeys(("stock", "after_sft", "after_grpo"), SCORES),
}
TAKE_FOLDER = """
import json, os, pathlib, socket
out = pathlib.Path(os.environ["OUT"])
out.mkdir(exist_ok=True)
(out / ".lock").write_text(f"{socket.gethostname()} {os.getpid()}")
(out / "results.json").write_text(json.dumps(%r))
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a small notebook with the given options; returns the exit code."""

    def start(*options, cells=(TAKE_FOLDER % RESULTS,)):
        path = tmp_path / "small.ipynb"
        made = [nbformat.v4.new_code_cell(source) for source in cells]
        nbformat.write(nbformat.v4.new_notebook(cells=made), path)
        monkeypatch.setattr(run_notebook, "NOTEBOOK", path)
        arguments = ["run.sh", "--out", str(tmp_path / "out"), *options]
        monkeypatch.setattr("sys.argv", arguments)
        return run_notebook.main()

    for name in (*NAMES, "OUT"):
        monkeypatch.setenv(name, "")
    return start


def test_a_run_that_worked_leaves_its_notebook_and_exits_0(run, tmp_path, capsys):
    assert run() == 0
    assert (tmp_path / "out" / "submission.ipynb").exists()
    assert (tmp_path / "out" / "report.html").stat().st_size > 0
    assert "| after GRPO | 1 | 1.000 |" in capsys.readouterr().out


def test_the_options_become_the_notebooks_variables(run, capsys):
    options = ["--profile", "tiny", "--recipe", "worked_only", "--minutes", "7.5", "--seed", "3"]
    assert run(*options, cells=(SHOW % NAMES, TAKE_FOLDER % RESULTS)) == 0
    shown = "{'PROFILE': 'tiny', 'RECIPE': 'worked_only', 'MINUTES': '7.5', 'RUN_SEED': '3'"
    assert shown in capsys.readouterr().out


def test_a_recipe_with_further_parts_gets_the_notebook_that_has_them():
    sources = [cell.source for cell in run_notebook.notebook_to_run("shaped").cells]
    assert '\nRECIPE = "shaped"' in "\n".join(sources)
    assert any("def reward_confidence" in source for source in sources)
    sources = [cell.source for cell in run_notebook.notebook_to_run("phases").cells]
    assert any("def in_phase" in source for source in sources)
    committed = nbformat.read(run_notebook.NOTEBOOK, as_version=4)
    assert run_notebook.notebook_to_run("worked_only") == committed


def test_an_error_is_shown_and_exits_1(run, capsys):
    assert run(cells=("raise ValueError('the reason')",)) == 1
    assert "ValueError: the reason" in capsys.readouterr().err


def test_a_kernel_that_dies_exits_1(run, capsys):
    assert run(cells=("import os; os._exit(3)",)) == 1
    assert "kernel died" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_notebook_which_may_finish_what_it_does(tmp_path, number):
    """As a stage does: the handler takes note, the cell saves and raises."""
    wait = """
import pathlib, signal, time
noted = []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: noted.append(number))
print("waiting", flush=True)
while not noted:
    time.sleep(0.05)
pathlib.Path("saved").write_text(str(int(noted[0])))
raise RuntimeError("stopped in good order")
"""
    cells = [nbformat.v4.new_code_cell(f"import os; os.chdir({str(tmp_path)!r})\n{wait}")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "small.ipynb")
    code = (
        "import sys, pathlib; sys.path.insert(0, 'scripts'); import run_notebook\n"
        f"run_notebook.NOTEBOOK = pathlib.Path({str(tmp_path / 'small.ipynb')!r})\n"
        f"sys.argv = ['run.sh', '--out', {str(tmp_path / 'out')!r}]\n"
        "sys.exit(run_notebook.main())"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while "waiting" not in child.stdout.readline():
        assert child.poll() is None
    child.send_signal(number)
    _, error = child.communicate(timeout=60)
    assert child.returncode == 128 + number
    assert (tmp_path / "saved").read_text() == str(int(number))
    assert "stopped in good order" in error
    assert "The run was stopped." in error


def test_a_start_that_failed_leaves_an_older_run_alone(run, tmp_path):
    assert run() == 0
    before = (tmp_path / "out" / "submission.ipynb").read_text()
    time.sleep(0.05)
    assert run(cells=("raise RuntimeError('Another run is writing')",)) == 1
    assert (tmp_path / "out" / "submission.ipynb").read_text() == before


def test_what_a_profile_lacks_on_this_machine_is_said_before_the_notebook_starts(
    run, tmp_path, monkeypatch, capfd
):
    from submission.bench.settings import host

    never = ("raise ValueError('must not run')",)
    monkeypatch.setattr(host, "free_memory", lambda: 3.0)
    assert run("--profile", "small", cells=never) == 1
    assert "run.sh: The profile small needs 12 GiB of free memory" in capfd.readouterr().err
    monkeypatch.setattr(host, "free_memory", lambda: 64.0)
    (tmp_path / "file").touch()
    monkeypatch.setenv("MODEL_CACHE", str(tmp_path / "file" / "cache"))
    assert run("--profile", "small", cells=never) == 1
    said = capfd.readouterr().err
    assert "cannot be written to" in said
    assert "The model gemma3_270m is not ready." in said
    assert "must not run" not in said


@pytest.mark.parametrize("how", ["option", "variable"])
def test_resuming_a_finished_run_changes_nothing_and_exits_0(run, tmp_path, monkeypatch, how):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.json").write_text(json.dumps(RESULTS))
    if how == "variable":
        monkeypatch.setenv("RESUME", "1")
    options = ["--resume"] if how == "option" else []
    assert run(*options, cells=("raise ValueError('must not run')",)) == 0
    assert os.listdir(tmp_path / "out") == ["results.json"]


WHERE_SOCKETS_ARE = """
import json, os, pathlib
from ipykernel.connect import get_connection_file
where = json.loads(pathlib.Path(get_connection_file()).read_text())["ip"]
with open(os.environ["WHERE"], "a") as file:
    print(where, file=file)
"""


def test_kernels_that_run_at_once_have_sockets_of_their_own(run, tmp_path, monkeypatch):
    """In one folder, the second to start would take the first one's names."""
    monkeypatch.setenv("WHERE", str(tmp_path / "where"))
    for _ in range(2):
        assert run(cells=(TAKE_FOLDER % RESULTS, WHERE_SOCKETS_ARE)) == 0
    first, second = (tmp_path / "where").read_text().split()
    assert first != second
    assert not pathlib.Path(first).parent.exists()  # and nothing is left of them


COMMANDS = [
    path
    for path in sorted((ROOT / "scripts").glob("*.py"))
    if '__name__ == "__main__"' in path.read_text()
]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda path: path.stem)
def test_a_command_that_is_asked_for_help_gives_it_and_does_nothing_else(command):
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "data").rglob("*")}
    told = subprocess.run(
        [sys.executable, command, "--help"], capture_output=True, text=True, timeout=120
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("usage: ")
    assert {path: path.stat().st_mtime_ns for path in (ROOT / "data").rglob("*")} == before
