"""The tokenizer of a GGUF encodes as Gemma's own does."""

import pytest

from submission.bench.policy import model

gguf = pytest.importorskip("gguf", reason="gguf is not installed: tests/requirements.txt has it")

import small_gguf  # noqa: E402
from small_gemma import pieces  # noqa: E402


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pieces")
    small_gguf.write(folder / "model.gguf")
    pieces.save(gguf.GGUFReader(str(folder / "model.gguf")), folder)
    return model.load_tokenizer(folder)


def shown(tokenizer, text):
    return [tokenizer.tokenizer.id_to_piece(i) for i in tokenizer.encode(text)]


def test_every_piece_keeps_its_number(tokenizer):
    count = len(small_gguf.pieces())
    assert tokenizer.tokenizer.get_piece_size() == count
    found = [tokenizer.tokenizer.id_to_piece(i) for i in range(count)]
    assert found == [text.replace(" ", "▁") for text, _, _ in small_gguf.pieces()]


def test_turns_are_single_pieces_and_what_no_text_may_hold_is_not_found_in_one(tokenizer):
    assert shown(tokenizer, "<start_of_turn>ab<end_of_turn>") == [
        "<start_of_turn>", "ab", "<end_of_turn>",
    ]  # fmt: skip
    assert not {0, 1, 2, 3} & set(tokenizer.encode("<pad><eos><bos>"))
    ids = tokenizer.tokenizer
    assert (ids.pad_id(), ids.eos_id(), ids.bos_id(), ids.unk_id()) == (0, 1, 2, 3)


def test_no_space_is_added_none_is_lost_and_other_letters_become_bytes(tokenizer):
    assert shown(tokenizer, "ab ab") == ["ab", "▁ab"]
    assert shown(tokenizer, "a  b\n\n") == ["a", "▁▁", "b", "\n\n"]
    assert shown(tokenizer, "é") == ["<0xC3>", "<0xA9>"]
    for text in (" a", "a ", "  abc é <start_of_turn>\n\n"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
