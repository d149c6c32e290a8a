"""What is left of a store after a crash or damage: keep the blocks whose bytes are those recorded, and nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from scenelift.pipeline.errors import SinkError
from scenelift.pipeline.files import file_checksum
from scenelift.pipeline.jobs.journal import Commit
from scenelift.pipeline.jobs.plan import Plan
from scenelift.pipeline.outputs.sinks import ZarrSink


def damaged_files(store: Path, files: dict[str, str | None]) -> list[str]:
    """Return the files whose bytes are not those recorded: flipped, cut, deleted, or there against the record."""
    return [name for name, wanted in files.items() if file_checksum(store / name) != wanted]


def intact(store: Path, commits: Iterable[Commit]) -> Iterator[Commit]:
    """Yield the recorded blocks whose files in `store` have the recorded bytes."""
    return (commit for commit in commits if not damaged_files(store, commit.files))


def of_layout(plan: Plan, store: ZarrSink, commits: Iterable[Commit]) -> list[Commit]:
    """Return the blocks that wrote the files that they would write now: with earlier versions they were others."""

    def expected(commit: Commit) -> set[str]:
        return set(store.files(plan.blocks[commit.block].scaled(plan.job.scale)))

    return [commit for commit in commits if not commit.files or commit.files.keys() == expected(commit)]


def carry_over(old: Path, new: Path, commits: Iterable[Commit]) -> list[Commit]:
    """Link the intact blocks of one store into another of the same job; return them.

    Whatever else lies in the old store (half-written chunks, unrecorded blocks, pyramid levels) stays there.
    """
    kept = []
    try:
        for commit in intact(old, commits):
            for name, checksum in commit.files.items():
                if checksum is not None:
                    link(old / name, new / name)
            kept.append(commit)
    except OSError as error:
        raise SinkError.of(new, error) from error
    return kept


def link(old: Path, new: Path) -> None:
    """Give a file a second name; where the file system has no hard links, copy it."""
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(old, new)
    except FileExistsError:
        return
    except OSError:
        shutil.copyfile(old, new)
