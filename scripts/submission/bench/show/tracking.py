"""TensorBoard and Weights & Biases.

`metrics.jsonl` is the record. TensorBoard's files are written beside it
(`tensorboard --logdir outputs/tensorboard`). Weights & Biases is asked only if `WANDB_PROJECT` is
set. Neither can harm the run: a board that fails is left out, with a warning, and one that hangs
keeps nobody waiting but `close_boards`, for a bounded time.
"""

import os
import queue
import shutil
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import requests
import tensorboardX

from submission.bench.policy.hosts import this_host
from submission.bench.run.metrics import read_lines
from submission.bench.run.run_folder import RunFolder, read_json, settings_of, write_json
from submission.bench.settings.config import Run


def scalars(line: dict[str, Any]) -> dict[str, float]:
    """The numbers of a line, by names that both boards sort by stage.

    >>> scalars({"stage": "sft", "step": 3, "seconds": 0.5, "loss": 1.5})
    {'sft/seconds': 0.5, 'sft/loss': 1.5}
    """
    return {f"{line['stage']}/{k}": v for k, v in line.items() if k not in ("stage", "step")}


class Board(threading.Thread):
    """A listener to the log of a run whose board is shown in a thread that nobody waits for.

    `show` takes the lines of the run, those from before a restart first, until they end.
    """

    def __init__(self, name: str, show: Callable[..., None], folder: RunFolder, *more: Any) -> None:
        super().__init__(name=name, daemon=True)
        self.show, self.folder, self.more = show, folder, more
        self.lines: queue.SimpleQueue = queue.SimpleQueue()
        self.start()

    def run(self) -> None:
        """Shows the lines; what fails, fails here."""
        try:
            self.show(self.told(), self.folder, *self.more)
        except BaseException as error:  # not installed, no network, a full disk
            warnings.warn(f"{self.name} takes no more lines of the log: {error}", stacklevel=2)

    def told(self) -> Iterator[dict]:
        """The lines of the run: what the log has up to the first that is told, then the others."""
        if first := self.lines.get():
            for line in read_lines(self.folder.metrics):
                yield line
                if line == first:
                    break
            yield from iter(self.lines.get, None)

    def __call__(self, line: dict[str, Any]) -> None:
        """Takes a line, which is in the log already."""
        self.lines.put(line)


def tensorboard(lines: Iterator[dict], folder: RunFolder) -> None:
    """Writes the lines for TensorBoard, in place of what an earlier session wrote."""
    writer = None
    for line in lines:
        if writer is None:
            place = folder.path / "tensorboard"
            shutil.rmtree(place, ignore_errors=True)
            writer = tensorboardX.SummaryWriter(str(place), flush_secs=30)
        for name, value in scalars(line).items():
            writer.add_scalar(name, value, line["step"])
    if writer is not None:
        writer.close()


def wandb_mode() -> str:
    """`WANDB_MODE`; but `offline`, with a line, where W&B would ask for a key, and wait."""
    mode = os.environ.get("WANDB_MODE", "online")
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    if mode != "online" or "WANDB_API_KEY" in os.environ or requests.utils.get_netrc_auth(server):
        return mode
    print("Weights & Biases: no WANDB_API_KEY. The log stays in wandb/; `wandb sync` sends it.")
    return "offline"


def weights_and_biases(lines: Iterator[dict], folder: RunFolder, run: Run, project: str) -> None:
    """Logs to a project; a run that goes on goes on there, too, and has no line twice."""
    import wandb

    record = folder.path / "wandb" / "run.json"
    record.parent.mkdir(exist_ok=True)
    kept = {"id": uuid.uuid4().hex, "lines": 0} | read_json(record, {})
    write_json(record, kept)
    opened = wandb.init(
        project=project,
        id=kept["id"],
        resume="allow",
        reinit="finish_previous",  # a notebook that is run again in its kernel
        mode=wandb_mode(),
        dir=str(folder.path),
        config=settings_of(run),
        settings={"console": "off"},  # what is printed does not pass through W&B
    )
    start = opened.step or kept["lines"]  # the server knows best, where it was asked
    for number, line in enumerate(lines):
        if number >= start:
            numbers = {**scalars(line), f"{line['stage']}/step": line["step"]}
            opened.log(numbers, step=number, commit=True)
            write_json(record, {**kept, "lines": number + 1})
    opened.finish()


def boards(run: Run, folder: RunFolder) -> list[Board]:
    """What listens to the log of a run, on host 0."""
    if this_host():
        return []
    found = [Board("TensorBoard", tensorboard, folder)]
    if project := os.environ.get("WANDB_PROJECT"):
        found.append(Board("Weights & Biases", weights_and_biases, folder, run, project))
    return found


def close_boards(listeners: Sequence[Board], seconds: float = 15.0) -> None:
    """Has the boards write what is left, and waits so long for each, at most."""
    for board in listeners:
        board.lines.put(None)
        board.join(seconds)
        if board.is_alive():
            warnings.warn(f"{board.name} has not ended in {seconds:g} s: left so", stacklevel=2)
