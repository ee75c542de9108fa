"""What a model has by the headers of its files, as safetensors itself writes them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from feedback.policies.manifest import BrokenPolicy
from feedback.policies.shapes import check_shapes, shapes_of


def model(directory: Path, **shapes: tuple[int, ...]) -> Path:
    directory.mkdir()
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, directory / "model.safetensors")
    return directory


def test_names_and_shapes_of_all_files(tmp_path: Path) -> None:
    directory = model(tmp_path / "a", one=(2, 3), two=())
    save_file(
        {"three": torch.zeros(4, dtype=torch.bfloat16)}, directory / "more.safetensors", metadata={"format": "pt"}
    )
    assert shapes_of(directory) == {"one": (2, 3), "two": (), "three": (4,)}


def test_a_version_has_what_its_base_has(tmp_path: Path) -> None:
    base = model(tmp_path / "base", one=(2, 3), two=(5,))
    check_shapes(model(tmp_path / "same", two=(5,), one=(2, 3)), base)
    (tmp_path / "adapter").mkdir()
    check_shapes(tmp_path / "adapter", base)
    for name, shapes, wrong in [
        ("less", {"one": (2, 3)}, "two is missing"),
        ("more", {"one": (2, 3), "two": (5,), "zip": ()}, "zip is no tensor of the base model"),
        ("other", {"one": (3, 2), "two": (5,)}, r"one has shape \[3, 2\], the base model's \[2, 3\]"),
    ]:
        with pytest.raises(BrokenPolicy, match=wrong):
            check_shapes(model(tmp_path / name, **shapes), base)


@pytest.mark.parametrize(
    "content", [b"", b"weights", b"\xff" * 16, b"\x04" + b"\0" * 7 + b"null", b"\x02" + b"\0" * 7 + b"{"]
)
def test_what_is_no_safetensors_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(BrokenPolicy, match="no safetensors file"):
        shapes_of(tmp_path)
