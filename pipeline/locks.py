"""One run at a time: a lock that says who holds it, and that a dead holder does not keep."""

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

from scenelift.pipeline.errors import ResumableError, SinkError, UsageError

NAME = "lock"
BEAT = 10.0
"""Seconds between two signs of life."""
EXPIRY = 120.0
"""Seconds without one after which a holder on another host counts as dead."""


class Lock:
    """A lock file in a folder, with the holder's host, process and heartbeat (its modification time)."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._beating: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Take the lock, from a dead holder if need be.

        Raises
        ------
        UsageError
            If a living run holds it.
        """
        try:
            with _guarded(self.path.parent):
                holder = _read(self.path)
                if holder is not None and is_alive(holder, self.path):
                    raise UsageError(
                        f"another run is writing this output: process {holder.get('pid')} on {holder.get('host')} "
                        f"(lock {self.path})"
                    )
                self._write()
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
        """Whether nobody has taken the lock over, as somebody may after this process slept for minutes."""
        holder = _read(self.path)
        return holder is not None and holder.get("token") == self._token

    def check(self) -> None:
        """Stop if the lock was lost.

        Raises
        ------
        ResumableError
        """
        if not self.is_mine():
            raise ResumableError(f"another run took over {self.path.parent}; this one stops")

    def _write(self) -> None:
        me = psutil.Process()
        holder = {"host": socket.gethostname(), "pid": me.pid, "started": me.create_time(), "token": self._token}
        new = self.path.with_name(f"{NAME}.{self._token}")
        try:
            new.write_text(json.dumps(holder))
            new.replace(self.path)
        except OSError:
            new.unlink(missing_ok=True)
            raise

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            with contextlib.suppress(OSError):
                if self.is_mine():
                    os.utime(self.path)


def is_alive(holder: dict[str, Any], path: Path) -> bool:
    """Whether the process that wrote a lock still lives.

    On this host the process table knows (a reused process number has another start time); of another host only the
    heartbeat tells.
    """
    if holder.get("host") == socket.gethostname():
        try:
            return abs(psutil.Process(int(holder["pid"])).create_time() - float(holder["started"])) < 1
        except (psutil.Error, KeyError, ValueError, TypeError):
            return False
    try:
        return time.time() - path.stat().st_mtime < EXPIRY
    except OSError:
        return False


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
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
