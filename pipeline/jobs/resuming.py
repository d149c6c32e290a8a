"""Resuming a job: what an earlier run left, whether it is the same job, and a clean store with what is intact."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from scenelift.pipeline.errors import InputChangedError, SinkError, UsageError
from scenelift.pipeline.faults import commit_point
from scenelift.pipeline.jobs.journal import (
    SPARE,
    Commit,
    History,
    Journal,
    differences,
    restore_journal,
    spare_journal,
)
from scenelift.pipeline.jobs.plan import Plan
from scenelift.pipeline.jobs.publishing import damage, published_intact, restore_replaced, sweep
from scenelift.pipeline.jobs.salvage import carry_over, of_layout
from scenelift.pipeline.outputs.formats import format_of
from scenelift.pipeline.outputs.sinks import DATA, ZarrSink
from scenelift.pipeline.scenes.inputs import input_digest, input_stamps


def _check_fingerprint(plan: Plan, history: History) -> None:
    """Refuse to go on with another job than the one that was begun, and spell out the difference."""
    found = _told(history.fingerprint, plan.fingerprint)
    if found:
        state = "exists, made with other input or settings" if plan.path.exists() else "was begun with others"
        raise UsageError(
            f"output {plan.path} {state}: {'; '.join(found)}. Choose another name or add --overwrite to start over"
        )


FOLLOWS = ("models ", "output shape ", "output block ", "output transform ")
"""Beginnings of the differences that come with other models."""


def _told(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Spell out the difference; of other models their names, not every digest and size that comes with them."""
    found = differences(before, now)
    names = [[str(model.get("name")) for model in each.get("models", {}).values()] for each in (before, now)]
    if names[0] == names[1]:
        return found
    was, are = (" then ".join(each) for each in names)
    return [f"models were {was}, now {are}", *(line for line in found if not line.startswith(FOLLOWS))]


def check_input(plan: Plan) -> None:
    """Check that the input is still the one of the fingerprint.

    Raises
    ------
    InputChangedError
    """
    source = plan.job.source
    if input_stamps(source) != plan.stamps and input_digest(source) != plan.fingerprint["input"]["sha256"]:
        raise InputChangedError(f"{source.paths[0]} was changed while it was being enhanced: give the command again")


def is_finished(plan: Plan, history: History | None) -> bool:
    """Whether the output lies there intact and without holes, so that nothing is to be done.

    Raises
    ------
    UsageError
        If it was made with other input or settings.
    SinkError
        If it is damaged.
    """
    if history is None or not history.done or not plan.path.exists() or plan.overwrite:
        return False
    _check_fingerprint(plan, history)
    if found := damage(plan.path, history.published[0].sums):
        raise damaged(plan.path, found[0])
    return not history.published[0].holes


def to_resume(plan: Plan, history: History | None) -> History | None:
    """Return the journal to resume from, None to start over."""
    if history is None:
        return None
    if history.done and (plan.overwrite or not plan.path.exists()):
        return None
    if plan.overwrite and differences(history.fingerprint, plan.fingerprint):
        return None
    _check_fingerprint(plan, history)
    if plan.path.exists() and not (plan.overwrite or published_intact(plan.path, history)):
        if history.named:
            raise damaged(plan.path)
        raise UsageError(f"output {plan.path} exists; add --overwrite to replace it once this job is finished")
    return history


def damaged(path: Path, file: str = "") -> SinkError:
    """Return the error to raise where an output is not what was published."""
    return SinkError(f"{path} is damaged{file and f' ({file})'}: restore it with `scenelift verify --repair`")


def spare(plan: Plan, found: History | None) -> None:
    """Keep the journal of an output that may be replaced, until it is."""
    if found and (found.named or published_intact(plan.path, found)):
        spare_journal(plan.work)


def discard(plan: Plan) -> None:
    """Leave no trace of a job of which nothing is to be kept; an output from before has its own journal again."""
    restore_replaced(plan.path, plan.work)
    if plan.path.exists() and restore_journal(plan.work):
        sweep(plan.work)
    else:
        shutil.rmtree(plan.work, ignore_errors=True)


def open_work(plan: Plan, history: History | None) -> tuple[Journal, ZarrSink, dict[int, Commit]]:
    """Open the journal and a clean store, with the intact blocks of an earlier run linked in; return those too."""
    store, old, new = plan.job.store, plan.work / "store.old", plan.work / "store.new"
    threads = plan.cluster.own_threads
    if store.exists() and history:
        shutil.rmtree(old, ignore_errors=True)
        store.rename(old)
    restore_replaced(plan.path, plan.work)
    sweep(plan.work, keep=(SPARE, "store.old") if history else (SPARE,))
    output = plan.job.output
    empty = ZarrSink.create(new, output, shards=plan.shards, blocks=format_of(plan.path).blocks)
    commit_point("store-created")
    kept = _carry_over(plan, history, old, empty) if history else {}
    new.rename(store)
    shutil.rmtree(old, ignore_errors=True)
    if history:
        return Journal.reopen(plan.work), ZarrSink.open(store, output, threads), kept
    journal = Journal.create(plan.work, plan.fingerprint, plan.command, plan.expected, silent=not plan.job.checked)
    commit_point("journal-created")
    return journal, ZarrSink.open(store, output, threads), kept


def _codecs(store: Path) -> Any:
    """Return how a store's values are compressed, which was another way in earlier versions; None if it has none."""
    try:
        return json.loads((store / DATA / "zarr.json").read_text(encoding="utf-8"))["codecs"]
    except (OSError, ValueError, KeyError):
        return None


def _carry_over(plan: Plan, history: History, old: Path, new: ZarrSink) -> dict[int, Commit]:
    """Link the intact blocks of an earlier run into a new store."""
    commits = of_layout(plan, new, history.commits.values())
    same = _codecs(old) == _codecs(new.path)
    kept = {commit.block: commit for commit in carry_over(old, new.path, commits if same else ())}
    if history.named and plan.path.is_dir():  # a finished output with holes gives its other blocks
        missing = [commit for commit in commits if commit.block not in kept]
        kept |= {commit.block: commit for commit in carry_over(plan.path, new.path, missing)}
    commit_point("salvaged")
    return kept
