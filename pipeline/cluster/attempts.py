"""One task in the process that does it: tried again where that can help, failed with a reason where it cannot."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from scenelift.pipeline.cluster.workers import refusal
from scenelift.pipeline.errors import ResumableError, SceneError, SceneliftError, UnreachableError, UsageError

PAUSES = (0.2, 1.0)
"""Seconds to wait before a failed task is tried again where it is."""
RETRIES = len(PAUSES) + 1


@dataclass(frozen=True)
class Failed:
    """A task that was given up."""

    item: int
    message: str
    kind: type[Exception] | None
    """Class of an error made to be shown to people; None: anything else."""
    killed_worker: bool = False
    """Whether its workers died under it."""

    def error(self) -> Exception:
        """Return the error to raise where one failed task fails the job."""
        if self.kind is not None:
            return self.kind(self.message)
        return SceneliftError(f"task {self.item} failed {RETRIES} times: {self.message}")


@dataclass(frozen=True)
class Call:
    """A task in a box, with what its worker must be like: Dask would call a bare function among the arguments."""

    task: Callable[[int], Any]
    expected: tuple[tuple[str, str], ...] = ()
    """Identity of the process that gives the work."""
    environment: Mapping[str, str] = field(default_factory=dict)

    def again(self) -> Call:
        """Return itself: the task that any worker can do to have the box."""
        return self


def attempt_here(item: int, task: Call) -> Any:
    """Run one task where it is, up to RETRIES times."""
    if task.expected and (reason := refusal(task.expected)) is not None:
        return Failed(item, reason, UsageError)
    os.environ.update(task.environment)
    pauses = list(PAUSES)
    while True:
        try:
            return task.task(item)
        except Exception as error:  # noqa: BLE001 - whatever a model raises must not stop the other blocks
            told = isinstance(getattr(error, "exit_code", None), int)
            # what a network or a shared disk did not give just now, it may give in a moment
            lasting = told and not isinstance(error, SceneError | UnreachableError)
            if not told and "CUDA error" in str(error):
                _replace_worker(error)
            if lasting or not pauses:
                return Failed(item, str(error), type(error)) if told else Failed(item, one_line(error), None)
            time.sleep(pauses.pop(0))


def _replace_worker(error: Exception) -> None:
    """End this worker process, whose CUDA context is lost; its nanny starts another, the scheduler moves its tasks."""
    from distributed.worker import get_worker

    try:
        get_worker()
    except ValueError:
        raise ResumableError(f"the GPU failed: {one_line(error)}; give the same command again") from error
    os._exit(1)


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]
