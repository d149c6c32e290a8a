"""One scene of an archive, from its claim to its record; whatever is wrong with it costs this scene alone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from scenelift.pipeline.addresses import without_secrets
from scenelift.pipeline.cluster import Cluster, ClusterSettings
from scenelift.pipeline.errors import HeldError, SceneError
from scenelift.pipeline.files import file_checksum, write_durably
from scenelift.pipeline.jobs.checks import no_image
from scenelift.pipeline.jobs.journal import differences, read_journal
from scenelift.pipeline.jobs.locks import Lock
from scenelift.pipeline.jobs.plan import Plan
from scenelift.pipeline.jobs.running import Listener, Progress, carry_out
from scenelift.pipeline.jobs.summary import EnhanceSummary
from scenelift.pipeline.outputs.classes import classes_path
from scenelift.pipeline.outputs.outputs import pictures
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.places import footprint_of
from scenelift.pipeline.scenes.quicklooks import preview
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.workflows.archive import record as records
from scenelift.workflows.archive.entries import Entry
from scenelift.workflows.archive.filters import choose_bands, facts_of
from scenelift.workflows.archive.record import (
    DONE,
    FAILED,
    SKIPPED,
    SceneRecord,
    is_settled,
    read_record,
)
from scenelift.workflows.archive.settings import ArchiveSettings, Folder
from scenelift.workflows.archive.stac import COLLECTION, classes_asset, item_of, write_item
from scenelift.workflows.archive.survey import source_of
from scenelift.workflows.archive.transfer import at_hand, upload
from scenelift.workflows.choosing.prepared import prepare
from scenelift.workflows.enhance import expecting, refuse_foreign
from scenelift.workflows.evidence.score import plain, score
from scenelift.workflows.planning import plan_prepared

RESUMABLE = 75


@dataclass(frozen=True)
class Outcome:
    """What a run knows of a scene when it has turned to the next one."""

    entry: Entry
    record: SceneRecord | None
    """None: another process has claimed the scene."""
    before: bool = False
    """Whether it was done already, and nothing was written."""


@dataclass
class _Clock:
    """Seconds of each step of a scene."""

    started: float = field(default_factory=time.perf_counter)
    steps: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.steps[name] = round(time.perf_counter() - begun, 3)


@dataclass(frozen=True)
class SceneJob:
    """Everything that the scenes of one run share."""

    folder: Folder
    settings: ArchiveSettings
    cluster: ClusterSettings
    place: Cluster
    key: str
    started: str
    """When this run began: what failed since then in another process is not tried again here."""
    stopping: threading.Event

    def __call__(self, entry: Entry, order: int, progress: Progress) -> Outcome:
        """Do a scene unless it is done, or claimed by another process.

        Raises
        ------
        SceneliftError
            Of exit code 75 only: the whole run stops and can go on.
        """
        if (found := self._known(entry)) is not None:
            return Outcome(entry, found, before=True)
        try:
            with Lock(self.folder.records, f"{entry.id}.claim", "working on this scene"):
                if (found := self._known(entry)) is not None:  # done while this process waited for the claim
                    return Outcome(entry, found, before=True)
                return Outcome(entry, self._do(entry, order, progress))
        except HeldError:
            return Outcome(entry, None)

    def _known(self, entry: Entry) -> SceneRecord | None:
        found = read_record(self.folder.records, entry.id)
        if is_settled(found, self.key, entry.paths, self.folder.root, self.settings.publish):
            return found
        elsewhere = self.settings.share and found is not None and found.status != DONE and found.key == self.key
        return found if elsewhere and found and (found.finished or "") >= self.started else None

    def _do(self, entry: Entry, order: int, progress: Progress) -> SceneRecord:
        clock = _Clock()
        written = self.folder.records / f"{entry.id}.json", self.folder.item(entry.id), self.folder.preview(entry.id)
        for path in written:  # the claim is held: what is unfinished there is of a killed process
            records.sweep_unfinished(path)
        base = SceneRecord(
            entry.id, FAILED, inputs=[without_secrets(p) for p in entry.paths], key=self.key, worker=_me()
        )
        try:
            made = self._attempt(entry, order, progress, clock, base)
        except HeldError:
            raise
        except Exception as error:
            if self.stopping.is_set() or getattr(error, "exit_code", None) == RESUMABLE:
                raise
            made = replace(base, reason=_reason(error))
            self._tidy(entry)
        seconds = round(time.perf_counter() - clock.started, 3)
        made = replace(made, seconds=seconds, seconds_in=clock.steps, finished=records.now())
        records.write_record(self.folder.records, made)
        return made

    def _attempt(self, entry: Entry, order: int, progress: Progress, clock: _Clock, base: SceneRecord) -> SceneRecord:
        if entry.problem:
            raise SceneError(entry.problem)
        base = replace(base, states={"inputs": records.state_of(entry.paths)})
        with at_hand(entry.paths, self.folder.records.parent / "fetched" / entry.id) as paths:
            return self._perform(entry, source_of(entry, paths, self.settings), order, progress, clock, base)

    def _perform(
        self,
        entry: Entry,
        source: SceneSource,
        order: int,
        progress: Progress,
        clock: _Clock,
        base: SceneRecord,
    ) -> SceneRecord:
        with clock.step("open"):
            scene = open_scene(source)
            facts = facts_of(entry, scene)
        date = facts.date.isoformat() if facts.date else None
        base = replace(base, date=date, cloud_cover=facts.cloud_cover, footprint=footprint_of(scene.grid))
        if reason := self.settings.filters.reason(facts) or no_image(scene):
            return replace(base, status=SKIPPED, reason=reason)
        if self.settings.reading.bands:
            source = replace(source, bands=choose_bands(scene, self.settings.reading.bands, entry.bands))
        with clock.step("plan"):
            plan = self._plan(entry, source)
        with clock.step("enhance"):
            summary = carry_out(plan, Listener(progress), self.place, -order)
        clock.steps["blocks"] = summary.blocks_seconds
        with clock.step("scores"):
            found = self._scores(source, plan)
        with clock.step("describe"):
            return self._finish(entry, plan, summary, found, base)

    def _plan(self, entry: Entry, source: SceneSource) -> Plan:
        path = self.folder.output(entry.id, self.settings.format)
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_foreign(path, self.settings.enhance)
        settings = self.settings.enhance
        prepared = prepare(source, self.settings.models, settings, self.cluster, path)
        plan = expecting(plan_prepared(prepared, path, settings, self.cluster), prepared, settings, None)
        return replace(plan, overwrite=self._anew(plan))

    def _anew(self, plan: Plan) -> bool:
        """Whether to start over where a journal knows another job of that name, or a finished one."""
        history = read_journal(plan.work)
        if history and history.done and not differences(history.fingerprint, plan.fingerprint):
            return False  # asked to replace what was made otherwise: this was made just so
        if history and not history.published and history.fingerprint["input"] != plan.fingerprint["input"]:
            return True  # a bad file was replaced by a good one: the blocks of one that is no more finish nothing
        return self.settings.enhance.overwrite

    def _scores(self, source: SceneSource, plan: Plan) -> dict[str, Any]:
        if self.settings.scores == "none":
            return {}
        after = SceneSource((str(plan.path),), tuple(i + 1 for i in pictures(plan.job.output.bands)))
        found = {k: plain(v) for k, v in score(after, place=self.place).values.items()}
        if self.settings.scores == "full":
            close = score(source, after, place=self.place).values
            found |= {f"input_{k}": plain(v) for k, v in close.items()}
        return found

    def _finish(
        self,
        entry: Entry,
        plan: Plan,
        summary: EnhanceSummary,
        scores: dict[str, Any],
        base: SceneRecord,
    ) -> SceneRecord:
        after = open_scene(SceneSource((str(plan.path),)))
        write_durably(self.folder.preview(entry.id), preview(plan.path, after))
        digest, size = _content(plan)
        made = replace(
            base,
            status=DONE,
            output=plan.path.relative_to(self.folder.root).as_posix(),
            sha256=digest,
            bytes=size,
            width=summary.width,
            height=summary.height,
            bands=summary.bands,
            scale=summary.scale,
            blocks=summary.blocks,
            notes=summary.notes,
            expected=summary.expected and {k: v for k, v in summary.expected.items() if k != "seconds"},
            holes=summary.holes,
            scores=scores,
        )
        copies = [classes_path(plan.path, layer) for layer in plan.classes]
        item = item_of(entry, replace(made, finished=records.now()), after, self.settings.models, plan.path.parent)
        for copy, layer in zip(copies, plan.classes, strict=True):
            item.add_asset(layer.name, classes_asset(copy))
        item.collection_id = COLLECTION
        write_item(item, self.folder.item(entry.id))
        if self.settings.publish:
            last = [plan.path, *copies, self.folder.preview(entry.id), self.folder.item(entry.id)]
            upload(last, self.folder.root, self.settings.publish)
            made = replace(made, published=without_secrets(self.settings.publish))
        return replace(made, states=made.states | {"output": records.output_state(plan.path)})

    def _tidy(self, entry: Entry) -> None:
        """Remove the folder of a scene of which nothing was kept."""
        with contextlib.suppress(OSError):
            self.folder.scene(entry.id).rmdir()


def _content(plan: Plan) -> tuple[str, int]:
    """Return the checksum and size of a finished output, from its journal where that knows them."""
    history = read_journal(plan.work)
    sums = (history.publication if history else None) or {}
    if plan.path.is_dir():
        digest = hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()
        return digest, sum((plan.path / name).stat().st_size for name in sums)
    return sums.get("") or str(file_checksum(plan.path)), plan.path.stat().st_size


def _reason(error: Exception) -> str:
    text = without_secrets(" ".join(str(error).split()))
    known = isinstance(getattr(error, "exit_code", None), int)
    return text if known else f"{type(error).__name__}: {text}"[:400]


def _me() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
