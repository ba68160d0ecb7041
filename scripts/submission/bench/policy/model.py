"""Stock Gemma, and an adapter on it.

The model is the stock instruction-tuned Gemma, as Kaggle hands it out, under the names that
Tunix's own loader gives it. The tiny Gemma of the CPU profile is read by the same call.
"""

import dataclasses
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import kagglehub
import numpy as np
import orbax.checkpoint as ocp
import qwix
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tunix.generate import sampler as sampler_lib
from tunix.generate import tokenizer_adapter
from tunix.models.gemma import model as gemma2_lib
from tunix.models.gemma3 import model as gemma3_lib
from tunix.models.gemma3 import params as gemma3_params

from submission.bench.policy.hosts import orbax_alone
from submission.bench.settings.config import Adapter, StockModel
from submission.bench.settings.host import model_cache
from submission.bench.settings.limits import within


def download(model: StockModel, minutes: float) -> str:
    """The model's directory by `kagglehub`, which on Kaggle waits for ever for what it lacks.

    Raises:
      RuntimeError: the download failed or took too long; says what to do.
    """
    try:
        return str(within(60 * minutes, lambda: kagglehub.model_download(model.handle)))
    except Exception as error:  # whatever went wrong, the remedy is the same
        raise RuntimeError(
            f"Could not get {model.handle}: {error}\n"
            "On Kaggle: attach the model ('Add Input' > 'Models'), accept its licence on its page, "
            "and switch the internet on ('Settings' > 'Internet'). Elsewhere: log in to Kaggle "
            "with KAGGLE_USERNAME and KAGGLE_KEY, or use PROFILE=tiny, which needs no network."
        ) from error


def made_by_script(model: StockModel) -> pathlib.Path:
    """The model's directory in the cache; if it is not there, its script makes it, aloud.

    Raises:
      RuntimeError: the script could not; with what it said.
    """
    folder = model_cache() / model.folder
    if not folder.exists():
        command, said = [sys.executable, "-u", model.script], ""
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as script:
            for said in script.stdout or ():
                print(said, end="", flush=True)
        if script.returncode:
            raise RuntimeError(f"Could not get {model.name}: {said.strip()}")
    return folder


def locate(model: StockModel, minutes: float) -> pathlib.Path:
    """The directory that holds the model's weights and its `tokenizer.model`.

    Raises:
      FileNotFoundError: a part is missing; names it.
      RuntimeError: it is not here, and could not be had.
    """
    if model.script:
        folder = made_by_script(model)
    else:
        folder = pathlib.Path(model.folder or download(model, minutes)).resolve()
    for part in (model.weights, "tokenizer.model"):
        if not (folder / part).exists():
            raise FileNotFoundError(
                f"{folder / part} does not exist. {model.name} needs a folder with "
                f"{model.weights}/ (Orbax) and tokenizer.model"
                + (
                    f": run {model.script}, which looks what is wrong with it."
                    if model.script
                    else ": run the notebook from the repository's root, or remake the folder with "
                    "scripts/make_tiny_gemma.py. On Kaggle, choose the accelerator TPU v5e-8."
                    if model.folder
                    else f": is {model.handle} still laid out like that?"
                )
            )
    return folder


def load_tokenizer(folder: pathlib.Path) -> tokenizer_adapter.Tokenizer:
    """Gemma's SentencePiece tokenizer. BOS and EOS are ours to add: one place does it.

    Raises:
      ValueError: the file is not a SentencePiece model, or has no eos or padding piece.
    """
    path = folder / "tokenizer.model"
    remedy = f"{path} is not a usable SentencePiece model; download or copy it again."
    try:
        tokenizer = tokenizer_adapter.Tokenizer(
            tokenizer_path=str(path), add_bos=False, add_eos=False
        )
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{remedy} ({error})") from error
    if min(tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.tokenizer.pad_id()) < 0:
        raise ValueError(f"{remedy} (It lacks <bos>, <eos> or <pad>.)")
    return tokenizer


# **Sharding.** All chips hold the whole model and share the batch, wherever the model fits.
# Gemma 3 1B is 2 GB in bfloat16 and a v5e chip has 16: a decode step then needs no
# collective at all, where Tunix's default layout gathers every weight over the links at every
# token.
#
# Tunix's models name their axes `fsdp` and `tp`, one of them in the code itself (`kv_einsum`).
# So the names stay, and the shape of the mesh decides: with all chips along a third axis,
# `data`, the other two have length one and every weight is whole on every chip; with all chips
# along `fsdp`, Tunix's fully sharded layout is what it was. The batch is split along both.


DATA_AXES = ("data", "fsdp")  # the batch is split along these


def make_mesh(replicated: bool = True, devices: Sequence[Any] | None = None) -> Mesh:
    """All devices along `data`, weights whole on each; or along `fsdp`, weights in slices.

    Args:
      replicated: does every device hold the whole model?
      devices: those of a compile-only topology, for example; by default all of this host.
    """
    found = np.array(jax.local_devices() if devices is None else devices)
    shape = (-1, 1, 1) if replicated else (1, -1, 1)
    return Mesh(found.reshape(shape), (*DATA_AXES, "tp"))


def mesh_of(model: nnx.Module) -> Mesh:
    """The mesh that a model's weights lie on."""
    return jax.tree.leaves(nnx.state(model))[0].sharding.mesh


