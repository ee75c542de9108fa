"""Whether all weights on a disk are numbers, before an engine computes with them.

vLLM's CPU engine leaves what NaN weights computed in its cache, where it spoils what good ones compute later, until the
engine is started anew.
"""

from pathlib import Path

import numpy as np

from feedback.policies.manifest import BrokenPolicy
from feedback.policies.shapes import Tensor, tensors_of

# Of each format the exponent's bits: all of them set is what NaN and infinity have, and nothing else.
EXPONENTS = {"BF16": ("<u2", 0x7F80), "F16": ("<u2", 0x7C00), "F32": ("<u4", 0x7F800000)}


def check_finite(model_dir: Path) -> None:
    """Raises BrokenPolicy where a safetensors file holds NaN or infinity. Formats without an exponent hold neither."""
    for path in sorted(model_dir.glob("*.safetensors")):
        content = np.memmap(path, dtype=np.uint8, mode="r")
        for name, tensor in tensors_of(path).items():
            if not _is_finite(content, tensor):
                raise BrokenPolicy(f"{path}: {name} is not finite")


def _is_finite(content: np.memmap, tensor: Tensor) -> bool:
    if tensor.dtype not in EXPONENTS:
        return True
    kind, exponent = EXPONENTS[tensor.dtype]
    values = content[tensor.start : tensor.end].view(kind)
    return not bool(((values & exponent) == exponent).any())
