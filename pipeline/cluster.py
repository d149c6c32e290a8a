"""Run tasks somewhere: in this process, on a local cluster of processes, on any Dask scheduler. The only user of dask.

A task is a picklable function and an integer; what comes back is a small record. Pixels never travel.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from scenelift.pipeline.errors import SceneliftError, UsageError

Record = TypeVar("Record")

LOOPBACK = "127.0.0.1"
RETRIES = 3
IN_FLIGHT = 10_000
"""Tasks known to the scheduler at once; it keeps about a kilobyte for each."""


@dataclass(frozen=True)
class ClusterSettings:
    """Where tasks run."""

    workers: int | None = None
    """Local worker processes; 0: none, everything in this process; None: as many as suit the machine."""
    scheduler: str | None = None
    """Address of a running Dask scheduler, e.g. "tcp://10.0.0.1:8786"; workers is then ignored."""
    gpus: int = 0
    """GPUs to use: one worker process each."""

    def __post_init__(self) -> None:
        if self.workers is not None and not 0 <= self.workers <= 4096:
            raise UsageError(f"--workers must be from 0 to 4096, got {self.workers}")

    @property
    def local_workers(self) -> int:
        """Number of local processes: as asked, else one a GPU, else one a core."""
        if self.workers is not None:
            return self.workers
        return self.gpus or cores()

    @property
    def in_process(self) -> bool:
        """Whether no cluster is needed."""
        return self.scheduler is None and self.local_workers == 0

    @property
    def threads(self) -> int:
        """Model threads of each worker, so that workers x threads = cores."""
        if self.scheduler is not None:
            return 1
        return max(1, cores() // max(1, self.local_workers))


def cores() -> int:
    """Return the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Cluster:
    """A place to run tasks, open for the length of a job."""

    def __init__(self, client: Any | None) -> None:
        self._client = client

    @property
    def dashboard(self) -> str | None:
        """Address of the Dask dashboard."""
        return self._client.dashboard_link if self._client else None

    def prepare(self, action: Callable[[], object]) -> None:
        """Run `action` once in every process that is there, so that the first task finds models loaded."""
        if self._client is None:
            action()
        else:
            self._client.run(functools.partial(_quietly, action))

    def run(self, task: Callable[[int], Record], items: Sequence[int]) -> Iterator[Record]:
        """Run ``task(item)`` for every item, yielding records as they finish, in any order.

        Raises
        ------
        Exception
            What the task raised, after Dask has retried tasks whose worker died.
        SceneliftError
            If workers keep dying under a task, or the scheduler is lost.
        """
        if self._client is None:
            yield from map(task, items)
            return
        yield from _run_on(self._client, task, items)


def _run_on(client: Any, task: Callable[[int], Record], items: Sequence[int]) -> Iterator[Record]:
    from dask.distributed import as_completed
    from distributed.client import FutureCancelledError
    from distributed.scheduler import KilledWorker

    # The task (job description and all) is sent to the workers once, not once a block.
    shared = client.scatter([_Call(task)], broadcast=True, hash=False)[0]
    waiting = iter(items)

    def submit(count: int) -> list[Any]:
        batch = [item for item, _ in zip(waiting, range(count), strict=False)]
        return client.map(_call, batch, task=shared, retries=RETRIES, pure=False, key="block") if batch else []

    running = as_completed(submit(IN_FLIGHT), loop=client.loop, raise_errors=False)
    try:
        for batch in running.batches():
            for future in batch:
                error = future.exception() if future.status == "error" else None
                if isinstance(error, KilledWorker):
                    raise SceneliftError(
                        f"workers died again and again on {future.key}: too little memory for this block size? "
                        "Try --block or --workers smaller"
                    ) from None
                if error is not None:
                    raise error
                if future.status != "finished":
                    raise SceneliftError(f"the cluster dropped {future.key} ({future.status})")
                record = future.result()
                if isinstance(record, _Failure):
                    raise record.kind(record.message)
                yield record
            running.update(submit(len(batch)))
    except (FutureCancelledError, OSError, TimeoutError) as error:
        if client.status in ("running", "connecting") and not isinstance(error, FutureCancelledError):
            raise
        raise SceneliftError(f"lost the connection to the Dask scheduler: {error}") from error


def _quietly(action: Callable[[], object]) -> None:
    """Run an action whose result stays here, and whose user errors will be met again by the first task."""
    with contextlib.suppress(SceneliftError):
        action()


class _Call:
    """A task in a box: Dask would call a bare function it finds among the arguments' futures."""

    def __init__(self, task: Callable[[int], Any]) -> None:
        self.task = task


@dataclass(frozen=True)
class _Failure:
    """An error that trying again will not mend; returned, since Dask would retry what is raised."""

    kind: type[SceneliftError]
    message: str


def _call(item: int, task: _Call) -> Any:
    try:
        return task.task(item)
    except SceneliftError as error:
        return _Failure(type(error), str(error))


@contextmanager
def open_cluster(settings: ClusterSettings) -> Iterator[Cluster]:
    """Start or join the place where tasks run; local processes end with the context.

    Raises
    ------
    SceneliftError
        If the scheduler does not answer.
    """
    if settings.in_process:
        yield Cluster(None)
        return
    import dask
    from dask.distributed import Client, LocalCluster

    if settings.scheduler is not None:
        try:
            client = Client(settings.scheduler, timeout="15s", set_as_default=False)
        except (OSError, ValueError) as error:
            raise SceneliftError(f"no Dask scheduler answers at {settings.scheduler}: {error}") from None
        with client:
            yield Cluster(client)
        return
    config: dict[str, Any] = {
        "distributed.worker.multiprocessing-method": "spawn",
        "distributed.logging.distributed": "error",
    }
    config |= {"distributed.admin.system-monitor.interval": "5s", "distributed.worker.profile.enabled": False}
    with dask.config.set(config):
        cluster = LocalCluster(
            n_workers=settings.local_workers,
            # A GPU worker reads and writes in two threads while the third holds the GPU.
            threads_per_worker=3 if settings.gpus else 1,
            processes=True,
            host=LOOPBACK,
            dashboard_address=f"{LOOPBACK}:0",
            silence_logs=logging.ERROR,
        )
        with cluster, Client(cluster, set_as_default=False) as client:
            yield Cluster(client)


@functools.cache
def worker_index() -> int:
    """Return this worker's number within its local cluster (0 in the main process): which GPU is its own."""
    from distributed.worker import get_worker

    try:
        name = get_worker().name
    except ValueError:
        return 0
    return name if isinstance(name, int) else 0
