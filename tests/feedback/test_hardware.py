import os
import subprocess
import sys

import pytest

from feedback.hardware import TRAINING_ENVIRONMENT, native_dtype


@pytest.mark.parametrize(
    ("flags", "gpu", "dtype"),
    [
        ({"avx", "avx2"}, False, "float32"),
        ({"avx2", "avx512f"}, False, "float32"),
        ({"avx512f", "avx512_bf16"}, False, "bfloat16"),
        ({"amx_bf16"}, False, "bfloat16"),
        (set(), True, "bfloat16"),
    ],
)
def test_bf16_only_where_it_is_native(flags: set[str], gpu: bool, dtype: str) -> None:
    assert native_dtype(frozenset(flags), gpu=gpu) == dtype


FAULTS = """
import ctypes, resource
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def tensors():
    several = [libc.malloc(8 * 2**20) for _ in range(8)]
    for at in several:
        ctypes.memset(at, 1, 8 * 2**20)
    for at in several:
        libc.free(at)
tensors()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
tensors()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_memory_that_tensors_had_stays_with_a_training_process() -> None:
    """The kernel gives it once: each page of it that comes anew is a fault."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env={**os.environ, **TRAINING_ENVIRONMENT}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert int(done.stdout) < 100
