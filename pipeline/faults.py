"""Named points of a run at which a test can kill it, to prove that every one of them can be survived."""

from __future__ import annotations

import os
import signal

VARIABLE = "SCENELIFT_KILL_AT"
"""Environment variable, a test hook: "NAME" kills the process (SIGKILL) at its first pass of that point, "NAME:3" at
its third."""

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
    "output-made",
    "output-synced",
    "publication-recorded",
    "old-output-moved",
    "renamed",
    "done-recorded",
)

_passes: dict[str, int] = {}


def commit_point(name: str) -> None:
    """Die here if the environment says so."""
    if is_due(name):
        die()


def die() -> None:
    """Go as a process goes that the kernel kills: no cleaning up."""
    os.kill(os.getpid(), signal.SIGKILL)


def is_due(name: str) -> bool:
    """Whether this pass of the point `name` is the one to die at."""
    wanted, _, number = os.environ.get(VARIABLE, "").partition(":")
    if wanted != name:
        return False
    _passes[name] = _passes.get(name, 0) + 1
    return _passes[name] == int(number or 1)
