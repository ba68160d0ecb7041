# %% [markdown]
# ### What the judges load
#
# They list the digits-only folders of `checkpoints/actor`, take the highest, and restore its
# `model_params` into the LoRA state of `lora_policy`. So the adapter after SFT is saved as
# step 0, and a submission exists from then on; GRPO's steps count up from there.

# %%
import errno
import fcntl
import json
import os
import pathlib
import shutil
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax import nnx
from tunix.sft import checkpoint_manager

# %% tags=["modules-only"]
from submission.config import Run


# %%
class RunFolder:
    """The folder of one run, locked: two runs cannot share it."""

    def __init__(self, path: str) -> None:
        self.path = pathlib.Path(path).resolve()
        self.checkpoints = self.path / "checkpoints"
        self.results = self.path / "results.json"
        self.metrics = self.path / "metrics.jsonl"
        self.plots = self.path / "plots"
        self._lock: Any = None

    def lock(self) -> None:
        """Raises RuntimeError if another run holds the folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = (self.path / ".lock").open("a")
        try:
            # A lock of the process: running the notebook again in its kernel is no conflict.
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise RuntimeError(
                f"Another run is writing to {self.path}. Wait for it, or choose another folder "
                "with OUT (or --out)."
            ) from None
        os.utime(self._lock.fileno())  # whose folder this is since when

    def release(self) -> None:
        """Lets go of the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def open_run_folder(run: Run) -> RunFolder:
    """The locked folder of a run. Older outputs are moved aside, never overwritten.

    Raises:
      RuntimeError: another run holds it, or there is nothing left to resume.
    """
    folder = RunFolder(run.out)
    folder.lock()
    if run.resume and folder.results.exists():  # written last
        folder.release()
        raise RuntimeError(
            f"The run in {folder.path} is finished: there is nothing to resume. Unset RESUME to "
            "start another one."
        )
    # Only what a run leaves is moved: the folder may hold files of somebody else's.
    ours = [folder.checkpoints, folder.metrics, folder.results, folder.plots]
    kept = [entry for entry in ours if entry.exists()]
    if kept:
        kept += [entry for entry in [folder.path / "submission.ipynb"] if entry.exists()]
        number = 1
        while (aside := folder.path.with_name(f"{folder.path.name}.{number}")).exists():
            number += 1
        aside.mkdir()
        for entry in kept:
            shutil.move(entry, aside / entry.name)
        print(f"Older outputs are now in {aside.name}/.")
    if run.resume:
        why = "This version cannot continue inside a run" if kept else "There is nothing to resume"
        print(f"{why}: it starts from the beginning.")
    folder.checkpoints.mkdir()
    folder.plots.mkdir()
    return folder


def require_space(folder: RunFolder, needed: int) -> None:
    """Raises OSError if the disk has less than `needed` bytes, before training begins."""
    free = shutil.disk_usage(folder.path).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"{folder.path} has {free / 1e6:,.0f} MB left and the checkpoints need "
            f"{needed / 1e6:,.0f} MB. Make room, or choose another disk with OUT (or --out)",
        )


# %%
def saving_options(every: int, keep: int) -> ocp.CheckpointManagerOptions:
    """Save every so many steps, keep the last few, and be done before going on.

    A save in the background can be cut off by the session's end. These are a few megabytes:
    waiting for them costs little.
    """
    return ocp.CheckpointManagerOptions(
        save_interval_steps=every, max_to_keep=keep, enable_async_checkpointing=False
    )


def checkpoint_steps(actor: pathlib.Path) -> list[int]:
    """The saved steps, ascending: folders whose name is digits only."""
    if not actor.is_dir():
        return []
    return sorted(int(p.name) for p in actor.iterdir() if p.is_dir() and p.name.isdigit())


def prepare_saves(manager: Any, root: pathlib.Path) -> None:
    """Lets Tunix's checkpoint manager keep its step counter, and say what a failure means.

    Tunix's forced save on closing passes no metadata, and a resumed run would take its first
    `global_step` for 0. Here one step is one update, so the counter is the step itself.

    Raises, on saving:
      OSError: the disk is full or cannot be written; names the folder.
    """
    save = manager.save

    def explained_save(step: int, *arguments: Any, **keywords: Any) -> bool:
        keywords.setdefault("custom_metadata", {"global_step": step, "role": "actor"})
        try:
            return save(step, *arguments, **keywords)
        except (OSError, ValueError) as error:  # TensorStore reports a full disk as a ValueError
            raise OSError(
                f"Could not save step {step} to {root}: {error}\nIs the disk full? Make room, or "
                "choose another disk with OUT (or --out). The steps saved before are good."
            ) from error

    manager.save = explained_save


def save_first_submission(policy: nnx.Module, checkpoints: pathlib.Path) -> None:
    """The adapter as SFT left it, as step 0 of what the judges look at."""
    actor = checkpoints / "actor"
    manager = checkpoint_manager.CheckpointManager(str(actor), saving_options(every=1, keep=1))
    prepare_saves(manager, actor)
    manager.save(0, policy, save_only_lora_params=True, force=True)
    manager.close()


def restore_submission(policy: nnx.Module, actor: pathlib.Path) -> int:
    """Loads the highest step into the policy, by the same calls as the judges.

    Returns:
      The step.

    Raises:
      FileNotFoundError: there is no step.
    """
    steps = checkpoint_steps(actor)
    if not steps:
        raise FileNotFoundError(f"{actor} holds no checkpoint: no folder there is all digits.")
    adapter = nnx.state(policy, nnx.LoRAParam)
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), adapter
    )
    path = actor / str(steps[-1]) / "model_params"
    nnx.update(policy, ocp.StandardCheckpointer().restore(path, target))
    return steps[-1]


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes the file under another name first, so that it is there whole or not at all."""
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(draft, path)
