"""The metadata for `kaggle kernels push`, against the real command-line client."""

import contextlib
import json
import types

import pytest
from kaggle.api.kaggle_api_extended import KaggleApi

from conftest import ROOT
from submission.essay import profiles

FOLDER = ROOT / "scripts" / "kaggle"
METADATA = json.loads((FOLDER / "kernel-metadata.json").read_text())


@pytest.fixture
def push(monkeypatch):
    """Pushes as the client does, up to where it would ask the network."""
    sent = []

    @contextlib.contextmanager
    def client(self):
        save = types.SimpleNamespace(save_kernel=sent.append)
        yield types.SimpleNamespace(kernels=types.SimpleNamespace(kernels_api_client=save))

    monkeypatch.setattr(KaggleApi, "build_kaggle_client", client)

    def start(folder):
        KaggleApi().kernels_push(str(folder))
        return sent[0]

    return start


def test_the_client_takes_it_without_a_word(push, capsys):
    request = push(FOLDER)
    assert capsys.readouterr().out == ""  # it would complain of a title that is not the id
    assert request.enable_tpu
    assert not request.enable_gpu
    assert request.enable_internet
    assert request.machine_shape == "TpuV5E8"
    assert request.kernel_type == "notebook"
    assert request.model_data_sources == ["google/gemma-3/flax/gemma3-1b-it/1"]
    assert "unrestricted_kaggle_model" in request.text


def test_the_client_would_refuse_a_wrong_one(push, tmp_path):
    (tmp_path / "n.ipynb").write_text("{}")
    broken = METADATA | {"code_file": "n.ipynb", "kernel_type": "book"}
    (tmp_path / "kernel-metadata.json").write_text(json.dumps(broken))
    with pytest.raises(ValueError, match="kernel type"):
        push(tmp_path)


def test_it_attaches_the_model_that_the_profile_names():
    assert METADATA["model_sources"] == [profiles.KAGGLE.model.handle]
