"""Execute submission.ipynb top to bottom, with its output on the terminal as it comes.

``scripts/run.sh`` sets the environment up and calls this. The options become the
environment variables that the notebook reads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from notebooks.page import page
from traitlets.config import Config

from submission.bench.settings.host import holder, hosts_named, require_memory

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "submission.ipynb"


class TerminalClient(NotebookClient):
    """Shows cell starts and text output on the terminal while the notebook runs."""

    quiet = False  # of several hosts, the first alone tells what it does
    last_words = ""

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        """Passes a message of the kernel on, after showing what is text in it."""
        content = msg["content"]
        if self.quiet:
            self.last_words = content.get("text", self.last_words)
        elif msg["msg_type"] == "stream":
            print(content["text"], end="", flush=True)
        elif msg["msg_type"] == "display_data":
            text = content["data"].get("text/markdown")
            if text:
                print(text, flush=True)
        return super().process_message(msg, cell, cell_index)


def title(cell: Any) -> str:
    """The heading that a Markdown cell begins with, or nothing."""
    line = cell.source.split("\n", 1)[0]
    return line.lstrip("# ") if cell.cell_type == "markdown" and line.startswith("#") else ""


def execute(notebook: Any, out: pathlib.Path, quiet: bool = False) -> int:
    """Runs every cell and writes the executed notebook to `out`; 0 if all went well.

    A notebook that failed before the folder was its own leaves the folder alone. One that was
    stopped by a signal gives the shell's number for it, 128 and the signal's.
    """
    start = time.monotonic()
    headings = {i: title(cell) for i, cell in enumerate(notebook.cells)}

    def announce(cell: Any, cell_index: int, **_: Any) -> None:
        before = [headings[i] for i in range(cell_index, -1, -1) if headings[i]]
        if not quiet and before and before[0] != announce.last:
            announce.last = before[0]
            print(f"\n[{time.monotonic() - start:4.0f} s] {before[0]}", flush=True)

    announce.last = ""
    came: list[int] = []
    kernels: list[int] = []

    def hand_on_signals(**_: Any) -> None:
        """SIGTERM and SIGINT go to the kernel, which ends its step and saves.

        (nbclient would end the kernel at once; and Ctrl-C does not reach it by itself.)
        """
        kernels.append(client.km.provisioner.pid)

        def hand_on(number: int) -> None:
            came.append(number)
            os.kill(kernels[0], number)

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, hand_on, number)

    sockets = tempfile.TemporaryDirectory(prefix="kernel-")
    client = TerminalClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        resources={"metadata": {"path": str(ROOT)}},
        on_cell_execute=announce,
        on_notebook_start=hand_on_signals,
        record_timing=False,
        # Sockets in the file system: no open port on the machine. In a folder of their own: of two
        # kernels that start at once in one folder, each would take the other's.
        config=Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets.name}/socket"}}),
    )
    client.quiet = quiet
    try:
        client.execute()
        return 0
    except CellExecutionError as error:
        print(f"\n{error.ename}: {error.evalue}", file=sys.stderr)
    except DeadKernelError:
        several = " Or is host 0 gone?" if hosts_named(os.environ) else ""
        why = "was stopped" if came else f"died (out of memory?{several})"
        print(f"{client.last_words}\nThe notebook's kernel {why}.", file=sys.stderr)
    finally:
        sockets.cleanup()
        lock = out / ".lock"
        if lock.exists() and lock.read_text() in map(holder, kernels):
            nbformat.write(notebook, out / "submission.ipynb")
            (out / "report.html").write_text(page(notebook))
    return 128 + came[0] if came else 1


def notebook_to_run(recipe: str) -> Any:
    """The committed notebook; for a recipe that needs more chapters, the one built for it."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import build_notebook

    if build_notebook.has_chapters(recipe):
        return build_notebook.build(recipe)
    return nbformat.read(NOTEBOOK, as_version=4)


def prepare(environment: Mapping[str, str]) -> None:
    """What a profile needs of this machine, before any time is spent: memory, and its model.

    An unknown profile or model is left to the notebook, which lists those that there are.

    Raises:
      RuntimeError: there is too little memory, or the model cannot be had; the script has said why.
    """
    sys.path.insert(0, str(ROOT / "scripts"))
    from submission.essay.profiles import PROFILES, STOCK_MODELS

    if profile := PROFILES.get(environment.get("PROFILE", "")):
        require_memory(profile.host_gib, f"The profile {profile.name}")
        model = STOCK_MODELS.get(environment.get("MODEL", ""), profile.model)
        if model.script and subprocess.run([sys.executable, ROOT / model.script]).returncode:
            raise RuntimeError(f"The model {model.name} is not ready.")


def show_results(out: pathlib.Path) -> None:
    """Prints the results table of a finished run."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from submission.bench.show.report import results_table

    print(f"\n{results_table(json.loads((out / 'results.json').read_text()))}\n")


def main() -> int:
    """Runs the notebook with the options given; 0 only if all of it worked."""
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__.split("\n")[0])
    parser.add_argument("--profile", help="tiny, small or kaggle; default: by the hardware")
    parser.add_argument("--recipe", help="default: warm_start_grpo")
    parser.add_argument("--minutes", type=float, help="time limit, from the first cell on")
    parser.add_argument("--seed", type=int, help="the run's seed; default 0")
    parser.add_argument("--resume", action="store_true", help="go on with an unfinished run")
    parser.add_argument("--out", help="folder for everything; default: outputs")
    options = parser.parse_args()
    values = {
        "PROFILE": options.profile,
        "RECIPE": options.recipe,
        "MINUTES": options.minutes,
        "RUN_SEED": options.seed,
        # The notebook by itself goes on with an unfinished run that it finds.
        "RESUME": int(options.resume or os.environ.get("RESUME") == "1"),
        "OUT": options.out,
    }
    os.environ.update({name: str(value) for name, value in values.items() if value is not None})
    out = pathlib.Path(os.environ.get("OUT") or "outputs")
    out = out if out.is_absolute() else ROOT / out
    os.environ["OUT"] = str(out)
    if os.environ.get("RESUME") == "1" and (out / "results.json").exists():
        print(f"The run in {out} is finished. Nothing to do.")
        show_results(out)
        return 0
    try:
        prepare(os.environ)
    except RuntimeError as error:
        print(f"run.sh: {error}", file=sys.stderr)
        return 1
    host = (hosts_named(os.environ) or {}).get("process_id", 0)
    name = f"host {host}: " if host else ""
    if code := execute(notebook_to_run(os.environ.get("RECIPE", "")), out, quiet=bool(host)):
        ended = "The run was stopped." if code > 128 else "The run failed."
        print(f"{name}{ended}", file=sys.stderr)
        return code
    if host:
        print(f"{name}done, as host 0, which writes.")
        return 0
    show_results(out)
    print(f"Everything is in {out}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
