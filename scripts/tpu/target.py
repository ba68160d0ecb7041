"""Compiling for a TPU on a machine that has none: libtpu holds the real compiler.

with constraints_forced():
    mesh = make_mesh(devices=tpu_devices("v5e:2x4"))
    with mesh:
        compiled = jax.jit(function).lower(*arrays_with_shardings).compile()
"""

import contextlib
import importlib.util
import math
import os
import sys
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import topologies
from jax.interpreters import pxla
from jax.sharding import NamedSharding, PartitionSpec

ONE_HOST = "v5e:2x4"  # the largest slice that one host has
OF_A_HOST = "v5e:2x2"  # what each host has of a larger one


def missing_compiler() -> str:
    """Why nothing can be compiled for a TPU here; empty if it can."""
    if importlib.util.find_spec("libtpu") is None:
        return "libtpu is not installed (there is one for Linux on x86-64 only)"
    return ""


def chips_of(topology: str) -> int:
    """The chips of a slice such as v5e:2x4."""
    return math.prod(int(n) for n in topology.partition(":")[2].split("x"))


def tpu_devices(topology: str) -> list[Any]:
    """Devices to compile for, of a slice such as v5e:2x4.

    Raises:
      RuntimeError: libtpu is missing.
    """
    if reason := missing_compiler():
        raise RuntimeError(reason)
    chips = chips_of(topology)
    # Otherwise libtpu asks a metadata server what machine this is, and waits.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", f"v5litepod-{chips}")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    # No chip is opened, so that several processes may compile at a time.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices


def constrain(x: Any, axes: tuple, eager: bool = False) -> jax.Array:
    """Tunix's `shard`, without its exception for CPUs; `eager` is for arrays outside of jit."""
    mesh = pxla.thread_resources.env.physical_mesh
    if mesh.empty:
        return x
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    place = jax.device_put if eager else jax.lax.with_sharding_constraint
    return place(x, sharding)


@contextlib.contextmanager
def constraints_forced() -> Iterator[None]:
    """Tunix's sharding constraints on activations hold inside, as they do on a TPU.

    Tunix drops them where the first device is a CPU, here too, and the compiler is then left
    to guess: an SFT step of Tunix's defaults seems to need 43 GB instead of 11.
    """
    modules = [module for name, module in sys.modules.items() if name.startswith("tunix.")]
    theirs = [(module, module.shard) for module in modules if callable(getattr(module, "shard", 0))]
    for module, _ in theirs:
        module.shard = constrain
    try:
        yield
    finally:
        for module, shard in theirs:
            module.shard = shard
