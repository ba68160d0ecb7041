"""Writes a very small Gemma of each family in the layouts that the installed Orbax can write.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python tests/policy/layouts/make.py

leaves `orbax-<version>.tar.xz` beside this file. The archives here were made by Orbax 0.5.0 with
JAX 0.4.23, 0.11.20 with 0.6.2, and 0.12.8 with 0.10.2; no test needs the older ones. It runs with
any of them, so it uses only what all of them have.
"""

import importlib.metadata
import pathlib
import shutil
import tempfile

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp

HERE = pathlib.Path(__file__).resolve().parent
D, F, N, K, H, V = 8, 16, 2, 1, 8, 16  # width, hidden, heads, KV heads, head's width, vocabulary
SHAPE = {
    "num_layers": 1,
    "num_embed": V,
    "embed_dim": D,
    "hidden_dim": F,
    "num_heads": N,
    "num_kv_heads": K,
    "head_dim": H,
}


def weights(family):
    """Weights by Kaggle's names, module and parameter, in bfloat16: all differ, all are exact."""
    norms = ["pre_attention_norm", "post_attention_norm", "pre_ffw_norm", "post_ffw_norm"]
    layer = {
        "attn/attn_vec_einsum.w": (N, H, D),
        "attn/kv_einsum.w": (2, K, D, H),
        "attn/q_einsum.w": (N, D, H),
        "mlp/gating_einsum.w": (2, F, D) if family == "gemma3" else (2, D, F),
        "mlp/linear.w": (F, D),
        **{f"{norm}.scale": (D,) for norm in norms},
    }
    if family == "gemma3":
        layer |= {"attn/_key_norm.scale": (H,), "attn/_query_norm.scale": (H,)}
    shapes = {"embedder.input_embedding": (V, D), "final_norm.scale": (D,)}
    for i in range(SHAPE["num_layers"]):
        shapes |= {f"layer_{i}/{name}": shape for name, shape in layer.items()}
    tree = {}
    for number, (name, shape) in enumerate(shapes.items()):
        module, parameter = name.split(".")
        values = (np.arange(np.prod(shape)) * 37 + number * 11) % 251 - 125
        values = (values / 64).reshape(shape).astype(ml_dtypes.bfloat16)
        tree.setdefault(f"transformer/{module}", {})[parameter] = values
    return tree


def on_devices(tree, devices):
    """The arrays on the first device, or in slices of their last axis on several."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("x",))

    def place(x):
        spec = jax.sharding.PartitionSpec(*[None] * (x.ndim - 1), "x")
        where = jax.sharding.NamedSharding(mesh, spec) if devices > 1 else mesh.devices[0]
        return jax.device_put(x, where)

    return jax.tree_util.tree_map(place, tree)


def save(path, tree, aggregate=False, **options):
    """Writes a checkpoint, with all values in the one msgpack file if asked for."""
    how = jax.tree_util.tree_map(lambda _: ocp.SaveArgs(aggregate=aggregate), tree)
    writer = ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options))
    writer.save(path, tree, save_args=how)
    for note in path.glob("commit_success.txt"):
        note.write_text("Checkpoint commit was successful.\n")  # and not where it was written


def write_all(home, before_011):
    """Every layout of both families, each in a folder of its own."""
    for family in ("gemma3", "gemma2"):
        tree = weights(family)
        one, eight = on_devices(tree, 1), on_devices(tree, 8)
        save(home / f"{family}-numpy", tree)
        save(home / f"{family}-ocdbt-one", one)
        save(home / f"{family}-ocdbt-eight", eight)
        save(home / f"{family}-zarr-one", one, use_ocdbt=False)
        save(home / f"{family}-zarr-eight", eight, use_ocdbt=False)
        save(home / f"{family}-zarr3-eight", eight, use_zarr3=True)
        if before_011:  # from then on it is ignored
            save(home / f"{family}-msgpack", one, use_ocdbt=False, aggregate=True)


if __name__ == "__main__":
    version = importlib.metadata.version("orbax-checkpoint")
    with tempfile.TemporaryDirectory() as folder:
        write_all(pathlib.Path(folder), [*map(int, version.split("."))] < [0, 11])
        shutil.make_archive(str(HERE / f"orbax-{version}"), "xztar", folder)
