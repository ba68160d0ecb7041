"""Chips that are there, and free, and whose they are.

Where another process still holds the chips, as for half a minute after a kernel was killed, JAX
goes on with the CPU and does not say so.
"""

import os
import time
from collections.abc import Callable

import jax
import jax.extend

from submission.bench.policy.hosts import join_hosts
from submission.bench.settings.config import Run


def policy_devices(run: Run) -> list[jax.Device]:
    """This host's chips of the policy: all but those that a second model has for itself.

    Raises:
      ValueError: none is left.
    """
    devices, helper = jax.local_devices(), run.profile.helper
    apart = helper.chips if helper else 0
    if apart >= len(devices):
        raise ValueError(
            f"The second model of recipe {run.recipe!r} is to have {apart} chips of its own, and "
            f"there are {len(devices)}: lower `chips` of the `helper`, or make it 0, in turn."
        )
    return devices[: len(devices) - apart]


def free_platform(
    shown: bool,
    seconds: float = 60.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """JAX's platform, with the other hosts' if there are any; a TPU only once it is free.

    Raises:
      RuntimeError: JAX does not get the chips, after so many seconds.
    """
    join_hosts(os.environ)
    shown = shown and "cpu" not in (jax.config.jax_platforms or "").split(",")[0]
    end = clock() + seconds
    while True:
        try:
            platform, why = jax.default_backend(), "JAX finds the CPU alone"
        except RuntimeError as error:  # raised where the platforms are named
            platform, why = "", str(error)
            if not shown:
                raise
        if platform not in ("", "cpu") or not shown:
            return platform
        if clock() >= end:
            raise RuntimeError(
                f"This machine has a TPU, and after {seconds:g} s JAX cannot use it: {why}. Does "
                "another process hold it? Restart the session; JAX_PLATFORMS=cpu does without."
            )
        print("waiting for the TPU's chips")
        sleep(5.0)
        jax.extend.backend.clear_backends()
