"""The machine under the notebook: its models, its memory, and whether it is one of several."""

import contextlib
import os
import pathlib
import re
import socket
from collections.abc import Mapping
from typing import Any

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


def holder(process: int) -> str:
    """What the lock of a folder says that a process of this machine holds."""
    return f"{socket.gethostname()} {process}"


def hosts_named(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """What the environment says of several hosts, for `jax.distributed.initialize`; None: nothing.

    `COORDINATOR` (an address of host 0), `HOSTS` and `HOST` say it, or SLURM, or a TPU's list of
    workers; with `HOSTS=auto` JAX asks the machine, as on a TPU VM.

    >>> hosts_named({"COORDINATOR": "10.0.0.2:8476", "HOSTS": "4", "HOST": "1"})
    {'coordinator_address': '10.0.0.2:8476', 'num_processes': 4, 'process_id': 1}
    >>> hosts_named({"SLURM_NTASKS": "2", "SLURM_PROCID": "1"}), hosts_named({})
    ({'process_id': 1}, None)

    Raises:
      ValueError: COORDINATOR comes without HOSTS or HOST, or these are no numbers.
    """
    workers = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    if address := environment.get("COORDINATOR"):
        try:
            hosts, host = int(environment["HOSTS"]), int(environment["HOST"])
        except (KeyError, ValueError):
            raise ValueError(
                f"COORDINATOR={address} needs HOSTS, how many there are, and HOST, the number of "
                "this one, counted from 0."
            ) from None
        return {"coordinator_address": address, "num_processes": hosts, "process_id": host}
    if int(environment.get("SLURM_NTASKS") or 1) > 1 and "SLURM_PROCID" in environment:
        return {"process_id": int(environment["SLURM_PROCID"])}
    if "," in (workers or "") and "TPU_WORKER_ID" in environment:
        return {"process_id": int(environment["TPU_WORKER_ID"])}
    return {} if environment.get("HOSTS") == "auto" else None
