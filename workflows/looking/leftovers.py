"""`scenelift clean`: what interrupted jobs left in a folder, what resuming them would save, and removing it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scenelift.pipeline.addresses import output_of_folder
from scenelift.pipeline.errors import SceneliftError, UsageError
from scenelift.pipeline.jobs.journal import NAME as JOURNAL
from scenelift.pipeline.jobs.journal import SPARE, History, read_journal, restore_journal
from scenelift.pipeline.jobs.locks import NAME as LOCK
from scenelift.pipeline.jobs.locks import Lock, holder_of, is_alive
from scenelift.pipeline.jobs.publishing import REPLACED, published_intact, restore_replaced, sweep
from scenelift.pipeline.tiles import TileGrid


@dataclass(frozen=True)
class Leftover:
    """What a job left that was interrupted."""

    output: str
    """What it was to make."""
    folder: str
    """Where the leftovers lie."""
    bytes: int
    blocks: int
    """Blocks of the job; 0: it is unknown what it was."""
    done: int
    """Blocks that resuming it would not do again."""
    seconds: float
    """Work in those blocks, of all processes together."""
    running: bool
    """Whether a living run holds it: it is never touched."""
    keeps: bool
    """Whether the output itself is there, finished, and its journal stays."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def describe(self) -> str:
        """Return in words what resuming would save."""
        if self.running:
            return "running"
        if self.keeps:
            return "finished: only what it needs no more"
        if not self.done:
            return "nothing to resume"
        return f"{self.done} of {self.blocks} blocks, {self.seconds:.0f} s of work"


def find_leftovers(folder: Path) -> list[Leftover]:
    """Return what interrupted jobs left in a folder and those below it; writes nothing.

    The folder of a finished job, which holds its journal alone, is none.

    Raises
    ------
    UsageError
        If there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}; name one that exists")
    found = (_leftover(work) for work in _work_folders(folder))
    return [one for one in found if one is not None]


def remove_leftovers(found: list[Leftover]) -> list[Leftover]:
    """Remove leftovers, each under its job's lock; return those that are gone.

    What runs meanwhile is left alone. A finished output keeps its journal; one that a job was to replace gets its own
    back.
    """
    gone = []
    for one in found:
        work, path = Path(one.folder), Path(one.output)
        if one.running:
            continue
        with contextlib.suppress(SceneliftError, FileNotFoundError), Lock(work):
            again = _leftover(work, ours=True)
            if again is None:
                continue
            restore_replaced(path, work)
            if path.exists() and (again.keeps or restore_journal(work)):
                sweep(work)
            else:
                shutil.rmtree(work, ignore_errors=True)
            gone.append(again)
    return gone


def _work_folders(folder: Path) -> Iterator[Path]:
    """Yield the folders of jobs below a folder, sorted; links are not followed."""
    for place, names, _ in os.walk(folder):
        names.sort()
        for work in [Path(place, name) for name in names if output_of_folder(Path(name))]:
            names.remove(work.name)  # what lies within is a job's own
            if not work.is_symlink() and _is_ours(work):
                yield work


def _is_ours(work: Path) -> bool:
    """Whether a folder of that name was made by a job: it holds a journal, a lock, or nothing yet."""
    held = {entry.name for entry in work.iterdir()}
    return not held or bool(held & {JOURNAL, SPARE, LOCK, REPLACED})


def _leftover(work: Path, ours: bool = False) -> Leftover | None:
    """Return what lies in a job's folder; None if nothing but the journal of a finished output does.

    `ours`: whether the lock there is this process's own.
    """
    path = output_of_folder(work)
    if path is None:
        return None
    holder = None if ours else holder_of(work / LOCK)
    running = holder is not None and is_alive(holder, work / LOCK)
    history = read_journal(work)
    keeps = history is not None and path.exists() and (history.done or published_intact(path, history) is not None)
    others = [entry for entry in work.iterdir() if entry.name not in (JOURNAL, LOCK)]
    if keeps and not others and not running:
        return None
    size = sum(map(_size, others if keeps else list(work.iterdir())))
    commits = [] if history is None or history.done else list(history.commits.values())
    seconds = sum(float(commit.facts.get(f"{step}_s", 0)) for commit in commits for step in ("read", "model", "write"))
    return Leftover(str(path), str(work), size, _blocks(history), len(commits), round(seconds, 1), running, keeps)


def _size(entry: Path) -> int:
    """Return the bytes of a file or of all files of a folder."""
    files = [entry] if not entry.is_dir() or entry.is_symlink() else [p for p in entry.rglob("*") if p.is_file()]
    return sum(file.lstat().st_size for file in files)


def _blocks(history: History | None) -> int:
    if history is None:
        return 0
    recorded = history.fingerprint["output"]
    return len(TileGrid(tuple(recorded["shape"][1:]), tuple(recorded["block"])))
