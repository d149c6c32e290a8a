"""`scenelift enhance`, `resume`, `verify`: one scene in, one better scene out; and whether it is still what it was."""

from __future__ import annotations

import contextlib
import ctypes
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from scenelift.pipeline.addresses import work_folder
from scenelift.pipeline.cluster import ClusterSettings, warm_up
from scenelift.pipeline.enhance import Enhancer
from scenelift.pipeline.errors import UnfitError, UsageError
from scenelift.pipeline.jobs import verifying
from scenelift.pipeline.jobs.journal import History, differences, read_journal
from scenelift.pipeline.jobs.plan import Plan
from scenelift.pipeline.jobs.running import Announce, Listener, Progress, carry_out
from scenelift.pipeline.jobs.summary import EnhanceSummary
from scenelift.pipeline.jobs.verifying import Verdict
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.pipeline.settings import read_table
from scenelift.workflows.choosing.prepared import Prepared, prepare
from scenelift.workflows.planning import plan_of, plan_prepared
from scenelift.workflows.refusals import check_output
from scenelift.workflows.settings import BLOCK, DEFAULT_MODEL, Crop, EnhanceSettings

if TYPE_CHECKING:
    from scenelift.workflows.expect import Expectation

EXPECT_SECONDS = 20.0
"""Time that a job may take to try itself out on a coarser level; at least two windows are tried."""


def enhance(
    source: SceneSource | str | Path,
    output: str | Path,
    models: str | Enhancer | Sequence[str | Enhancer] = DEFAULT_MODEL,
    settings: EnhanceSettings | None = None,
    cluster: ClusterSettings | None = None,
    progress: Progress | None = None,
    announce: Announce | None = None,
    window: tuple[int, int, int, int] | None = None,
) -> EnhanceSummary:
    """Enhance a scene, or resume an enhancement that was interrupted.

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
    window : (int, int, int, int), optional
        Make this part only: first column and row, width and height in input pixels. It equals, bit for bit, that part
        of the whole output. (By coordinates: ``Settings(crop=Crop(bbox=...))``, or
        ``Crop(geometry=...)`` with GeoJSON, WKT or a file of either.)

    Returns
    -------
    EnhanceSummary

    Raises
    ------
    UsageError
        For what another argument would fix: unknown model, wrong band count, output exists and is something else.
    SceneError, SinkError, ModelError
        If the input cannot be read, the output not written, or a model not used.
    PartialError
        If some blocks failed for good; the others are kept.
    ResumableError
        If the job stopped through no fault of its own; the same call goes on with it.

    Examples
    --------
    >>> import scenelift
    >>> here = scenelift.Cluster(workers=0)
    >>> done = scenelift.enhance("scene.tif", "finer.tif", "bicubic-x2", cluster=here)
    >>> done.width, done.height, done.bands
    (96, 80, 3)
    >>> again = scenelift.enhance("scene.tif", "finer.tif", "bicubic-x2", cluster=here)  # nothing is left to do
    >>> again.resumed == again.blocks
    True
    """
    started = time.perf_counter()
    settings = settings or EnhanceSettings()
    if window is not None:
        col, row, width, height = window
        settings = replace(settings, crop=Crop((col, row, width, height)))
    plan = planned(source, output, models, settings, cluster or ClusterSettings(), warm=True)
    return carry_out(plan, Listener.of(progress, announce), started=started)


def planned(
    source: SceneSource | str | Path,
    output: str | Path,
    models: str | Enhancer | Sequence[str | Enhancer],
    settings: EnhanceSettings,
    cluster: ClusterSettings,
    warm: bool = False,
) -> Plan:
    """Return the plan of a job, tried out on the scene one level coarser; writes nothing.

    Parameters and errors as of `enhance`; `warm`: local workers' libraries are loaded meanwhile.
    """
    if not isinstance(source, SceneSource):
        source = SceneSource((str(source),))
    path = check_output(Path(output), source.paths)
    refuse_foreign(path, settings)
    prepared = prepare(source, models, settings, cluster, path)
    if warm and not path.exists():
        warm_up(prepared.cluster)
    plan = expecting(plan_prepared(prepared, path, settings, cluster), prepared, settings)
    _give_back()
    return plan


