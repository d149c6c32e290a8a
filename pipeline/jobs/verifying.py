"""`scenelift verify`: is an output still what was published, byte by byte; and if not, restore what is damaged."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from scenelift.pipeline.addresses import work_folder
from scenelift.pipeline.cluster import Cluster
from scenelift.pipeline.errors import ResumableError, SceneliftError, SinkError, UsageError
from scenelift.pipeline.jobs.blocks import process_block
from scenelift.pipeline.jobs.inspection import damaged_blocks, problems
from scenelift.pipeline.jobs.journal import SPARE, Commit, History, Journal, differences, read_journal
from scenelift.pipeline.jobs.locks import Lock
from scenelift.pipeline.jobs.plan import Plan
from scenelift.pipeline.jobs.publishing import damage, publish, published_intact, restore_replaced, sweep
from scenelift.pipeline.jobs.salvage import carry_over, of_layout
from scenelift.pipeline.outputs.formats import format_of
from scenelift.pipeline.outputs.sinks import Blocks, ZarrSink


@dataclass(frozen=True)
class Verdict:
    """What was found, and what was done about it."""

    output: str
    files: int
    """Files compared with the journal."""
    blocks: int
    """Blocks recorded."""
    damaged_files: list[str]
    damaged_blocks: list[int]
    problems: list[str]
    """Wrong structure or place on Earth."""
    holes: list[int]
    """Blocks published without data since they failed."""
    repaired: bool = False
    replacing: bool = False
    """Whether a job that is to replace this output was begun and is not finished."""

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong (any more)."""
        return self.repaired or not (self.damaged_files or self.problems)

    def lines(self) -> list[str]:
        """Return what a person wants to read."""
        found = [f"damaged: {name}" for name in self.damaged_files] + [f"wrong: {text}" for text in self.problems]
        if self.damaged_blocks:
            found.append(f"damaged blocks: {', '.join(map(str, self.damaged_blocks))}")
        if self.holes:
            found.append(f"blocks without data: {', '.join(map(str, self.holes))}")
        if self.replacing:
            found.append(f"its replacement is not finished: `scenelift resume {self.output}` goes on with it")
        state = "repaired" if self.repaired else "intact" if self.intact else "DAMAGED"
        checked = f"{self.files} file{'s' * (self.files != 1)}, {self.blocks} block{'s' * (self.blocks != 1)} checked"
        if not self.intact:
            found.append(f"`scenelift verify {self.output} --repair` computes again what is damaged")
        return [*found, f"{self.output}: {state} ({checked})"]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"intact": self.intact}


def verify(path: Path) -> Verdict:
    """Check an output against its journal; writes nothing.

    Raises
    ------
    UsageError
        If the output has no journal.
    ResumableError
        If the job that makes it is not finished.
    """
    before = _before(path)
    return replace(_inspect(path, before), replacing=True) if before else _inspect(path, finished(path))


def _before(path: Path) -> History | None:
    """Return the journal that an output had before a job was begun that is to replace it, as long as it has not."""
    spare, now = read_journal(work_folder(path), SPARE), read_journal(work_folder(path))
    if spare is None or not spare.published or not path.exists():
        return None
    if now is None:
        return spare
    overwriting = now.command.get("settings", {}).get("overwrite", False)
    if published_intact(path, now) is not None or (now.published and not overwriting):  # its own, to be repaired
        return None
    return spare


def repair(plan: Plan, history: History, verdict: Verdict) -> Verdict:
    """Compute damaged blocks again, rebuild what is derived from them, and put the result in place in one step.

    Parameters
    ----------
    plan : Plan
        Of the command that made the output.
    history : History
        Its journal.
    verdict : Verdict
        What is damaged.

    Raises
    ------
    UsageError
        If input or models have changed.
    SinkError
        If a block comes out differently than it did, or the output is damaged all the same.
    """
    path = plan.path
    _rebuild(plan, history, verdict)
    after = verify(path)
    if not after.intact:
        raise SinkError(f"{path} is still damaged after repair: {', '.join(after.damaged_files + after.problems)}")
    return replace(verdict, repaired=True, holes=after.holes)


