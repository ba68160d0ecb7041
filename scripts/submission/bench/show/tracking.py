"""TensorBoard and Weights & Biases.

`metrics.jsonl` is the record. TensorBoard's files are written beside it
(`tensorboard --logdir outputs/tensorboard`). Weights & Biases is asked only if `WANDB_PROJECT` is
set. A board that fails is left out from then on, with a warning.
"""

import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import tensorboardX

from submission.bench.run.metrics import read_lines
from submission.bench.run.run_folder import RunFolder, settings_of
from submission.bench.settings.config import Run


def scalars(line: dict[str, Any]) -> dict[str, float]:
    """The numbers of a line, by names that both boards sort by stage.

    >>> scalars({"stage": "sft", "step": 3, "seconds": 0.5, "loss": 1.5})
    {'sft/seconds': 0.5, 'sft/loss': 1.5}
    """
    return {f"{line['stage']}/{k}": v for k, v in line.items() if k not in ("stage", "step")}


class TensorBoard:
    """Writes the lines of a log for TensorBoard, those from before a restart first."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.writer = folder, None

    def __call__(self, line: dict[str, Any]) -> None:
        """Takes a line, which is in the log already."""
        lines = [line]
        if self.writer is None:
            place = self.folder.path / "tensorboard"
            shutil.rmtree(place, ignore_errors=True)
            self.writer = tensorboardX.SummaryWriter(str(place), flush_secs=30)
            lines = read_lines(self.folder.metrics)
        for each in lines:
            for name, value in scalars(each).items():
                self.writer.add_scalar(name, value, each["step"])

    def close(self) -> None:
        """Writes what is left."""
        if self.writer is not None:
            self.writer.close()


def weights_and_biases(run: Run, folder: RunFolder, project: str) -> Callable[..., None]:
    """A listener that logs to a project; a run that goes on goes on there, too."""
    import wandb

    opened = wandb.init(
        project=project,
        id=f"{folder.path.name}-{folder.fingerprint}",
        resume="allow",
        dir=str(folder.path),
        config=settings_of(run),
    )
    return lambda line: opened.log({**scalars(line), f"{line['stage']}/step": line["step"]})


def boards(run: Run, folder: RunFolder) -> list[Callable[..., None]]:
    """What listens to the log of a run."""
    found: list[Callable[..., None]] = [TensorBoard(folder)]
    if project := os.environ.get("WANDB_PROJECT"):
        try:
            found.append(weights_and_biases(run, folder, project))
        except Exception as error:  # not installed, no network, no key
            warnings.warn(f"Weights & Biases does not take the log: {error}", stacklevel=2)
    return found


def close_boards(listeners: Sequence[Callable[..., None]]) -> None:
    """Writes what is left."""
    for listener in listeners:
        if isinstance(listener, TensorBoard):
            listener.close()
