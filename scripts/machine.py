"""What this runs on, for whoever writes down a measurement."""

import pathlib
import platform


def processor() -> str:
    """The name of the processor, as the system has it."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
