"""A small output of the same description, written and read back before the first block: no work is lost at the end."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.errors import RasterioError

from scenelift.pipeline.errors import SceneError, SinkError, UsageError
from scenelift.pipeline.faults import rehearsal
from scenelift.pipeline.files import check_writable
from scenelift.pipeline.jobs.journal import read_journal
from scenelift.pipeline.jobs.locks import Lock
from scenelift.pipeline.jobs.plan import Plan
from scenelift.pipeline.jobs.resuming import is_finished, to_resume
from scenelift.pipeline.outputs.formats import format_of
from scenelift.pipeline.outputs.outputs import Output
from scenelift.pipeline.outputs.sinks import ZarrSink
from scenelift.pipeline.outputs.tiffs.tiles import SIDE

MOST = SIDE + 8
"""Longest side of the trial, pixels: long enough to have an overview."""
STORE = "trial-store.zarr"


def try_output(plan: Plan) -> None:
    """Make an empty output of the same format, bands, metadata and proportions in the work folder, and remove it.

    Raises
    ------
    SinkError
        If one cannot be written, or does not read back as the same raster.
    """
    output, store = _small(plan.job.output), plan.work / STORE
    made = plan.work / f"trial{plan.path.suffix}"
    _remove(store, made)
    try:
        with rehearsal():
            kind = format_of(plan.path)
            sink = ZarrSink.create(store, output, shards=plan.shards, blocks=kind.blocks)
            made = kind.make(sink, output, made, plan.shards)
            _check(made, plan, output)
    except (RasterioError, ValueError, TypeError) as error:
        raise SinkError(f"an output of this description cannot be written: {error}") from error
    except OSError as error:
        raise SinkError.of(plan.path, error) from error
    finally:
        _remove(store, made)


@dataclass(frozen=True)
class Rehearsal:
    """What a job would do."""

    output: str
    models: list[str]
    window: list[int] | None
    """First column and row, width and height of the part of the scene that is made; None: all of it."""
    width: int
    height: int
    bands: int
    scale: int
    dtype: str
    bytes: int
    """Of the output, uncompressed."""
    free_bytes: int
    """On the disk where it goes."""
    blocks: int
    kept: int
    """Blocks that an earlier run has done."""
    device: str
    precision: str
    processes: str
    notes: list[str]
    expected: dict[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def rehearse(plan: Plan) -> Rehearsal:
    """Check all that a job checks before its first block, and say what it would do; nothing is written beside it.

    Raises
    ------
    UsageError
        If the output exists or is another job's, or its folder cannot be written.
    HeldError
        If another run is writing it.
    SinkError
        If an output of this description cannot be written.
    """
    history = read_journal(plan.work)
    finished = is_finished(plan, history)
    begun = None if finished else to_resume(plan, history)
    check_writable(plan.path.parent)
    Lock(plan.work).refuse_held()
    if begun is None and not finished:
        with tempfile.TemporaryDirectory() as folder:
            there = replace(plan, path=Path(folder, plan.path.name))
            there.work.mkdir()
            try_output(there)
    out, window, cluster = plan.job.output, plan.job.window, plan.cluster
    place = f"workers of {cluster.scheduler}" if cluster.scheduler else f"{cluster.kind} workers"
    return Rehearsal(
        output=str(plan.path),
        models=[model.name for model in plan.job.models],
        window=None if window is None else [window.col, window.row, window.width, window.height],
        width=out.grid.width,
        height=out.grid.height,
        bands=len(out.bands),
        scale=plan.job.scale,
        dtype=out.dtype,
        bytes=out.nbytes,
        free_bytes=shutil.disk_usage(plan.path.parent).free,
        blocks=len(plan.blocks),
        kept=len(plan.blocks) if finished else len(begun.commits) if begun else 0,
        device=plan.device,
        precision=plan.precision,
        processes="this process" if cluster.in_process else place,
        notes=list(plan.notes),
        expected=plan.expected,
    )


def _remove(*paths: Path) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _small(output: Output) -> Output:
    """Return the output cut to at most MOST pixels a side; one pixel stays one."""
    height, width = (min(side, MOST) for side in output.grid.shape)
    grid = replace(output.grid, height=height, width=width)
    return replace(output, grid=grid, block=(height, width))


def _check(made: Path, plan: Plan, output: Output) -> None:
    """Compare what the file says of itself with what it was to be."""
    recorded = plan.fingerprint["output"] | {"shape": list(output.shape), "block": list(output.block)}
    try:
        facts = dict(format_of(plan.path).open(made, recorded).facts)
    except (SceneError, UsageError) as error:
        raise SinkError(f"an output of this description could not be read again: {error}") from None
    if "transform" in facts and np.allclose(facts["transform"], recorded["transform"], rtol=1e-12, atol=1e-9):
        facts["transform"] = recorded["transform"]
    for name in ("shape", "dtype", "transform"):
        if name in facts and facts[name] != recorded[name]:
            raise SinkError(f"an output of this description would read back with {name} {facts[name]}")
