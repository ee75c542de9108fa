"""What this machine multiplies natively, on which the engine and the trainer must agree; and how to train on it."""

import shutil
import subprocess
from pathlib import Path
from typing import Literal

Dtype = Literal["bfloat16", "float32"]
CPUINFO = Path("/proc/cpuinfo")
MEMINFO = Path("/proc/meminfo")

#: For processes that train on a CPU; what is in the environment already goes before it.
#: Threads that wait by spinning take the cores from the engine and from each other: on two busy cores, optimizer steps
#: were measured 3 to 10 times faster with sleeping ones. And glibc gives back what a large tensor had as soon as it is
#: freed, and then gets the next one zeroed page by page: an eighth of all work where models are only asked.
TRAINING_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),  # the most that glibc takes
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
}


def native_dtype(cpu_flags: frozenset[str], *, gpu: bool) -> Dtype:
    """bfloat16 where the hardware has it, else float32: emulated on AVX2 it is 50 times slower.

    `cpu_flags` are Linux's names of the instruction sets.
    """
    return "bfloat16" if gpu or cpu_flags & {"avx512_bf16", "amx_bf16"} else "float32"


def local_dtype() -> Dtype:
    """`native_dtype` of this machine."""
    return native_dtype(cpu_flags(), gpu=has_gpu())


def has_gpu() -> bool:
    """True if nvidia-smi lists a device."""
    if shutil.which("nvidia-smi") is None:
        return False
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return listing.returncode == 0 and "GPU" in listing.stdout


def available_gib() -> float:
    """Memory that a new process may take; infinite where Linux does not say."""
    if not MEMINFO.exists():
        return float("inf")
    sizes = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
    return int(sizes["MemAvailable"].split()[0]) / 2**20


def cpu_flags() -> frozenset[str]:
    """The instruction sets of this machine; empty where Linux does not say."""
    if not CPUINFO.exists():
        return frozenset()
    lines = (line for line in CPUINFO.read_text().splitlines() if line.startswith(("flags", "Features")))
    return frozenset(next(lines, "").partition(":")[2].split())
