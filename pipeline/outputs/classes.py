"""Classes and flags beside an output: copied onto its grid by nearest neighbour, never averaged."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window as RioWindow

from scenelift.pipeline.errors import SinkError
from scenelift.pipeline.files import sync
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.scenes.limits import Limits
from scenelift.pipeline.scenes.multigrid import OnFinestGrid, lay_on
from scenelift.pipeline.scenes.products.kinds import ClassLayer
from scenelift.pipeline.scenes.rasters import GDAL_OPTIONS, RasterFile
from scenelift.pipeline.tiles import TileGrid

SIDE = 512
"""Side of a tile of the copy, pixels."""
STEP = 2048
"""Side of what is copied at once, pixels."""


def classes_path(output: Path, layer: ClassLayer) -> Path:
    """Return where the copy of a layer lies: `better_scl.tif` beside `better.tif` or `better.zarr`."""
    return output.with_name(f"{output.stem}_{layer.name}.tif")


def lay_classes(layer: ClassLayer, grid: GeoGrid, limits: Limits) -> OnFinestGrid:
    """Open a layer on a grid: a pixel has the value of the layer's pixel that covers its centre.

    Raises
    ------
    GridsError
        If the layer's pixels are not some whole times as large, or lie aside by other than whole or half pixels.
    SceneError
        If it cannot be read.
    """
    reader = layer.layer.open(limits)
    return OnFinestGrid(reader, lay_on(grid, reader, "the output"), grid.shape, grid.transform)


def write_classes(layer: ClassLayer, grid: GeoGrid, limits: Limits, path: Path, work: Path) -> None:
    """Copy a layer onto a grid, as a tiled GeoTIFF with its palette; block by block.

    Parameters
    ----------
    layer : ClassLayer
    grid : GeoGrid
        Of the output.
    limits : Limits
    path : Path
        Replaced if it exists, when the copy is complete.
    work : Path
        Folder on the same file system for what is not.

    Raises
    ------
    SinkError
        If the disk refuses.
    """
    placed = lay_classes(layer, grid, limits)
    band = layer.band
    nodata = placed.nodata[band - 1]
    new = work / f".{path.name}.{uuid.uuid4().hex}"
    profile = {"driver": "GTiff", "tiled": True, "blockxsize": SIDE, "blockysize": SIDE, "compress": "deflate"}
    profile |= {"count": 1, "height": grid.height, "width": grid.width, "dtype": placed.dtypes[band - 1]}
    place = {"crs": grid.crs, "transform": grid.transform, "nodata": nodata, "BIGTIFF": "IF_SAFER"}
    try:
        with rasterio.Env(**GDAL_OPTIONS), rasterio.open(new, "w", **profile, **place) as out:
            out.set_band_description(1, layer.name)
            if colors := _palette(placed, band):
                out.write_colormap(1, colors)
            for window in TileGrid(grid.shape, (STEP, STEP)):
                values, covered = (planes[0] for planes in placed.read([band], window))
                values = np.where(covered, values, np.asarray(nodata or 0).astype(values.dtype))
                out.write(values, 1, window=RioWindow(window.col, window.row, window.width, window.height))
        sync(new)
        new.replace(path)
        sync(path.parent)
    except (RasterioError, OSError) as error:
        raise SinkError(f"cannot write {path}: {error}") from error
    finally:
        new.unlink(missing_ok=True)


def _palette(placed: OnFinestGrid, band: int) -> dict[int, tuple[int, int, int, int]] | None:
    """Return the colours of a layer's values, if it has some."""
    reader = placed.reader
    return reader.palette(band) if isinstance(reader, RasterFile) and reader.colors[band - 1] == "palette" else None
