"""Gemma's SentencePiece tokenizer from the pieces, scores and types in a GGUF.

GGUF marks all special pieces as control pieces, which SentencePiece never finds in a text:
`<start_of_turn>` would fall apart into letters. All but four (padding, eos, bos, unknown) are
therefore pieces of the user's here, as in Gemma's own file. In those a space is written `▁`.
"""

from __future__ import annotations

import pathlib
from typing import Any

from sentencepiece import sentencepiece_model_pb2 as protos

Piece = protos.ModelProto.SentencePiece
FIRST = ("<pad>", "<eos>", "<bos>", "<unk>")
GGUF_CONTROL, GGUF_USER_DEFINED = 3, 4
BPE = 2


def values(reader: Any, name: str) -> list[Any]:
    """A list in the file's metadata, each entry as a numpy array."""
    field = reader.fields[f"tokenizer.ggml.{name}"]
    return [field.parts[i] for i in field.data]


def sentencepiece_model(reader: Any) -> bytes:
    """The content of `tokenizer.model`.

    Args:
      reader: a `gguf.GGUFReader` of a Gemma.
    """
    model = protos.ModelProto()
    texts, scores = values(reader, "tokens"), values(reader, "scores")
    for i, (text, score, kind) in enumerate(
        zip(texts, scores, values(reader, "token_type"), strict=True)
    ):
        if i < len(FIRST):
            special = Piece.UNKNOWN if FIRST[i] == "<unk>" else Piece.CONTROL
            model.pieces.add(piece=FIRST[i], score=0.0, type=special)
            continue
        piece, number = bytes(text).decode("utf-8"), int(kind[0])
        if number in (GGUF_CONTROL, GGUF_USER_DEFINED):
            piece, number = piece.replace(" ", "▁"), Piece.USER_DEFINED
        model.pieces.add(piece=piece, score=float(score[0]), type=number)
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type, trainer.vocab_size, trainer.byte_fallback = BPE, len(texts), True
    trainer.pad_id, trainer.eos_id, trainer.bos_id, trainer.unk_id = range(4)
    trainer.pad_piece, trainer.eos_piece, trainer.bos_piece, trainer.unk_piece = FIRST
    normalizer.name, normalizer.escape_whitespaces = "identity", True
    normalizer.add_dummy_prefix = normalizer.remove_extra_whitespaces = False
    return model.SerializeToString()


def save(reader: Any, folder: pathlib.Path) -> None:
    """Writes `tokenizer.model`."""
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(reader))
