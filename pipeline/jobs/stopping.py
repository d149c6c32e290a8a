"""Stopping in time: SIGTERM, SIGINT, the end of the walltime and a standstill end a job so that it can be resumed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

import psutil

from scenelift.pipeline.errors import Interrupted, UsageError

RESUMABLE = 75
PATIENCE = 12.0
"""Seconds for an orderly end (workers leave, the lock is released) before the processes are simply ended."""
RESERVE = 30.0
"""Seconds kept before the end of the walltime; a fifth of it, if that is less."""
STALL = 1800.0
"""Seconds without any finished block, while there are some to do, after which a run counts as stuck."""


class Stopper:
    """Raises `Interrupted` in the main thread when it is time to stop."""

    def __init__(self, walltime: float | None = None, stall: float | None = None) -> None:
        self._deadline = time.monotonic() + walltime - min(RESERVE, walltime / 5) if walltime else None
        self._stall = stall
        self._watching = 0
        self._setting = threading.Lock()  # the scenes of an archive do their blocks in threads
        self._reason = ""
        self._stopping = False

    def progress(self) -> None:
        """Set the alarm again: something was finished, so a standstill begins now."""
        self._set_alarm()

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """While active, stop the job if :meth:`progress` is not called within the stall limit."""
        self._set_alarm(1)
        try:
            yield
        finally:
            self._set_alarm(-1)

    def _set_alarm(self, watchers: int = 0) -> None:
        with self._setting:
            self._watching += watchers
            if self._stopping:
                return
            now = time.monotonic()
            ends = {
                "the walltime is over": self._deadline,
                "no block was finished": now + self._stall if self._stall and self._watching else None,
            }
            due = {reason: end for reason, end in ends.items() if end is not None}
            self._reason = min(due, key=lambda reason: due[reason], default="")
            signal.setitimer(signal.ITIMER_REAL, max(due[self._reason] - now, 0.01) if due else 0)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Stop; a second request does not wait any longer."""
        if self._stopping:
            _end_now()
        self._stopping = True
        threading.Thread(target=_end_later, daemon=True).start()
        names = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted"}
        raise Interrupted(names.get(signal.Signals(number), self._reason))


_current: Stopper | None = None
"""Signals and timers are the process's: there is one of these at a time, wherever in it the work is done."""


def watched() -> contextlib.AbstractContextManager[None]:
    """Watch for a standstill while blocks are being done; of other steps, which may take hours, nothing is heard."""
    return _current.watch() if _current else contextlib.nullcontext()


@contextlib.contextmanager
def stoppable(walltime: float | None = None, stall: float | None = STALL) -> Iterator[Stopper]:
    """Turn signals and timers into `Interrupted` while a job runs."""
    global _current
    stopper = _current = Stopper(walltime, stall)
    numbers = signal.SIGTERM, signal.SIGINT, signal.SIGALRM
    before = [signal.signal(number, stopper.on_signal) for number in numbers]
    stopper.progress()
    try:
        yield stopper
    finally:
        _current = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        if not stopper._stopping:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


def _end_later() -> None:
    time.sleep(PATIENCE)
    _end_now()


def _end_now() -> None:
    """End this process and its workers at once; what is journaled is safe, a dead run's lock is free."""
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
    sys.stderr.flush()
    os._exit(RESUMABLE)


def parse_walltime(text: str | None) -> float | None:
    """Return seconds from "3600", "90m", "2h", "HH:MM:SS" or "D-HH:MM:SS".

    None asks the scheduler's environment: Slurm says when the job ends.

    Raises
    ------
    UsageError
        If it is none of these.
    """
    if text is None:
        end = os.environ.get("SLURM_JOB_END_TIME", "")
        return max(float(end) - time.time(), 1.0) if end.isdigit() else None
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text):
        seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
    elif match := re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?", text):
        days, hours, minutes, rest = (int(part or 0) for part in match.groups())
        seconds = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    else:
        raise UsageError(f"--walltime must be seconds, 90m, 2h, HH:MM:SS or D-HH:MM:SS, got {text!r}")
    if seconds <= 0:
        raise UsageError(f"--walltime must be above 0 seconds, got {text!r}")
    return float(seconds)
