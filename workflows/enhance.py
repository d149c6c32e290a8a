"""`scenelift enhance`: one scene in, one better scene out; killed at any moment, the same command goes on with it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from scenelift.pipeline.cluster import Cluster, ClusterSettings, Failed, open_cluster
from scenelift.pipeline.enhance import Enhancer
from scenelift.pipeline.errors import InputChangedError, PartialError, SceneError, SceneliftError, SinkError, UsageError
from scenelift.pipeline.files import sync
from scenelift.pipeline.jobs.journal import NAME as JOURNAL
from scenelift.pipeline.jobs.journal import Journal, read_journal
from scenelift.pipeline.jobs.locks import Lock
from scenelift.pipeline.jobs.publishing import borne, damage, publish, sweep
from scenelift.pipeline.jobs.stopping import watched
from scenelift.pipeline.jobs.trial import try_output
from scenelift.pipeline.outputs.categories import side_car
from scenelift.pipeline.outputs.sinks import ZarrSink
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.workflows.jobs.blocks import BlockRecord, open_job, process_block
from scenelift.workflows.jobs.resuming import (
    check_fingerprint,
    check_input,
    damaged,
    give_up,
    open_work,
    spare,
    to_resume,
)
from scenelift.workflows.jobs.summary import EnhanceSummary, Run, summarize
from scenelift.workflows.planning import Plan, check_output, make_plan, work_folder
from scenelift.workflows.settings import BLOCK, EnhanceSettings

Progress = Callable[[int, BlockRecord | None], None]
"""Called with the number of blocks and None at the start, then with each record."""
Announce = Callable[[str], None]


@dataclass(frozen=True)
class _Shared:
    """Where a job runs: on a cluster of its own, or on one that is open for others too."""

    place: Cluster | None
    priority: int

    @contextmanager
    def open(self, plan: Plan, announce: Announce | None) -> Iterator[Cluster]:
        if self.place is not None:
            yield self.place
            return
        with open_cluster(plan.cluster) as place:
            if place.dashboard and announce:
                announce(f"dashboard: {place.dashboard}")
            place.prepare(functools.partial(open_job, plan.job))
            yield place


def enhance(
    source: SceneSource | str | Path,
    output: str | Path,
    models: str | Enhancer | Sequence[str | Enhancer] = "sr-x2",
    settings: EnhanceSettings | None = None,
    cluster: ClusterSettings | None = None,
    progress: Progress | None = None,
    announce: Announce | None = None,
) -> EnhanceSummary:
    """Enhance a scene, or go on with an enhancement that was interrupted.

    Parameters
    ----------
    source : SceneSource, str or Path
        The scene.
    output : str or Path
        ``*.tif`` for a Cloud-Optimized GeoTIFF, ``*.zarr`` for a Zarr group.
    models : str, Enhancer or sequence of them
        Names as `scenelift.models.catalog.find` takes them, or enhancers; run one after the other.
    settings : EnhanceSettings, optional
    cluster : ClusterSettings, optional
    progress : callable, optional
    announce : callable, optional
        Given lines worth telling a person (the dashboard's address).

    Returns
    -------
    EnhanceSummary

    Raises
    ------
    UsageError
        For whatever a changed argument mends: unknown model, wrong band count, output exists and is something else.
    SceneError, SinkError, ModelError
        If the input cannot be read, the output not written, or a model not used.
    PartialError
        If some blocks failed for good; the others are kept.
    ResumableError
        If the job stopped through no fault of its own; the same call goes on with it.
    """
    settings, cluster = settings or EnhanceSettings(), cluster or ClusterSettings()
    if not isinstance(source, SceneSource):
        source = SceneSource((str(source),))
    path = check_output(Path(output), source)
    refuse_foreign(path, settings)
    started = time.perf_counter()
    return carry_out(make_plan(source, path, models, settings, cluster), started, progress, announce)


def refuse_foreign(path: Path, settings: EnhanceSettings) -> None:
    """Refuse to replace an output that no journal knows, unless asked to."""
    if path.exists() and not settings.overwrite and read_journal(work_folder(path)) is None:
        raise UsageError(f"output {path} exists; choose another name or add --overwrite")


def carry_out(
    plan: Plan,
    started: float,
    progress: Progress | None,
    announce: Announce | None,
    place: Cluster | None = None,
    priority: int = 0,
) -> EnhanceSummary:
    """Do what a plan says and an earlier run has not done.

    With `place`, on a cluster that is open already and has other scenes too: those of higher `priority` come first.
    """
    history = read_journal(plan.work)
    if history and history.done and plan.path.exists() and not plan.settings.overwrite:
        check_fingerprint(plan, history)
        if found := damage(plan.path, history.published[0].sums):
            raise damaged(plan.path, found[0])
        if not history.published[0].holes:
            if {entry.name for entry in plan.work.iterdir()} != {JOURNAL}:
                with Lock(plan.work):  # killed while cleaning up
                    sweep(plan.work)
            if announce:
                announce(f"{plan.path} is finished and intact: nothing to do")
            _name_classes(plan, anew=False)
            return summarize(plan, Run(commits=history.commits, resumed=len(plan.blocks)), started)
    try:
        plan.work.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write in {plan.path.parent}: {error.strerror}") from None
    with Lock(plan.work) as lock:
        run = _go_on(plan, lock, _Shared(place, priority), progress, announce)
        sweep(plan.work)
    _name_classes(plan, anew=True)
    return summarize(plan, run, started)


def _name_classes(plan: Plan, anew: bool) -> None:
    """Put the names of a class map's values beside a GeoTIFF, which has no place for them."""
    categories, path = plan.job.output.categories, plan.path.with_name(f"{plan.path.name}.aux.xml")
    if categories and plan.path.suffix.lower() != ".zarr" and (anew or not path.exists()):
        new = plan.work / path.name  # a kill leaves it where the next run sweeps
        try:
            new.write_text(side_car(categories), encoding="utf-8")
            sync(new)
            new.replace(path)
        except OSError as error:
            raise SinkError.of(path, error) from error


def _go_on(plan: Plan, lock: Lock, shared: _Shared, progress: Progress | None, announce: Announce | None) -> Run:
    """Bring the job to its end from wherever it is; where it fails with nothing done, leave things as they were."""
    found = read_journal(plan.work)
    history, run = to_resume(plan, found), Run()
    if history and history.published and not history.done and borne(plan.path, history) is history.published[0]:
        with closing(Journal.reopen(plan.work)) as journal:  # killed after giving the name, before writing that down
            journal.finish()
        return Run(commits=history.commits, holes=history.published[0].holes, resumed=len(plan.blocks))
    spare(plan, found)
    try:
        journal, store = open_work(plan, history, run)
        with closing(journal):
            if not run.commits:
                try_output(plan.job.output, plan.work, zarr=plan.path.suffix.lower() == ".zarr")
            _work(plan, store, journal, lock, run, shared, progress, announce)
    except BaseException as error:
        nothing_done = not run.commits and not (history and history.commits)
        if isinstance(error, InputChangedError) or nothing_done:
            give_up(plan)
        raise
    return run


def _work(
    plan: Plan,
    store: ZarrSink,
    journal: Journal,
    lock: Lock,
    run: Run,
    shared: _Shared,
    progress: Progress | None,
    announce: Announce | None,
) -> None:
    """Do the blocks that are left, then publish."""
    todo = [index for index in range(len(plan.blocks)) if index not in run.commits]
    if todo:
        with shared.open(plan, announce) as place:
            if progress:
                progress(len(todo), None)
            clock = time.perf_counter()
            try:
                with watched():
                    _do_blocks(plan, place, shared.priority, todo, journal, run, progress)
            except SceneError:
                check_input(plan)  # a file that is being replaced may not read
                raise
            run.blocks_seconds = time.perf_counter() - clock
        check_input(plan)
    for index, reason in sorted(run.holes.items()):
        journal.hole(index, reason)
    if run.holes and not plan.settings.allow_holes:
        index, reason = min(run.holes.items())
        if len(run.holes) == len(plan.blocks):
            raise SceneliftError(f"every block failed (block {index}: {reason})")
        raise PartialError(
            f"{len(run.holes)} of {len(plan.blocks)} blocks failed and were set aside (block {index}: {reason}); the "
            f"others are kept: the same command tries again, with --allow-holes it publishes no data there"
        )
    output, how = plan.job.output, {"shards": plan.settings.shards, "checked": plan.job.checked}
    publish(store, output, plan.path, journal, lock, run.commits.values(), holes=run.holes, **how)


def _do_blocks(
    plan: Plan,
    place: Cluster,
    priority: int,
    todo: list[int],
    journal: Journal,
    run: Run,
    progress: Progress | None,
) -> None:
    """Do blocks, then try those that killed their workers again, one at a time and with as little memory as can be."""
    lethal: list[int] = []

    def take(result: BlockRecord | Failed) -> None:
        if isinstance(result, BlockRecord):
            commit = result.commit()
            journal.commit(commit)
            run.commits[commit.block] = commit
            run.records.append(result)
            if progress:
                progress(len(todo), result)
        elif result.kind is not None and not (plan.settings.allow_holes and issubclass(result.kind, SceneError)):
            raise result.error()
        else:
            run.holes[result.item] = result.message
            if result.lethal:
                lethal.append(result.item)

    for result in place.attempt(functools.partial(process_block, plan.job), todo, priority):
        take(result)
    for index in tuple(lethal):
        for result in place.attempt(functools.partial(process_block, plan.job, frugal=True), [index], priority):
            del run.holes[index]
            take(result)


__all__ = ["BLOCK", "EnhanceSettings", "EnhanceSummary", "carry_out", "check_output", "enhance"]
