"""`python -m serving`: the gateway over HTTP."""

import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from feedback.settings import BrokenSecrets, Settings
from serving import logs

SHARED_METRICS = "PROMETHEUS_MULTIPROC_DIR"


def main() -> int:
    """The exit status: 2 when Redis is absent or would lose what it acknowledges, or our secrets cannot be read."""
    settings, inherited = Settings(), sys.argv[1:]
    logs.configure(settings.log_format)
    try:
        return _several(settings) if settings.workers > 1 and not inherited else _one(settings, inherited)
    except BrokenSecrets as error:
        print(f"ratchet gateway: {error}", file=sys.stderr)
        return 2


def _one(settings: Settings, inherited: list[str]) -> int:
    from serving.serve import Inherited, serve, serve_among

    return serve_among(settings, Inherited.of(inherited)) if inherited else serve(settings)


def _several(settings: Settings) -> int:
    metrics = settings.home.absolute() / "metrics"
    shutil.rmtree(metrics, ignore_errors=True)  # of processes that are no more
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    metrics.mkdir(mode=0o700)
    os.environ[SHARED_METRICS] = str(metrics)  # read when prometheus_client is imported, hence the late imports
    from serving.workers import lead

    # Not in the home, whose path may be longer than the 107 bytes of a socket's address.
    with TemporaryDirectory(prefix="ratchet-") as sockets:
        return lead(settings, Path(sockets))


if __name__ == "__main__":
    sys.exit(main())
