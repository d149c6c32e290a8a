"""Two runs on one output, and locks whose holders are gone."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from scenelift.pipeline.jobs.locks import holder_of
from support.faults import BLOCKS, Bench, arguments, begin, committed
from support.faults.disks import UnableError, resume, wait_until_paused
from support.processes import call, start, wait_until

MOMENTS = ("journal-created", "after-journal:3", "blocks-done", "publication-recorded")
"""Where the first of two holders is held up."""
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


def two_holders(bench: Bench, folder: Path, name: str, point: str) -> None:
    """A run is cut off from its lock until another host takes it for dead; then both go on, and one of them stops.

    A storage that does not answer holds up whoever waits for it: the first run is stopped for that time.
    """
    if os.geteuid() != 0:
        raise UnableError("other host names need root")
    bench.place(folder)
    hold = folder.with_name(folder.name + ".hold")
    first = start(folder, *arguments(name), SLOW="0.02", HOST="first", SCENELIFT_PAUSE_AT=point)
    wait_until_paused(first)
    os.utime(folder / f".{name}.scenelift" / "lock", (1, 1))
    before, lock = committed(folder, name), folder / f".{name}.scenelift" / "lock"
    late = before == BLOCKS
    pause = {"SCENELIFT_PAUSE_AT": "blocks-done"} if late else {}
    second = start(folder, *arguments(name), SLOW="0.02", HOST="second", HOLD=str(hold), **pause)
    assert wait_until(lambda: (holder_of(lock) or {}).get("host") == "second", second), second.output
    if late:
        wait_until_paused(second)
    else:
        assert wait_until(lambda: committed(folder, name) >= before + 2, second), second.output
    hold.touch()
    resume(first)
    code = first.wait()
    assert code == 75 and "took over" in first.output, f"exit {code}: {first.output}"
    assert not (folder / name).exists()
    if late:
        resume(second)
    hold.unlink()
    assert second.wait() == 0, second.output
    call(folder, *arguments(name), SLOW="0")  # sweeps what the first left where the second had finished
    bench.check(folder, name)


def _content(kind: str) -> str:
    if kind == "garbage":
        return "{"
    holder = {"host": socket.gethostname(), "pid": 2**22 - 1, "started": 1.0, "token": "x"}
    if kind == "reused process number":
        holder["pid"] = os.getpid()
    if kind.startswith("other host"):
        holder["host"] = "elsewhere"
    return json.dumps(holder)
