"""`open` a scene as an array that xarray reads when it is used."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rioxarray  # noqa: F401 - DataArray.rio
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from scenelift.pipeline.scenes.limits import Limits
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.products.bands import WAVELENGTH, spectral_columns
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.tiles import Window
from scenelift.workflows.refusals import refuse_inputs


@functools.lru_cache(maxsize=8)
def _opened(source: SceneSource) -> Scene:
    """Open a scene once in each process."""
    return open_scene(source)


class SceneArray(BackendArray):
    """Reflectance of a scene, NaN where there is no data; picklable.

    Parameters
    ----------
    source : SceneSource
    shape : (int, int, int)
        Bands, height and width.
    """

    def __init__(self, source: SceneSource, shape: tuple[int, int, int]) -> None:
        self.source = source
        self.shape = shape
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[np.float32]:
        spans = [np.arange(side)[part] for side, part in zip(self.shape[1:], key[1:], strict=True)]
        (top, height), (left, width) = ((int(np.min(s)), int(np.ptp(s)) + 1) if np.size(s) else (0, 0) for s in spans)
        if not (height and width):
            return np.zeros(self.shape, np.float32)[key]
        region = _opened(self.source).read(Window(top, left, height, width))
        values = region.with_nan()
        rows, cols = spans[0] - top, spans[1] - left
        found: NDArray[np.float32] = values[key[0]][..., rows, :][..., cols]
        return found


def open(
    path: str | Path | Sequence[str | Path], *, time: str | None = None, remote: bool = False, chunks: Any = None
) -> xr.DataArray:
    """Open a scene as reflectance.

    Parameters
    ----------
    path : str, Path or sequence of them
        A raster, several rasters of one scene, a ``.SAFE`` folder or a Zarr store.
    time : str, optional
        Of a cube of several times: which, by number from 1 or as its ISO 8601 text begins.
    remote : bool
        Allow http(s)://, s3:// and gs://.
    chunks : optional
        As `xarray.DataArray.chunk` takes them: the array is Dask's then.

    Returns
    -------
    DataArray of float32, dims (band, y, x)
        Reflectance, NaN where there is no data, read when it is used; with the CRS and the transform as rioxarray and
        odc-geo find them, and the names of the bands as coordinate (``.sel(band="B04")``); common names and centre
        wavelengths (micrometres) beside them where they are known.

    Raises
    ------
    UsageError, SceneError
        If there is no such scene, or it cannot be read.

    Examples
    --------
    >>> import scenelift
    >>> scene = scenelift.open("scene.tif")
    >>> scene.dims, scene.shape, str(scene.dtype)
    (('band', 'y', 'x'), (3, 40, 48), 'float32')
    >>> scene.rio.crs.to_epsg()
    32633
    """
    paths = (str(path),) if isinstance(path, str | Path) else tuple(map(str, path))
    refuse_inputs(paths, remote)
    source = SceneSource(paths, limits=Limits(remote=remote), time=time)
    scene = open_scene(source)
    grid = scene.grid
    names = [band.description or f"band {number}" for number, band in enumerate(scene.bands, start=1)]
    coords: dict[str, Any] = {"band": names}
    if grid.is_rectilinear:
        t = grid.transform
        coords |= {"y": t.f + (np.arange(grid.height) + 0.5) * t.e, "x": t.c + (np.arange(grid.width) + 0.5) * t.a}
    for name, values in spectral_columns([band.tags for band in scene.bands]).items():
        coords[name] = ("band", values, {"units": "um"} if name == WAVELENGTH else {})
    lazy = indexing.LazilyIndexedArray(SceneArray(source, (len(names), *grid.shape)))
    found = xr.DataArray(lazy, coords, ("band", "y", "x"), name="reflectance", attrs={"units": "1"})
    found = found.rio.write_crs(grid.crs).rio.write_transform(grid.transform)
    found.encoding["_FillValue"] = math.nan
    made: xr.DataArray = found if chunks is None else found.chunk(chunks)
    return made
