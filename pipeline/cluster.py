"""Run tasks somewhere: in this process, on a local cluster of processes, on any Dask scheduler. The only user of dask.

A task is a picklable function and an integer; what comes back is a small record. Pixels never travel.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from scenelift.pipeline.errors import ResumableError, SceneliftError, UsageError

Record = TypeVar("Record")

LOOPBACK = "127.0.0.1"
PAUSES = (0.2, 1.0)
"""Seconds to wait before a failed task is tried again where it is."""
RETRIES = len(PAUSES) + 1
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


@dataclass(frozen=True)
class Failed:
    """A task that was given up."""

    item: int
    message: str
    kind: type[Exception] | None
    """Class of an error that trying again cannot mend, made to be shown to people; None: anything else."""
    lethal: bool = False
    """Whether its workers died under it."""

    def error(self) -> Exception:
        """Return the error to raise where one failed task fails the job."""
        if self.kind is not None:
            return self.kind(self.message)
        return SceneliftError(f"task {self.item} failed {RETRIES} times: {self.message}")


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
            self._client.run(functools.partial(_quietly, action), on_error="ignore")

    def run(self, task: Callable[[int], Record], items: Sequence[int]) -> Iterator[Record]:
        """Run ``task(item)`` for every item, yielding records as they finish, in any order; see :meth:`attempt`.

        Raises
        ------
        Exception
            What the first task raised that was given up.
        """
        for record in self.attempt(task, items):
            if isinstance(record, Failed):
                raise record.error()
            yield record

    def attempt(self, task: Callable[[int], Record], items: Sequence[int]) -> Iterator[Record | Failed]:
        """Run ``task(item)`` for every item, yielding a record or a `Failed` for each, in any order.

        A task that raises is tried again with growing pauses, one whose worker dies on another worker. Errors made
        for people (those with an exit code) are not tried again.

        Raises
        ------
        ResumableError
            If the scheduler is lost.
        """
        if self._client is None:
            boxed = _Call(task)
            yield from (_attempt(item, boxed) for item in items)
            return
        yield from _run_on(self._client, task, items)


def _run_on(client: Any, task: Callable[[int], Record], items: Sequence[int]) -> Iterator[Record | Failed]:
    from dask.distributed import as_completed
    from distributed.client import FutureCancelledError
    from distributed.scheduler import KilledWorker

    # The task (job description and all) is sent to the workers once, not once a block. As a task of its own, not as
    # scattered data: the scheduler can make it again when the last worker that held it has died.
    shared = client.submit(_Call, task, pure=False, key=f"job-{uuid.uuid4().hex}")
    waiting = iter(items)
    numbers: dict[Any, int] = {}

    def submit(count: int) -> list[Any]:
        batch = [item for item, _ in zip(waiting, range(count), strict=False)]
        if not batch:
            return []
        futures = client.map(_attempt, batch, task=shared, retries=RETRIES, pure=False, key="block")
        numbers.update(zip((f.key for f in futures), batch, strict=True))
        return futures

    running = as_completed(submit(IN_FLIGHT), loop=client.loop, raise_errors=False)
    try:
        for batch in running.batches():
            for future in batch:
                item = numbers.pop(future.key)
                error = future.exception() if future.status == "error" else None
                if isinstance(error, KilledWorker):
                    hint = "workers died again and again: too little memory? Try --block or --workers smaller"
                    yield Failed(item, hint, None, lethal=True)
                elif error is not None:
                    yield Failed(item, _one_line(error), None)
                elif future.status != "finished":
                    raise ResumableError(f"lost the Dask scheduler or its workers ({future.key} {future.status})")
                else:
                    yield future.result()
            running.update(submit(len(batch)))
    except (FutureCancelledError, OSError, TimeoutError) as error:
        if client.status in ("running", "connecting") and not isinstance(error, FutureCancelledError):
            raise
        raise ResumableError(f"lost the connection to the Dask scheduler: {error}") from error


def _quietly(action: Callable[[], object]) -> None:
    """Run an action whose result stays here, and whose user errors will be met again by the first task."""
    with contextlib.suppress(SceneliftError):
        action()


class _Call:
    """A task in a box: Dask would call a bare function it finds among the arguments' futures."""

    def __init__(self, task: Callable[[int], Any]) -> None:
        self.task = task


def _attempt(item: int, task: _Call) -> Any:
    """Run one task where it is, up to RETRIES times."""
    pauses = list(PAUSES)
    while True:
        try:
            return task.task(item)
        except Exception as error:  # noqa: BLE001 - whatever a model raises must not stop the other blocks
            if isinstance(getattr(error, "exit_code", None), int):
                return Failed(item, str(error), type(error))
            if "CUDA error" in str(error):
                _replace_worker(error)
            if not pauses:
                return Failed(item, _one_line(error), None)
            time.sleep(pauses.pop(0))


def _replace_worker(error: Exception) -> None:
    """End this worker process, whose CUDA context is lost; its nanny starts another, the scheduler moves its tasks."""
    from distributed.worker import get_worker

    try:
        get_worker()
    except ValueError:
        raise ResumableError(f"the GPU failed: {_one_line(error)}; give the same command again") from error
    os._exit(1)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]


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
    from dask.distributed import Client

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
    # A task under which three workers died gets one more round of its own (see `workflows.enhance`).
    config["distributed.scheduler.allowed-failures"] = 2
    config |= {"distributed.admin.system-monitor.interval": "5s", "distributed.worker.profile.enabled": False}
    # A thread pool with an arena for every thread keeps freed blocks in all of them: two bound the memory of a worker.
    config["distributed.nanny.pre-spawn-environ.MALLOC_ARENA_MAX"] = 2
    with dask.config.set(config):
        cluster = _start_local(settings)
        with cluster, Client(cluster, set_as_default=False) as client:
            yield Cluster(client)


def _start_local(settings: ClusterSettings) -> Any:
    """Start local workers; one that dies while it starts (a short moment without memory) is given a second chance."""
    from dask.distributed import LocalCluster

    for chance in (1, 2):
        try:
            return LocalCluster(
                n_workers=settings.local_workers,
                # A GPU worker reads and writes in two threads while the third holds the GPU.
                threads_per_worker=3 if settings.gpus else 1,
                processes=True,
                host=LOOPBACK,
                dashboard_address=f"{LOOPBACK}:0",
                silence_logs=logging.ERROR,
            )
        except RuntimeError as error:
            if chance == 2:
                raise ResumableError(
                    f"the local workers do not start: {_one_line(error.__cause__ or error)}"
                ) from error
    return None


@functools.cache
def worker_index() -> int:
    """Return this worker's number within its local cluster (0 in the main process): which GPU is its own."""
    from distributed.worker import get_worker

    try:
        name = get_worker().name
    except ValueError:
        return 0
    return name if isinstance(name, int) else 0
