"""A small output of the same description, written and read back before the first block: no work is lost at the end."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from rasterio.errors import RasterioError

from scenelift.pipeline.errors import SceneError, SinkError, UsageError
from scenelift.pipeline.faults import rehearsal
from scenelift.pipeline.jobs.plan import Plan
from scenelift.pipeline.outputs.cogs import SIDE
from scenelift.pipeline.outputs.formats import format_of
from scenelift.pipeline.outputs.outputs import Output
from scenelift.pipeline.outputs.sinks import ZarrSink

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
            made = format_of(plan.path).make(
                ZarrSink.create(store, output, shards=plan.shards), output, made, plan.shards
            )
            _check(made, plan, output)
    except (RasterioError, ValueError, TypeError) as error:
        raise SinkError(f"an output of this description cannot be written: {error}") from error
    except OSError as error:
        raise SinkError.of(plan.path, error) from error
    finally:
        _remove(store, made)


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
