"""The folder in the cache: there whole or not at all.

It is made under another name and renamed when its card, which lists its files, is written. A lock
keeps two processes from making it at once, so what is found half-written belongs to none.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from small_gemma import GetError

CARD = "card.json"
DRAFT = ".half-written-"
DISK_GB = 1.5  # packages, the joined file and the checkpoint, at the same time


def files_of(folder: pathlib.Path) -> dict[str, int]:
    """The files and their bytes, the card left out."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != CARD)
    return {str(path.relative_to(folder)): path.stat().st_size for path in found}


def write_card(folder: pathlib.Path, facts: dict[str, object]) -> None:
    """Lists what is in the folder, with facts about its origin."""
    text = json.dumps({**facts, "files": files_of(folder)}, indent=2)
    (folder / CARD).write_text(text + "\n")


def trouble_of(folder: pathlib.Path) -> str:
    """What keeps the folder from being used; empty if nothing does.

    Raises:
      GetError: there is a folder of that name, and it is not one of ours.
    """
    if not folder.exists():
        return "it is not there yet"
    try:
        listed = json.loads((folder / CARD).read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GetError(
            f"{folder} is there, but is not a folder that this script has made ({CARD}: {error}). "
            "Move it away, or name another cache with MODEL_CACHE."
        ) from error
    there = files_of(folder)
    if wrong := [name for name, size in listed.items() if there.get(name) != size]:
        return f"it is not whole: {wrong[0]} is {there.get(wrong[0], 'missing')}" + (
            f" bytes, not {listed[wrong[0]]}" if wrong[0] in there else ""
        )
    return ""


@contextlib.contextmanager
def locked(cache: pathlib.Path) -> Iterator[None]:
    """Alone in the cache; waits for whoever is there.

    Raises:
      GetError: the cache cannot be written to.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        file = (cache / ".lock").open("a")
    except OSError as error:
        raise GetError(
            f"{cache} cannot be written to ({error}). Name another cache with MODEL_CACHE."
        ) from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print("Another process is getting the model; waiting for it.", flush=True)
            fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def require_disk(cache: pathlib.Path, needed_gb: float = DISK_GB) -> None:
    """Raises GetError if the disk has too little room."""
    free = shutil.disk_usage(cache).free / 1e9
    if free < needed_gb:
        raise GetError(
            f"{cache} has {free:.1f} GB left, and {needed_gb:g} GB are needed to make Gemma 3 270M "
            "ready (0.4 GB stay). Make room, or name a cache on another disk with MODEL_CACHE."
        )


def drop_drafts(cache: pathlib.Path) -> None:
    """Removes what a process that was killed has left, under the lock."""
    for path in cache.glob(f"{DRAFT}*"):
        print(f"Removing {path.name}, which an earlier process has left half-written.", flush=True)
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def draft_of(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder beside it, which takes its place if all goes well and is removed if not."""
    draft = pathlib.Path(tempfile.mkdtemp(prefix=DRAFT, dir=folder.parent))
    try:
        yield draft
        draft.chmod(0o755)
        if folder.exists():  # one of ours that was not whole
            shutil.rmtree(folder)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
