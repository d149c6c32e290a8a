"""Sentinel-2 stores in EOPF's layout, small: Zarr 2, a group for each resolution, no grid mapping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from support.builders import noise_image
from support.products import COPIES, METRES

ORIGIN = (699_960, 4_700_040)


def write_eopf(
    path: Path, level: str = "L2A", side: int = 60, planes: dict[str, NDArray] | None = None, scl: NDArray | None = None
) -> tuple[Path, dict[str, NDArray]]:
    """Write a store whose 10 m bands have `side` pixels a side; return it and what each band holds.

    Level-2A has resampled copies of finer bands beside those of 20 and 60 m, all 4242.
    """
    made = dict(planes or {})
    for number, (band, metres) in enumerate(METRES.items()):
        if level == "L1C" or band != "B10":
            made.setdefault(band, noise_image(number, (side * 10 // metres,) * 2, high=9000) + 1000)
    root = zarr.open_group(str(path), mode="w", zarr_format=2)
    properties = {"datetime": "2025-10-08T10:00:41Z", "platform": "sentinel-2a", "eo:cloud_cover": 7.5}
    root.attrs["stac_discovery"] = {"id": f"S2A_MSI{level}_20251008T100041", "properties": properties}
    root.attrs["other_metadata"] = {}
    for metres in (10, 20, 60):
        group = root.require_group(f"measurements/reflectance/r{metres}m")
        bands = {band: values for band, values in made.items() if METRES[band] == metres}
        if level == "L2A" and metres in COPIES:
            sides = (side * 10 // metres,) * 2
            bands |= {b: np.full(sides, 4242, "uint16") for b in COPIES[metres] if b not in bands}
        for band, values in bands.items():
            facts = {"scale_factor": 0.0001, "add_offset": -0.1, "fill_value": 0, "units": "digital_counts"}
            facts |= {"long_name": f"BOA reflectance from MSI acquisition at spectral band {band.lower()}"}
            _write(group, band.lower(), values, metres, facts | {"_eopf_attrs": {"dimensions": ["y", "x"]}}, 0)
        _coordinates(group, side * 10 // metres, metres)
    if level == "L2A":
        group = root.require_group("conditions/mask/l2a_classification/r20m")
        n = side // 2
        _write(group, "scl", np.full((n, n), 4, "uint8") if scl is None else scl, 20, {}, None)
        _coordinates(group, n, 20)
    zarr.consolidate_metadata(str(path), zarr_format=2)
    return path, made


def _write(group: Any, name: str, values: NDArray, metres: int, facts: dict[str, Any], fill: int | None) -> None:
    array = group.create_array(name, shape=values.shape, chunks=(32, 32), dtype=values.dtype, fill_value=fill)
    array[...] = values
    place = [float(metres), 0.0, float(ORIGIN[0]), 0.0, -float(metres), float(ORIGIN[1]), 0.0, 0.0, 1.0]
    proj = {"proj:epsg": 32632, "proj:transform": place, "proj:shape": list(values.shape)}
    array.attrs.update({"_ARRAY_DIMENSIONS": ["y", "x"], **proj, **facts})


def _coordinates(group: Any, count: int, metres: int) -> None:
    """Write the centres of columns and rows, whole metres."""
    for name, start, step in (("x", ORIGIN[0], metres), ("y", ORIGIN[1], -metres)):
        array = group.create_array(name, shape=(count,), dtype="int64", fill_value=None)
        array[...] = start + step // 2 + step * np.arange(count)
        array.attrs["_ARRAY_DIMENSIONS"] = [name]
