import dataclasses
import time

import flax
import jax
import jax.numpy as jnp
import kagglehub
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from tunix.models.gemma import model as gemma2_lib

import make_tiny_gemma
from conftest import SMALL_GEMMA_2
from submission.bench.policy import model
from submission.bench.settings import config
from submission.essay import profiles

GEMMA_3 = profiles.STOCK_MODELS["gemma3_1b_it"]
GEMMA_2 = profiles.STOCK_MODELS["gemma2_2b_it"]
TINY = profiles.STOCK_MODELS["gemma3_tiny_it"]


# --- Getting the files ------------------------------------------------------------------------


def test_the_path_is_the_one_that_kagglehub_returns(monkeypatch, tiny_folder):
    asked = []
    monkeypatch.setattr(kagglehub, "model_download", lambda h: asked.append(h) or str(tiny_folder))
    stock = dataclasses.replace(GEMMA_3, weights=TINY.weights)
    assert model.locate(stock, minutes=1) == tiny_folder
    assert asked == ["google/gemma-3/flax/gemma3-1b-it/1"]


def test_a_download_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(kagglehub, "model_download", lambda handle: time.sleep(60))
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=r"(?s)no answer.*attach the model.*licence.*internet"):
        model.locate(GEMMA_3, minutes=0.005)
    assert time.monotonic() - start < 5


def test_no_network_ends_in_one_message_with_the_remedy(monkeypatch):
    """The real client, with nothing to talk to."""
    monkeypatch.setenv("KAGGLEHUB_CACHE", "/nonexistent")
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    with pytest.raises(RuntimeError, match=r"(?s)Could not get google/gemma-2.*PROFILE=tiny"):
        model.locate(GEMMA_2, minutes=0.5)


def refuse(*arguments, **keywords):
    raise OSError("Name or service not known")


@pytest.mark.parametrize("missing", ["gemma3-tiny-it", "tokenizer.model"])
def test_a_missing_part_of_the_folder_is_named(tmp_path, missing):
    for part in {"gemma3-tiny-it", "tokenizer.model"} - {missing}:
        (tmp_path / part).mkdir()
    stock = dataclasses.replace(TINY, folder=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"{missing} does not exist.*make_tiny_gemma"):
        model.locate(stock, minutes=1)


def scripted(folder, monkeypatch, code):
    """A model whose script is this code, with the cache in `folder`."""
    (folder / "get.py").write_text(code)
    monkeypatch.setenv("MODEL_CACHE", str(folder / "cache"))
    return dataclasses.replace(TINY, folder="made", script=str(folder / "get.py"))


MAKE = """
import os, pathlib
print("making it")
made = pathlib.Path(os.environ["MODEL_CACHE"]) / "made"
(made / "gemma3-tiny-it").mkdir(parents=True)
(made / "tokenizer.model").touch()
"""


def test_a_model_with_a_script_is_made_in_the_cache_aloud_and_once(tmp_path, monkeypatch, capsys):
    stock = scripted(tmp_path, monkeypatch, MAKE)
    assert model.locate(stock, minutes=1) == tmp_path / "cache" / "made"
    assert capsys.readouterr().out == "making it\n"
    model.locate(stock, minutes=1)
    assert capsys.readouterr().out == ""


def test_a_script_that_fails_ends_in_its_own_message(tmp_path, monkeypatch):
    stock = scripted(tmp_path, monkeypatch, "import sys; sys.exit('the disk is full')")
    with pytest.raises(RuntimeError, match=r"Could not get gemma3_tiny_it: the disk is full"):
        model.locate(stock, minutes=1)


def test_a_part_that_the_cache_lacks_is_named_with_the_script(tmp_path, monkeypatch):
    (tmp_path / "cache" / "made" / "gemma3-tiny-it").mkdir(parents=True)
    stock = scripted(tmp_path, monkeypatch, MAKE)
    with pytest.raises(FileNotFoundError, match=r"tokenizer.model does not exist.*run .*get.py"):
        model.locate(stock, minutes=1)


def test_a_corrupt_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"tokenizer.model is not a usable SentencePiece model"):
        model.load_tokenizer(tmp_path)


