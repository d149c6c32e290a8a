"""`scenelift tiles`: a scene, enhanced or not, as tiles with an index, for classifiers of any kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.outputs.footprints import Entry, write_index
from scenelift.pipeline.outputs.tilesets import tile_writer
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.tiles import Window
from scenelift.workflows.landcover.settings import TileSettings


def cut_tiles(
    source: SceneSource, folder: Path, settings: TileSettings, labels: SceneSource | None = None
) -> dict[str, Any]:
    """Cut a scene into tiles, and write ``index.parquet``, ``index.csv`` and ``tiles.json`` beside them.

    Parameters
    ----------
    source : SceneSource
    folder : path
        Gets its name only when everything is in it.
    settings : TileSettings
    labels : SceneSource, optional
        One band of class numbers on the scene's grid: each tile gets its labels and its most frequent one.

    Returns
    -------
    dict
        What ``tiles.json`` holds.

    Raises
    ------
    UsageError
        If the folder exists or cannot be made, the labels do not lie on the scene's grid, or no tile is left.
    """
    folder = folder.absolute()
    _check_free(folder)
    scene = open_scene(source)
    truth = None if labels is None else _open_labels(labels, scene)
    kept = [(w, share) for w in _windows(scene.grid.shape, settings) if (share := _share(scene, w)) >= settings.least]
    kept = [(window, share) for window, share in kept if share > 0]
    if not kept:
        raise UsageError(
            f"{scene.name} has no tile of {settings.side} pixels with enough data: lower --size or --valid"
        )
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder}: {error.strerror}") from None
    dtype = "float32" if settings.reflectance else scene.dtype
    writer = tile_writer(settings.kind, partial, scene, len(kept), settings.side, dtype, truth is not None)
    entries = []
    try:
        for index, (window, share) in enumerate(kept):
            own = None if truth is None else _labels(truth, window)
            label = None if own is None else _most_frequent(own)
            name = writer.add(index, window, _values(scene, window, settings.reflectance), own, label)
            entries.append(Entry(name, window, share, label))
    finally:
        writer.close()
    write_index(partial, scene.grid, entries)
    facts = _facts(scene, settings, len(kept), dtype)
    (partial / "tiles.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    partial.rename(folder)
    return facts


def _check_free(folder: Path) -> None:
    try:
        exists, has_place = folder.exists(), folder.parent.is_dir()
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder}: {error.strerror}") from None
    if exists:
        raise UsageError(f"{folder} exists; choose another name")
    if not has_place:
        raise UsageError(f"no such folder for the tiles: {folder.parent}")


def _windows(shape: tuple[int, int], settings: TileSettings) -> list[Window]:
    side, step = settings.side, settings.stride or settings.side
    rows, cols = (range(0, n - side + 1, step) for n in shape)
    return [Window(row, col, side, side) for row in rows for col in cols]


def _share(scene: Scene, window: Window) -> float:
    return float(scene.read_dn(window)[1].all(axis=0).mean()) if scene.masked else 1.0


def _values(scene: Scene, window: Window, reflectance: bool) -> NDArray[np.generic]:
    if not reflectance:
        return scene.read_dn(window)[0]
    region = scene.read(window)
    return region.with_nan()


def _open_labels(source: SceneSource, scene: Scene) -> Scene:
    truth = open_scene(source)
    if len(truth.bands) != 1 or truth.dtype == "float32":
        raise UsageError(
            f"{truth.name} holds {len(truth.bands)} bands of {truth.dtype}: labels are one of whole numbers"
        )
    if not truth.grid.same_as(scene.grid):
        raise UsageError(f"labels {truth.name} do not lie on the grid of {scene.name}: warp them onto it first")
    return truth


def _labels(truth: Scene, window: Window) -> NDArray[np.int32]:
    values, valid = truth.read_dn(window)
    return np.where(valid[0], values[0].astype(np.int32), np.int32(-1))


def _most_frequent(labels: NDArray[np.int32]) -> int | None:
    """Return the most frequent label, of equally frequent ones the lowest; None where nothing is labelled."""
    values, counts = np.unique(labels[labels >= 0], return_counts=True)
    return int(values[counts.argmax()]) if len(values) else None


def _facts(scene: Scene, settings: TileSettings, count: int, dtype: str) -> dict[str, Any]:
    bands = [
        {"name": b.description, "scale": b.scale, "offset": b.offset}
        if not settings.reflectance
        else {"name": b.description, "scale": 1.0, "offset": 0.0}
        for b in scene.bands
    ]
    facts = {"scene": scene.name, "tiles": count, "size": settings.side, "format": settings.kind, "dtype": dtype}
    nodata = None if settings.reflectance or scene.nodata is None or np.isnan(scene.nodata) else scene.nodata
    return facts | {"bands": bands, "nodata": nodata, "crs": scene.grid.crs.to_string()}
