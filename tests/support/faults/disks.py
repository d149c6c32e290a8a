"""Disks that are full, read-only, forbidden or broken, under real runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from support.faults import Bench, arguments, committed, journal, same
from support.processes import Command, call, start, wait_until

STAGES = {
    "zarr": ("after-journal:3", ".zarr"),
    "journal": ("before-journal:*", ".zarr"),
    "temporary tiff": ("blocks-done", ".tif"),
    "cog": ("temporary-written", ".tif"),
}
"""Where a run is stopped to take its room away, and of which output."""


class UnableError(Exception):
    """This machine does not let a test break its disks; the message says why."""


@contextmanager
def skipped_if_unable() -> Iterator[None]:
    """Skip the test if the machine does not let it do the harm within."""
    try:
        yield
    except UnableError as reason:
        pytest.skip(str(reason))


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mount a file system of so many kilobytes (needs root)."""
    folder.mkdir(parents=True)
    if os.system(f"mount -t tmpfs -o size={size}k tmpfs '{folder}' 2>/dev/null"):
        raise UnableError("mounting a small disk needs root")
    try:
        yield folder
    finally:
        os.system(f"umount -l '{folder}'")


def fill_up(bench: Bench, disk: Path, name: str) -> int:
    """Run on a disk that is too small (or just not), make room, go on. Returns the first exit code."""
    _place(bench, disk)
    command = start(disk, *arguments(name), SLOW="0")
    code = command.wait()
    assert code in (0, 2, 75), f"exit {code}: {command.output}"
    assert (disk / name).exists() == (code == 0)
    os.system(f"mount -o remount,size=64m '{disk}'")
    call(disk, *arguments(name), SLOW="0")
    bench.check(disk, name)
    return code


def full_at(bench: Bench, disk: Path, stage: str) -> None:
    """Take all room away at one stage of a run: exit 75, nothing published; with room again the command goes on."""
    _place(bench, disk)
    point, suffix = STAGES[stage]
    name = f"out{suffix}"
    command = start(disk, *arguments(name), SLOW="0", SCENELIFT_PAUSE_AT=point)
    wait_until_paused(command)
    while stage == "journal" and _line_fits(journal(disk, name)):
        resume(command)
        wait_until_paused(command)
    _take_all_room(disk / "log-filler")
    while command.process.exitcode is None:  # the next record may fit after all, then it pauses once more
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(command.pid).status() == psutil.STATUS_STOPPED:
                resume(command)
        time.sleep(0.01)
    assert command.wait() == 75, command.output
    assert "make room" in command.output and not (disk / name).exists(), command.output
    if stage == "journal":
        assert "journal.jsonl" in command.output, command.output
    before = committed(disk, name)
    if stage == "zarr":  # still too little room: nothing is gained, nothing is lost
        os.truncate(disk / "log-filler", (disk / "log-filler").stat().st_size - 3 * 4096)
        call(disk, *arguments(name), SLOW="0", code=75)
        assert committed(disk, name) == before
    (disk / "log-filler").unlink()
    text = call(disk, *arguments(name), "--json", SLOW="0")
    assert f'"resumed": {before}' in text and before >= 2, text
    bench.check(disk, name)


def read_only(bench: Bench, folder: Path) -> None:
    """A folder that is read-only from the start, and one that becomes so under a run."""
    bench.place(folder)
    with small_disk(folder / "log-disk", 1 << 16) as disk:
        os.system(f"mount -o remount,ro '{disk}'")
        text = call(folder, *arguments("log-disk/out.tif"), code=2, SLOW="0")
        assert "cannot write in" in text and "Read-only file system" in text
        assert not list(disk.iterdir())
        os.system(f"mount -o remount,rw '{disk}'")
        work = disk / ".out.tif.scenelift" / "store.zarr"
        command = start(folder, *arguments("log-disk/out.tif"), SLOW="0", SCENELIFT_PAUSE_AT="after-journal:5")
        wait_until_paused(command)
        os.system(f"mount --bind '{work}' '{work}' && mount -o remount,ro,bind '{work}'")
        resume(command)
        assert command.wait() == 4, command.output
        assert "Read-only file system" in command.output and not (disk / "out.tif").exists()
        os.system(f"umount '{work}'")
        assert '"resumed": 5' in call(folder, *arguments("log-disk/out.tif"), "--json", SLOW="0")
        _check(bench, disk)