# --- The tokenizer ----------------------------------------------------------------------------


def test_the_tiny_tokenizer_has_gemmas_special_pieces(tokenizer):
    pieces = tokenizer.tokenizer
    assert [pieces.id_to_piece(i) for i in range(4)] == ["<pad>", "<eos>", "<bos>", "<unk>"]
    for text in ("<start_of_turn>", "<end_of_turn>", "\n", "<reasoning>", "</answer>"):
        assert len(tokenizer.encode(text)) == 1
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_any_text_survives_the_tokenizer(tokenizer):
    text = "  Zoë paid 1,234 € for “tea”\n\n…and λx.x  "
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_digits_stand_alone(tokenizer):
    assert len(tokenizer.encode("476")) == 3


def test_bos_and_eos_are_not_added_by_the_tokenizer(tokenizer):
    assert not {tokenizer.bos_id(), tokenizer.eos_id()} & set(tokenizer.encode("What is 1 + 2?"))


# --- Both layouts -----------------------------------------------------------------------------


def save(path, tree):
    checkpointer = ocp.StandardCheckpointer()
    checkpointer.save(path, tree)
    checkpointer.wait_until_finished()


def test_gemma_3s_layout_loads_with_the_numbers_that_were_written(tmp_path, mesh, tiny_folder):
    written = make_tiny_gemma.initial_model(make_tiny_gemma.tiny_config(), 5)
    make_tiny_gemma.save(tmp_path, written, {})
    loaded = model.load_stock(TINY, tmp_path, mesh)
    tokens = jnp.arange(8)[None] + 4
    mask = jnp.tril(jnp.ones((1, 8, 8), bool))
    ours, _ = loaded(tokens, jnp.arange(8)[None], None, mask)
    theirs, _ = written(tokens, jnp.arange(8)[None], None, mask)
    np.testing.assert_allclose(ours, theirs, atol=0.15)  # the file is in bfloat16
    assert jax.tree.leaves(nnx.state(loaded))[0].dtype == jnp.float32


def gemma_2_layout(shape, seed=0):
    """Random weights under the names and shapes of Kaggle's Gemma 2 Flax checkpoints."""
    rng = np.random.default_rng(seed)
    d, h, n, k, f = (
        shape[x] for x in ("embed_dim", "head_dim", "num_heads", "num_kv_heads", "hidden_dim")
    )

    def draw(*size):
        return rng.normal(0, 0.1, size).astype(jnp.bfloat16)

    tree = {
        "transformer/embedder": {"input_embedding": draw(shape["num_embed"], d)},
        "transformer/final_norm": {"scale": draw(d)},
    }
    for i in range(shape["num_layers"]):
        layer = f"transformer/layer_{i}"
        tree |= {
            f"{layer}/attn/attn_vec_einsum": {"w": draw(n, h, d)},
            f"{layer}/attn/kv_einsum": {"w": draw(2, k, d, h)},
            f"{layer}/attn/q_einsum": {"w": draw(n, d, h)},
            f"{layer}/mlp/gating_einsum": {"w": draw(2, d, f)},
            f"{layer}/mlp/linear": {"w": draw(f, d)},
            **{
                f"{layer}/{norm}": {"scale": draw(d)}
                for norm in (
                    "pre_attention_norm",
                    "post_attention_norm",
                    "pre_ffw_norm",
                    "post_ffw_norm",
                )
            },
        }
    return tree


def test_gemma_2s_layout_loads_with_the_numbers_that_were_written(tmp_path, mesh, tokenizer):
    tree = gemma_2_layout(SMALL_GEMMA_2)
    save(tmp_path / "gemma2-small", tree)
    stock = config.StockModel(
        "gemma2_small", "gemma2", "gemma2-small", shape=SMALL_GEMMA_2, dtype="float32"
    )
    loaded = model.load_stock(stock, tmp_path, mesh)
    state = flax.traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(loaded)))
    gates = tree["transformer/layer_1/mlp/gating_einsum"]["w"].astype(np.float32)
    np.testing.assert_array_equal(state["layers", 1, "mlp", "gate_proj", "kernel"], gates[0])
    np.testing.assert_array_equal(state["layers", 1, "mlp", "up_proj", "kernel"], gates[1])
    written = sum(leaf.size for leaf in jax.tree.leaves(tree))
    assert sum(leaf.size for leaf in state.values()) == written
    # And it trains and samples like the other family.
    policy = model.add_adapter(loaded, profiles.TINY.adapter, 0, mesh)
    sampler = model.make_sampler(policy, tokenizer, 64)
    output = sampler(["1 + 2"], max_generation_steps=4, max_prompt_length=16)
    assert len(output.tokens[0]) <= 4


