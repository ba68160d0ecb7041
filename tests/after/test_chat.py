"""Asking a trained model: the same answers as in evaluation, as they are written."""

import io
import itertools
import re

import chat
import pytest

from conftest import FACTS, moved
from submission.bench.policy import model
from submission.bench.run import checkpoints
from submission.bench.settings import config
from submission.bench.show import evaluate

LENGTHS = config.Lengths(prompt=48, completion=24)


@pytest.fixture(scope="module")
def policy(make_policy):
    return moved(make_policy(), 0.05)


@pytest.fixture(scope="module")
def speaker(policy, tokenizer, mesh):
    return chat.Speaker(policy, tokenizer, mesh, LENGTHS)


def last(texts):
    found = list(texts)
    return found[-1] if found else ""


def test_the_answer_is_the_one_of_the_judges_sampler(speaker, policy, tokenizer, rows):
    examples = rows["held_out"].examples[:6]
    sampler = model.make_sampler(policy, tokenizer, 48 + 24)
    expected = evaluate.answer_greedily(sampler, examples, 6, 48, 24)
    for example, answered in zip(examples, expected, strict=True):
        text = last(speaker.answer(example.question))
        assert text == answered.completion.text.removesuffix(evaluate.CUT_MARK)


def test_it_grows_piece_by_piece(speaker):
    texts = list(speaker.answer("What is 3 + 4?"))
    assert len(texts) > 2
    assert all(b.startswith(a) for a, b in itertools.pairwise(texts))


def test_at_a_temperature_it_depends_on_the_seed(speaker):
    def say(seed):
        return last(speaker.answer("Tell me something.", temperature=2.0, seed=seed))

    assert say(1) == say(1)
    assert len({say(seed) for seed in range(4)}) > 1


def test_too_long_a_question_is_named(speaker):
    with pytest.raises(ValueError, match=r"has \d+ tokens with its prompt, over the limit of 48"):
        last(speaker.answer("What is " + "3 + " * 100 + "4?"))


def test_from_the_command_line_to_the_answer(policy, tmp_path, capsys, speaker):
    checkpoints.write_step(tmp_path / "checkpoints" / "actor", 2, policy, None, FACTS)
    assert chat.main(["--checkpoint", str(tmp_path), "--profile", "tiny", "What is 3 + 4?"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(last(speaker.answer("What is 3 + 4?")))


def test_a_question_that_is_too_long_is_refused_and_the_next_one_answered(
    policy, tmp_path, capsys, speaker, monkeypatch
):
    checkpoints.write_step(tmp_path / "checkpoints" / "actor", 2, policy, None, FACTS)
    monkeypatch.setattr("sys.stdin", io.StringIO("why " * 200 + "\nWhat is 3 + 4?\n"))
    assert chat.main(["--checkpoint", str(tmp_path), "--profile", "tiny"]) == 0
    said = capsys.readouterr()
    assert "ask it in fewer words" in said.err
    assert said.out.startswith(last(speaker.answer("What is 3 + 4?")))


def test_without_a_checkpoint_it_says_what_to_do(tmp_path, capsys):
    assert chat.main(["--checkpoint", str(tmp_path), "--profile", "tiny", "x"]) == 1
    error = capsys.readouterr().err
    assert re.search(r"holds no checkpoint.* Train one with `bash scripts/run.sh`, or name", error)
