"""A process that has the libraries loaded and does nothing else: local workers are forked from it.

So libraries are imported once for all workers, which share their memory, and a worker that died is back at once.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
from collections.abc import Mapping

import psutil

LIBRARIES = ("distributed", "numpy", "rasterio", "zarr", "numcodecs", "scenelift.pipeline.jobs.blocks")
"""What every worker needs."""
MODELS = ("torch", "scenelift.models.enhancer")
"""What a worker needs besides if this process needed it for its models."""

_lock = threading.Lock()
_started: dict[str, str] | None = None


def start_method(environment: Mapping[str, str]) -> str:
    """Return how local workers start: "forkserver", whose server runs then, or "spawn".

    Parameters
    ----------
    environment : mapping
        Variables of the workers. Some are read as a library is loaded, so that workers with others than those of the
        server are started from nothing.
    """
    global _started
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    with _lock:
        wanted = {name: os.environ.get(name, str(value)) for name, value in environment.items()}
        if _started is None:
            _start(wanted)
            _started = wanted
        return "forkserver" if wanted == _started else "spawn"


def worker_processes(pid: int) -> list[psutil.Process]:
    """Return the local workers of a running command: forked from its server, or started from nothing."""
    try:
        below = [(process, " ".join(process.cmdline())) for process in psutil.Process(pid).children(recursive=True)]
        servers = {process.pid for process, line in below if "forkserver" in line and process.ppid() == pid}
        return [process for process, line in below if "spawn_main" in line or process.ppid() in servers]
    except psutil.Error:
        return []


def _start(environment: Mapping[str, str]) -> None:
    import distributed.utils

    wanted = [*LIBRARIES, *(name for name in MODELS if name in sys.modules)]
    context = multiprocessing.get_context("forkserver")
    wanted.append("scenelift.pipeline.cluster.preloaded")  # the last
    context.set_forkserver_preload([name for name in wanted if importlib.util.find_spec(name)])
    distributed.utils._forkserver_preload_set = True  # else it sets its own, and imports pandas here to find out
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    multiprocessing.resource_tracker.ensure_running()  # which lets the signal through again
    # what is forked inherits which signals are blocked: Ctrl-C in a terminal goes to all, and this process ends them
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
