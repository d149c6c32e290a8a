"""Archives to be enhanced: random scenes, crops of a real one, and files that only look like scenes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window

from support.builders import noise_image, write_raster

NAMES = ["B02", "B03", "B04"]


def scene(path: Path, seed: int = 0, side: int = 40, **how: Any) -> Path:
    """Write a scene of random numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_raster(path, noise_image(seed, (3, side, side)), descriptions=NAMES, **how)


def bad_scenes(folder: Path) -> dict[str, str]:
    """Write ten files that look like scenes by their names; return a word of each one's reason to fail, by id."""
    folder.mkdir(parents=True, exist_ok=True)
    good = scene(folder / "truncated.tif").read_bytes()
    (folder / "truncated.tif").write_bytes(good[: len(good) // 2])
    (folder / "text.tif").write_text("not a raster")
    (folder / "empty.tif").write_bytes(b"")
    (folder / "folder.tif").mkdir()
    (folder / "folder.tif" / "empty.jp2").write_bytes(b"")
    write_raster(folder / "nowhere.tif", noise_image(1, (1, 40, 40)), crs=None)
    write_raster(folder / "unplaced.tif", noise_image(1, (1, 40, 40)), transform=rasterio.Affine.identity())
    write_raster(folder / "complex.tif", noise_image(1, (1, 40, 40)).astype("complex64"))
    write_raster(folder / "long.tif", noise_image(1, (1, 40, 40)).astype("int64"))
    (folder / "product.SAFE").mkdir()
    (folder / "store.zarr").mkdir()
    (folder / "store.zarr" / "zarr.json").write_text("{}")
    return {
        "truncated": "truncated.tif",
        "text": "not recognized",
        "empty": "cannot open",
        "folder.tif__empty": "cannot open",
        "nowhere": "coordinate reference system",
        "unplaced": "no affine transform",
        "complex": "supported is one of",
        "long": "supported is one of",
        "product": "10 m file of band B02",
        "store": "found nothing",
    }


def crops(folder: Path, bands: list[str], count: int, side: int) -> None:
    """Cut `count` small scenes out of a large one."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [rasterio.open(band) for band in bands]
    per_row = files[0].width // side
    for number in range(count):
        row, col = divmod(number, per_row)
        window = Window(col * side, row * side, side, side)
        values = np.stack([file.read(1, window=window) for file in files])
        names = [Path(band).stem[-3:] for band in bands]
        where = {"transform": files[0].window_transform(window), "crs": files[0].crs.to_wkt()}
        write_raster(folder / f"crop-{number:03}.tif", values, descriptions=names, compress="deflate", **where)


def table(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of an archive's table by id."""
    return {row["id"]: row for row in json.loads((folder / "run.json").read_text())["scenes"]}


def checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every finished output, read from the files themselves, by id."""
    return {
        name: hashlib.sha256((folder / row["output"]).read_bytes()).hexdigest()
        for name, row in table(folder).items()
        if row["output"]
    }
