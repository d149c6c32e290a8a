"""Running a job: from whatever an earlier run left to the published output; killed at any moment, it can be resumed."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from scenelift.pipeline.cluster import Cluster, Failed, open_cluster
from scenelift.pipeline.errors import InputChangedError, PartialError, SceneError, SceneliftError, UsageError
from scenelift.pipeline.files import write_durably
from scenelift.pipeline.jobs.blocks import BlockRecord, open_job, process_block
from scenelift.pipeline.jobs.journal import NAME as JOURNAL
from scenelift.pipeline.jobs.journal import Journal, read_journal
from scenelift.pipeline.jobs.locks import Lock
from scenelift.pipeline.jobs.plan import Plan
from scenelift.pipeline.jobs.publishing import publish, published_intact, sweep
from scenelift.pipeline.jobs.resuming import check_input, discard, is_finished, open_work, spare, to_resume
from scenelift.pipeline.jobs.stopping import watched
from scenelift.pipeline.jobs.summary import EnhanceSummary, Tally, summarize
from scenelift.pipeline.jobs.trial import try_output
from scenelift.pipeline.outputs.classes import classes_path, write_classes
from scenelift.pipeline.outputs.formats import format_of
from scenelift.pipeline.outputs.sinks import ZarrSink

Progress = Callable[[int, BlockRecord | None], None]
"""Called with the number of blocks and None at the start, then with each record."""
Announce = Callable[[str], None]
"""Called with lines worth telling a person (the dashboard's address)."""


@dataclass(frozen=True)
class Listener:
    """Who wants to know how a run gets on."""

    progress: Progress = lambda total, record: None
    announce: Announce = lambda line: None

    @classmethod
    def of(cls, progress: Progress | None, announce: Announce | None = None) -> Listener:
        """Return the listener for functions of which each may be missing."""
        return cls(progress or cls.progress, announce or cls.announce)


def carry_out(
    plan: Plan,
    listener: Listener | None = None,
    cluster: Cluster | None = None,
    priority: int = 0,
    started: float | None = None,
) -> EnhanceSummary:
    """Do what a plan says and an earlier run has not done.

    Parameters
    ----------
    plan : Plan
    listener : Listener, optional
    cluster : Cluster, optional
        One that is open already and has other scenes too; by default the plan's own is opened.
    priority : int
        On such a cluster, blocks of higher priority come first.
    started : float, optional
        When the command began (`time.perf_counter`), for the summary.

    Raises
    ------
    SceneliftError
        See `scenelift.workflows.enhance.enhance`.
    """
    started = time.perf_counter() if started is None else started
    listener = listener or Listener()
    history = read_journal(plan.work)
    if history and is_finished(plan, history):
        if {entry.name for entry in plan.work.iterdir()} != {JOURNAL}:
            with Lock(plan.work):  # killed while cleaning up
                sweep(plan.work)
        listener.announce(f"{plan.path} is finished and intact: nothing to do")
        _write_beside(plan, just_made=False)
        return summarize(plan, Tally(commits=history.commits, resumed=len(plan.blocks)), started)
    try:
        plan.work.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write in {plan.path.parent}: {error.strerror}; choose another folder") from None
    with Lock(plan.work) as lock:
        done = Run(plan, lock, listener, cluster, priority).go_on()
        sweep(plan.work)
    _write_beside(plan, just_made=True)
    return summarize(plan, done, started)


def _write_beside(plan: Plan, just_made: bool) -> None:
    """Write the other files that belong beside the output; those that are there stay unless it was just made."""
    for ending, content in format_of(plan.path).beside(plan.job.output).items():
        path = plan.path.with_name(plan.path.name + ending)
        if just_made or not path.exists():
            write_durably(path, content, plan.work)  # a kill leaves it where the next run sweeps
    for layer in plan.classes:
        path = classes_path(plan.path, layer)
        if just_made or not path.exists():
            write_classes(layer, plan.job.output.grid, plan.job.source.limits, path, plan.work)


@dataclass
class Run:
    """One run of a job, by the holder of its lock."""

    plan: Plan
    lock: Lock
    listener: Listener
    cluster: Cluster | None = None
    priority: int = 0
    done: Tally = field(default_factory=Tally)
    journal: Journal = field(init=False)
    store: ZarrSink = field(init=False)

    def go_on(self) -> Tally:
        """Bring the job to its end from wherever it is; where it fails with nothing done, leave things as they were."""
        found = read_journal(self.plan.work)
        history = to_resume(self.plan, found)
        if history and history.published and not history.done:
            latest = history.published[0]
            if published_intact(self.plan.path, history) is latest:  # killed just before recording it
                with closing(Journal.reopen(self.plan.work)) as journal:
                    journal.finish()
                return Tally(commits=history.commits, holes=latest.holes, resumed=len(self.plan.blocks))
        spare(self.plan, found)
        try:
            self.journal, self.store, self.done.commits = open_work(self.plan, history)
            with closing(self.journal):
                self.done.resumed = len(self.done.commits)
                if not self.done.commits:
                    try_output(self.plan)
                self._do_blocks()
                self._set_aside()
                publish(
                    self.plan, self.store, self.journal, self.lock, self.done.commits.values(), holes=self.done.holes
                )
        except BaseException as error:
            nothing_done = not self.done.commits and not (history and history.commits)
            if (isinstance(error, InputChangedError) or nothing_done) and self.lock.is_mine():
                discard(self.plan)  # only what is still this run's own
            raise
        return self.done

    def _do_blocks(self) -> None:
        """Do the blocks that are left, if any."""
        todo = [index for index in self.plan.order() if index not in self.done.commits]
        if not todo:
            self.done.blocks_began = time.perf_counter()
            return
        with self._opened() as cluster:
            self.listener.progress(len(todo), None)
            self.done.blocks_began = clock = time.perf_counter()
            try:
                with watched():
                    self._attempt(cluster, todo)
            except (SceneError, UsageError):
                check_input(self.plan)  # a file that is being replaced may be gone, or may not read
                raise
            self.done.blocks_seconds = time.perf_counter() - clock
        check_input(self.plan)

    @contextmanager
    def _opened(self) -> Iterator[Cluster]:
        """Yield the cluster given, or the plan's own as long as this lasts."""
        if self.cluster is not None:
            yield self.cluster
            return
        with open_cluster(self.plan.cluster) as cluster:
            if cluster.dashboard:
                self.listener.announce(f"dashboard: {cluster.dashboard}")
            cluster.prepare(functools.partial(open_job, self.plan.job))
            yield cluster

    def _attempt(self, cluster: Cluster, todo: list[int]) -> None:
        """Do blocks, then try those that killed their workers again, one at a time with as little memory as can be."""
        killed_worker: list[int] = []

        def take(result: BlockRecord | Failed) -> None:
            self.lock.check()  # cut off from its own lock for minutes, this run may no longer be the only one
            if isinstance(result, BlockRecord):
                commit = result.commit()
                self.journal.commit(commit)
                self.done.commits[commit.block] = commit
                self.done.records.append(result)
                self.listener.progress(len(todo), result)
            elif result.kind is not None and not (self.plan.allow_holes and issubclass(result.kind, SceneError)):
                raise result.error()
            else:
                self.done.holes[result.item] = result.message
                if result.killed_worker:
                    killed_worker.append(result.item)

        for result in cluster.attempt(functools.partial(process_block, self.plan.job), todo, self.priority):
            take(result)
        for index in tuple(killed_worker):
            task = functools.partial(process_block, self.plan.job, low_memory=True)
            for result in cluster.attempt(task, [index], self.priority):
                del self.done.holes[index]
                take(result)

    def _set_aside(self) -> None:
        """Record the blocks that failed for good.

        Raises
        ------
        PartialError
            If the output is not wanted without them.
        """
        holes = self.done.holes
        for index, reason in sorted(holes.items()):
            self.journal.hole(index, reason)
        if holes and not self.plan.allow_holes:
            index, reason = min(holes.items())
            if len(holes) == len(self.plan.blocks):
                raise SceneliftError(f"every block failed (block {index}: {reason})")
            raise PartialError(
                f"{len(holes)} of {len(self.plan.blocks)} blocks failed and were set aside (block {index}: {reason}); "
                f"the others are kept: the same command tries again, with --allow-holes it publishes no data there"
            )
