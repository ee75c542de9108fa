"""What `make run` sets up: an environment that lacks nothing on any Python, and no model that nobody asked for."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).parent.parent
# See pyproject.toml; and what only torch's CUDA build asks for, which a host may have by mistake.
LEFT_OUT = ("torchvision", "torchaudio", "torchcodec", "nvidia-", "cuda-")
EXTRAS = ("serving", "training", "engine-cpu", "dev")


def locked(python: str) -> dict[NormalizedName, Requirement]:
    """What the lock for a host without a GPU installs on a Python."""
    lines = (ROOT / ".ci" / "lock-cpu.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    environment = {"python_full_version": python}
    return {canonicalize_name(pin.name): pin for pin in pins if not pin.marker or pin.marker.evaluate(environment)}


def required(name: str, extras: tuple[str, ...], python: str) -> Iterator[Requirement]:
    """What a distribution asks for on a Python, as far as it is installed here."""
    here = default_environment() | {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    try:
        found = [Requirement(line) for line in metadata.requires(name) or ()]
    except metadata.PackageNotFoundError:  # only for other Pythons, or for a host without a GPU
        return
    for each in found:
        if each.marker is None or any(each.marker.evaluate(here | {"extra": extra}) for extra in ("", *extras)):
            yield each


@pytest.mark.parametrize("python", ["3.11.0", "3.11.3", "3.12.0", "3.13.0"])
def test_the_lock_lacks_nothing_that_its_packages_ask_for(python: str) -> None:
    """It is installed without dependencies, and made on one Python for all of them."""
    pins = locked(python)
    asked, seen = [("ratchet", EXTRAS)], set()
    missing = set()
    while asked:
        name, extras = asked.pop()
        for each in required(name, extras, python):
            found = (canonicalize_name(each.name), tuple(sorted(each.extras)))
            if found[0] not in pins:
                missing.add(f"{name} asks for {each}")
            elif found not in seen:
                seen.add(found)
                asked.append(found)
    assert len(seen) > 100, "nothing was looked at"
    assert [line for line in sorted(missing) if not line.partition(" asks for ")[2].startswith(LEFT_OUT)] == []


@pytest.fixture
def fetched(tmp_path: Path) -> Path:
    """A checkout whose `ratchet` writes down what it is told; nothing is fetched."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "model", tmp_path / ".ci" / "model")
    ratchet = tmp_path / ".venv" / "bin" / "ratchet"
    ratchet.parent.mkdir(parents=True)
    ratchet.write_text('#!/bin/sh\necho "$@" >> told\n')
    ratchet.chmod(0o755)
    return tmp_path / "told"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", "model fetch\n"),
        ("--port 9000", "model fetch\n"),
        ("--model some/other", ""),
        ("--port 9000 --model=some/other", ""),
        ("--home elsewhere", ""),
    ],
)
def test_the_default_model_is_fetched_only_for_a_start_that_uses_it(fetched: Path, arguments: str, told: str) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("RATCHET_")}
    subprocess.run([".ci/model", *arguments.split()], cwd=fetched.parent, env=env, capture_output=True, check=True)
    assert (fetched.read_text() if fetched.exists() else "") == told


def test_make_tells_who_fetches_the_model_how_it_will_be_started() -> None:
    planned = ["make", "--directory", str(ROOT), "--dry-run", "run", "ARGS=--model some/other"]
    said = subprocess.run(planned, capture_output=True, text=True, check=True).stdout.splitlines()
    assert ".ci/model --model some/other" in said
    assert "exec .venv/bin/ratchet up --model some/other" in said
