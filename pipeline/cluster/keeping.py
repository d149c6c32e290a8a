"""Keeping local workers alive as long as they are wanted, and no longer: bring back each one that Dask gives up on.

A local worker that dies is started again by its nanny. Two things stop that for good: Dask closes the nanny when its
worker happens to be away some seconds after a death (by default 15, and on a busy machine a restart takes longer), and
a nanny whose worker dies before it is known to be up closes itself. Neither is ever replaced, and a job without
workers would wait for ever.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LOST = "120s"
"""Time after a worker's death at which Dask closes its nanny if the worker is away just then."""
HEARTBEAT = 2.0
"""Seconds between two looks."""
CLOSE = 10.0
"""Seconds that a cluster has to close by itself."""
WORKER = "Dask Worker process"
"""How Dask names the processes of its workers."""


@contextmanager
def kept_alive(cluster: Any, beat: float = HEARTBEAT) -> Iterator[None]:
    """Replace nannies that have closed, for as long as the context lasts.

    Parameters
    ----------
    cluster : LocalCluster
        All its workers are up.
    beat : float
        Seconds between two looks.
    """
    count, stop = len(cluster.workers), threading.Event()

    def keep() -> None:
        while not stop.wait(beat):
            for name, nanny in list(cluster.workers.items()):
                if nanny.status.name in ("closed", "failed"):
                    cluster.workers.pop(name, None)
            if len(cluster.workers) < count:
                cluster.scale(count)  # the names are still wanted: those without a nanny get a new one

    keeper = threading.Thread(target=keep, daemon=True, name="scenelift-keeper")
    keeper.start()
    try:
        yield
    finally:
        stop.set()
        keeper.join()


@contextmanager
def closed_in_time(cluster: Any) -> Iterator[Any]:
    """Close a local cluster at the end, by force if need be.

    A worker that was started again just before the end may be missed by its nanny, and Dask would wait for it for
    ever. By then every record has been fetched, so ending it loses nothing.

    Parameters
    ----------
    cluster : LocalCluster
    """
    try:
        yield cluster
    finally:
        try:
            cluster.close(timeout=CLOSE)
        except TimeoutError:
            for child in multiprocessing.active_children():
                if child.name.startswith(WORKER):
                    child.kill()
            with contextlib.suppress(TimeoutError):
                cluster.close(timeout=CLOSE)
