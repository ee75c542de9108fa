"""Which tensors a model on disk has, by the headers of its safetensors files: no tensor is read."""

import json
import struct
from pathlib import Path
from typing import Any, NamedTuple

from feedback.policies.manifest import BrokenPolicy

Shapes = dict[str, tuple[int, ...]]
MOST_HEADER = 100_000_000  # bytes: safetensors' own bound


class Tensor(NamedTuple):
    """One tensor in a file, from byte `start` to before byte `end`; `dtype` as the format names it, such as BF16."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def shapes_of(model_dir: Path) -> Shapes:
    """Names and shapes; {} where there are no such files. Raises BrokenPolicy or OSError."""
    found: Shapes = {}
    for path in sorted(model_dir.glob("*.safetensors")):
        found |= {name: tensor.shape for name, tensor in tensors_of(path).items()}
    return found


def check_shapes(model_dir: Path, base_dir: Path) -> None:
    """Raises BrokenPolicy unless a model has the tensors of the base that it was made from.

    An engine that holds another policy would keep that one's tensor in place of one that is missing, and look right.
    """
    expected, found = shapes_of(base_dir), shapes_of(model_dir)
    if not found:
        return  # a version that is an adapter alone
    for name in sorted(expected.keys() ^ found.keys()):
        raise BrokenPolicy(f"{model_dir}: {name} is {'missing' if name in expected else 'no tensor of the base model'}")
    for name, shape in found.items():
        if shape != expected[name]:
            raise BrokenPolicy(f"{model_dir}: {name} has shape {list(shape)}, the base model's {list(expected[name])}")


def tensors_of(path: Path) -> dict[str, Tensor]:
    """What one file holds: 8 bytes, little endian, the length of the JSON after them. Raises BrokenPolicy."""
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else MOST_HEADER + 1
        try:
            table: Any = json.loads(file.read(length)) if length <= MOST_HEADER else None
            return {name: _tensor(entry, 8 + length) for name, entry in table.items() if name != "__metadata__"}
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise BrokenPolicy(f"{path}: this is no safetensors file") from error


def _tensor(entry: dict[str, Any], data: int) -> Tensor:
    first, last = entry["data_offsets"]
    return Tensor(entry["dtype"], tuple(entry["shape"]), data + first, data + last)
