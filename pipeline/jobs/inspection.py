"""A finished output, looked at as a reader will: structure, place on Earth, and pixels block by block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rio_cogeo.cogeo import cog_validate

from scenelift.pipeline.errors import SceneliftError
from scenelift.pipeline.files import pixel_checksum
from scenelift.pipeline.jobs.journal import Commit, History, differences
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.tiles import TileGrid, Window


def problems(path: Path, wanted: dict[str, Any]) -> list[str]:
    """Return what is wrong with an output's structure or place, whatever its bytes."""
    try:
        scene = _open(path, wanted)
        place = scene.readers[0][0].crs
        found: dict[str, Any] = {
            "shape": [len(scene.bands) + (scene.alpha is not None), *scene.grid.shape],
            "dtype": scene.dtype,
            "crs": place.to_wkt() if place else None,
            "transform": [float(v) for v in tuple(scene.grid.transform)[:6]],
        }
    except (SceneliftError, RasterioError, ValueError, KeyError) as error:
        return [" ".join(str(error).split())]
    close = np.allclose(found["transform"], wanted["transform"], rtol=1e-12, atol=1e-9)
    found["transform"] = wanted["transform"] if close else found["transform"]
    found["crs"] = wanted["crs"] if place == CRS.from_wkt(wanted["crs"]) else found["crs"]
    wrong = differences({key: wanted[key] for key in found}, found)
    if wanted["format"] == "tif":
        valid, errors, _ = cog_validate(path, strict=False, quiet=True)
        wrong += [] if valid else [f"no valid Cloud-Optimized GeoTIFF: {'; '.join(errors)}"]
    return wrong


def _open(path: Path, wanted: dict[str, Any]) -> Scene:
    """Open an output; with its CRS given, one in plain pixel coordinates is no scene without a place."""
    return open_scene(SceneSource((str(path),), crs=wanted["crs"]))


def wrong_pixels(path: Path, history: History) -> list[int]:
    """Return the blocks of a damaged GeoTIFF that do not read back as they were stored."""
    try:
        scene = _open(path, history.fingerprint["output"])
    except SceneliftError:
        return sorted(history.commits)
    grid = TileGrid(tuple(history.fingerprint["output"]["shape"][1:]), tuple(history.fingerprint["output"]["block"]))
    stored = {number: commit for number, commit in history.commits.items() if commit.files}
    return [number for number, commit in stored.items() if not _reads_as(scene, history, grid[number], commit)]


def _reads_as(scene: Scene, history: History, window: Window, commit: Commit) -> bool:
    try:
        return pixel_checksum(*read_block(scene, history, window)) == commit.pixels
    except SceneliftError:
        return False


def read_block(scene: Scene, history: History, window: Window) -> tuple[NDArray[np.generic], NDArray[np.uint8] | None]:
    """Read values (the alpha band behind them) and mask of a block as they were stored."""
    bands = [*scene.readers, *([scene.alpha] if scene.alpha else [])]
    pairs = [reader.read(index, window) for reader, index in bands]
    values = np.stack([values for values, _ in pairs])
    mask = np.where(pairs[0][1], np.uint8(255), np.uint8(0)) if history.fingerprint["output"]["mask"] else None
    return values, mask
