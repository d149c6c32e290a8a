"""Zarr stores as scenes: those that scenelift writes, and any with CF or GeoZarr georeferencing that xarray opens."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from scenelift.pipeline.errors import SceneError
from scenelift.pipeline.tiles import Window

MASK = "mask"
"""Name of the variable that holds an internal mask (1 valid, 0 missing)."""


def is_zarr(path: str) -> bool:
    """Whether `path` is a folder that holds a Zarr group or array."""
    return any((Path(path) / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray", ".zmetadata"))


class ZarrRaster:
    """A Zarr group read through xarray: one (band, y, x) variable, or several (y, x) variables of one shape."""

    has_gcps = False
    tag_domains: dict[str, dict[str, str]] = {}  # noqa: RUF012 - part of the Reader protocol, always empty

    def __init__(self, path: str) -> None:
        import rioxarray  # noqa: F401 - registers .rio; half a second that rasters need not pay
        import xarray as xr

        self.path = path
        try:
            data = xr.open_zarr(
                path,
                chunks=None,
                consolidated=(Path(path) / ".zmetadata").is_file(),
                mask_and_scale=False,
                decode_times=False,
                decode_coords="all",
            )
        except Exception as error:
            raise SceneError(f"cannot open {path} as Zarr: {str(error).splitlines()[0]}") from error
        self._bands = _bands(data, path)
        first = self._bands[0]
        self.shape: tuple[int, int] = first.shape[-2], first.shape[-1]
        self.count = len(self._bands)
        self.transform: Affine = first.rio.transform()
        self.crs: CRS | None = first.rio.crs
        self.dtypes = tuple(str(b.dtype) for b in self._bands)
        self.nodata = tuple(_number(b.rio.nodata) for b in self._bands)
        self.chunk_bytes = max(math.prod(b.encoding.get("chunks") or b.shape) * b.dtype.itemsize for b in self._bands)
        self.descriptions: tuple[str | None, ...] = _names(self._bands)
        self.scales = tuple(float(s) for s in _per_band(self._bands, "scale_factor", "scales", 1.0))
        self.offsets = tuple(float(o) for o in _per_band(self._bands, "add_offset", "offsets", 0.0))
        self.colors = _per_band(self._bands, "", "colorinterp", "undefined")
        self.tags = {k: v for k, v in dict(first.attrs.get("tags", {})).items() if isinstance(v, str)}
        self.band_tags = tuple(dict(t) for t in _per_band(self._bands, "", "band_tags", {}))
        self._mask = data[MASK] if MASK in data and data[MASK].shape == self.shape else None
        self.has_mask = self._mask is not None

    def read(self, index: int, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Read one band (1-based): values and validity, shape (height, width)."""
        rows, cols = window.slices()
        try:
            values = self._bands[index - 1][rows, cols].to_numpy()
            if self._mask is None:
                return values, np.ones(values.shape, bool)
            return values, self._mask[rows, cols].to_numpy() != 0
        except Exception as error:
            raise SceneError(
                f"cannot read {self.path}, band {index}, rows {window.row}-{window.stop_row}: "
                f"{str(error).splitlines()[0]}; the store may be damaged"
            ) from error


def _bands(data: Any, path: str) -> list[Any]:
    """Return one 2-D DataArray per band: of a stack in its order, of variables in that of their names.

    Stores without consolidated metadata are listed in the order of the file system, which a copy does not keep.
    """
    variables = [
        v for n, v in sorted(data.data_vars.items()) if n != MASK and v.ndim in (2, 3) and min(v.shape[-2:]) > 1
    ]
    stacks = [v for v in variables if v.ndim == 3]
    if len(stacks) == 1:
        return [stacks[0][i] for i in range(stacks[0].shape[0])]
    flat = [v for v in variables if v.ndim == 2]
    if stacks or not flat or len({(v.dims, v.shape) for v in flat}) > 1:
        found = ", ".join(f"{v.name} {v.dims}" for v in variables) or "nothing"
        raise SceneError(
            f"{path} should hold one (band, y, x) variable or (y, x) variables of one shape, found {found}"
        )
    return flat


def _per_band(bands: list[Any], one: str, many: str, default: Any) -> tuple[Any, ...]:
    """Return one value a band from its variable's attribute `many` (one a band) or `one`, or the default.

    The bands of one stack share its attributes, so a list there has a value for each; other variables have their own.
    """
    found = []
    for index, band in enumerate(bands):
        values = band.attrs.get(many, band.attrs.get(one, default))
        values = list(values) if isinstance(values, list | tuple | np.ndarray) else [values]
        wanted = {1: 0, len(bands): index}.get(len(values))
        found.append(default if wanted is None else values[wanted])
    return tuple(found)


def _names(bands: list[Any]) -> tuple[str, ...]:
    """Return the bands' long names; variables that share one are told apart by what they are called."""
    own = tuple(str(band.name) for band in bands)
    names = _per_band(bands, "long_name", "descriptions", None)
    if len(set(own)) == len(bands) != len(set(names)):
        return own
    return tuple(str(name or called) for name, called in zip(names, own, strict=True))


def _number(value: Any) -> float | None:
    return None if value is None or isinstance(value, str) else float(value)