def forbidden(bench: Bench, folder: Path) -> None:
    """EACCES: a folder nobody may write to, an input nobody may read, a store closed under a run."""
    bench.place(folder)
    shut = folder / "log-shut"
    shut.mkdir()
    output = arguments("log-shut/out.tif")
    shut.chmod(0o555)
    text = call(folder, *output, code=2, SLOW="0", PLAIN_USER="1")
    assert "cannot write in" in text and "Permission denied" in text and not list(shut.iterdir())
    shut.chmod(0o755)
    (folder / "in.tif").chmod(0)
    text = call(folder, *output, code=2, SLOW="0", PLAIN_USER="1")
    assert "in.tif" in text and "Permission denied" in text and not list(shut.iterdir())
    (folder / "in.tif").chmod(0o644)
    command = start(folder, *output, SLOW="0", PLAIN_USER="1", SCENELIFT_PAUSE_AT="after-journal:5")
    wait_until_paused(command)
    store = shut / ".out.tif.scenelift" / "store.zarr"
    closed = [store, *(p for p in store.rglob("*") if p.is_dir())]
    for path in closed:
        path.chmod(0o555)
    resume(command)
    assert command.wait() == 4, command.output
    assert "Permission denied" in command.output and not (shut / "out.tif").exists()
    for path in closed:
        path.chmod(0o755)
    assert '"resumed": 5' in call(folder, *output, "--json", SLOW="0")
    _check(bench, shut)


SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int broken(int fd, const char *call) {
    static int passes;
    char name[64], path[4096];
    const char *wanted = getenv("EIO_CALL"), *part = getenv("EIO_PATH");
    if (!wanted || !part || strcmp(wanted, call)) return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(name, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return strstr(path, part) && ++passes > 5;
}
ssize_t write(int fd, const void *data, size_t size) {
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    if (broken(fd, "write")) { errno = EIO; return -1; }
    return real(fd, data, size);
}
int fsync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    if (broken(fd, "fsync")) { errno = EIO; return -1; }
    return real(fd);
}
"""
"""Between a process and the kernel: the sixth and every later call on a file of that name fails, as a bad disk does."""


def compiled_shim(folder: Path) -> Path:
    """Compile the shim, if there is a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise UnableError("simulating a broken disk needs a C compiler")
    (folder / "shim.c").write_text(SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "shim.so", folder / "shim.c", "-ldl"], check=True)
    return folder / "shim.so"


def broken_disk(bench: Bench, folder: Path, shim: Path, call_name: str, part: str) -> None:
    """EIO from a system call: a clear failure (exit 4), nothing published; on a healthy disk the command goes on."""
    bench.place(folder)
    env = {"LD_PRELOAD": str(shim), "EIO_CALL": call_name, "EIO_PATH": part, "SLOW": "0", "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "scenelift", *map(str, arguments("out.tif"))]
    done = subprocess.run(command, cwd=folder, env=os.environ | env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 4, done.stderr
    assert "Input/output error" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (folder / "out.tif").exists()
    before = committed(folder, "out.tif")
    assert before >= 1
    assert f'"resumed": {before}' in call(folder, *arguments("out.tif"), "--json", SLOW="0")
    bench.check(folder, "out.tif")


def _check(bench: Bench, folder: Path) -> None:
    assert same(folder / "out.tif", bench.reference("out.tif"))
    assert sorted(p.name for p in folder.iterdir()) == [".out.tif.scenelift", "out.tif"]
    assert [p.name for p in (folder / ".out.tif.scenelift").iterdir()] == ["journal.jsonl"]


def _place(bench: Bench, folder: Path) -> None:
    for given in ("in.tif", "slow_model.py"):
        shutil.copy(bench.folder / given, folder / given)


def wait_until_paused(command: Command) -> None:
    """Wait until a run has stopped itself at the point it was told to."""
    process = psutil.Process(command.pid)
    paused = wait_until(lambda: process.status() == psutil.STATUS_STOPPED, command)
    assert paused, command.output


def resume(command: Command) -> None:
    """Let a paused run go on."""
    psutil.Process(command.pid).resume()


def _line_fits(path: Path) -> bool:
    """Whether one more record surely fits into the journal's last page; their lengths differ by some digits."""
    content = path.read_bytes()
    record = len(content.splitlines()[-1]) + 8
    return -len(content) % 4096 >= record or not committed(path.parent.parent, path.parent.name[1:-10])


def _take_all_room(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