def finished(path: Path) -> History:
    """Return the journal of a finished output; raises as :func:`verify` does."""
    history = read_journal(work_folder(path))
    if history is None:
        raise UsageError(
            f"{path} has no journal ({work_folder(path)}): it was not made by `scenelift enhance`, or moved"
        )
    if not history.published or not (history.done or path.exists()):
        raise ResumableError(f"{path} is not finished: go on with `scenelift resume {path}`")
    return history


def _inspect(path: Path, history: History) -> Verdict:
    # where neither lies there intact, it is the one that is known to have done so that was damaged
    intact = published_intact(path, history)
    known = intact or history.published[-1]
    damaged = [] if intact else damage(path, known.sums) if path.exists() else [str(path)]
    found = problems(path, history.fingerprint["output"]) if path.exists() else ["missing"]
    # those that were computed since are not there yet
    blocks = (damaged_blocks(path, history) if damaged else set()) - known.holes.keys()
    shown = [name or path.name for name in damaged]
    return Verdict(str(path), len(known.sums), len(history.commits), shown, sorted(blocks), found, sorted(known.holes))


def _rebuild(plan: Plan, history: History, verdict: Verdict) -> None:
    """Build the output again from its intact blocks and the recomputed ones, and put it in place."""
    path = plan.path
    if found := differences(history.fingerprint, plan.fingerprint):
        raise UsageError(f"{path} cannot be restored as it was: {'; '.join(found)}")
    with Lock(plan.work) as lock, closing(Journal.reopen(plan.work)) as journal:
        restore_replaced(path, plan.work)
        sweep(plan.work)
        if not history.done and published_intact(path, history) is history.published[0]:
            journal.finish()  # or the next publication would take it for one that never came to be
        blocks = format_of(path).blocks
        store = ZarrSink.create(plan.job.store, plan.job.output, shards=plan.shards, blocks=blocks)
        wanting = {*verdict.damaged_blocks, *verdict.holes}
        healthy = [c for n, c in history.commits.items() if n not in wanting]
        if blocks is Blocks.FINAL:
            kept = carry_over(path, plan.job.store, of_layout(plan, store, healthy))
        else:
            kept = _copy_pixels(plan, history, store, healthy)
        commits = {c.block: c for c in kept}
        commits |= _recompute(plan, history, [n for n in range(len(plan.blocks)) if n not in commits], journal)
        store = ZarrSink.open(plan.job.store, plan.job.output, plan.cluster.own_threads)
        publish(plan, store, journal, lock, commits.values(), holes={})
        sweep(plan.work)


def _copy_pixels(plan: Plan, history: History, store: ZarrSink, healthy: Iterable[Commit]) -> list[Commit]:
    """Move blocks that read right from a damaged output into a store."""
    if not plan.path.exists():
        return []
    try:
        opened = format_of(plan.path).open(plan.path, history.fingerprint["output"])
    except SceneliftError:
        return []
    for commit in (commits := list(healthy)):
        if commit.files:
            window = plan.blocks[commit.block].scaled(plan.job.scale)
            store.write(window, *opened.read(window))
    return commits


def _recompute(plan: Plan, history: History, blocks: list[int], journal: Journal) -> dict[int, Commit]:
    done = {}
    task = functools.partial(process_block, plan.job)
    for record in Cluster(None).run(task, blocks):
        commit = record.commit()
        before = history.commits.get(commit.block)
        if before is not None and before.pixels != commit.pixels:
            raise SinkError(
                f"block {commit.block} comes out differently than it did: another machine or library? "
                "Make the output again with --overwrite"
            )
        journal.commit(commit)
        done[commit.block] = commit
    return done
