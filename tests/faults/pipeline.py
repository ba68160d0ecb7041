"""The notebook's cells in one process, with few steps: what the fault harness breaks.

    python tests/faults/pipeline.py OUT [FAULTS]

FAULTS is Python that is executed after the chapters and before the run: it can spoil anything.
"""

import os
import pathlib
import sys
import types

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import build_notebook  # noqa: E402

SMALL = """
import dataclasses
PROFILES["tiny"] = dataclasses.replace(
    TINY,
    **{
        "sft": dataclasses.replace(TINY.sft, steps=24, save_every=5),
        "grpo": dataclasses.replace(TINY.grpo, steps=6, prompts=4, generations=4, save_every=2),
        "evaluation": dataclasses.replace(TINY.evaluation, rows=40, batch_size=40, samples=2),
        "closing_seconds": 5.0,
        **SMALL_CHANGES,
    },
)
"""


def program(faults: str = "", changes: str = "{}") -> str:
    """The code cells of the notebook, the settings above and the faults in their places."""
    sources = [cell.source for cell in build_notebook.build().cells if cell.cell_type == "code"]
    place = next(i for i, source in enumerate(sources) if source.startswith("asked = "))
    sources.insert(place, f"SMALL_CHANGES = {changes}\n{SMALL}")
    place = next(i for i, source in enumerate(sources) if "open_run_folder(run)" in source)
    sources.insert(place, faults)
    lines = "\n\n".join(sources).splitlines()
    return "\n".join(line for line in lines if not line.startswith(("%", "!")))


def main() -> None:
    """Runs it in this process."""
    os.chdir(ROOT)
    os.environ |= {"OUT": sys.argv[1], "PROFILE": "tiny", "MPLBACKEND": "agg"}
    faults = sys.argv[2] if len(sys.argv) > 2 else ""
    changes = os.environ.get("CHANGES", "{}")
    sys.modules["__main__"] = notebook = types.ModuleType("__main__")  # as in a kernel
    exec(compile(program(faults, changes), "notebook", "exec"), vars(notebook))


if __name__ == "__main__":
    main()
