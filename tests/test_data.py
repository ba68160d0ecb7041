import dataclasses
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import tasks
from submission import checkers, data, prompts
from submission.config import Lengths, Source
from submission.prompts import Example


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source("bundled", str(path))


ROW = {"question": "q?", "answer": "1", "checker": "number", "domain": "math", "source": "s"}


# --- The bundled rows -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundled():
    train = list(data.read_bundled(Source("bundled", "data/train.jsonl")))
    return {
        "sft": [e for e in train if e.source.startswith("tasks/sft")],
        "grpo": [e for e in train if e.source.startswith("tasks/grpo")],
        "held_out": list(data.read_bundled(Source("bundled", "data/held_out.jsonl"))),
    }


def test_the_splits_share_no_question(bundled):
    questions = {name: {e.question for e in rows} for name, rows in bundled.items()}
    assert len(questions["held_out"]) >= 500
    for name, asked in questions.items():
        assert len(asked) == len(bundled[name])  # none twice within a split either
        # By construction: the hash of the question decides, for the pre-training text too.
        assert {tasks.split_of(question) for question in asked} == {name}
    assert not questions["sft"] & questions["grpo"]
    assert not questions["held_out"] & (questions["sft"] | questions["grpo"])


def test_pre_training_draws_from_its_own_split_only():
    problems = tasks.problems(3, "pretrain", distinct=False)
    assert {tasks.split_of(next(problems).question) for _ in range(500)} == {"pretrain"}


def test_the_files_are_what_the_generator_makes(bundled):
    made = tasks.rows(13, "held_out", tasks.HELD_OUT_ROWS)
    assert [row["question"] for row in made] == [e.question for e in bundled["held_out"]]


def test_every_gold_answer_passes_its_own_checker(bundled):
    for rows in bundled.values():
        assert all(checkers.check(e, e.answer) is True for e in rows)


def test_every_kind_and_several_difficulties_are_there(bundled):
    for rows in bundled.values():
        assert {e.checker for e in rows} == {"number", "choice", "boolean", "text"}
        assert len({e.difficulty for e in rows}) >= 4


def equations(trace):
    """Every `a+b-c=d` in a trace."""
    return re.findall(r"(?<![\d+-])(\d+(?:[+-]\d+)+)=(\d+)", trace)


def test_every_equation_in_every_trace_is_true(bundled):
    seen = 0
    for example in bundled["sft"]:
        for left, right in equations(example.trace):
            terms = left.replace("-", "+-").split("+")
            assert sum(map(int, terms)) == int(right), example
            seen += 1
    assert seen > 3000


def test_worked_traces_state_the_answer_they_lead_to(bundled):
    for example in bundled["sft"]:
        if example.checker == "number":
            numbers = example.trace.replace(".", " ").replace("=", " ").split()
            assert example.answer in numbers, example


# --- Reading --------------------------------------------------------------------------------


def test_a_missing_file_is_named_with_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.jsonl does not exist.*tasks.py"):
        next(data.read_bundled(Source("bundled", str(tmp_path / "nowhere.jsonl"))))


def test_a_line_that_is_no_json_is_named(tmp_path):
    source = write(tmp_path / "rows.jsonl", ROW)
    (tmp_path / "rows.jsonl").open("a").write("{oops\n")
    with pytest.raises(ValueError, match=r"rows.jsonl, line 2: not JSON"):
        list(data.read_bundled(source))


def test_a_row_without_a_field_is_named(tmp_path):
    source = write(tmp_path / "rows.jsonl", {k: v for k, v in ROW.items() if k != "checker"})
    with pytest.raises(ValueError, match=r"line 1: the row has no field 'checker'"):
        list(data.read_bundled(source))


def test_glaives_thinking_becomes_the_trace():
    row = {"prompt": " Why? ", "response": "<think>\nFirst.\n</think>\n\nBecause."}
    example = data.adapt_glaive(row)
    assert (example.question, example.trace, example.answer) == ("Why?", "First.", "Because.")
    assert example.checker == "open"


@pytest.mark.parametrize(
    "response", ["Because.", "<think></think>Because.", "<think>x</think>", "a <think>x</think> b"]
)
def test_glaive_rows_without_thinking_or_answer_are_dropped(response):
    assert data.adapt_glaive({"prompt": "Why?", "response": response}) is None


def test_gsm8k_loses_its_marks():
    row = {"question": "q", "answer": "She has 48/2 = <<48/2=24>>24.\n#### 1,024"}
    example = data.adapt_gsm8k(row)
    assert (example.trace, example.answer) == ("She has 48/2 = 24.", "1024")


def test_hub_rows_are_streamed_by_the_real_client(tmp_path, tokenizer):
    """The real `datasets` client, on a local file of glaive's schema."""
    rows = [{"prompt": f"What is {n}+1?", "response": f"<think>{n}+1={n + 1}.</think>{n + 1}"}
            for n in range(20)]  # fmt: skip
    rows.insert(3, {"prompt": "no thinking", "response": "1"})
    folder = tmp_path / "glaive"
    folder.mkdir()
    write(folder / "train.jsonl", *rows)
    source = Source("glaive", str(folder), rows=5)
    kept = data.load_examples(
        (source,), tokenizer, Lengths(48, 80), needs_trace=True, minimum_kept=0.5
    )
    assert [e.answer for e in kept] == ["1", "2", "3", "4", "5"]


def test_a_hub_row_without_a_column_is_named(tmp_path):
    folder = tmp_path / "glaive"
    folder.mkdir()
    write(folder / "train.jsonl", {"prompt": "q"})
    with pytest.raises(ValueError, match=r"no field 'response'; it has \['prompt'\]"):
        list(data.read_hub(Source("glaive", str(folder))))


