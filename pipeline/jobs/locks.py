"""One run at a time: a lock that names its holder, and that is taken over once the holder is dead."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import psutil

from scenelift.pipeline.errors import HeldError, ResumableError, SinkError

NAME = "lock"
HEARTBEAT = 10.0
"""Seconds between two signs of life."""
EXPIRY = 120.0
"""Seconds without one after which a holder on another host counts as dead."""


class Lock:
    """A lock file in a folder, with the holder's host, process and heartbeat (its modification time).

    Taking it is creating a hard link, which is one step on shared file systems too, whichever hosts compete.

    Parameters
    ----------
    folder : Path
        Must exist.
    name : str
        Of the file; locks of other names in the same folder are others.
    what : str
        What the lock protects, for messages.
    """

    def __init__(self, folder: Path, name: str = NAME, what: str = "writing this output") -> None:
        self.path = folder / name
        self._what = what
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._beating: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Take the lock, from a dead holder if need be.

        Raises
        ------
        HeldError
            If a living run holds it.
        """
        try:
            with _guarded(self.path.parent):
                self._take()
        except OSError as error:
            raise SinkError.of(self.path, error) from error
        self._beating = threading.Thread(target=self._beat, daemon=True, name="scenelift-lock")
        self._beating.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        with contextlib.suppress(OSError), _guarded(self.path.parent):
            if self.is_mine():
                self.path.unlink()

    def is_mine(self) -> bool:
        """Whether this process still holds the lock: another may take it over after this one slept for minutes."""
        holder = holder_of(self.path)
        return holder is not None and holder.get("token") == self._token

    def check(self) -> None:
        """Stop if the lock was lost.

        Raises
        ------
        ResumableError
        """
        if not self.is_mine():
            raise ResumableError(f"another run took over {self.path.parent}; this one stops")

    def _take(self) -> None:
        me = psutil.Process()
        holder = {"host": socket.gethostname(), "pid": me.pid, "started": me.create_time(), "token": self._token}
        holder |= _job()
        new = self.path.with_name(f"{self.path.name}.{self._token}")
        try:
            new.write_text(json.dumps(holder), encoding="utf-8")
            while True:
                self._remove_stale()
                with contextlib.suppress(FileExistsError):
                    os.link(new, self.path)
                    return
        finally:
            new.unlink(missing_ok=True)

    def _remove_stale(self) -> None:
        """Remove a stale lock. If several processes race, only the one whose rename succeeds continues."""
        holder = holder_of(self.path)
        if holder is None:
            return
        if is_alive(holder, self.path):
            raise self._held(holder)
        aside = self.path.with_name(f"{self.path.name}.{self._token}.dead")
        try:
            self.path.rename(aside)
        except FileNotFoundError:
            return
        if (found := holder_of(aside)) != holder:  # somebody was faster: that was a fresh lock
            with contextlib.suppress(FileExistsError):
                os.link(aside, self.path)
            aside.unlink(missing_ok=True)
            raise self._held(found or {})
        aside.unlink(missing_ok=True)

    def refuse_held(self) -> None:
        """Refuse to go on while a living run holds the lock; takes nothing.

        Raises
        ------
        HeldError
        """
        holder = holder_of(self.path)
        if holder is not None and is_alive(holder, self.path):
            raise self._held(holder)

    def _held(self, holder: dict[str, Any]) -> HeldError:
        return HeldError(
            f"another run is {self._what}: process {holder.get('pid')} on {holder.get('host')} (lock {self.path})"
        )

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            with contextlib.suppress(OSError):
                if self.is_mine():
                    os.utime(self.path)


def is_alive(holder: dict[str, Any], path: Path) -> bool:
    """Whether the process that wrote a lock still lives.

    On this host the process table knows (a reused process number has another start time); of another host only the
    heartbeat tells, unless the holder was this very batch job before it was put back into the queue.
    """
    job = _job()
    if job and holder.get("job") == job["job"] and holder.get("life", 0) < job["life"]:
        return False
    if holder.get("host") == socket.gethostname():
        try:
            return abs(psutil.Process(int(holder["pid"])).create_time() - float(holder["started"])) < 1
        except (psutil.Error, KeyError, ValueError, TypeError):
            return False
    try:
        return time.time() - path.stat().st_mtime < EXPIRY
    except OSError:
        return False


def _job() -> dict[str, Any]:
    """Return which Slurm job this process belongs to, and in which of its lives; empty outside of Slurm."""
    number = os.environ.get("SLURM_JOB_ID")
    if not number:
        return {}
    job = f"{os.environ.get('SLURM_CLUSTER_NAME', '')} {number}"
    return {"job": job, "life": int(os.environ.get("SLURM_RESTART_COUNT") or 0)}


def holder_of(path: Path) -> dict[str, Any] | None:
    """Return what a lock file says of its holder; None if there is no such file, empty if it is unreadable."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@contextlib.contextmanager
def _guarded(folder: Path) -> Iterator[None]:
    """Let only one process at a time look at and change the lock."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
