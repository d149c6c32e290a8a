"""Run tasks and collect their records, whatever becomes of the workers."""

from __future__ import annotations

import contextlib
import functools
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from scenelift.pipeline.cluster.attempts import RETRIES, Call, Failed, attempt_here, one_line
from scenelift.pipeline.cluster.workers import Identity, identity, mismatch, origin
from scenelift.pipeline.errors import ResumableError, SceneliftError, UsageError

Record = TypeVar("Record")

IN_FLIGHT = 5_000
"""Tasks known to the scheduler at once; it keeps a few kilobytes for each."""
REFILL = 1_000
"""New tasks are handed in so many at a time: a hand-in costs the scheduler milliseconds, whatever is in it."""

STRETCH = 4
"""Fewest neighbouring tasks that are worth naming a worker for: short stretches share little, and the first worker
would get all scenes of one block. Fewer are for whoever is free."""
AHEAD = 2
"""Tasks that a named worker has at once: what it does and what comes next. When it dies, all of them look guilty."""


class Cluster:
    """A place to run tasks, open for the length of a job."""

    def __init__(
        self,
        client: Any | None,
        environment: Mapping[str, str] | None = None,
        resources: Mapping[str, float] | None = None,
        dealt: bool = False,
    ) -> None:
        """Take a Dask client, or None for this process; where tasks are `dealt`, each worker gets a stretch of
        neighbours: all workers must be there by then, and take one task at a time."""
        self._client = client
        self._environment = dict(environment or {})
        self._resources = dict(resources or {})
        self._dealt = dealt

    @property
    def in_process(self) -> bool:
        """Whether tasks run in this process, one after the other."""
        return self._client is None

    @property
    def slots(self) -> int:
        """Tasks that workers run side by side right now."""
        return sum(self._client.nthreads().values()) if self._client else 0

    @property
    def dashboard(self) -> str | None:
        """Address of the Dask dashboard."""
        return self._client.dashboard_link if self._client else None

    def prepare(self, action: Callable[[], object]) -> None:
        """Run `action` once in every process that is there, so that the first task finds models loaded."""
        if self._client is None:
            action()
        else:
            self._client.run(functools.partial(_quietly, action, self._environment), on_error="ignore")

    def check(self) -> None:
        """Compare every worker that is there with this process; those that come later are compared by their first task.

        Raises
        ------
        UsageError
            If one has other code or libraries, which could change bytes.
        """
        if self._client is None:
            return
        for address, found in self._client.run(_describe, on_error="return").items():
            if isinstance(found, OSError):  # it died just now; the one that takes its place is compared later
                continue
            if isinstance(found, BaseException):
                raise UsageError(f"worker {address} cannot run this scenelift: {one_line(found)}")
            if reason := mismatch(identity(), found[0], address, found[1]):
                raise UsageError(reason)

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

    def attempt(
        self, task: Callable[[int], Record], items: Sequence[int], priority: int = 0
    ) -> Iterator[Record | Failed]:
        """Run ``task(item)`` for every item, yielding a record or a `Failed` for each, in any order.

        A task that raises is tried again with growing pauses, one whose worker dies on another worker. Errors made
        for people (those with an exit code) are not tried again, but for scenes that do not read. Several threads may
        do this at once; what has the higher `priority` runs first.

        Raises
        ------
        ResumableError
            If the scheduler is lost.
        """
        if self._client is None:
            boxed = Call(task)
            yield from (attempt_here(item, boxed) for item in items)
            return
        boxed = Call(task, tuple(identity().items()), self._environment)
        how = {"resources": self._resources or None, "priority": priority}
        yield from _run_on(self._client, boxed, items, self._dealt, how)


def _describe() -> tuple[Identity, str]:
    return identity(), origin()


