"""Where the pixels of an xarray variable are: which dimensions are rows and columns, and where these lie on Earth.

Names and attributes of dimensions decide, never their order; coordinates win over a transform that is stored beside
them, since programs that crop or coarsen change the former and forget the latter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError

from scenelift.pipeline.errors import SceneError, UsageError
from scenelift.pipeline.grids import crs_of

_NAMES = {
    "x": {"x", "lon", "long", "longitude", "easting", "eastings", "east", "xc", "rlon", "col", "cols", "column"},
    "y": {"y", "lat", "latitude", "northing", "northings", "north", "yc", "rlat", "row", "rows", "line", "lines"},
    "t": {"t", "time", "times", "date", "dates", "datetime", "valid_time"},
}  # fmt: skip
_STANDARD = {
    "projection_x_coordinate": "x", "longitude": "x", "grid_longitude": "x", "projection_x_angular_coordinate": "x",
    "projection_y_coordinate": "y", "latitude": "y", "grid_latitude": "y", "projection_y_angular_coordinate": "y",
    "time": "t",
}  # fmt: skip
_METRES = {"m": 1.0, "metre": 1.0, "meter": 1.0, "metres": 1.0, "meters": 1.0}
_METRES |= dict.fromkeys(("km", "kilometre", "kilometer", "kilometres", "kilometers"), 1000.0)
_METRES |= dict.fromkeys(("ft", "foot", "feet"), 0.3048) | dict.fromkeys(("us-ft", "us survey foot"), 1200 / 3937)
UNEVEN = 0.02
"""Most that a coordinate may lie off an even spacing, pixels; beside the rounding of its data type."""


class Axes(NamedTuple):
    """Dimensions of a variable."""

    y: str
    x: str
    others: tuple[str, ...]
    """All but these, in order."""


class Placement(NamedTuple):
    """Where a variable lies."""

    transform: Affine
    crs: CRS | None
    notes: tuple[str, ...]


def kind_of(dimension: str, variable: Any) -> str | None:
    """Return "x", "y" or "t" for a dimension whose coordinate's attributes or whose name say so."""
    coordinate = found_coordinate(variable, dimension)
    attributes = {} if coordinate is None else coordinate.attrs
    units = str(attributes.get("units", "")).lower().replace("_", "").replace("degrees", "degree")
    by_axis = {"X": "x", "Y": "y", "T": "t"}.get(str(attributes.get("axis", "")).upper())
    by_units = {"degreeeast": "x", "degreee": "x", "degreenorth": "y", "degreen": "y"}.get(units)
    times = " since " in str(attributes.get("units", "")) or (coordinate is not None and coordinate.dtype.kind in "Mm")
    name = dimension.lower()
    by_name = next((kind for kind, names in _NAMES.items() if name in names), None)
    standard = _STANDARD.get(str(attributes.get("standard_name", "")).lower())
    return by_axis or standard or by_units or ("t" if times else None) or by_name


def found_coordinate(variable: Any, name: str) -> Any:
    """Return a coordinate; None for a dimension without one, for which xarray would count pixels."""
    return variable.coords[name] if name in variable.coords else None  # noqa: SIM401 - get() makes one up


def times_of(variable: Any, dimension: str) -> tuple[str, ...]:
    """Return the steps along a dimension of time in ISO 8601, to the second, days alone where all are midnight.

    Numbers from 1 where its coordinate does not say when they are.
    """
    import xarray as xr

    coordinate = found_coordinate(variable, dimension)
    if coordinate is None or coordinate.ndim != 1:
        return tuple(map(str, range(1, variable.sizes[dimension] + 1)))
    told = {key: coordinate.attrs[key] for key in ("units", "calendar") if key in coordinate.attrs}
    plain = xr.Variable(coordinate.dims, coordinate.to_numpy(), told)  # no fill value: Zarr's own is often 0
    try:
        values = xr.decode_cf(xr.Dataset({"moment": plain}))["moment"].to_numpy()
    except Exception:  # noqa: BLE001 - units that are none, calendars that need another package
        values = coordinate.to_numpy()
    if values.dtype.kind == "M":
        texts = [str(text) for text in np.datetime_as_string(values, unit="s")]
    else:
        texts = [value.isoformat() if hasattr(value, "isoformat") else str(value) for value in values.tolist()]
    midnight = "T00:00:00"
    days = all(text.endswith(midnight) for text in texts)
    return tuple(text.removesuffix(midnight) if days else text for text in texts)