@pytest.mark.parametrize(
    ("stock", "parameters"), [(GEMMA_3, 999_885_952), (GEMMA_2, 2_614_636_800)]
)
def test_the_presets_are_the_stock_models(stock, parameters):
    """Shapes only: neither model is held in memory."""
    tunix_config = model.tunix_config(stock)
    library = {"gemma3": model.gemma3_lib.Gemma3, "gemma2": gemma2_lib.Gemma}[stock.family]
    abstract = nnx.eval_shape(lambda: library(tunix_config, rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(abstract))) == parameters


# --- Adapter, reference, sharding -------------------------------------------------------------


def test_a_fresh_adapter_changes_nothing(make_policy, tiny_folder, mesh):
    stock = model.load_stock(TINY, tiny_folder, mesh)
    inputs = stock.get_model_input()
    before = stock(**inputs)[0]
    np.testing.assert_array_equal(before, make_policy()(**inputs)[0])


def test_the_seed_decides_the_adapter(make_policy):
    def first(seed):
        return np.asarray(jax.tree.leaves(nnx.state(make_policy(seed=seed), nnx.LoRAParam))[0])

    assert (first(1) == first(1)).all()
    assert (first(1) != first(2)).any()


def test_the_reference_shares_the_base_and_keeps_its_own_adapter(make_policy):
    policy = make_policy()
    reference = model.frozen_copy(policy)

    def pointers(module, kind):
        return [x.unsafe_buffer_pointer() for x in jax.tree.leaves(nnx.state(module, kind))]

    base = nnx.filterlib.Not(nnx.LoRAParam)
    assert pointers(policy, base) == pointers(reference, base)
    assert not set(pointers(policy, nnx.LoRAParam)) & set(pointers(reference, nnx.LoRAParam))


def shardings(stock, shape):
    """Each weight's sharding on eight devices, as Tunix's loaders would lay it out."""
    tunix_config = model.tunix_config(stock)
    library = {"gemma3": model.gemma3_lib.Gemma3, "gemma2": gemma2_lib.Gemma}[stock.family]
    abstract = nnx.eval_shape(lambda: library(tunix_config, rngs=nnx.Rngs(0)))
    mesh = jax.sharding.AbstractMesh(shape, ("data", "fsdp", "tp"))
    specs = jax.tree.leaves(
        nnx.get_partition_spec(nnx.state(abstract)),
        is_leaf=lambda x: isinstance(x, jax.sharding.PartitionSpec),
    )
    return [jax.sharding.NamedSharding(mesh, spec) for spec in specs]


@pytest.mark.parametrize("stock", [GEMMA_3, GEMMA_2], ids=lambda stock: stock.name)
def test_the_shape_of_the_mesh_decides_where_weights_are(stock):
    """Tunix writes `fsdp` into one weight of models with one KV head, whatever the config says."""
    assert all(sharding.is_fully_replicated for sharding in shardings(stock, (8, 1, 1)))
    sliced = [not sharding.is_fully_replicated for sharding in shardings(stock, (1, 8, 1))]
    assert sum(sliced) >= len(sliced) / 2


def test_the_batch_is_split_over_all_data_axes():
    for stock in (GEMMA_3, GEMMA_2):
        sharding = model.tunix_config(stock).shd_config
        for name in ("act_btd", "act_btf", "act_btnh"):
            assert getattr(sharding, name)[0] == model.DATA_AXES
    assert model.make_mesh().shape == {"data": jax.device_count(), "fsdp": 1, "tp": 1}
    assert model.make_mesh(replicated=False).shape["fsdp"] == jax.device_count()
