"""Going on with a job: what an earlier run left, whether it is the same job, and a clean store with what is intact."""

from __future__ import annotations

import shutil

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.faults import commit_point
from scenelift.pipeline.journal import History, Journal, differences
from scenelift.pipeline.publishing import damage, restore_replaced, sweep
from scenelift.pipeline.salvage import carry_over
from scenelift.pipeline.sinks import ZarrSink
from scenelift.workflows.plans import Plan
from scenelift.workflows.summary import Run


def check_fingerprint(plan: Plan, history: History) -> None:
    """Refuse to go on with another job than the one that was begun, and spell out the difference."""
    found = differences(history.fingerprint, plan.fingerprint)
    if found:
        state = "exists, made with other input or settings" if plan.path.exists() else "was begun with others"
        raise UsageError(
            f"output {plan.path} {state}: {'; '.join(found)}. Choose another name or add --overwrite to start anew"
        )


def to_resume(plan: Plan, history: History | None) -> History | None:
    """Return the history to go on with; None to start anew."""
    if history is None:
        return None
    if history.done and (plan.settings.overwrite or not plan.path.exists()):
        return None
    if plan.settings.overwrite and differences(history.fingerprint, plan.fingerprint):
        return None
    check_fingerprint(plan, history)
    published = history.publication is not None and not damage(plan.path, history.publication)
    if plan.path.exists() and not (published or plan.settings.overwrite):
        raise UsageError(f"output {plan.path} exists; add --overwrite to replace it once this job is finished")
    return history


def open_work(plan: Plan, history: History | None, run: Run) -> tuple[Journal, ZarrSink]:
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
