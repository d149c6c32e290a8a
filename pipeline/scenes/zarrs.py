"""Zarr stores and netCDF files as scenes: scenelift's own, and others with CF or GeoZarr georeferencing."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from scenelift.pipeline.errors import SceneError, TimesError, UsageError
from scenelift.pipeline.scenes.categorical import flagged_by_attributes, flagged_by_color, flagged_by_name, named_mask
from scenelift.pipeline.scenes.layouts import (
    Axes,
    axes_of,
    found_coordinate,
    kind_of,
    listed,
    place,
    time_index,
    times_of,
)
from scenelift.pipeline.tiles import Window

MASK = "mask"
"""Name of the variable that holds an internal mask (1 valid, 0 missing) in stores that scenelift writes."""
_NODATA = ("_FillValue", "missing_value", "fill_value", "nodata", "nodatavals")


def is_zarr(path: str) -> bool:
    """Whether `path` is a folder that holds a Zarr group or array."""
    return any((Path(path) / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray", ".zmetadata"))


class _Plane(NamedTuple):
    """One band: a variable, and the index along each dimension that is neither row nor column."""

    variable: Any
    axes: Axes
    at: dict[str, int]

    @property
    def frame(self) -> tuple[str, str, int, int]:
        """Names and lengths of rows and columns."""
        return self.axes.y, self.axes.x, self.variable.sizes[self.axes.y], self.variable.sizes[self.axes.x]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the values; netCDF's old format has no unsigned ones, so an attribute says that they are."""
        found = np.dtype(self.variable.dtype).newbyteorder("=")
        unsigned = found.kind == "i" and str(self.variable.attrs.get("_Unsigned", "")).lower() == "true"
        return np.dtype(f"u{found.itemsize}") if unsigned else found


def _read(planes: Sequence[_Plane], window: Window) -> NDArray[np.generic]:
    """Read bands of one data type: in one go where they lie along one dimension, as a chunk may hold them all."""
    first = planes[0]
    along = [name for name in first.at if any(plane.at.get(name) != first.at[name] for plane in planes)]
    if len(planes) > 1 and (len(along) != 1 or any(plane.variable is not first.variable for plane in planes)):
        return np.concatenate([_read([plane], window) for plane in planes])
    rows, cols = window.slices()
    at = first.at | {name: _slice([plane.at[name] for plane in planes]) for name in along}
    part = first.variable.isel({**at, first.axes.y: rows, first.axes.x: cols})
    values = np.asarray(part.transpose(*along, first.axes.y, first.axes.x).to_numpy())
    return values.astype(values.dtype.newbyteorder("="), copy=False).view(first.dtype).reshape(-1, *window.shape)


def _slice(indexes: list[int]) -> slice | list[int]:
    """Return neighbours as a slice, which stores read faster than a list."""
    whole = range(indexes[0], indexes[-1] + 1)
    return slice(whole.start, whole.stop) if indexes == list(whole) else indexes


