"""What this process, and so a gateway that a test runs in it, holds of the machine's memory."""

import re
from collections.abc import Callable
from pathlib import Path

SELF = Path("/proc/self")
MIB = 1024**2


def resident(name: str = "VmRSS") -> int:
    """Bytes in memory now; of VmHWM the most there ever were, which only a test run alone can read much into."""
    found = re.search(rf"{name}:\s+(\d+) kB", (SELF / "status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def peak_from_here() -> Callable[[], int]:
    """Ask it later for the bytes by which memory has grown since at its worst moment, whatever was there before."""
    try:
        (SELF / "clear_refs").write_text("5")  # the kernel's peak is from now on
        before = resident()
    except OSError:  # a kernel without it tells only what goes beyond all that was there before
        before = resident("VmHWM")
    return lambda: resident("VmHWM") - before
