"""Landsat Collection 2 scenes, small: band files and an MTL file, as a folder or a tar."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from support.builders import noise_image, write_raster

MS = Affine(30, 0, 452_475, 0, -30, 3_408_645)
PAN = Affine(15, 0, 452_467.5, 0, -15, 3_408_652.5)
"""The panchromatic grid begins half of its pixel further out."""
STEM = "LC08_L{level}_016039_20200113_20200823_02_T1"
SUN = 30.0


def write_landsat(
    folder: Path,
    level: int = 1,
    side: int = 40,
    planes: dict[str, NDArray] | None = None,
    quality: NDArray | None = None,
) -> tuple[Path, dict[str, NDArray]]:
    """Write a scene of Level 1 (eleven bands) or Level 2 (surface reflectance and temperature) and return its bands.

    Parameters
    ----------
    folder : Path
    level : int
    side : int
        Pixels a side of the 30 m bands; the panchromatic band has twice as many and one more.
    planes : dict, optional
        Values of bands by number; others are random.
    quality : ndarray of uint16, optional
        QA_PIXEL; None: all clear.
    """
    folder.mkdir(parents=True)
    stem = STEM.format(level="1TP" if level == 1 else "2SP")
    numbers = [*range(1, 12)] if level == 1 else [*range(1, 8)]
    made, files = dict(planes or {}), {}
    for number in numbers:
        sides = (2 * side + 1,) * 2 if number == 8 else (side, side)
        values = made.setdefault(f"B{number}", noise_image(number, sides, high=20_000) + 7000)
        files[str(number)] = f"{stem}_{'' if level == 1 else 'SR_'}B{number}.TIF"
        _write(folder / files[str(number)], values, PAN if number == 8 else MS)
    if level == 2:
        files["ST_B10"] = f"{stem}_ST_B10.TIF"
        _write(folder / files["ST_B10"], noise_image(10, (side, side)), MS)
    quality = np.full((side, side), 21824, "uint16") if quality is None else quality
    _write(folder / f"{stem}_QA_PIXEL.TIF", quality, MS)
    (folder / f"{stem}_MTL.txt").write_text(_mtl(stem, level, files))
    return folder, made


def _write(path: Path, values: NDArray, transform: Affine) -> None:
    write_raster(path, values[None], transform, "EPSG:32616")


def _mtl(stem: str, level: int, files: dict[str, str]) -> str:
    def rescaling(numbers: range, scale: str, offset: str) -> dict[str, str]:
        rows = {f"REFLECTANCE_MULT_BAND_{n}": scale for n in numbers}
        return rows | {f"REFLECTANCE_ADD_BAND_{n}": offset for n in numbers}

    groups = {
        "PRODUCT_CONTENTS": {
            "LANDSAT_PRODUCT_ID": f'"{stem}"',
            "PROCESSING_LEVEL": '"L1TP"' if level == 1 else '"L2SP"',
            "COLLECTION_NUMBER": "02",
            **{f"FILE_NAME_BAND_{key}": f'"{name}"' for key, name in files.items()},
            "FILE_NAME_QUALITY_L1_PIXEL": f'"{stem}_QA_PIXEL.TIF"',
        },
        "IMAGE_ATTRIBUTES": {
            "SPACECRAFT_ID": '"LANDSAT_8"',
            "DATE_ACQUIRED": "2020-01-13",
            "SCENE_CENTER_TIME": '"16:02:11.1234567Z"',
            "CLOUD_COVER": "12.50",
            "SUN_ELEVATION": f"{SUN}",
        },
        "LEVEL1_RADIOMETRIC_RESCALING": rescaling(range(1, 10), "2.0000E-05", "-0.100000"),
    }
    if level == 2:  # both are in one file, the surface's first
        groups = {
            "PRODUCT_CONTENTS": groups["PRODUCT_CONTENTS"],
            "IMAGE_ATTRIBUTES": groups["IMAGE_ATTRIBUTES"],
            "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": rescaling(range(1, 8), "2.75e-05", "-0.2"),
            "LEVEL1_RADIOMETRIC_RESCALING": groups["LEVEL1_RADIOMETRIC_RESCALING"],
        }
    lines = ["GROUP = LANDSAT_METADATA_FILE"]
    for name, table in groups.items():
        lines += [f"  GROUP = {name}", *(f"    {k} = {v}" for k, v in table.items()), f"  END_GROUP = {name}"]
    return "\n".join([*lines, "END_GROUP = LANDSAT_METADATA_FILE", "END", ""])


def packed(folder: Path) -> Path:
    """Return a tar of a scene, as the USGS gives it out: no folder in it."""
    path = folder.with_suffix(".tar")
    with tarfile.open(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, file.name)
    return path
