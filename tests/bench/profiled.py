"""`python profiled.py PATH`: the gateway, with cProfile on between SIGUSR1 and SIGUSR2, which writes PATH."""

import cProfile
import runpy
import signal
import sys
from typing import Any

profiler, path = cProfile.Profile(), sys.argv.pop(1)  # the gateway takes arguments of its own


def begin(*_: Any) -> None:
    profiler.enable()


def end(*_: Any) -> None:
    profiler.disable()
    profiler.dump_stats(path)


signal.signal(signal.SIGUSR1, begin)
signal.signal(signal.SIGUSR2, end)
runpy.run_module("serving", run_name="__main__", alter_sys=True)