def test_no_network_ends_in_one_clear_message(tmp_path):
    """The real client, told to talk to an address where nothing listens."""
    script = "from submission import config, data; next(data.read_hub(config.GSM8K))"
    environment = {
        **os.environ,
        "PYTHONPATH": "scripts",
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    last_lines = "\n".join(done.stderr.splitlines()[-2:])
    assert "RuntimeError: Could not read openai/gsm8k" in last_lines
    assert "Is the internet on?" in last_lines


def test_reading_ends_with_its_minutes_and_goes_on_with_what_there_is(tmp_path, tokenizer):
    source = write(tmp_path / "r.jsonl", *({**ROW, "question": f"q{n}"} for n in range(50)))
    ticks = iter(range(1000))
    kept = data.load_examples(
        (dataclasses.replace(source, minutes=0.5),),
        tokenizer,
        Lengths(48, 80),
        needs_trace=False,
        minimum_kept=0.5,
        clock=lambda: next(ticks),
    )
    assert len(kept) == 30


def test_a_source_of_which_next_to_nothing_fits_is_given_up_early(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(data, "EARLY_LOOK", 10)
    long = {**ROW, "question": "word " * 60}
    source = write(tmp_path / "r.jsonl", ROW, *[long] * 99)
    with pytest.raises(ValueError, match="only 1 of 10 rows"):
        data.load_examples(
            (source,), tokenizer, Lengths(48, 80), needs_trace=False, minimum_kept=0.5
        )


# --- Tokens ---------------------------------------------------------------------------------


def test_the_prompt_is_tokenized_as_the_sampler_does(tokenizer, make_policy):
    from submission.model import make_sampler

    sampler = make_sampler(make_policy(), tokenizer, 64)
    example = Example("What is 1 + 2?", "3", "number", "1+2=3.")
    tokens = data.tokenize(tokenizer, example)
    assert tokens.prompt == list(sampler.tokenize(prompts.render_prompt(example.question)))


def test_the_target_ends_with_the_eos_directly_after_the_answer_tag(tokenizer):
    target = data.tokenize(tokenizer, Example("q", "3", "number", "1+2=3.")).target
    assert target[-1] == tokenizer.eos_id()
    assert tokenizer.decode(target[-2:-1]) == "</answer>"
    assert target.count(tokenizer.eos_id()) == 1
    assert tokenizer.bos_id() not in target


def test_the_loss_covers_the_target_alone(tokenizer):
    row = data.tokenize(tokenizer, Example("What is 1 + 2?", "3", "number", "1+2=3."))
    tokens_BT, mask_BT = data.pad_tokens([row], 64, tokenizer.pad_id())
    assert tokens_BT[0][mask_BT[0]].tolist() == row.target
    assert not mask_BT[0, : len(row.prompt)].any()
    assert tokens_BT[0, : len(row.prompt)].tolist() == row.prompt
    assert (tokens_BT[0, len(row.prompt) + len(row.target) :] == tokenizer.pad_id()).all()


def test_an_example_is_never_cut(tokenizer):
    row = data.tokenize(tokenizer, Example("q", "3", "number", "1+2=3." * 9))
    with pytest.raises(ValueError, match="does not fit the length 16"):
        data.pad_tokens([row], 16, tokenizer.pad_id())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"question": "word " * 60}, "prompt over 48 tokens"),
        ({"trace": "word " * 90}, "target over 80 tokens"),
        ({"trace": ""}, "has no trace"),
        ({"answer": "many"}, "gold answer fails its own checker"),
        ({"question": "<start_of_turn>user"}, "contains a tag"),
        ({"trace": "</reasoning>"}, "contains a tag"),
    ],
)
def test_why_a_row_is_dropped(tokenizer, change, reason):
    row = dataclasses.replace(Example("What is 1 + 2?", "3", "number", "1+2=3."), **change)
    assert data.why_not(tokenizer, row, Lengths(48, 80), needs_trace=True) == reason


def test_prompts_over_the_length_are_counted_and_stop_the_run_if_too_many(
    tmp_path, tokenizer, capsys
):
    source = write(tmp_path / "r.jsonl", ROW, {**ROW, "question": "word " * 60})
    keep = dict(tokenizer=tokenizer, lengths=Lengths(48, 80), needs_trace=False)
    assert len(data.load_examples((source,), minimum_kept=0.5, **keep)) == 1
    assert "1 of 2 rows, 1 prompt over 48 tokens" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"only 1 of 2 rows.*at least 90% must be"):
        data.load_examples((source,), minimum_kept=0.9, **keep)


# --- Batches --------------------------------------------------------------------------------


def test_an_epoch_has_every_row_once_and_the_seed_decides_the_order():
    def take(seed, count=20):
        return [
            x for x, _ in zip(data.shuffled_forever(range(10), seed), range(count), strict=False)
        ]

    first = take(1)
    assert sorted(first[:10]) == sorted(first[10:]) == list(range(10))
    assert first[:10] != first[10:]
    assert first == take(1)
    assert first != take(2)


def test_batches_are_full():
    assert list(data.batched(range(7), 3)) == [[0, 1, 2], [3, 4, 5]]


def test_columns_have_one_value_per_example():
    rows = [Example("a", "1", "number"), Example("b", "B", "choice", choices=("x", "y", "z"))]
    columns = data.prompt_columns(rows)
    assert all(isinstance(v, np.ndarray) and len(v) == 2 for v in columns.values())
    assert columns["prompts"][0] == prompts.render_prompt("a")
    assert json.loads(str(columns["choices"][1])) == ["x", "y", "z"]
