"""The notebook over packages like those of Kaggle's image, on Python 3.12, run as there."""

import json
import os
import pathlib
import shutil
import subprocess

import nbformat
import pytest

from conftest import ROOT

# One of the sets that the TPU image of 2026 had: other versions of what we pin, loaded or not.
IMAGE = """jax==0.9.2 flax==0.12.4 numpy==2.3.5 matplotlib==3.10.8 datasets==4.4.1 pyarrow==22.0.0
huggingface-hub fsspec httpx kagglehub sentencepiece pandas scipy papermill nbconvert ipykernel"""


def python_3_12():
    """The path of a Python 3.12, if there is one."""
    candidates = [shutil.which("python3.12")]
    candidates += sorted(pathlib.Path.home().glob(".pyenv/versions/3.12*/bin/python"))
    for python in filter(None, candidates):  # the first may be a stand-in that finds none
        if subprocess.run([python, "-V"], capture_output=True).returncode == 0:
            return str(python)
    return None


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(python_3_12() is None, reason="needs Python 3.12"),
]


@pytest.fixture(params=["papermill", "nbconvert"])
def runner(request, tmp_path):
    """An image with its packages, and a command that runs `submission.ipynb` there."""
    image = tmp_path / "image"
    subprocess.run([python_3_12(), "-m", "venv", str(image)], check=True)
    pip = [image / "bin" / "pip", "install", "--quiet", *IMAGE.split()]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs a package index: {done.stderr[-200:]}")
    shutil.copy(ROOT / "submission.ipynb", tmp_path)
    shutil.copytree(ROOT / "data", tmp_path / "data")
    out = tmp_path / "outputs"
    values = {"PROFILE": "tiny", "MINUTES": "2", "RUN_SEED": "3", "OUT": str(out)}
    environment = {"PATH": f"{image}/bin:{os.environ['PATH']}", "HOME": os.environ["HOME"]}
    if request.param == "papermill":
        command = ["papermill", "submission.ipynb", "out.ipynb"]
        for name, value in values.items():
            command += ["-p", name, value]
    else:
        command = ["jupyter", "nbconvert", "--to", "notebook", "--execute", "submission.ipynb",
                   "--output", "out.ipynb"]  # fmt: skip
        environment |= values

    def run():
        subprocess.run(
            [str(image / "bin" / command[0]), *command[1:]],
            cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=1_500,
        )  # fmt: skip
        return nbformat.read(tmp_path / "out.ipynb", as_version=4), out

    return run


def test_it_installs_its_pins_and_runs_to_its_end_without_a_restart(runner):
    executed, out = runner()
    text = "".join(
        output.get("text", "") for cell in executed.cells for output in cell.get("outputs", ())
    )
    assert "installing jax" in text
    assert "profile tiny, model gemma3_tiny_it, seed 3" in text
    results = json.loads((out / "results.json").read_text())
    assert results["seed"] == 3
    assert results["evaluation"]["after_grpo"]["n"] >= 200  # as many as two minutes allow
    assert results["wall_seconds"] < 200
