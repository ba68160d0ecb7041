"""Publishing a model, against kagglehub's own checks and a stand-in for its upload."""

import dataclasses
import pathlib
import time

import kagglehub
import orbax.checkpoint as ocp
import pytest
from kagglehub import models

from conftest import FACTS, moved
from submission.bench.run import checkpoints
from submission.bench.show import publish
from submission.essay import profiles

RUN = profiles.read_run({"PROFILE": "tiny", "PUBLISH_AS": "user/gemma-shows"}, "cpu")


@pytest.fixture
def step(make_policy, tmp_path):
    actor = tmp_path / "checkpoints" / "actor"
    checkpoints.write_step(actor, 60, moved(make_policy(), 0.05), None, FACTS)
    return actor / "60"


@pytest.fixture
def uploads(monkeypatch):
    """What goes to Kaggle: kagglehub's own function, without the network under it."""
    sent = []
    monkeypatch.setattr(models, "create_model_if_missing", lambda owner, model: None)
    monkeypatch.setattr(
        models, "upload_files_and_directories", lambda folder, **_: sent.append(folder) or "tokens"
    )
    monkeypatch.setattr(
        models,
        "create_model_instance_or_version",
        lambda handle, *rest, **more: sent.append(handle),
    )
    return sent


def test_nothing_is_published_unless_it_was_asked_for(step, uploads):
    assert publish.publish(dataclasses.replace(RUN, publish_as=""), step, "card", 9) is None
    assert uploads == []


def test_what_is_uploaded_can_be_restored_as_the_judges_do(step, uploads, make_policy, capsys):
    assert publish.publish(RUN, step, "a card", 60) == "user/gemma-shows"
    assert "private" in capsys.readouterr().out
    folder, handle = pathlib.Path(uploads[0]), uploads[1]
    assert (handle.owner, handle.model, handle.framework) == ("user", "gemma-shows", "flax")
    policy = make_policy(seed=1)
    assert checkpoints.restore_earlier(policy, folder) == {}
    expected = moved(make_policy(), 0.05)
    assert checkpoints.digest(checkpoints.saved_parts(policy, None)) == checkpoints.digest(
        checkpoints.saved_parts(expected, None)
    )
    assert (folder / "README.md").read_text() == "a card"
    assert ocp.StandardCheckpointer().metadata(folder / "60" / "model_params")


def test_an_upload_that_fails_costs_nothing_but_the_upload(step, monkeypatch, capsys):
    def refused(*arguments, **keywords):
        raise OSError("no connection")

    monkeypatch.setattr(kagglehub, "model_upload", refused)
    assert publish.publish(RUN, step, "a card", 60) is None
    assert "Could not publish user/gemma-shows/flax/gemma3-tiny-it-lora: no connection" in (
        capsys.readouterr().out
    )


def test_an_upload_that_stalls_ends_with_the_session(step, monkeypatch, capsys):
    monkeypatch.setattr(kagglehub, "model_upload", lambda *_, **__: time.sleep(30))
    began = time.monotonic()
    assert publish.publish(RUN, step, "a card", 1.0) is None
    assert time.monotonic() - began < 5
    assert "no answer after 1 seconds\nUpload" in capsys.readouterr().out
