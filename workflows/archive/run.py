"""`scenelift archive`: every scene of an archive, on one cluster, to a table of what became of each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scenelift.pipeline.cluster import Cluster, ClusterSettings, open_cluster
from scenelift.pipeline.jobs.blocks import BlockRecord
from scenelift.pipeline.jobs.locks import Lock
from scenelift.workflows.archive.crew import Crew
from scenelift.workflows.archive.entries import Entry
from scenelift.workflows.archive.job import Outcome, SceneJob
from scenelift.workflows.archive.record import (
    DONE,
    FAILED,
    SKIPPED,
    all_records,
    is_settled,
    now,
    read_record,
    write_tables,
)
from scenelift.workflows.archive.settings import ArchiveSettings, Folder, as_plain, refuse_other_settings
from scenelift.workflows.archive.transfer import upload

LAST_WAIT = 5.0
"""Seconds that a run which is told to stop waits for its scenes to let go of their locks."""


@dataclass(frozen=True)
class ArchiveSummary:
    """What this run did."""

    folder: str
    done: int
    before: int
    """Scenes that were done already."""
    skipped: int
    failed: int
    elsewhere: int
    """Scenes that other processes were still working on when this one had nothing left to take."""
    seconds: float
    megapixels: float
    """Output pixels made by this run (all bands count once), in millions."""
    failures: dict[str, str]
    """Reason by scene."""

    @property
    def exit_code(self) -> int:
        """0: nothing failed; 3: some scenes failed; 4: all that were tried failed."""
        if not self.failed:
            return 0
        return 3 if self.done + self.before + self.skipped + self.elsewhere else 4

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dict(vars(self))


@dataclass
class Told:
    """Whom to tell how a run goes; each is called in the thread that called :func:`archive`."""

    begins: Callable[[int], None] = lambda scenes: None
    """Told how many scenes there are."""
    block: Callable[[BlockRecord], None] = lambda record: None
    scene: Callable[[Outcome], None] = lambda outcome: None
    say: Callable[[str], None] = lambda line: None


@dataclass
class _Run:
    """One run: what it is to do, and what it has done so far."""

    folder: Folder
    settings: ArchiveSettings
    cluster: ClusterSettings
    told: Told
    key: str
    started: str = field(default_factory=now)
    clock: float = field(default_factory=time.perf_counter)
    stopping: threading.Event = field(default_factory=threading.Event)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    pixels: int = 0

    def take(self, outcome: Outcome) -> None:
        """Note what became of a scene; of one that another process holds, again when that is known."""
        self.outcomes[outcome.entry.id] = outcome
        if outcome.record is not None:
            self.told.scene(outcome)

    def block(self, record: BlockRecord) -> None:
        """Note a finished block."""
        self.pixels += record.pixels
        self.told.block(record)

    def held(self) -> list[Entry]:
        """Return the scenes that other processes hold."""
        return [o.entry for o in self.outcomes.values() if o.record is None]

    def summary(self) -> ArchiveSummary:
        """Return what was done."""
        known = [(o.record.status, o.before) for o in self.outcomes.values() if o.record is not None]
        failed = [o.record for o in self.outcomes.values() if o.record is not None and o.record.status == FAILED]
        return ArchiveSummary(
            folder=str(self.folder.root),
            done=known.count((DONE, False)),
            before=known.count((DONE, True)),
            skipped=sum(status == SKIPPED for status, _ in known),
            failed=len(failed),
            elsewhere=len(self.held()),
            seconds=round(time.perf_counter() - self.clock, 3),
            megapixels=round(self.pixels / 1e6, 3),
            failures={record.id: record.reason or "" for record in failed},
        )


def archive(
    entries: Sequence[Entry],
    output: Path,
    settings: ArchiveSettings,
    cluster: ClusterSettings | None = None,
    told: Told | None = None,
    place: Cluster | None = None,
) -> ArchiveSummary:
    """Do every scene that is not done yet; what is wrong with one costs that one.

    Parameters
    ----------
    entries : sequence of Entry
        As `find_scenes` returns them.
    output : Path
        The archive's folder; see `Folder` for what will lie there.
    settings : ArchiveSettings
        With `share`, other processes may do the same at the same time: each scene is claimed by one of them.
    cluster : ClusterSettings, optional
    told : Told, optional
    place : Cluster, optional
        One that is open already; `cluster` then only says how many threads a model may use.

    Raises
    ------
    HeldError
        Without `share`, if another run is at work on this archive.
    UsageError
        If the archive holds scenes made by other models, or with other settings that decide pixels.
    ModelError
        If there is no such model.
    ResumableError
        If the run stopped through no fault of its own; the same call goes on with it.
    """
    settings.check()
    folder = Folder(output.absolute())
    refuse_other_settings(folder.root, settings)
    folder.make()
    run = _Run(folder, settings, cluster or ClusterSettings(), told or Told(), settings.key())
    run.told.begins(len(entries))
    if settings.share:
        _do_all(run, entries, place)
    else:
        with Lock(folder.records.parent, what="writing this archive (add --share to work on it together)"):
            _do_all(run, entries, place)
    if not run.held():
        close(folder, settings)
    return run.summary()


def close(folder: Folder, settings: ArchiveSettings) -> None:
    """Write what describes the whole archive. Any process may do it, any number of times."""
    from scenelift.workflows.archive.catalogue import write_catalogue
    from scenelift.workflows.archive.page import write_page

    found = list(all_records(folder.records))
    write_tables(folder.root, found, as_plain(settings))
    write_catalogue(folder.root, found, settings.models)
    write_page(folder, found)
    if settings.publish:
        names = ("models", "run.json", "run.parquet", "index.html", "collection.json", "catalog.json")
        upload([path for name in names if (path := folder.root / name).exists()], folder.root, settings.publish)


def _do_all(run: _Run, entries: Sequence[Entry], place: Cluster | None) -> None:
    """Look through what is done, then do the rest on a cluster."""
    left = []
    for entry in entries:
        known = read_record(run.folder.records, entry.id)
        if is_settled(known, run.key, entry.paths, run.folder.root, run.settings.publish):
            run.take(Outcome(entry, known, before=True))
        else:
            left.append(entry)
    if not left:
        return
    if place is not None:
        _rounds(run, left, _crew(run, place))
        return
    crew: Crew | None = None
    try:
        with open_cluster(run.cluster) as opened:
            if opened.dashboard:
                run.told.say(f"dashboard: {opened.dashboard}")
            crew = _crew(run, opened)
            _rounds(run, left, crew)
    finally:
        if crew is not None:
            crew.join(LAST_WAIT)


def _crew(run: _Run, place: Cluster) -> Crew:
    job = SceneJob(run.folder, run.settings, run.cluster, place, run.key, run.started, run.stopping)
    return Crew(place, job, run.block, run.stopping)


def _rounds(run: _Run, left: list[Entry], crew: Crew) -> None:
    """Do scenes; then look again at those that others held, as long as some of them have become free."""
    while left:
        for outcome in crew.run(left):
            run.take(outcome)
        held = run.held()
        left = held if len(held) < len(left) else []