def _run_on(client: Any, boxed: Call, items: Sequence[int], dealt: bool, how: dict[str, Any]) -> Iterator[Any]:
    from dask.distributed import as_completed
    from distributed.client import FutureCancelledError

    # The task (job description and all) is sent to the workers once, not once a block. As a task of its own, not as
    # scattered data: the scheduler can make it again when the last worker that held it has died.
    name, priority = f"job-{uuid.uuid4().hex}", how["priority"]
    shared = client.submit(Call.again, boxed, pure=False, key=name, priority=priority)
    workers = len(client.nthreads()) if dealt else 0
    named = workers > 0 and len(items) >= STRETCH * workers
    waiting = Stretches(items, workers if named else 1)
    ahead, refill = (AHEAD, 1) if named else (IN_FLIGHT, REFILL)
    running = as_completed(loop=client.loop, raise_errors=False)
    numbers: dict[Any, tuple[int, int]] = {}

    def submit(stretch: int, count: int) -> None:
        if not (taken := waiting.take(stretch, count)):
            return
        where = how | (_whom(client, stretch) if named else {})
        futures = client.map(attempt_here, taken, task=shared, retries=RETRIES, pure=False, key="block", **where)
        numbers.update((future.key, (item, stretch)) for future, item in zip(futures, taken, strict=True))
        running.update(futures)

    done: Counter[int] = Counter()
    try:
        for stretch in range(len(waiting)):
            submit(stretch, ahead)
        for batch in running.batches():
            records = _gathered(client, batch)
            for future in batch:
                if future.status in ("pending", "lost"):  # its worker died before the record was fetched: done again
                    running.add(future)
                    continue
                item, stretch = numbers.pop(future.key)
                done[stretch] += 1
                yield records[future.key] if future.key in records else _outcome(future, item)
            for stretch, count in done.items():
                if count >= refill or not numbers:
                    submit(stretch, count)
                    done[stretch] = 0
    except (FutureCancelledError, OSError, TimeoutError) as error:
        if client.status in ("running", "connecting") and not isinstance(error, FutureCancelledError):
            raise
        raise ResumableError(f"lost the connection to the Dask scheduler: {error}") from error


class Stretches:
    """Items that wait, in stretches of neighbours.

    A worker that does one stretch decodes a tile of the input, which the blocks around it need too, once.
    """

    def __init__(self, items: Sequence[int], count: int) -> None:
        length = max(1, -(-len(items) // count))
        self._stretches = [list(items[number * length : (number + 1) * length]) for number in range(count)]

    def __len__(self) -> int:
        return len(self._stretches)

    def take(self, number: int, count: int) -> list[int]:
        """Take the next `count` items of a stretch; one that is used up goes on with half of the longest."""
        mine = self._stretches[number]
        if not mine:
            longest = max(self._stretches, key=len)
            half = len(longest) // 2
            mine[:], longest[half:] = longest[half:], []
        taken = mine[:count]
        del mine[:count]
        return taken


def _whom(client: Any, stretch: int) -> dict[str, Any]:
    """Return how to name the worker of a stretch; another may take its task where it is gone or busy."""
    workers = sorted(client.nthreads())
    return {"workers": [workers[stretch % len(workers)]], "allow_other_workers": True} if workers else {}


def _outcome(future: Any, item: int) -> Any:
    """Return the record of a task that has come to an end, or why there is none.

    Raises
    ------
    ResumableError
        If the scheduler forgot it.
    """
    from distributed.scheduler import KilledWorker

    if future.status == "cancelled":
        raise ResumableError(f"lost the Dask scheduler or its workers ({future.key} {future.status})")
    try:
        error = future.exception() if future.status == "error" else None
        if error is None:
            return future.result()  # fetched from its worker; if that dies just now, the task is done again first
    except KilledWorker as killed:
        error = killed
    if isinstance(error, KilledWorker):
        hint = "workers died again and again: too little memory? Try --block or --workers smaller"
        return Failed(item, hint, None, killed_worker=True)
    kind = UsageError if isinstance(error, ImportError) and "scenelift" in str(error) else None
    return Failed(item, one_line(error), kind)


def _gathered(client: Any, batch: Sequence[Any]) -> dict[Any, Any]:
    """Fetch what a batch of futures holds in one go: asking for each costs the scheduler three times as much."""
    finished = [future for future in batch if future.status == "finished"]
    try:
        return dict(zip((future.key for future in finished), client.gather(finished), strict=True))
    except Exception:  # noqa: BLE001 - one was lost meanwhile: each is asked for by itself
        return {}


def _quietly(action: Callable[[], object], environment: Mapping[str, str]) -> None:
    """Run an action whose result stays here, and whose user errors will be met again by the first task."""
    os.environ.update(environment)
    with contextlib.suppress(SceneliftError):
        action()