def time_index(wanted: str, times: Sequence[str], where: str) -> int:
    """Return the 0-based place of a time: by its number from 1, or by the beginning of its text, as 2024-05.

    Raises
    ------
    UsageError
        If none, or several, fit.
    """
    if wanted.isdecimal() and 1 <= int(wanted) <= len(times):
        return int(wanted) - 1
    found = [number for number, text in enumerate(times) if text.startswith(wanted)]
    if len(found) != 1:
        how = "several times begin so" if found else f"it has the numbers 1 to {len(times)}"
        raise UsageError(f"--time {wanted}: no single time of {where}, {how}: {listed(times)}")
    return found[0]


def listed(times: Sequence[str]) -> str:
    """Return times for messages: the first and the last ones of many."""
    shown = [*times] if len(times) <= 6 else [*times[:3], "…", *times[-2:]]
    return ", ".join(shown)


def axes_of(variable: Any, attributes: Mapping[str, Any], path: str) -> Axes | None:
    """Return the dimensions along rows and columns; None for a variable that is no raster.

    Raises
    ------
    SceneError
        If one of them is known and the other cannot be told.
    """
    dims = tuple(str(d) for d in variable.dims)
    told = variable.attrs.get("spatial:dimensions") or attributes.get("spatial:dimensions")
    if told is not None and len(told) == 2 and set(told) <= set(dims):
        y, x = (str(name) for name in told)
        return Axes(y, x, tuple(d for d in dims if d not in (y, x)))
    kinds = {d: kind_of(d, variable) for d in dims}
    found = {k: [d for d in dims if kinds[d] == k] for k in "yx"}
    if len(dims) < 2 or any(d.lower() in ("bnds", "bounds", "nv", "nbnd", "vertices", "string") for d in dims):
        return None
    if not found["y"] and not found["x"]:  # nothing is known: rows and columns come last, as C and GDAL have them
        found = {"y": [dims[-2]], "x": [dims[-1]]}
    elif len(dims) == 2 and sorted(map(len, found.values())) == [0, 1]:
        known = "y" if found["y"] else "x"
        other = {"y": "x", "x": "y"}[known]
        if kinds[next(d for d in dims if d not in found[known])] is not None:
            return None
        found[other] = [d for d in dims if d not in found[known]]
    if len(found["y"]) != 1 or len(found["x"]) != 1:
        raise SceneError(
            f"{path}: which dimensions of {variable.name} {dims} are rows and columns? Name them y and x, or give "
            "their coordinates the attribute axis (Y, X)"
        )
    y, x = found["y"][0], found["x"][0]
    return Axes(y, x, tuple(d for d in dims if d not in (y, x)))


def place(variable: Any, axes: Axes, data: Any, path: str) -> Placement:
    """Return where a variable lies.

    Raises
    ------
    SceneError
        If its coordinates are not evenly spaced, or their units contradict the coordinate reference system.
    """
    crs = _crs(variable, data)
    shape = variable.sizes[axes.y], variable.sizes[axes.x]
    stored = _stored_transform(variable, data, shape)
    ys, xs = (_coordinate(variable, name, crs, path) for name in (axes.y, axes.x))
    if ys is None or xs is None:
        return Placement(stored or Affine.identity(), crs, ())
    if stored is not None and _agree(stored, ys, xs):
        return Placement(stored, crs, ())
    notes = []
    if stored is not None and min(shape) > 1:
        notes.append("its coordinates differ from the GeoTransform stored beside them: the coordinates count")
    steps = [_step(values) for values in (ys, xs)]
    if None in steps:
        size = abs(next((s for s in steps if s is not None), 0.0))
        if size == 0:
            raise SceneError(f"{path}: one row and one column have no pixel size; store a GeoTransform beside them")
        notes.append(f"one row or column has no pixel size of its own: taken for square, {size:g}")
        steps = [(-size, size)[i] if s is None else s for i, s in enumerate(steps)]
    dy, dx = (float(s) for s in steps if s is not None)
    transform = Affine(dx, 0, float(xs[0]) - dx / 2, 0, dy, float(ys[0]) - dy / 2)
    return Placement(transform, crs, tuple(notes))


def _step(values: NDArray[np.float64]) -> float | None:
    return None if len(values) == 1 else float(values[-1] - values[0]) / (len(values) - 1)


def _coordinate(variable: Any, name: str, crs: CRS | None, path: str) -> NDArray[np.float64] | None:
    """Return the centres of rows or columns in units of the CRS; None if there are none."""
    coordinate = found_coordinate(variable, name)
    if coordinate is None or coordinate.ndim != 1 or coordinate.dtype.kind not in "iuf":
        return None
    values = np.asarray(coordinate.to_numpy(), np.float64)
    rounding = float(np.finfo(coordinate.dtype).eps * np.abs(values).max()) if coordinate.dtype.kind == "f" else 0.0
    _check_even(values, rounding, name, path)
    return values * _factor(coordinate, name, crs, path)


