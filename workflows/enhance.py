"""`scenelift enhance`: one scene in, one better scene out; killed at any moment, the same command goes on with it."""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from scenelift.models.catalog import ModelRef
from scenelift.models.checkpoint import write_atomically
from scenelift.models.errors import ModelError
from scenelift.pipeline.categories import side_car
from scenelift.pipeline.cluster import Cluster, ClusterSettings, Failed, open_cluster
from scenelift.pipeline.enhance import Enhancer
from scenelift.pipeline.errors import InputChangedError, PartialError, SceneError, SceneliftError, SinkError, UsageError
from scenelift.pipeline.faults import commit_point
from scenelift.pipeline.journal import NAME as JOURNAL
from scenelift.pipeline.journal import Commit, History, Journal, differences, read_journal
from scenelift.pipeline.locks import Lock
from scenelift.pipeline.publishing import damage, publish, restore_replaced, sweep
from scenelift.pipeline.salvage import carry_over
from scenelift.pipeline.scenes import SceneSource
from scenelift.pipeline.sinks import ZarrSink
from scenelift.workflows.blocks import BlockRecord, open_job, process_block
from scenelift.workflows.inputs import input_digest, input_stamps
from scenelift.workflows.plans import BLOCK, EnhanceSettings, Plan, check_output, make_plan, work_folder


@dataclass(frozen=True)
class EnhanceSummary:
    """What was done, for people and machines."""

    output: str
    models: list[str]
    width: int
    height: int
    bands: int
    scale: int
    blocks: int
    skipped: int
    resumed: int
    """Blocks that an earlier run had finished."""
    holes: list[int]
    """Blocks that failed and hold no data."""
    seconds: float
    """Of the whole job, from the call to the published output."""
    blocks_seconds: float
    """From the first block handed out to the last one written."""
    blocks_cpu_seconds: float
    """CPU time of all processes in the blocks: a yardstick that a busy machine does not stretch."""
    megapixels_per_second: float
    """Output pixels (all bands) made by this run per second, in millions."""
    model_share: float
    """Fraction of the workers' busy time spent in the models."""
    peak_memory_mb: float
    """Largest resident memory of any one process after a block."""
    device: str
    precision: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


Progress = Callable[[int, BlockRecord | None], None]
"""Called with the number of blocks and None at the start, then with each record."""
Announce = Callable[[str], None]


@dataclass
class _Run:
    """What this run has done so far."""

    records: list[BlockRecord] = field(default_factory=list)
    commits: dict[int, Commit] = field(default_factory=dict)
    holes: dict[int, str] = field(default_factory=dict)
    resumed: int = 0
    blocks_seconds: float = 0.0


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
        _check_fingerprint(plan, history)
        if found := damage(plan.path, history.publication or {}):
            raise SinkError(f"{plan.path} is damaged ({found[0]}): mend it with `scenelift verify --repair`")
        if not history.holes:
            if {entry.name for entry in plan.work.iterdir()} != {JOURNAL}:
                with Lock(plan.work):  # killed while cleaning up
                    sweep(plan.work)
            if announce:
                announce(f"{plan.path} is finished and intact: nothing to do")
            _name_classes(plan, anew=False)
            return _summary(plan, _Run(commits=history.commits, resumed=len(plan.blocks)), started)
    try:
        plan.work.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write in {plan.path.parent}: {error.strerror}") from None
    with Lock(plan.work) as lock:
        run = _go_on(plan, lock, _Shared(place, priority), progress, announce)
        sweep(plan.work)
    _name_classes(plan, anew=True)
    return _summary(plan, run, started)


def _name_classes(plan: Plan, anew: bool) -> None:
    """Put the names of a class map's values beside a GeoTIFF, which has no place for them."""
    categories, path = plan.job.output.categories, plan.path.with_name(f"{plan.path.name}.aux.xml")
    if categories and plan.path.suffix.lower() != ".zarr" and (anew or not path.exists()):
        write_atomically(path, side_car(categories).encode())


def _go_on(plan: Plan, lock: Lock, shared: _Shared, progress: Progress | None, announce: Announce | None) -> _Run:
    """Bring the job to its end from wherever it is; where that is hopeless and nothing is lost, leave no trace."""
    history, run = _to_resume(plan, read_journal(plan.work)), _Run()
    if history and history.publication and not history.done and not damage(plan.path, history.publication):
        with closing(Journal.reopen(plan.work)) as journal:  # killed after giving the name, before writing that down
            journal.finish()
        return _Run(commits=history.commits, holes=history.holes, resumed=len(plan.blocks))
    try:
        journal, store = _open_work(plan, history, run)
        with closing(journal):
            _work(plan, store, journal, lock, run, shared, progress, announce)
    except BaseException as error:
        hopeless = isinstance(error, UsageError | SceneError | ModelError)
        nothing_before = history is None or not history.commits
        if isinstance(error, InputChangedError) or (nothing_before and (hopeless or not run.commits)):
            restore_replaced(plan.path, plan.work)
            shutil.rmtree(plan.work, ignore_errors=True)
        raise
    return run


