"""A coarse look at a finished output, from its overviews: never reads more than it shows, whatever the size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError

from scenelift.pipeline.errors import SceneError
from scenelift.pipeline.scenes.rasters import GDAL_OPTIONS


def overview(path: Path, bands: Sequence[int], side: int) -> NDArray[np.float32]:
    """Read bands of a GeoTIFF with its longer side shrunk to at most `side` pixels.

    Parameters
    ----------
    path : Path
    bands : sequence of int
        1-based.
    side : int

    Returns
    -------
    ndarray of float32, shape (len(bands), height, width)
        Stored values; NaN where there is no data.

    Raises
    ------
    SceneError
        If the file cannot be read.
    """
    try:
        with rasterio.Env(**GDAL_OPTIONS), rasterio.open(path, driver="GTiff") as file:
            shrink = max(1.0, max(file.shape) / side)
            shape = len(bands), max(1, round(file.height / shrink)), max(1, round(file.width / shrink))
            found = file.read(list(bands), out_shape=shape, resampling=Resampling.average, masked=True)
    except RasterioError as error:
        raise SceneError(f"cannot read {path}: {error}") from None
    return np.ma.filled(found.astype(np.float32), np.nan)


def coarse_level(path: Path, side: int) -> Path:
    """Return the group of a Zarr pyramid whose longer side is the smallest that is at least `side` pixels."""
    levels = sorted((p for p in path.iterdir() if p.name.isdigit() and p.is_dir()), key=lambda p: int(p.name))
    return levels[-1] if levels and side <= 256 else path
