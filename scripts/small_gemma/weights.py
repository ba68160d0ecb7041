"""A Gemma 3 in GGUF, dequantised, under the names of Kaggle's Flax checkpoints.

What differs between the two formats:

- GGUF stores the scale of a norm with its 1 added, Flax without;
- GGUF's matrices are [out, in] with all heads along `out`, Flax's are [heads, in, head] for the
  query, [2, heads, in, head] for key and value, [heads, head, out] for the output;
- the gates of the MLP are stacked, [2, hidden, width], and the way down is [hidden, width].

Neither needs its rotary pairs exchanged, and both leave the embedding unscaled.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

# Axes: N query heads, K key-value heads, H head, D width, F hidden, V vocabulary.
NORMS = {
    "pre_attention_norm": "attn_norm",
    "post_attention_norm": "post_attention_norm",
    "pre_ffw_norm": "ffn_norm",
    "post_ffw_norm": "post_ffw_norm",
    "attn/_query_norm": "attn_q_norm",
    "attn/_key_norm": "attn_k_norm",
}


def number(reader: Any, name: str) -> int:
    """A number from the file's metadata, e.g. `block_count`."""
    field = reader.fields[f"gemma3.{name}"]
    return int(field.parts[field.data[0]][0])


def bfloat16(array: np.ndarray) -> np.ndarray:
    """The array as Kaggle's checkpoints have it."""
    return np.ascontiguousarray(array).astype(jnp.bfloat16)


def flax_layout(reader: Any) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Module paths and their arrays in bfloat16, one module after the other.

    Args:
      reader: a `gguf.GGUFReader` of a Gemma 3.
    """
    import gguf  # installed on demand

    tensors = {tensor.name: tensor for tensor in reader.tensors}

    def get(name: str) -> np.ndarray:
        """The tensor in float32, in the order of axes in which it is computed with."""
        tensor = tensors[name]
        array = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        return array.reshape([int(size) for size in reversed(tensor.shape)])

    heads = number(reader, "attention.head_count")
    kv_heads = number(reader, "attention.head_count_kv")

    def by_head(name: str, count: int) -> np.ndarray:
        """[heads × head, in] as [heads, in, head]."""
        matrix = get(name)
        return matrix.reshape(count, -1, matrix.shape[1]).transpose(0, 2, 1)

    yield "transformer/embedder", {"input_embedding": bfloat16(get("token_embd.weight"))}
    yield "transformer/final_norm", {"scale": bfloat16(get("output_norm.weight") - 1)}
    for i in range(number(reader, "block_count")):
        here, there = f"transformer/layer_{i}", f"blk.{i}"
        for flax_name, name in NORMS.items():
            yield f"{here}/{flax_name}", {"scale": bfloat16(get(f"{there}.{name}.weight") - 1)}
        query_NDH = by_head(f"{there}.attn_q.weight", heads)
        pair_2KDH = np.stack([by_head(f"{there}.attn_{x}.weight", kv_heads) for x in "kv"])
        output_DN = get(f"{there}.attn_output.weight")
        output_NHD = output_DN.T.reshape(heads, -1, output_DN.shape[0])
        gates_2FD = np.stack([get(f"{there}.ffn_{x}.weight") for x in ("gate", "up")])
        yield f"{here}/attn/q_einsum", {"w": bfloat16(query_NDH)}
        yield f"{here}/attn/kv_einsum", {"w": bfloat16(pair_2KDH)}
        yield f"{here}/attn/attn_vec_einsum", {"w": bfloat16(output_NHD)}
        yield f"{here}/mlp/gating_einsum", {"w": bfloat16(gates_2FD)}
        yield f"{here}/mlp/linear", {"w": bfloat16(get(f"{there}.ffn_down.weight").T)}


def save(layout: dict[str, dict[str, np.ndarray]], target: pathlib.Path) -> None:
    """Writes the layout with Orbax."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(target.absolute(), layout)
    # Orbax notes where it wrote; that place is nobody else's business.
    (target / "commit_success.txt").write_text("Checkpoint commit was successful.\n")
