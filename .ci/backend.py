"""setuptools, but a wheel with the gateway has its web page as well, or is not made. Editable installs need none."""

from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  the rest of the interface as it is
from setuptools.errors import SetupError

WEB = Path("serving/web")  # builds start in the project's folder


def build_wheel(
    wheel_directory: str, config_settings: dict[str, str] | None = None, metadata_directory: str | None = None
) -> str:
    """The worker's image has no `serving`, so no page."""
    if WEB.is_dir() and not (WEB / "dist" / "index.html").is_file():
        raise SetupError("the web page is not built: run .ci/web first")
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