class XarrayRaster:
    """A dataset read through xarray: one variable with a dimension of bands, or several variables of one shape."""

    has_gcps = False
    mask_per_band = False
    slow_tiles: tuple[tuple[int, int], ...] = ()

    def __init__(self, path: str, data: Any, variable: str | None = None, time: str | None = None) -> None:
        self.path = path
        if variable is not None and variable not in data.data_vars:
            raise UsageError(f"{path} has no variable {variable!r}, but {', '.join(map(str, data.data_vars))}")
        own = None if variable else _own_mask(data)
        self._planes, notes = _planes(data, path, variable, own, time)
        first = self._planes[0]
        self.shape: tuple[int, int] = first.frame[2:]
        self.count = len(self._planes)
        placed = place(first.variable, first.axes, data, path)
        self.transform: Affine = placed.transform
        self.crs: CRS | None = placed.crs
        self.notes = (*notes, *placed.notes)
        variables = [p.variable for p in self._planes]
        along = _time_of(first.variable, first.axes)
        self.times: tuple[str, ...] = times_of(first.variable, along) if along else ()
        self.dtypes = tuple(str(p.dtype) for p in self._planes)
        self.nodata = tuple(_nodata(self._planes))
        self.chunk_bytes = max(_chunk(v) for v in variables)
        self.descriptions: tuple[str | None, ...] = _names(self._planes)
        self.scales = tuple(float(s) for s in _per_band(variables, "scale_factor", "scales", 1.0))
        self.offsets = tuple(float(o) for o in _per_band(variables, "add_offset", "offsets", 0.0))
        self.colors = _per_band(variables, "", "colorinterp", "undefined")
        self.flags = tuple(
            flagged_by_color(color) or flagged_by_attributes(v.attrs) or flagged_by_name(str(v.name))
            for v, color in zip(variables, self.colors, strict=True)
        )
        self.tags = {k: v for k, v in dict(variables[0].attrs.get("tags", {})).items() if isinstance(v, str)}
        if along and time is not None:
            self.tags["ACQUISITIONDATETIME"] = self.times[first.at[along]]
        self.tag_domains: dict[str, dict[str, str]] = dict(variables[0].attrs.get("tag_domains", {}))
        self.band_tags = tuple(dict(t) for t in _per_band(variables, "", "band_tags", {}))
        self._mask = own
        self.has_mask = self._mask is not None

    def read(self, indexes: Sequence[int], window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Read bands; see `scenelift.pipeline.scenes.rasters.Reader`."""
        rows, cols = window.slices()
        try:
            values = _read([self._planes[index - 1] for index in indexes], window)
            if self._mask is None:
                return values, np.broadcast_to(True, values.shape)
            return values, np.broadcast_to(self._mask[rows, cols].to_numpy() != 0, values.shape)
        except Exception as error:
            raise SceneError(
                f"cannot read {self.path}, {bands_named(indexes)}, rows {window.row}-{window.stop_row}: "
                f"{str(error).splitlines()[0]}; the store may be damaged"
            ) from error


def bands_named(indexes: Sequence[int]) -> str:
    """Return bands as an error names them."""
    return f"band{'s'[: len(indexes) > 1]} {', '.join(map(str, indexes))}"


def open_zarr(path: str, variable: str | None = None, time: str | None = None) -> XarrayRaster:
    """Open a Zarr store, or one variable of a group, at one of its times.

    Raises
    ------
    UsageError
        If there is no such time.
    TimesError
        If it holds several and none is chosen.
    SceneError
        If it cannot be read, or its variables do not make one raster.
    """
    from xarray.backends import ZarrStore

    consolidated = (Path(path) / ".zmetadata").is_file()
    try:
        store = ZarrStore.open_group(path, mode="r", consolidated=consolidated, use_zarr_fill_value_as_mask=True)
    except Exception as error:
        raise SceneError(f"cannot open {path} as Zarr: {str(error).splitlines()[0]}") from error
    data = _opened(path, "Zarr", file=store)
    _say_fill_values(data, store.zarr_group, path)
    if variable is None and not data.data_vars and (inner := _inner_groups(Path(path))):
        raise UsageError(f"{path} is a group of groups; name the one that holds the bands: {', '.join(inner)}")
    return XarrayRaster(path, data, variable, time)


def _inner_groups(path: Path) -> list[str]:
    """Return groups below one that hold arrays, up to five."""
    found: list[str] = []
    for group in sorted(p for p in path.rglob("*") if p.is_dir() and is_zarr(str(p))):
        arrays = [
            p for p in group.iterdir() if p.is_dir() and ((p / ".zarray").is_file() or _is_array(p / "zarr.json"))
        ]
        found += [str(group)] if arrays else []
        if len(found) == 5:
            break
    return found


def _is_array(file: Path) -> bool:
    try:
        return '"array"' in file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _say_fill_values(data: Any, group: Any, path: str) -> None:
    """Put right what xarray says of missing pixels: an array's own attribute counts before what Zarr fills gaps with.

    xarray takes the latter for Zarr 2 whatever the attribute says, and refuses numbers in attributes of Zarr 3.
    """
    from xarray.backends.zarr import FillValueCoder

    for name in data.data_vars:
        array = group[str(name)]
        told: Any = array.attrs.get("_FillValue")
        if told is not None and (number := _number(told)) is None:
            try:
                number = float(FillValueCoder.decode(told, array.dtype))
            except (TypeError, ValueError):
                raise SceneError(f"{path}: _FillValue of {name} must be a number, got {str(told)[:60]!r}") from None
        if told is not None:
            data[name].attrs["_FillValue"] = number
        elif group.metadata.zarr_format == 3 or any(key in array.attrs for key in _NODATA):
            data[name].attrs.pop("_FillValue", None)


def netcdf_engine(file: str) -> str | None:
    """Return what reads a netCDF file here by its coordinates: scipy its old format, others need an extra package."""
    with Path(file).open("rb") as handle:
        head = handle.read(4)
    if head[:3] == b"CDF":
        return "scipy" if head[3:] in (b"\x01", b"\x02") else None
    return next((name for name in ("h5netcdf", "netcdf4") if _has(name)), None)


def _has(engine: str) -> bool:
    return importlib.util.find_spec({"netcdf4": "netCDF4"}.get(engine, engine)) is not None


def open_netcdf(file: str, variable: str | None, engine: str, time: str | None = None) -> XarrayRaster:
    """Open one variable of a netCDF file at one of its times; None: the only one it has.

    Raises
    ------
    UsageError
        If it holds several variables and none is named, or there is no such time.
    TimesError
        If it holds several times and none is chosen.
    SceneError
        If it cannot be read.
    """
    data = _opened(file, "netCDF", engine=engine)
    if variable is None:
        found = [str(n) for n, v in data.data_vars.items() if axes_of(v, data.attrs, file) is not None]
        if len(found) != 1:
            choices = ", ".join(f"{file}:{name}" for name in found)
            if found:
                raise UsageError(f"{file} holds several variables, name one: {choices}")
            raise SceneError(f"{file} holds no raster: none of its variables has rows and columns")
        variable = found[0]
    raster = XarrayRaster(file, data, variable, time)
    if variable.lower() == MASK or named_mask(variable):
        raster.flags = tuple(f or "it is called a mask" for f in raster.flags)
    return raster


def _opened(path: str, kind: str, file: Any = None, **how: Any) -> Any:
    import rioxarray  # noqa: F401 - registers .rio; half a second that rasters need not pay
    import xarray as xr

    try:
        return xr.open_dataset(file or path, mask_and_scale=False, decode_times=False, decode_coords="all", **how)
    except Exception as error:
        raise SceneError(f"cannot open {path} as {kind}: {str(error).splitlines()[0]}") from error


def _own_mask(data: Any) -> Any:
    """Return the mask of a store that scenelift wrote; a variable of that name in another one may mean the opposite."""
    found = data.variables.get(MASK)
    ours = "data" in data.data_vars and ("scenelift" in data.attrs or "zarr_conventions" in data.attrs)
    plain = found is not None and found.dtype == np.uint8 and flagged_by_attributes(found.attrs) is None
    return data[MASK] if ours and plain and found.shape == data["data"].shape[-2:] else None


def _planes(data: Any, path: str, name: str | None, mask: Any, time: str | None) -> tuple[list[_Plane], list[str]]:
    """Return one plane a band (of a stack in its order, of variables in that of their names), and what is left out.

    Stores without consolidated metadata are listed in the order of the file system, which a copy does not keep.
    """
    found: dict[str, list[_Plane]] = {}
    for key in [name] if name else sorted(map(str, data.data_vars)):
        variable = data[key]
        if (mask is None or key != MASK) and (axes := axes_of(variable, data.attrs, path)) is not None:
            found[key] = _bands_of(variable, axes, path, time)
    plain = {k: v for k, v in found.items() if not _is_flags(k, v[0].variable)}
    chosen = plain or found
    stacks = {k: v for k, v in chosen.items() if len(v) > 1}
    chosen = stacks if len(stacks) == 1 else chosen
    places = {
        (p.axes.y, p.axes.x, p.variable.sizes[p.axes.y], p.variable.sizes[p.axes.x]) for v in chosen.values() for p in v
    }
    if len(places) != 1 or len(stacks) > 1:
        told = ", ".join(f"{k} {v[0].variable.dims}" for k, v in found.items()) or "nothing"
        raise SceneError(f"{path} should hold one (band, y, x) variable or (y, x) variables of one shape, found {told}")
    left = [key for key in found if key not in chosen]
    notes = [f"not read: {', '.join(left)} (masks, flags, or of another shape than the bands)"] if left else []
    return [plane for key in chosen for plane in chosen[key]], notes


def _is_flags(key: str, variable: Any) -> bool:
    told = flagged_by_attributes(variable.attrs) and "colorinterp" not in variable.attrs  # our own class maps
    return bool(told) or variable.dtype == bool or named_mask(key) or flagged_by_name(key) is not None


def _time_of(variable: Any, axes: Axes) -> str | None:
    """Return the dimension of time; of several the longest."""
    times = [d for d in axes.others if kind_of(d, variable) == "t"]
    return max(times, key=lambda d: int(variable.sizes[d])) if times else None


def _bands_of(variable: Any, axes: Axes, path: str, time: str | None) -> list[_Plane]:
    at, along = dict.fromkeys(axes.others, 0), _time_of(variable, axes)
    if along and time is not None:
        at[along] = time_index(time, times_of(variable, along), path)
    elif along and variable.sizes[along] > 1:
        times = times_of(variable, along)
        raise TimesError(
            f"{path}: {variable.name} has {len(times)} steps along {along} ({listed(times)}), a scene has one: choose "
            f"it with --time {times[0]} or --time 1"
        )
    long = [d for d in axes.others if variable.sizes[d] > 1 and d != along]
    if len(long) > 1:
        raise SceneError(
            f"{path}: {variable.name} has {variable.sizes[long[0]]} steps along {long[0]}, a scene has one: select one "
            f"with xarray (.isel({long[0]}=0)) and store that"
        )
    return [
        _Plane(variable, axes, at | ({long[0]: i} if long else {}))
        for i in range(variable.sizes[long[0]] if long else 1)
    ]


def _chunk(variable: Any) -> int:
    chunks = variable.encoding.get("chunks") or variable.encoding.get("chunksizes")
    if not chunks and variable.encoding.get("source", "").endswith(".nc"):
        chunks = variable.shape[-1:]  # nothing is packed: a row can be read by itself
    return int(math.prod(chunks or variable.shape)) * int(variable.dtype.itemsize)


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


def _names(planes: list[_Plane]) -> tuple[str, ...]:
    """Return the bands' names: of their coordinate, else their long names, else what their variables are called."""
    own = tuple(str(plane.variable.name) for plane in planes)
    labels = tuple(_label(plane) for plane in planes)
    if len(planes) > 1 and all(labels) and len(set(labels)) == len(labels):
        return tuple(str(label) for label in labels)
    names = _per_band([plane.variable for plane in planes], "long_name", "descriptions", None)
    if len(set(own)) == len(planes) != len(set(names)):
        return own
    return tuple(str(name or called) for name, called in zip(names, own, strict=True))


def _label(plane: _Plane) -> str | None:
    """Return the text that a coordinate gives a band, such as "B04"."""
    for name in plane.axes.others:
        coordinate = found_coordinate(plane.variable, name)
        if coordinate is not None and coordinate.ndim == 1 and coordinate.dtype.kind in "UOST":
            return str(coordinate.to_numpy()[plane.at[name]])
    return None


def _nodata(planes: list[_Plane]) -> list[float | None]:
    variables = [plane.variable for plane in planes]
    found = []
    for index, plane in enumerate(planes):
        said = [name for name in _NODATA if name in plane.variable.attrs]
        values = [_number(_per_band(variables, name, name, None)[index]) for name in said]
        # NaN is missing in any case, and xarray writes it as _FillValue beside a missing_value that counts
        value = next((v for v in values if v is not None and v == v), values[0] if values else None)
        wrapped = value is not None and value < 0 and plane.dtype.kind == "u" and plane.variable.dtype.kind == "i"
        found.append(value + 2.0 ** (8 * plane.dtype.itemsize) if wrapped and value is not None else value)
    return found


def _number(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None
