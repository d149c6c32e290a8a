"""Attributes that make a Zarr store open at the right place in xarray, rioxarray, GDAL and GeoZarr readers.

CF grid mapping (`spatial_ref` with `crs_wkt` and GDAL's `GeoTransform`), 1-D coordinates of pixel centres where the
grid has them, names, common names and wavelengths of the bands as coordinates (of one dimension: GDAL from 3.12 still
opens the array as one dataset), GDAL's `_CRS`, and the GeoZarr conventions proj:, spatial: and multiscales.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr
from affine import Affine

from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.outputs.outputs import Output
from scenelift.pipeline.scenes.products.bands import WAVELENGTH, spectral_columns
from scenelift.pipeline.scenes.scenes import Band

GRID_MAPPING = "spatial_ref"

_CONVENTIONS = {
    "proj": ("geo-proj", "f17cb550-5864-4468-aeb7-f3180cfb622f", "Coordinate reference system information"),
    "spatial": ("spatial", "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "Spatial coordinate information"),
    "multiscales": (
        "multiscales",
        "d35379db-88df-4056-af3a-620245f8e347",
        "Multiscale layout of zarr datasets",
    ),
}


def _conventions(*names: str) -> list[dict[str, str]]:
    root = "https://raw.githubusercontent.com/zarr-conventions"
    blob = "https://github.com/zarr-conventions"
    return [
        {
            "schema_url": f"{root}/{repository}/refs/tags/v1/schema.json",
            "spec_url": f"{blob}/{repository}/blob/v1/README.md",
            "uuid": uuid,
            "name": f"{name}:" if name != "multiscales" else name,
            "description": description,
        }
        for name in names
        for repository, uuid, description in [_CONVENTIONS[name]]
    ]


def _coefficients(transform: Affine) -> list[float]:
    return [float(value) for value in tuple(transform)[:6]]


def _place(grid: GeoGrid) -> dict[str, Any]:
    """Return the proj: and spatial: attributes of a grid."""
    code = grid.crs.to_epsg()
    crs = {"proj:code": f"EPSG:{code}"} if code else {"proj:wkt2": grid.crs.to_wkt(version="WKT2_2019")}
    return {
        **crs,
        "spatial:dimensions": ["y", "x"],
        "spatial:transform_type": "affine",
        "spatial:registration": "pixel",
        "spatial:transform": _coefficients(grid.transform),
        "spatial:shape": list(grid.shape),
        "spatial:bbox": list(grid.bounds),
    }


def group_attributes(output: Output, factors: list[int] | None = None) -> dict[str, Any]:
    """Return the attributes of the root group; `factors` are the pyramid's reductions, once it is built."""
    names = ["proj", "spatial"]
    attributes: dict[str, Any] = {
        "Conventions": "CF-1.11",
        **_place(output.grid),
        "scenelift": output.provenance,
    }
    if factors:
        names.append("multiscales")
        layout: list[dict[str, Any]] = [{"asset": ".", **_level(output.grid)}]
        for factor in factors:
            grid = output.grid.coarsened(factor)
            relative = {"scale": [2.0, 2.0], "translation": [0.0, 0.0]}
            before = "." if factor == 2 else str(factor // 2)
            layout.append({"asset": str(factor), "derived_from": before, "transform": relative, **_level(grid)})
        attributes["multiscales"] = {"layout": layout, "resampling_method": "mode" if output.categories else "average"}
    return {"zarr_conventions": _conventions(*names), **attributes}


def _level(grid: GeoGrid) -> dict[str, Any]:
    return {"spatial:transform": _coefficients(grid.transform), "spatial:shape": list(grid.shape)}


def level_attributes(grid: GeoGrid) -> dict[str, Any]:
    """Return the attributes of a pyramid level's group."""
    return {"zarr_conventions": _conventions("proj", "spatial"), **_place(grid)}


def array_attributes(output: Output) -> dict[str, Any]:
    """Return the attributes of the data variable.

    Nodata, scales and offsets use rioxarray's plural names, not CF's `_FillValue` and `scale_factor`: xarray decodes
    the latter on opening and would turn uint16 into float.
    """
    bands = output.bands
    attributes: dict[str, Any] = {
        "grid_mapping": GRID_MAPPING,
        # so that a plain xarray.open_zarr keeps them with the data
        "coordinates": " ".join([GRID_MAPPING, *spectral_columns([band.tags for band in bands])]),
        "_CRS": {"wkt": output.grid.crs.to_wkt()},
        "long_name": [b.description or f"band {i + 1}" for i, b in enumerate(bands)],
        "colorinterp": [b.color for b in bands],
    }
    if output.nodata is not None and not np.isnan(output.nodata):
        is_float = np.issubdtype(np.dtype(output.dtype), np.floating)
        attributes["nodata"] = output.nodata if is_float else int(output.nodata)
    if any(b.declared for b in bands):
        attributes["scales"] = [b.scale if b.declared else 1.0 for b in bands]
        attributes["offsets"] = [b.offset if b.declared else 0.0 for b in bands]
    if output.categories:  # CF's way of naming the values of a variable
        attributes["flag_values"] = list(range(len(output.categories)))
        attributes["flag_meanings"] = " ".join(c.name.replace(" ", "_") for c in output.categories)
    if output.tags:
        attributes["tags"] = output.tags
    if output.tag_domains:
        attributes["tag_domains"] = output.tag_domains
    if any(b.tags for b in bands):
        attributes["band_tags"] = [b.tags for b in bands]
    return attributes


def _write_bands(group: zarr.Group, bands: Sequence[Band]) -> None:
    """Write the coordinate `band` (names, each once) and what else is known of the bands."""
    names = [band.description or f"band {number}" for number, band in enumerate(bands, start=1)]
    columns = {"band": names} if len(set(names)) == len(names) else {}
    columns |= spectral_columns([band.tags for band in bands])
    for name, values in columns.items():
        text = isinstance(values[0], str)
        array = group.create_array(
            name,
            shape=(len(bands),),
            chunks=(len(bands),),
            dtype="string" if text else "float64",
            fill_value="" if text else float("nan"),
            dimension_names=("band",),
            compressors=None,
        )
        array[:] = np.array(values, object if text else np.float64)
    if WAVELENGTH in columns:
        group[WAVELENGTH].attrs.update({"standard_name": "radiation_wavelength", "units": "um"})


def write_coordinates(group: zarr.Group, grid: GeoGrid, bands: Sequence[Band]) -> None:
    """Write `spatial_ref`, what bands are called and, for a grid along the axes, x and y of the pixel centres."""
    _write_bands(group, bands)
    t = grid.transform
    mapping = group.create_array(GRID_MAPPING, shape=(), dtype="int64", fill_value=0)
    mapping.attrs.update(
        {
            "crs_wkt": grid.crs.to_wkt(),
            "spatial_ref": grid.crs.to_wkt(),
            "GeoTransform": " ".join(repr(v) for v in (t.c, t.a, t.b, t.f, t.d, t.e)),
        }
    )
    if not grid.is_rectilinear:
        return
    geographic = grid.crs.is_geographic
    for name, length, start, step in (("x", grid.width, t.c, t.a), ("y", grid.height, t.f, t.e)):
        standard = {"x": "longitude", "y": "latitude"}[name] if geographic else f"projection_{name}_coordinate"
        units = f"degrees_{'east' if name == 'x' else 'north'}" if geographic else grid.crs.linear_units
        array = group.create_array(
            name,
            shape=(length,),
            chunks=(length,),
            dtype="float64",
            dimension_names=(name,),
            compressors=None,
        )
        array[:] = start + (np.arange(length) + 0.5) * step
        array.attrs.update({"standard_name": standard, "units": units, "axis": name.upper()})
