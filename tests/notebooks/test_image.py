"""The notebook over packages like those of Kaggle's image, on Python 3.12, run as there."""

import json
import os
import pathlib
import re
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


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """An environment with the image's packages; the first run installs the pins over them."""
    folder = tmp_path_factory.mktemp("image")
    subprocess.run([python_3_12(), "-m", "venv", str(folder)], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *IMAGE.split()]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs a package index: {done.stderr[-200:]}")
    return folder


JAX = re.search(r"^jax==(.+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)[1]
PAPERMILL = ["papermill", "submission.ipynb", "out.ipynb"]
NBCONVERT = "nbconvert --to notebook --execute submission.ipynb --output out.ipynb".split()


@pytest.mark.parametrize("program", [PAPERMILL, NBCONVERT], ids=lambda words: words[0])
def test_it_installs_its_pins_and_runs_to_its_end_without_a_restart(image, tmp_path, program):
    shutil.copy(ROOT / "submission.ipynb", tmp_path)
    shutil.copytree(ROOT / "data", tmp_path / "data")
    values = {"PROFILE": "tiny", "MINUTES": "3", "RUN_SEED": "3", "OUT": str(tmp_path / "outputs")}
    ours = ("PYTEST", "PYTHON", "VIRTUAL_ENV", *values)
    environment = {name: x for name, x in os.environ.items() if not name.startswith(ours)}
    environment["PATH"] = f"{image}/bin:{os.environ['PATH']}"
    if program is PAPERMILL:
        program = [*program, *(word for pair in values.items() for word in ("-p", *pair))]
    else:
        environment |= values
    subprocess.run(
        [image / "bin" / "python", "-m", *program],
        cwd=tmp_path,
        check=True,
        timeout=1_500,
        env=environment,
    )
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    text = "".join(
        output.get("text", "") for cell in executed.cells for output in cell.get("outputs", ())
    )
    assert f"JAX {JAX}\n" in text  # ours, not the image's
    assert "profile tiny, model gemma3_tiny_it, seed 3" in text
    results = json.loads((tmp_path / "outputs" / "results.json").read_text())
    assert results["seed"] == 3
    assert results["evaluation"]["after_grpo"]["n"] >= 200  # as many as there is time for
