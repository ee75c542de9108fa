"""Warn when pip took a CUDA build of torch on a host without a GPU. torch is not imported: it might not load."""

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

torch = find_spec("torch")
if torch is None or torch.origin is None:
    sys.exit("setup: torch is not installed")
if runpy.run_path(str(Path(torch.origin).with_name("version.py")))["cuda"] is not None:
    print(
        "setup: WARNING: pip took a CUDA build of torch, which may not load without a GPU; let pip find PyTorch's CPU"
        " wheels (PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS), then `make clean run`",
        file=sys.stderr,
    )
