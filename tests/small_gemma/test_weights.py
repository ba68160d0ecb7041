"""A GGUF becomes a checkpoint that the notebook loads, with the numbers that it held."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from submission.bench.policy import model

gguf = pytest.importorskip("gguf", reason="gguf is not installed: tests/requirements.txt has it")

import small_gguf  # noqa: E402
from small_gemma import pieces, verify, weights  # noqa: E402


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The folder with file and checkpoint, and the arrays that were written."""
    folder = tmp_path_factory.mktemp("converted")
    written = small_gguf.write(folder / "model.gguf")
    reader = gguf.GGUFReader(str(folder / "model.gguf"))
    weights.save(dict(weights.flax_layout(reader)), folder / small_gguf.STOCK.weights)
    pieces.save(reader, folder)
    return folder, written


@pytest.fixture(scope="module")
def loaded(converted, mesh):
    return model.load_stock(small_gguf.STOCK, converted[0], mesh)


def test_every_number_of_the_file_is_in_the_model(converted, loaded):
    numbers = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(loaded)))
    assert numbers == sum(array.size for array in converted[1].values())


def test_each_weight_is_where_the_model_looks_for_it(converted, loaded):
    written, layer = converted[1], loaded.layers[3]

    def same(parameter, array):
        rounded = np.asarray(array).astype(jnp.bfloat16).astype(np.float32)
        np.testing.assert_array_equal(np.asarray(parameter.get_value()), rounded)

    query, output = written["blk.3.attn_q.weight"], written["blk.3.attn_output.weight"]
    same(layer.attn.q_einsum.w, np.stack([query[:256].T, query[256:].T]))
    same(layer.attn.attn_vec_einsum.w, np.stack([output[:, :256].T, output[:, 256:].T]))
    pair = [written[f"blk.3.attn_{x}.weight"].T[None] for x in "kv"]
    same(layer.attn.kv_einsum.w, np.stack(pair))
    same(layer.mlp.gate_proj.kernel, written["blk.3.ffn_gate.weight"].T)
    same(layer.mlp.up_proj.kernel, written["blk.3.ffn_up.weight"].T)
    same(layer.mlp.down_proj.kernel, written["blk.3.ffn_down.weight"].T)
    same(loaded.embedder.input_embedding, written["token_embd.weight"])
    norms = flax.traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(layer)), sep=".")
    for ours, theirs in weights.NORMS.items():
        scale = written[f"blk.3.{theirs}.weight"] - 1
        np.testing.assert_array_equal(
            norms[f"{ours.replace('/', '.')}.scale"], scale.astype(jnp.bfloat16).astype(np.float32)
        )


def test_the_checkpoint_says_nothing_of_where_it_was_made(converted):
    folder = converted[0]
    for path in (folder / small_gguf.STOCK.weights).rglob("*"):
        assert not path.is_file() or str(folder).encode() not in path.read_bytes()


def test_logits_are_those_of_transformers(converted, loaded):
    pytest.importorskip("torch", reason="torch is not installed: tests/interoperability.txt has it")
    reference = verify.in_transformers(converted[0] / "model.gguf")
    rows = [[2, *range(4, 40)], [2, 300, 7, 301]]  # the first is longer than the window
    assert verify.largest_difference(loaded, reference, rows) <= verify.TOLERANCE
    moved = model.load_stock(small_gguf.STOCK, converted[0], model.make_mesh())
    scale = moved.layers[0].attn._query_norm.scale
    scale[...] = scale[...] + 1  # the mistake that is easily made
    assert verify.largest_difference(moved, reference, rows) > 10 * verify.TOLERANCE
