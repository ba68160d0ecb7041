"""What the judges load.

They list the digits-only folders of `checkpoints/actor`, take the highest, and restore its
`model_params` into the LoRA state of `lora_policy`. So the adapter after SFT is saved as
step 0, and a submission exists from then on; GRPO's steps count up from there.

**What counts as saved** is what has been read back. A step is written into a folder beside, its
arrays are read again and compared with those in memory, and only then the folder gets its number,
by a single rename. So whatever happens, a folder whose name is all digits is whole. What does not
stand the test, then or when a run goes on, is set aside under a name that is no number.

With adapter and optimizer goes a small file: which run and step this is, digests of both, and
where the stage was in its data and its random draws.
"""

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from tunix.sft import checkpoint_manager

from submission.bench.policy.hosts import in_memory, in_turn, lead, orbax_alone, this_host
from submission.bench.policy.model import read_arrays
from submission.bench.run.run_folder import read_json, write_json

FACTS = "facts.json"


def checkpoint_steps(folder: pathlib.Path) -> list[int]:
    """The saved steps, ascending: folders whose name is digits only."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.is_dir() and p.name.isdigit())


def digest(tree: Any) -> str:
    """A fingerprint of all arrays of a tree, their places, shapes and types."""
    found = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        array = np.ascontiguousarray(jax.device_get(leaf))
        found.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def saved_parts(policy: nnx.Module, optimizer: nnx.Optimizer | None) -> dict[str, Any]:
    """What a step holds, by the names that Tunix gives it."""
    parts = {"model_params": nnx.state(policy, nnx.LoRAParam)}
    if optimizer is not None:
        parts["optimizer_state"] = nnx.state(optimizer, nnx.optimizer.OptState)
    return parts


class DamagedStepError(RuntimeError):
    """A saved step is not what was saved."""


class SaveError(OSError):
    """A step could not be saved."""


SAVING_FAILS_WITH = (OSError, ValueError, DamagedStepError)  # TensorStore's full disk: ValueError


def read_step(step: pathlib.Path, parts: Mapping[str, Any]) -> tuple[dict[str, Any], dict]:
    """The arrays of a step, like those given, and its facts.

    Raises:
      DamagedStepError: something is missing, unreadable, or not what was saved.
    """
    try:
        facts = read_facts(step)
        digests = facts["digests"]  # a submission after SFT has no optimizer
        arrays = {name: read_arrays(step / name, parts[name]) for name in digests if name in parts}
        changed = [name for name in arrays if digest(arrays[name]) != digests[name]]
        changed += [name for name in ("model_params",) if name not in arrays]
    except Exception as error:  # whatever damaged bytes make the readers raise
        raise DamagedStepError(f"{step.name} does not load: {first_line(error)}") from error
    if facts["step"] != int(step.name):
        raise DamagedStepError(f"{step.name} says that it is step {facts['step']}")
    if changed:
        raise DamagedStepError(f"{step.name} is not what was saved: {', '.join(changed)} differs")
    return arrays, facts


def read_facts(step: pathlib.Path) -> dict[str, Any]:
    """The facts of a step."""
    return json.loads((step / FACTS).read_text())


def write_step(
    folder: pathlib.Path,
    step: int,
    policy: nnx.Module,
    optimizer: nnx.Optimizer | None,
    facts: Mapping[str, Any],
) -> None:
    """Saves a step: written beside, read back, and only then given its number.

    Raises:
      SaveError: the disk is full or cannot be written, and nothing is left behind; or what was
        read back is not what was written, and it is set aside.
    """
    beside = folder.parent / f"{folder.name}.unfinished"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        write_beside(beside, step, policy, optimizer, facts)
        folder.mkdir(parents=True, exist_ok=True)
        read_step(beside / str(step), saved_parts(policy, optimizer))
        os.replace(beside / str(step), folder / str(step))
    except SAVING_FAILS_WITH as error:
        if isinstance(error, DamagedStepError):
            os.replace(beside / str(step), free_name(folder, step))
        raise SaveError(
            f"Could not save step {step} to {folder}: {first_line(error)}\nIs the disk full? Make "
            "room, or choose another disk with OUT (or --out). The steps saved before are good."
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_beside(
    beside: pathlib.Path,
    step: int,
    policy: nnx.Module,
    optimizer: nnx.Optimizer | None,
    facts: Mapping[str, Any],
) -> None:
    """Writes a step with Tunix's checkpoint manager, and its facts."""
    beside.mkdir(parents=True)
    options = ocp.CheckpointManagerOptions(
        save_interval_steps=1,
        create=False,
        enable_async_checkpointing=False,
        multiprocessing_options=orbax_alone(),
    )
    manager = checkpoint_manager.CheckpointManager(str(beside), options)
    shown = [module if module is None else in_memory(module) for module in (policy, optimizer)]
    manager.save(
        step, *shown, save_only_lora_params=True, force=True,
        # Tunix's own forced save passes no metadata, and a run that it resumes would take
        # its first `global_step` for 0.
        custom_metadata={"global_step": step, "role": "actor"},
    )  # fmt: skip
    manager.close()
    parts = saved_parts(policy, optimizer)
    digests = {name: digest(tree) for name, tree in parts.items()}
    write_json(beside / str(step) / FACTS, {**facts, "step": step, "digests": digests})


