"""What `pip` makes of the sources: a gateway without its page would answer, and nobody would see that it is missing."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent
DIST = Path("serving/web/dist")
# Also what a build in the sources themselves would leave, or find of an older one.
NO_SOURCES = shutil.ignore_patterns("node_modules", ".node", ".dist", "__pycache__", "src")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """As serving/Dockerfile copies them."""
    assert (ROOT / DIST / "index.html").is_file(), "the page is not built: .ci/web builds it"
    copy = tmp_path / "sources"
    for folder in ("feedback", "serving"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=NO_SOURCES)
    for name in ("pyproject.toml", "LICENSE", ".ci/backend.py"):
        (copy / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    return copy


def wheel(sources: Path) -> subprocess.CompletedProcess[str]:
    """Into the folder beside the sources."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "."]
    return subprocess.run(
        [*command, "--wheel-dir", ".."], cwd=sources, capture_output=True, text=True, check=False, timeout=240
    )


def test_the_page_is_in_the_wheel_with_all_that_it_loads(sources: Path) -> None:
    done = wheel(sources)
    assert done.returncode == 0, done.stdout + done.stderr
    [made] = sources.parent.glob("*.whl")
    names = set(ZipFile(made).namelist())
    loaded = re.findall(r'(?:src|href)="/(assets/[^"]+)"', (ROOT / DIST / "index.html").read_text())
    assert len(loaded) >= 2, "a script and a style sheet"
    assert {f"{DIST}/{name}" for name in ["index.html", *loaded]} <= names
    built = {str(file.relative_to(ROOT)) for file in (ROOT / DIST / "assets").iterdir()}
    assert {name for name in names if name.startswith(f"{DIST}/assets/")} == built
    assert "serving/demo/prompts.txt" in names


def test_a_gateway_without_its_page_is_no_wheel(sources: Path) -> None:
    shutil.rmtree(sources / DIST)
    done = wheel(sources)
    assert done.returncode != 0
    assert "the web page is not built: run .ci/web first" in done.stdout + done.stderr
    assert not list(sources.parent.glob("*.whl"))


def test_the_worker_needs_no_page(sources: Path) -> None:
    """Its image copies no `serving`."""
    shutil.rmtree(sources / "serving")
    done = wheel(sources)
    assert done.returncode == 0, done.stdout + done.stderr
