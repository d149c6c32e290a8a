"""Tiles of a scene as files for other people's programs: GeoTIFFs, arrays, tar shards, one Zarr array."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rasterio
import zarr
from numpy.typing import NDArray

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.outputs.geotiffs import write_geotiff
from scenelift.pipeline.scenes.scenes import Scene
from scenelift.pipeline.tiles import Window

SHARD = 1000
"""Tiles in one tar file."""

Values = NDArray[np.generic]


class TileWriter(Protocol):
    """Takes one tile after the other."""

    def add(self, index: int, window: Window, values: Values, labels: Values | None, label: int | None) -> str:
        """Write a tile (C, S, S), its labels (S, S) if there are any, and return the name the index gives it."""
        ...

    def close(self) -> None:
        """Finish what is open."""
        ...


class TiffTiles:
    """One georeferenced GeoTIFF a tile, and NAME_labels.tif beside it."""

    def __init__(self, folder: Path, scene: Scene, count: int, side: int, dtype: str, labelled: bool) -> None:
        self.folder, self.scene = folder, scene
        self.plain = dtype == scene.dtype

    def add(self, index: int, window: Window, values: Values, labels: Values | None, label: int | None) -> str:
        """Write one tile; see `TileWriter`."""
        name, grid = f"tile_{index:06d}.tif", self.scene.grid.window(window)
        names = [band.description or f"band {i}" for i, band in enumerate(self.scene.bands, start=1)]
        nodata = self.scene.nodata if self.plain else float("nan")
        write_geotiff(self.folder / name, values, grid, nodata, names, self.scene.bands if self.plain else ())
        if self.plain and self.scene.mask_kind in ("mask", "alpha"):  # no value of the tile says what is missing
            _write_mask(self.folder / name, self.scene.read_dn(window)[1])
        if labels is not None:
            write_geotiff(self.folder / f"tile_{index:06d}_labels.tif", labels[None], grid, None, ["label"])
        return name

    def close(self) -> None:
        """Do nothing: every file is finished."""


class NpyTiles:
    """One ``.npy`` (C, S, S) a tile, and NAME_labels.npy beside it."""

    def __init__(self, folder: Path, scene: Scene, count: int, side: int, dtype: str, labelled: bool) -> None:
        self.folder = folder

    def add(self, index: int, window: Window, values: Values, labels: Values | None, label: int | None) -> str:
        """Write one tile; see `TileWriter`."""
        name = f"tile_{index:06d}.npy"
        np.save(self.folder / name, values)
        if labels is not None:
            np.save(self.folder / f"tile_{index:06d}_labels.npy", labels)
        return name

    def close(self) -> None:
        """Do nothing: every file is finished."""


class TarTiles:
    """WebDataset shards: ``KEY.npy``, ``KEY.json``, ``KEY.cls`` and ``KEY.labels.npy`` in tar files of 1000 tiles."""

    def __init__(self, folder: Path, scene: Scene, count: int, side: int, dtype: str, labelled: bool) -> None:
        self.folder = folder
        self._tar: tarfile.TarFile | None = None

    def add(self, index: int, window: Window, values: Values, labels: Values | None, label: int | None) -> str:
        """Write one tile; see `TileWriter`."""
        if index % SHARD == 0:
            self.close()
            self._tar = tarfile.open(self.folder / f"tiles-{index // SHARD:05d}.tar", "w")  # noqa: SIM115 - until close
        key = f"{index:06d}"
        place = {"row": window.row, "col": window.col, "side": window.height}
        parts = {"npy": _npy(values), "json": json.dumps(place).encode()}
        if label is not None:
            parts["cls"] = str(label).encode()
        if labels is not None:
            parts["labels.npy"] = _npy(labels)
        for suffix, content in parts.items():
            entry = tarfile.TarInfo(f"{key}.{suffix}")  # no time, no owner: the same tiles give the same file
            entry.size = len(content)
            if self._tar is not None:
                self._tar.addfile(entry, io.BytesIO(content))
        return key

    def close(self) -> None:
        """Close the shard that is open."""
        if self._tar is not None:
            self._tar.close()
            self._tar = None


class ZarrTiles:
    """One Zarr array (tile, band, y, x) with one chunk a tile, and ``labels`` (tile, y, x)."""

    def __init__(self, folder: Path, scene: Scene, count: int, side: int, dtype: str, labelled: bool) -> None:
        group = zarr.open_group(str(folder / "tiles.zarr"), mode="w", zarr_format=3)
        shape, names = (len(scene.bands), side, side), ("tile", "band", "y", "x")
        self._data: Any = group.create_array(
            "data", shape=(count, *shape), chunks=(1, *shape), dtype=dtype, dimension_names=names
        )
        self._labels: Any = None
        if labelled:
            self._labels = group.create_array(
                "labels",
                shape=(count, side, side),
                chunks=(1, side, side),
                dtype="int32",
                dimension_names=(names[0], *names[2:]),
            )

    def add(self, index: int, window: Window, values: Values, labels: Values | None, label: int | None) -> str:
        """Write one tile; see `TileWriter`."""
        self._data[index] = values
        if labels is not None:
            self._labels[index] = labels
        return str(index)

    def close(self) -> None:
        """Do nothing: every chunk is finished."""


FORMATS: dict[str, Callable[..., TileWriter]] = {
    "tif": TiffTiles,
    "npy": NpyTiles,
    "webdataset": TarTiles,
    "zarr": ZarrTiles,
}


def tile_writer(kind: str, folder: Path, scene: Scene, count: int, side: int, dtype: str, labelled: bool) -> TileWriter:
    """Return the writer of a format.

    Raises
    ------
    UsageError
        If there is no such format.
    """
    if kind not in FORMATS:
        raise UsageError(f"--format must be one of {', '.join(FORMATS)}, got {kind!r}")
    return FORMATS[kind](folder, scene, count, side, dtype, labelled)


def _write_mask(path: Path, valid: NDArray[np.bool_]) -> None:
    """Give a tile an internal mask: valid is where any band has data."""
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as tile:
        tile.write_mask(valid.any(axis=0))


def _npy(values: Values) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()
