"""What is compared with other implementations, and what is said where they are not there."""

import importlib.util
import json
import shutil
from types import SimpleNamespace

from small_gemma import verify


def test_every_text_of_a_row_is_tried_and_questions_as_prompts_too(tmp_path):
    row = {"question": "6 \u2028 7?", "choices": ["a", {"b": "c"}], "answer": "", "n": 3}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n")
    prompt = "<start_of_turn>user\n6 \u2028 7?<end_of_turn>\n<start_of_turn>model\n"
    assert verify.texts_of([tmp_path / "rows.jsonl"]) == ["6 \u2028 7?", "a", "c", prompt]


def test_a_text_that_is_encoded_differently_is_found():
    ours = SimpleNamespace(encode=lambda text: [len(text)])
    theirs = SimpleNamespace(
        encode=lambda text, add_special_tokens: SimpleNamespace(ids=[min(len(text), 3)])
    )
    assert verify.differing_texts(ours, theirs, ["ab", "abc", "abcd"]) == ["abcd"]


def test_what_cannot_be_compared_is_said_and_is_no_failure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert verify.all_agree(None, tmp_path)
    said = capsys.readouterr().out
    assert "weights: not compared, torch and transformers cannot be imported" in said
    assert "tokenizer: not compared, npm is not installed" in said
