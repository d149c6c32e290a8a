"""Small pictures of large scenes: averaged by windows or read from overviews, stretched alike, as PNG."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling
from rasterio.errors import RasterioError

from scenelift.pipeline.errors import SceneError
from scenelift.pipeline.outputs.outputs import pictures
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.rasters import GDAL_OPTIONS
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.tiles import Window

SIDE = 192
"""Longer side of a preview, pixels."""
RGB = ("B04", "B03", "B02")
STRIP = 4_000_000
"""About how many pixels of a band are read at once."""


@dataclass(frozen=True)
class Stretch:
    """Reflectance shown as black and as white, for each channel."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def __call__(self, view: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return an 8-bit RGB picture (H, W, 3) of a view (3, H, W); pixels without data are grey."""
        span = np.maximum(self.high - self.low, 1e-9)[:, None, None]
        scaled = (view - self.low[:, None, None]) / span
        picture = np.rint(255 * np.clip(np.nan_to_num(scaled), 0, 1))
        picture = np.where(np.isnan(view), 128, picture)
        return np.moveaxis(picture, 0, -1).astype(np.uint8)


def stretch_of(view: NDArray[np.float32]) -> Stretch:
    """Return the stretch from the 2nd to the 98th percentile of each channel of a view (3, H, W)."""
    flat = view.reshape(len(view), -1)
    if np.isnan(flat).all():
        return Stretch(np.zeros(3), np.ones(3))
    low, high = np.nanpercentile(flat, (2, 98), axis=1)
    return Stretch(low, high)


def channels(scene: Scene) -> list[int]:
    """Return the indices of the bands shown as red, green and blue; one band is shown in grey."""
    names = [band.description for band in scene.bands]
    if all(name in names for name in RGB):
        return [names.index(name) for name in RGB]
    shown = pictures(scene.bands)
    return shown[2::-1] if len(shown) >= 3 else shown[:1] * 3


def factor_for(scene: Scene, side: int) -> int:
    """Return by how much a scene must be shrunk for its longer side to be at most ``side`` pixels."""
    return max(1, -(-max(scene.grid.shape) // side))


def view_of(scene: Scene, factor: int, cells: tuple[int, int]) -> NDArray[np.float32]:
    """Average ``factor`` x ``factor`` pixels, strip by strip.

    Parameters
    ----------
    scene : Scene
    factor : int
    cells : (int, int)
        Height and width of the result; ``cells * factor`` pixels lie in the scene.

    Returns
    -------
    ndarray of float32, shape (3, *cells)
        Reflectance; NaN where a cell has no data.
    """
    rows = max(1, STRIP // max(1, cells[1] * factor) // factor)
    strips = []
    for first in range(0, cells[0], rows):
        count = min(rows, cells[0] - first)
        strips.append(crop_of(scene, Window(first * factor, 0, count * factor, cells[1] * factor), factor))
    return np.concatenate(strips, axis=1)


def crop_of(scene: Scene, window: Window, factor: int = 1) -> NDArray[np.float32]:
    """Return the red, green and blue of a window (3, H / factor, W / factor); NaN where there is no data."""
    region = scene.read(window)
    chosen = channels(scene)
    values, valid = region.values[chosen], region.valid[chosen]
    shape = 3, window.height // factor, factor, window.width // factor, factor
    total = np.where(valid, values, 0).reshape(shape).sum(axis=(2, 4), dtype=np.float64)
    count = valid.reshape(shape).sum(axis=(2, 4))
    mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean.astype(np.float32)


def heat(values: NDArray[np.floating[Any]], top: float) -> NDArray[np.uint8]:
    """Return an 8-bit RGB picture (H, W, 3) of values (H, W) from 0 (dark) to ``top`` (bright); NaN is grey."""
    from matplotlib import colormaps

    picture = (255 * colormaps["inferno"](np.clip(np.nan_to_num(values) / max(top, 1e-12), 0, 1))[..., :3]).astype(
        np.uint8
    )
    picture[np.isnan(values)] = 128
    return picture


def png(picture: NDArray[np.uint8]) -> bytes:
    """Return a picture (H, W, 3) as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def data_uri(content: bytes) -> str:
    """Return a PNG file as text that stands in a page instead of an address."""
    return "data:image/png;base64," + base64.b64encode(content).decode()


def preview(path: Path, scene: Scene) -> bytes:
    """Return a PNG of an output, made from its overviews.

    Parameters
    ----------
    path : Path
        GeoTIFF or Zarr group.
    scene : Scene
        The same, opened.

    Raises
    ------
    SceneError
        If the file cannot be read.
    """
    view = _zarr_view(path) if path.is_dir() else overview(path, [i + 1 for i in channels(scene)], SIDE)
    return png(stretch_of(view)(view))


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


def _coarse_level(path: Path, side: int) -> Path:
    """Return the group of a Zarr pyramid whose longer side is the smallest that is at least `side` pixels."""
    levels = sorted((p for p in path.iterdir() if p.name.isdigit() and p.is_dir()), key=lambda p: int(p.name))
    return levels[-1] if levels and side <= 256 else path


def _zarr_view(path: Path) -> NDArray[np.float32]:
    scene = open_scene(SceneSource((str(_coarse_level(path, SIDE)),)))
    factor = factor_for(scene, SIDE)
    height, width = scene.grid.shape
    return view_of(scene, factor, (max(1, height // factor), max(1, width // factor)))
