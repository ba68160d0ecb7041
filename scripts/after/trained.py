"""A trained model: where its checkpoint is, and how it is loaded."""

import argparse
import os
import pathlib
import sys
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import Mesh

from submission.bench.policy import model
from submission.bench.run import checkpoints, run_folder
from submission.bench.settings import config
from submission.essay import profiles

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

# Without a TPU, JAX would look for one at length.
if not [*pathlib.Path("/dev").glob("accel*"), *pathlib.Path("/dev/vfio").glob("[0-9]*")]:
    jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS", "cpu"))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that name a trained model."""
    parser.add_argument(
        "--checkpoint",
        type=pathlib.Path,
        default=ROOT / "outputs",
        help="the folder of a run (default: outputs), its checkpoints/actor, or one step in it",
    )
    parser.add_argument("--profile", choices=profiles.PROFILES, help="default: by the hardware")


def opened(
    options: argparse.Namespace,
) -> tuple[config.Run, pathlib.Path, nnx.Module, Any, Mesh]:
    """The run, step, policy, tokenizer and mesh that the options name; from here on, in ROOT.

    Raises:
      FileNotFoundError, ValueError: there is no checkpoint, or no model; says what to do.
    """
    checkpoint = options.checkpoint.resolve()
    os.chdir(ROOT)  # the configuration's paths are relative to the repository
    try:
        step = checkpoints.find_step(checkpoint)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error} Train one with `bash scripts/run.sh`, or name the folder of a run, its "
            "checkpoints/actor, or one step in it with --checkpoint."
        ) from error
    record = run_folder.read_json(step.resolve().parents[2] / "run.json", None)
    if record is None:
        run = profiles.read_run({"PROFILE": options.profile or ""}, jax.default_backend())
        print(f"No run.json lies beside {step}: today's profile {run.profile.name} is taken.",
              file=sys.stderr)  # fmt: skip
    else:
        run = run_folder.run_of(record)
    if options.profile not in (None, run.profile.name):
        raise ValueError(f"{step} is of the profile {run.profile.name}, not {options.profile}.")
    return run, step, *load(run, step)


def require_fit(step: pathlib.Path, policy: nnx.Module) -> None:
    """Raises ValueError if the adapter of a step has not the shape of the policy's."""

    def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        named = {jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in leaves}
        return {name.removesuffix(".value"): tuple(x.shape) for name, x in named.items()}

    metadata = ocp.StandardCheckpointer().metadata(step.resolve() / "model_params")
    there, here = shapes(metadata.item_metadata), shapes(nnx.state(policy, nnx.LoRAParam))
    other = sorted(name for name in {*there, *here} if there.get(name) != here.get(name))
    if other:
        name = other[0]
        raise ValueError(
            f"{step} does not fit this model and adapter: {name} is {there.get(name, 'missing')} "
            f"there, {here.get(name, 'missing')} here ({len(other)} differ)."
        )


def load(run: config.Run, step: pathlib.Path) -> tuple[nnx.Module, Any, Mesh]:
    """The policy with the adapter of a step, its tokenizer and its mesh."""
    folder = model.locate(run.model, run.profile.download_minutes)
    mesh = model.make_mesh()
    stock = model.load_stock(run.model, folder, mesh)
    policy = model.add_adapter(stock, run.profile.adapter, 0, mesh)
    require_fit(step, policy)
    checkpoints.restore_adapter(policy, step)
    return policy, model.load_tokenizer(folder), mesh