def _give_back() -> None:
    """Give the memory back that networks tried here have freed: this process has none to run from now on.

    The C library was told to keep it (`scenelift.models.enhancer.keep_buffers`), a fifth of a gigabyte for twelve
    bands. Does nothing where the library has no malloc_trim.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def expecting(
    plan: Plan, prepared: Prepared, settings: EnhanceSettings, seconds: float | None = EXPECT_SECONDS
) -> Plan:
    """Return the plan with what the job may be expected to gain.

    Parameters
    ----------
    plan : Plan
    prepared : Prepared
    settings : EnhanceSettings
    seconds : float, optional
        After so many no further window is tried, and a job that is done is not tried again; None: always the same
        windows are, so that a record says the same whenever it is written. A job that was tried is never tried again.

    Raises
    ------
    UsageError
        If ``require_gain`` is given and nothing enlarges.
    UnfitError
        If less is expected than ``require_gain`` asks for, or it cannot be tried.
    """
    history = read_journal(plan.work)
    same = _is_of(history, plan)
    if history is not None and not (same or plan.overwrite):
        return plan  # another job: it is refused before it begins
    if recorded := _recorded(plan, history):
        return _with(plan, recorded)
    wanted = None if same else settings.require_gain  # what was begun was found good enough
    done = same and history is not None and history.done and seconds is not None
    if done or (wanted is None and (prepared.interpolates or not settings.expect)):
        return plan
    found = prepared.expect(settings, math.inf if seconds is None else seconds)
    if found is None:
        if wanted is not None:
            if plan.job.scale == 1:
                names = ", ".join(model.name for model in plan.job.models)
                raise UsageError(f"--require-gain needs a model that enlarges, got {names}: add one, or leave it out")
            raise UnfitError(
                "--require-gain: "
                f"{prepared.scene.name} has no window to try the gain on (it is too small, masked or flat), "
                "or the model was given as an object: leave it out"
            )
        return plan
    gain = found.gain_db["lanczos"].mean
    if wanted is not None and gain < wanted:
        raise UnfitError(
            f"expected gain over Lanczos is {gain:.2f} dB, --require-gain asks for {wanted:g}: nothing was done"
        )
    return _with(plan, found)


def _recorded(plan: Plan, history: History | None) -> Expectation | None:
    """Return what the first run of this very job found; None if it has none, or is another job."""
    if history is None or history.expected is None or not _is_of(history, plan):
        return None
    from scenelift.workflows.expect import Expectation

    return read_table(Expectation, history.expected, f"the journal of {plan.path}")


def _is_of(history: History | None, plan: Plan) -> bool:
    return history is not None and not differences(history.fingerprint, plan.fingerprint)


def _with(plan: Plan, expectation: Expectation) -> Plan:
    return replace(plan, notes=(*plan.notes, expectation.describe()), expected=expectation.to_dict())


def refuse_foreign(path: Path, settings: EnhanceSettings) -> None:
    """Refuse to replace an output that no journal knows, unless asked to."""
    if path.exists() and not settings.overwrite and read_journal(work_folder(path)) is None:
        raise UsageError(f"output {path} exists; choose another name or add --overwrite")


def resume(output: str | Path, progress: Progress | None = None, announce: Announce | None = None) -> EnhanceSummary:
    """Resume an enhancement that was interrupted, with the arguments it was started with.

    Raises
    ------
    UsageError
        If there is no journal beside the output.
    Others
        As for `enhance`.
    """
    started = time.perf_counter()
    return carry_out(_resume_plan(Path(output)), Listener.of(progress, announce), started=started)


def _resume_plan(output: Path) -> Plan:
    """Return the plan of the unfinished (or finished) job whose output is `output`.

    Raises
    ------
    UsageError
        If there is no journal beside it.
    """
    path = output.absolute()
    history = read_journal(work_folder(path))
    if history is None:
        raise UsageError(f"nothing to resume: {work_folder(path)} holds no journal; start with `scenelift enhance`")
    plan = plan_of(path, history.command)
    if recorded := _recorded(plan, history):
        plan = _with(plan, recorded)
    # what was to be replaced is replaced: the finished output is this job's own
    return replace(plan, overwrite=plan.overwrite and not history.done)


def verify(output: str | Path, repair: bool = False) -> Verdict:
    """Check an output against its journal; writes nothing unless `repair` is asked for.

    Parameters
    ----------
    output : str or Path
    repair : bool
        Compute damaged blocks again, rebuild what is derived from them, and put the restored output in place in one
        step. Needs the input and the models as they were.

    Raises
    ------
    UsageError
        If the output has no journal, or cannot be restored because input or models have changed.
    ResumableError
        If the job that makes it is not finished.
    """
    path = Path(output).absolute()
    verdict = verifying.verify(path)
    if not repair or (verdict.intact and not verdict.holes):
        return verdict
    if verdict.replacing:
        raise UsageError(f"{path} is about to be replaced: finish that with `scenelift resume {path}`")
    history = verifying.finished(path)
    return verifying.repair(plan_of(path, history.command), history, verdict)


__all__ = ["BLOCK", "EnhanceSettings", "EnhanceSummary", "enhance", "planned", "resume", "verify"]
