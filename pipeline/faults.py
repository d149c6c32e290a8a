"""Named points of a run at which a test can kill or pause it, to prove that every one of them can be survived."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

VARIABLE = "SCENELIFT_KILL_AT"
"""Environment variable, a test hook: "NAME" kills the process (SIGKILL) at its first pass of that point, "NAME:3" at
its third, "NAME:*" at each."""
PAUSE = "SCENELIFT_PAUSE_AT"
"""The same, but stops the process (SIGSTOP) there, so that a test can change the world around it."""

POINTS = (
    "store-created",
    "journal-created",
    "block-written",
    "block-synced",
    "before-journal",
    "torn-journal",
    "after-journal",
    "salvaged",
    "blocks-done",
    "pyramid-built",
    "temporary-written",
    "window-written",
    "tiles-laid",
    "output-written",
    "output-made",
    "output-synced",
    "publication-recorded",
    "old-output-moved",
    "renamed",
    "done-recorded",
)

_passes: dict[tuple[str, str], int] = {}
_trials = 0


@contextlib.contextmanager
def rehearsal() -> Iterator[None]:
    """Pass no points meanwhile: what is done is thrown away, so a point of the real work is not reached yet."""
    global _trials
    _trials += 1
    try:
        yield
    finally:
        _trials -= 1


def commit_point(name: str) -> None:
    """Die or pause here if the environment says so."""
    if _trials:
        return
    if is_due(name):
        die()
    if is_due(name, PAUSE):
        os.kill(os.getpid(), signal.SIGSTOP)


def die() -> None:
    """Go as a process goes that the kernel kills: no cleaning up."""
    os.kill(os.getpid(), signal.SIGKILL)


def is_due(name: str, variable: str = VARIABLE) -> bool:
    """Whether this pass of the point `name` is one that the environment variable asks for."""
    wanted, _, number = os.environ.get(variable, "").partition(":")
    if wanted != name:
        return False
    passes = _passes[variable, name] = _passes.get((variable, name), 0) + 1
    return number == "*" or passes == int(number or 1)