def _check_fingerprint(plan: Plan, history: History) -> None:
    found = differences(history.fingerprint, plan.fingerprint)
    if found:
        state = "exists, made with other input or settings" if plan.path.exists() else "was begun with others"
        raise UsageError(
            f"output {plan.path} {state}: {'; '.join(found)}. Choose another name or add --overwrite to start anew"
        )


def _to_resume(plan: Plan, history: History | None) -> History | None:
    """Return the history to go on with; None to start anew."""
    if history is None:
        return None
    if history.done and (plan.settings.overwrite or not plan.path.exists()):
        return None
    if plan.settings.overwrite and differences(history.fingerprint, plan.fingerprint):
        return None
    _check_fingerprint(plan, history)
    published = history.publication is not None and not damage(plan.path, history.publication)
    if plan.path.exists() and not (published or plan.settings.overwrite):
        raise UsageError(f"output {plan.path} exists; add --overwrite to replace it once this job is finished")
    return history


def _open_work(plan: Plan, history: History | None, run: _Run) -> tuple[Journal, ZarrSink]:
    """Make a clean store, with the intact blocks of an earlier run linked in, and open the journal."""
    store, old, new = plan.job.store, plan.work / "store.old", plan.work / "store.new"
    if store.exists() and history:
        shutil.rmtree(old, ignore_errors=True)
        store.rename(old)
    restore_replaced(plan.path, plan.work)
    sweep(plan.work, keep=("store.old",) if history else ())
    sink = ZarrSink.create(new, plan.job.output, shards=plan.settings.shards)
    commit_point("store-created")
    if history:
        # a finished output with holes gives its other blocks
        origin = plan.path if history.done and plan.path.is_dir() else old
        kept = carry_over(origin, new, history.commits.values())
        run.commits = {commit.block: commit for commit in kept}
        run.resumed = len(kept)
        commit_point("salvaged")
    new.rename(store)
    shutil.rmtree(old, ignore_errors=True)
    if history:
        return Journal.reopen(plan.work), ZarrSink.open(store, sink.block)
    journal = Journal.create(plan.work, plan.fingerprint, plan.command, silent=not plan.job.checked)
    commit_point("journal-created")
    return journal, ZarrSink.open(store, sink.block)


def _work(
    plan: Plan,
    store: ZarrSink,
    journal: Journal,
    lock: Lock,
    run: _Run,
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
            _do_blocks(plan, place, shared.priority, todo, journal, run, progress)
            run.blocks_seconds = time.perf_counter() - clock
        _check_input(plan)
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
    publish(store, output, plan.path, journal, lock, run.commits.values(), **how)


def _check_input(plan: Plan) -> None:
    """Check that the input is still the one of the fingerprint.

    Raises
    ------
    InputChangedError
    """
    source = plan.job.source
    if input_stamps(source) != plan.stamps and input_digest(source) != plan.fingerprint["input"]["sha256"]:
        raise InputChangedError(f"{source.paths[0]} was changed while it was being enhanced: give the command again")


def _do_blocks(
    plan: Plan,
    place: Cluster,
    priority: int,
    todo: list[int],
    journal: Journal,
    run: _Run,
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


def _summary(plan: Plan, run: _Run, started: float) -> EnhanceSummary:
    out, records, seconds = plan.job.output, run.records, time.perf_counter() - started
    busy = sum(r.read_s + r.model_s + r.write_s for r in records)
    return EnhanceSummary(
        output=str(plan.path),
        models=[m.name if isinstance(m, ModelRef) else m.spec.name for m in plan.job.models],
        width=out.grid.width,
        height=out.grid.height,
        bands=len(out.bands),
        scale=plan.job.scale,
        blocks=len(plan.blocks),
        skipped=sum(not commit.files for commit in run.commits.values()),
        resumed=run.resumed,
        holes=sorted(run.holes),
        seconds=round(seconds, 3),
        blocks_seconds=round(run.blocks_seconds, 3),
        blocks_cpu_seconds=round(sum(r.cpu_s for r in records), 3),
        megapixels_per_second=round(sum(r.pixels for r in records) * len(out.bands) / 1e6 / seconds, 3),
        model_share=round(sum(r.model_s for r in records) / busy, 4) if busy else 0.0,
        peak_memory_mb=round(max([psutil.Process().memory_info().rss, *(r.rss for r in records)]) / 2**20, 1),
        device=plan.device,
        precision=plan.precision,
    )


__all__ = ["BLOCK", "EnhanceSettings", "EnhanceSummary", "carry_out", "check_output", "enhance"]
