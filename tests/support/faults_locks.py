"""Two runs on one output, and locks whose holders are gone."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from support.faults import Bench, arguments, begin
from support.processes import call

STALE = ("dead process", "reused process number", "other host, silent for long", "garbage")


def two_runs(bench: Bench, folder: Path) -> None:
    """The second run on one output is refused, the first one is not disturbed."""
    bench.place(folder)
    hold = folder.with_name(folder.name + ".hold")
    first = begin(folder, "out.tif", SLOW="0.1", HOLD=str(hold))
    hold.touch()
    assert "another run is writing" in call(folder, *arguments("out.tif"), code=2)
    hold.unlink()
    assert first.wait() == 0
    bench.check(folder, "out.tif")


def stale_lock(bench: Bench, folder: Path, kind: str) -> None:
    """A lock that a dead holder left does not keep the next run."""
    bench.place(folder)
    lock = folder / ".out.tif.scenelift" / "lock"
    lock.parent.mkdir()
    lock.write_text(_content(kind))
    os.utime(lock, (1, 1))
    call(folder, *arguments("out.tif"), SLOW="0")
    bench.check(folder, "out.tif")


def lock_of_another_host(bench: Bench, folder: Path) -> None:
    """A holder on another host that gave a sign of life lately is left alone."""
    bench.place(folder)
    lock = folder / ".out.tif.scenelift" / "lock"
    lock.parent.mkdir()
    lock.write_text(_content("other host, silent for long"))
    assert "elsewhere" in call(folder, *arguments("out.tif"), code=2)


def _content(kind: str) -> str:
    if kind == "garbage":
        return "{"
    holder = {"host": socket.gethostname(), "pid": 2**22 - 1, "started": 1.0, "token": "x"}
    if kind == "reused process number":
        holder["pid"] = os.getpid()
    if kind.startswith("other host"):
        holder["host"] = "elsewhere"
    return json.dumps(holder)