def batch_on_data_axes(sharding_config: Any) -> Any:
    """A Tunix `ShardingConfig` whose activations are split along `DATA_AXES`."""
    axes = {
        name: (DATA_AXES, *value[1:])
        for name, value in dataclasses.asdict(sharding_config).items()
        if isinstance(value, tuple) and name.startswith("act_")
    }
    return dataclasses.replace(sharding_config, **axes)


def tunix_config(model: StockModel) -> Any:
    """The model's Tunix `ModelConfig`: a preset, or the shape given in our configuration."""
    library = {"gemma3": gemma3_lib, "gemma2": gemma2_lib}[model.family]
    if model.shape is None:
        config = getattr(library.ModelConfig, model.name)()
    else:
        config = library.ModelConfig(**model.shape)
    config.shd_config = batch_on_data_axes(config.shd_config)
    return config


def abstract_stock(shape: Any) -> nnx.Module:
    """A Tunix Gemma of this `ModelConfig`; no weight is made."""
    family = gemma3_lib.Gemma3 if isinstance(shape, gemma3_lib.ModelConfig) else gemma2_lib.Gemma
    return nnx.eval_shape(lambda: family(shape, rngs=nnx.Rngs(0)))


def read_arrays(path: pathlib.Path, like: Any = None) -> Any:
    """An Orbax checkpoint as numpy, as it was saved or in a tree like the one given."""
    # As anything else, it would go to the devices of its writer, which `_sharding` names.
    alone = {"multiprocessing_options": orbax_alone()}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**alone), **alone) as reader:
        if (tree := like) is None and (metadata := reader.metadata(path).item_metadata):
            tree = metadata.tree  # old checkpoints have none, and are read as numpy
        how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return reader.restore(path.resolve(), item=like, restore_args=how)


def load_stock(model: StockModel, folder: pathlib.Path, mesh: Mesh) -> nnx.Module:
    """The stock model in its dtype, each chip with no more of it than the mesh gives it."""
    weights, stock = read_arrays(folder / model.weights), abstract_stock(tunix_config(model))
    if model.family == "gemma2":  # its gates lie the other way round than Gemma 3's
        for name in (name for name in weights if name.endswith("gating_einsum")):
            weights[name] = {"w": weights[name]["w"].swapaxes(1, 2)}
    params = gemma3_params.map_from_upstream_checkpoint(weights, model.family)
    shardings = nnx.to_pure_dict(nnx.get_named_sharding(nnx.state(stock), mesh))
    placed = jax.tree.map(lambda x, s: jax.device_put(x.astype(model.dtype), s), params, shardings)
    nnx.update(stock, placed)
    return stock


# **The adapter.** LoRA on attention and MLP: for the 1B, 50 million numbers beside a frozen base.
# The reference policy of GRPO is the *same base* with a frozen copy of the adapter as SFT left it.
# (Handing over stock Gemma as reference, as the starter notebook does, would pull the policy back
# to before it knew the format.)


def add_adapter(stock: nnx.Module, adapter: Adapter, seed: int, mesh: Mesh) -> nnx.Module:
    """The stock model with fresh LoRA parameters; its output is the stock model's."""
    provider = qwix.LoraProvider(
        module_path=adapter.modules, rank=adapter.rank, alpha=adapter.alpha
    )
    # Not inside `with mesh:`: the model's dummy batch of two cannot be split over eight chips.
    policy = qwix.apply_lora_to_model(
        stock, provider, **stock.get_model_input(), rngs=nnx.Rngs(seed)
    )
    graph, fresh, base = nnx.split(policy, nnx.LoRAParam, ...)
    fresh = jax.device_put(fresh, NamedSharding(mesh, PartitionSpec()))
    return nnx.merge(graph, fresh, base, copy=False)


def frozen_copy(policy: nnx.Module) -> nnx.Module:
    """A model on the same base weights with a copy of the adapter: GRPO's reference."""
    graph, adapter, base = nnx.split(policy, nnx.LoRAParam, ...)
    return nnx.merge(graph, jax.tree.map(jnp.copy, adapter), base, copy=False)


def adapter_size(policy: nnx.Module) -> tuple[int, int]:
    """Numbers in the adapter, and in the whole model."""

    def count(*filters: Any) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(policy, *filters)))

    return count(nnx.LoRAParam), count()


# **The sampler** is Tunix's own, built as the judges build it.


def make_sampler(policy: nnx.Module, tokenizer: Any, cache_length: int) -> sampler_lib.Sampler:
    """Tunix's stock sampler with a cache for `cache_length` tokens."""
    c = policy.config
    cache = sampler_lib.CacheConfig(cache_length, c.num_layers, c.num_kv_heads, c.head_dim)
    return sampler_lib.Sampler(policy, tokenizer, cache)


def require_window(policy: nnx.Module, length: int) -> None:
    """Refuses rows that Tunix's Gemma 2 would mask wrongly.

    Its sliding window compares positions, which restart in a packed row, with places in the row,
    which do not. Nothing is lost while a row is no longer than the window. (Gemma 3's model
    compares places with places.)

    Raises:
      ValueError: it is a Gemma 2, and its window is shorter than a row.
    """
    window = policy.config.sliding_window_size
    if isinstance(policy, gemma2_lib.Gemma) and window is not None and length > window:
        raise ValueError(
            f"Packed rows of {length} tokens are longer than Gemma 2's sliding window of {window}: "
            "set `sft.length` in the profile to the window or less."
        )