def free_name(folder: pathlib.Path, step: int, why: str = "damaged") -> pathlib.Path:
    """Where a step is set aside."""
    number = 0
    while (name := folder / f"{step}.{why}{number or ''}").exists():
        number += 1
    return name


def remove_step(folder: pathlib.Path, step: int) -> None:
    """Removes a step; it loses its number first, so that it is there whole or not at all."""
    doomed = folder / f"{step}.removed"
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(folder / str(step), doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def drop_optimizers(checkpoints: pathlib.Path) -> None:
    """Leaves a finished run one optimizer, its highest step's: the others would be uploaded."""
    if this_host():
        return
    for folder in checkpoints.iterdir():
        steps = checkpoint_steps(folder)
        for step in steps[:-1] if folder.name == "actor" else steps:
            place = folder / str(step)
            facts = read_facts(place)
            facts["digests"].pop("optimizer_state", None)
            write_json(place / FACTS, facts)
            shutil.rmtree(place / "optimizer_state", ignore_errors=True)


def first_line(error: Exception) -> str:
    """What an error says, in a line."""
    return (str(error) or type(error).__name__).splitlines()[0][:300]


def restore_newest(
    folder: pathlib.Path,
    policy: nnx.Module,
    optimizer: nnx.Optimizer | None,
    fingerprint: str,
) -> dict[str, Any] | None:
    """Loads the newest good step into policy and optimizer; returns its facts.

    Of several hosts, host 0 does so first: it sets aside what does not load.

    Steps that do not load are set aside, with a line that says why. None: there is no good one.
    A step without an optimizer leaves the given one as it is.

    Raises:
      ValueError: a step is of another configuration.
    """
    parts = saved_parts(policy, optimizer)

    def newest() -> dict[str, Any] | None:
        for step in reversed(checkpoint_steps(folder)):
            try:
                arrays, facts = read_step(folder / str(step), parts)
            except DamagedStepError as error:
                if this_host():  # host 0 has just read it
                    raise
                aside = free_name(folder, step)
                os.replace(folder / str(step), aside)
                print(f"{folder.name}/{error}. It is now {folder.name}/{aside.name}.")
                continue
            if facts["config"] != fingerprint:
                raise ValueError(
                    f"{folder / str(step)} was saved by a run of another configuration "
                    f"({facts['config']}, not {fingerprint}). Move it away, or choose another "
                    "folder with OUT (or --out)."
                )
            for module, name in ((policy, "model_params"), (optimizer, "optimizer_state")):
                if module is not None and name in arrays:
                    place(module, parts[name], arrays[name])
            return facts
        return None

    return in_turn(newest, folder.name)


def place(module: Any, like: Any, arrays: Any) -> None:
    """Puts arrays from the host where those of the module's state are."""
    placed = jax.tree.map(lambda x, array: jax.device_put(array, x.sharding), like, arrays)
    nnx.update(module, placed)


def save_again(folder: pathlib.Path, step: int, policy: nnx.Module) -> int:
    """Loads an earlier step into the policy and saves it as the last one; returns its number.

    Raises:
      DamagedStepError: the earlier step does not load.
      SaveError: it could not be saved.
    """
    parts = saved_parts(policy, None)
    arrays, facts = read_step(folder / str(step), parts)
    place(policy, parts["model_params"], arrays["model_params"])

    def saved() -> int:
        last = checkpoint_steps(folder)[-1] + 1
        write_step(folder, last, policy, None, {**facts, "again": step})
        return last

    return lead(saved, "the last save")


def restore_adapter(policy: nnx.Module, step: pathlib.Path) -> None:
    """Loads the adapter of a step into the policy, by the same calls as the judges."""
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        nnx.state(policy, nnx.LoRAParam),
    )
    path = step.resolve() / "model_params"
    reader = ocp.StandardCheckpointer(multiprocessing_options=orbax_alone())
    nnx.update(policy, reader.restore(path, target))


def find_step(folder: pathlib.Path) -> pathlib.Path:
    """The saved step that a folder holds: itself, or the highest one of a run or of its `actor`.

    Raises:
      FileNotFoundError: there is none.
    """
    for place in (folder, folder / "actor", folder / "checkpoints" / "actor"):
        if (place / "model_params").is_dir():
            return place
        if steps := checkpoint_steps(place):
            return place / str(steps[-1])
    raise FileNotFoundError(f"{folder} holds no checkpoint: no folder there is all digits.")


def restore_earlier(policy: nnx.Module, folder: pathlib.Path) -> dict[str, Any]:
    """Loads the highest step of an earlier run; returns where its stage was, as far as is known.

    Raises:
      FileNotFoundError: the folder holds no step.
    """
    step = find_step(folder)
    restore_adapter(policy, step)
    print(f"goes on from {step}")
    return read_json(step / FACTS, {}).get("state", {})


def restore_submission(policy: nnx.Module, actor: pathlib.Path) -> int:
    """Loads the highest step into the policy.

    Returns:
      The step.

    Raises:
      FileNotFoundError: there is no step.
    """
    step = find_step(actor)
    restore_adapter(policy, step)
    return int(step.name)
