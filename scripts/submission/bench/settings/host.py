"""The machine under the notebook: where models are kept on it, and what memory it has left."""

import contextlib
import os
import pathlib
import re

import psutil


def model_cache() -> pathlib.Path:
    """Where models that a script gets are kept: `MODEL_CACHE`, or a folder of the user's cache."""
    if place := os.environ.get("MODEL_CACHE"):
        return pathlib.Path(place).expanduser().absolute()
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(caches).expanduser().absolute() / "gemma-show-your-work"


# What a container may use and what it uses, of which files that are only cached can be had back.
CONTAINER_FILES = (
    ("memory.max", "memory.current", "memory.stat", "file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "cache"),
)


def free_memory(containers: pathlib.Path = pathlib.Path("/sys/fs/cgroup")) -> float:
    """GiB that this process can have: what it holds, and what machine and container have left."""
    free = psutil.virtual_memory().available
    for limit, used, parts, cached in CONTAINER_FILES:
        with contextlib.suppress(OSError, ValueError):  # no container, or "max"
            left = int((containers / limit).read_text()) - int((containers / used).read_text())
            found = re.search(rf"^{cached} (\d+)$", (containers / parts).read_text(), re.MULTILINE)
            free = min(free, left + (int(found[1]) if found else 0))
    return (free + psutil.Process().memory_info().rss) / 2**30


def require_memory(needed: float, what: str) -> None:
    """Refuses to begin what would be killed for want of memory.

    Args:
      needed: GiB; 0 asks for nothing.
      what: begins the message.

    Raises:
      RuntimeError: there is less; says how much there is.
    """
    if needed and (free := free_memory()) < needed:
        raise RuntimeError(
            f"{what} needs {needed:g} GiB of free memory, and {free:.1f} GiB are free. End other "
            "programs, or take a larger machine; PROFILE=tiny needs less than 4."
        )
