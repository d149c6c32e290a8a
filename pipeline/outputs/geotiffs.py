"""Small rasters written in one go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from scenelift.pipeline.grids import GeoGrid


def write_geotiff(
    path: Path,
    values: NDArray[np.generic],
    grid: GeoGrid,
    nodata: float | None,
    names: Sequence[str] = (),
    bands: Sequence[Any] = (),
) -> None:
    """Write a small raster in one go, tiled and compressed; for any size see `scenelift.pipeline.outputs.cogs`.

    Parameters
    ----------
    path : Path
        Replaced if it exists.
    values : ndarray, shape (C, H, W)
    grid : GeoGrid
        Of the same height and width.
    nodata : float or None
    names : sequence of str
        Band descriptions.
    bands : sequence of Band
        Whose declared scales and offsets are written; as many as there are values.
    """
    profile = {"driver": "GTiff", "tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    profile |= {"count": len(values), "height": grid.height, "width": grid.width, "dtype": values.dtype}
    with rasterio.open(path, "w", crs=grid.crs, transform=grid.transform, nodata=nodata, **profile) as out:
        out.write(values)
        for index, name in enumerate(names[: len(values)], start=1):
            out.set_band_description(index, name)
        if any(band.declared for band in bands):
            out.scales = [band.scale if band.declared else 1.0 for band in bands]
            out.offsets = [band.offset if band.declared else 0.0 for band in bands]
