"""Publishing an output: complete, read back, on the disk, renamed in one step, recorded before and after."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from scenelift.pipeline.errors import SinkError
from scenelift.pipeline.faults import commit_point
from scenelift.pipeline.files import file_checksum, sync, sync_tree, tree_files
from scenelift.pipeline.jobs.journal import NAME as JOURNAL
from scenelift.pipeline.jobs.journal import Commit, History, Journal, Publication
from scenelift.pipeline.jobs.locks import NAME as LOCK
from scenelift.pipeline.jobs.locks import Lock
from scenelift.pipeline.jobs.plan import Plan
from scenelift.pipeline.jobs.salvage import damaged_files
from scenelift.pipeline.ordered import in_order
from scenelift.pipeline.outputs.formats import format_of
from scenelift.pipeline.outputs.sinks import Blocks, ZarrSink

REPLACED = "replaced"
"""Name of an output that is being replaced until the new one is published, on systems that cannot swap."""


def publish(
    plan: Plan, store: ZarrSink, journal: Journal, lock: Lock, commits: Iterable[Commit], holes: Mapping[int, str]
) -> None:
    """Turn a store whose blocks are all done, but for `holes`, into the output of a plan.

    Where the job is not checked, the output is neither read back nor pushed to the disk: only to measure what that
    costs.

    Raises
    ------
    SinkError
        If the disk refuses, or what was written does not read back as it should; nothing is then published.
    """
    path, output, checked, kind = plan.path, plan.job.output, plan.job.checked, format_of(plan.path)
    commit_point("blocks-done")
    try:
        store.tidy()
        if checked:
            _all_there(store, commits)
        made = kind.make(store, output, plan.work / path.name, plan.shards)
        sums = _sums(made, store.threads) if checked else {}
        if checked and kind.blocks is Blocks.FINAL:
            _compare(sums, commits)
        if checked:
            sync_tree(made)
        commit_point("output-synced")
        lock.check()
        journal.publish(sums, holes)
        commit_point("publication-recorded")
        lock.check()  # what lies there under these names is this run's only as long as the lock is
        _move(made, path, plan.work)
        commit_point("renamed")
        sync(path.parent)
        journal.finish()
        commit_point("done-recorded")
    except OSError as error:
        raise SinkError.of(path, error) from error


def _all_there(store: ZarrSink, commits: Iterable[Commit]) -> None:
    """Check that no file of a block was deleted meanwhile: it would be taken for one without data."""
    for commit in commits:
        for name, wanted in commit.files.items():
            if wanted is not None and not (store.path / name).exists():
                raise SinkError(f"block {commit.block} is gone ({name}): give the same command again")


def _sums(made: Path, threads: int) -> dict[str, str]:
    """Return the checksum of each file of an output; a single file has no name of its own."""
    names = list(tree_files(made)) if made.is_dir() else [""]
    found = in_order(lambda name: str(file_checksum(made / name)), names, threads)
    return dict(zip(names, found, strict=True))


def _compare(sums: dict[str, str], commits: Iterable[Commit]) -> None:
    """Check that the blocks read back as their workers left them."""
    for commit in commits:
        for name, wanted in commit.files.items():
            if sums.get(name) != wanted:
                raise SinkError(f"block {commit.block} reads back wrong ({name}): give the same command again")


def _move(made: Path, path: Path, work: Path) -> None:
    """Give a finished file or folder its name; what bore it before goes away only then."""
    if not made.is_dir() or not path.exists():
        made.replace(path)
    elif not _swap(made, path):
        path.rename(work / REPLACED)
        commit_point("old-output-moved")
        made.rename(path)


def _swap(one: Path, other: Path) -> bool:
    """Let two names change places in one step; False where the system cannot."""
    at_working_folder, exchange = -100, 2  # <fcntl.h>, <linux/fs.h>
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    names = os.fsencode(one), os.fsencode(other)
    return bool(function(at_working_folder, names[0], at_working_folder, names[1], exchange) == 0)


def restore_replaced(path: Path, work: Path) -> None:
    """Give an output its name back that a kill caught between two renames."""
    if (work / REPLACED).exists() and not path.exists():
        (work / REPLACED).rename(path)


def sweep(work: Path, keep: Iterable[str] = ()) -> None:
    """Delete everything in a work folder but the journal, the lock and what is to be kept."""
    for entry in work.iterdir():
        if entry.name not in (JOURNAL, LOCK, *keep):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    entry.unlink()


def damage(path: Path, sums: dict[str, str]) -> list[str]:
    """Return the files of an output that differ from what was published, or that were not published."""
    changed = damaged_files(path, dict(sums))
    unknown = [name for name in tree_files(path) if name not in sums] if path.is_dir() else []
    return changed + unknown


def published_intact(path: Path, history: History) -> Publication | None:
    """Return the recorded publication whose files at `path` are intact, or None."""
    return next((known for known in history.published if not damage(path, known.sums)), None)
