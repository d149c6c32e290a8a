"""A small output of the same description, written and read back before the first block: no work is lost at the end."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from scenelift.pipeline.errors import SceneError, SinkError, UsageError
from scenelift.pipeline.outputs.cogs import SIDE, try_cog
from scenelift.pipeline.outputs.outputs import Output
from scenelift.pipeline.outputs.pyramids import Pyramid
from scenelift.pipeline.outputs.sinks import ZarrSink
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import SceneSource

MOST = SIDE + 8
"""Longest side of the trial, pixels: long enough to have an overview."""
NAME = "trial.zarr"


def try_output(output: Output, folder: Path, zarr: bool) -> None:
    """Publish an empty output of the same bands, metadata and proportions in `folder`, and remove it.

    Raises
    ------
    SinkError
        If one cannot be written, or does not read back as the same raster.
    """
    small = _small(output)
    path = folder / NAME
    shutil.rmtree(path, ignore_errors=True)
    try:
        store = ZarrSink.create(path, small, shards=False)
        if zarr:
            for _ in Pyramid(store, small, shards=False).build():
                pass
            _check(path, small)
        else:
            try_cog(store, small, folder)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _small(output: Output) -> Output:
    """Return the output cut to at most MOST pixels a side; one pixel stays one."""
    height, width = (min(side, MOST) for side in output.grid.shape)
    grid = replace(output.grid, height=height, width=width)
    return replace(output, grid=grid, block=(height, width))


def _check(path: Path, output: Output) -> None:
    try:
        scene = open_scene(SceneSource((str(path),), crs=output.grid.crs.to_wkt()))
    except (SceneError, UsageError) as error:
        raise SinkError(f"an output of this description could not be read again: {error}") from None
    alpha = any(band.color == "alpha" for band in output.bands)
    found = len(scene.bands) + (scene.alpha is not None and alpha), scene.dtype
    if found != (len(output.bands), output.dtype) or not scene.grid.same_as(output.grid):
        raise SinkError(f"an output of this description would read back as {scene.describe()}")