def _check_even(values: NDArray[np.float64], rounding: float, name: str, path: str) -> None:
    step = _step(values)
    if step is None:
        return
    even = values[0] + step * np.arange(len(values))
    off = np.abs(values - even)
    if not (np.isfinite(values).all() and step != 0 and off.max() <= UNEVEN * abs(step) + 2 * rounding):
        worst = int(np.argmax(np.nan_to_num(off, nan=np.inf)))
        raise SceneError(
            f"{path}: the coordinate {name} is not evenly spaced (number {worst} is {values[worst]:g}, "
            f"{even[worst]:g} expected): resample it to a regular grid, or cut it into parts that are regular"
        )


def _factor(coordinate: Any, name: str, crs: CRS | None, path: str) -> float:
    """Return what turns a coordinate into units of the CRS."""
    units = str(coordinate.attrs.get("units", "")).strip().lower()
    if crs is None or not units:
        return 1.0
    angular, metres = units.startswith("deg"), _METRES.get(units)
    if units.startswith("rad") or (angular and not crs.is_geographic) or (metres is not None and crs.is_geographic):
        raise SceneError(
            f"{path}: the coordinate {name} is in {units}, its coordinate reference system in {crs.units_factor[0]}: "
            "one of them is wrong; correct the attribute units or the grid mapping"
        )
    if metres is None:
        return 1.0
    factor = metres / float(crs.units_factor[1])
    return 1.0 if abs(factor - 1) < 1e-9 else factor


def _agree(transform: Affine, ys: NDArray[np.float64], xs: NDArray[np.float64]) -> bool:
    """Whether a transform puts the first and last pixel where the coordinates do, within a hundredth of a pixel."""
    if transform.is_degenerate or transform.b or transform.d:
        return bool(transform.b or transform.d)  # a turned grid has no such coordinates: what is stored counts
    back = ~transform
    for row, col in ((0, 0), (len(ys) - 1, len(xs) - 1)):
        at = back @ (float(xs[col]), float(ys[row]))
        size = max(abs(transform.a), abs(transform.e))
        slack = 0.01 + 1e-6 * max(abs(float(xs[col])), abs(float(ys[row]))) / size * 1e-1
        if abs(at[0] - col - 0.5) > slack or abs(at[1] - row - 0.5) > slack:
            return False
    return True


def _mapping(variable: Any, data: Any) -> Mapping[str, Any]:
    """Return the attributes of the variable's grid mapping."""
    name = variable.encoding.get("grid_mapping") or variable.attrs.get("grid_mapping") or "spatial_ref"
    found = variable.coords.get(name)
    found = data.variables.get(name) if found is None else found
    return {} if found is None else dict(found.attrs)


def _stored_transform(variable: Any, data: Any, shape: tuple[int, int]) -> Affine | None:
    text = _mapping(variable, data).get("GeoTransform")
    if text is not None:
        try:
            return Affine.from_gdal(*(float(v) for v in str(text).replace(",", " ").split()))
        except (TypeError, ValueError):
            return None
    for attributes in (variable.attrs, data.attrs):
        told = attributes.get("spatial:transform")
        if told is not None and tuple(attributes.get("spatial:shape", shape)) == shape:
            return Affine(*(float(v) for v in list(told)[:6]))
        told = attributes.get("proj:transform")  # of 9 numbers, or of their first 6
        if told is not None and len(told) in (6, 9) and tuple(attributes.get("proj:shape", shape)) == shape:
            return Affine(*(float(v) for v in list(told)[:6]))
    return None


def _crs(variable: Any, data: Any) -> CRS | None:
    """Return the CRS: of the CF grid mapping, of GDAL's attribute, of the GeoZarr convention proj:."""
    try:
        found = variable.rio.crs
    except Exception:  # noqa: BLE001 - rioxarray and pyproj raise anything for attributes they cannot read
        found = None
    if found is not None:
        return CRS.from_wkt(found.to_wkt())
    for attributes in (variable.attrs, data.attrs):
        gdal = attributes.get("_CRS")
        gdal = gdal if isinstance(gdal, dict) else {}
        told = [attributes.get(f"proj:{key}") for key in ("code", "wkt2", "projjson", "epsg")]
        for text in (*told[:3], told[3] and f"EPSG:{told[3]}", gdal.get("wkt"), gdal.get("url"), gdal.get("projjson")):
            if text:
                try:
                    return crs_of(text)
                except (CRSError, ValueError, TypeError):
                    continue
    return None
