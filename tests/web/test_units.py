"""The page's own unit tests, by the Node that builds it."""

import subprocess
from pathlib import Path


def test_the_units_of_the_page() -> None:
    build = Path(__file__).parents[2] / ".ci" / "web"
    done = subprocess.run([build, "test"], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
