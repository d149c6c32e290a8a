"""The images that a table of quality is about: drawn from zips and folders of images, or cut from scenes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scenelift.models.errors import ModelError
from scenelift.models.whole import Images
from scenelift.pipeline.errors import UsageError
from scenelift.workflows.training.images import PatchSet, balanced, sides
from scenelift.workflows.training.sources import files_of, holds_images, read_source
from scenelift.workflows.training.splitting import places_of, select

SCENE_SIDE = 64
SCENE_SHARE = 10
"""Scenes give so many patches together for every image that a class of a zip gives."""
DEFAULT = Path("eurosat_rgb_val.zip")


def data_folder() -> Path:
    """Return the folder that ``SCENELIFT_DATA`` names.

    Raises
    ------
    UsageError
        If the variable is not set or names no folder.
    """
    name = os.environ.get("SCENELIFT_DATA", "")
    if not name or not Path(name).is_dir():
        raise UsageError("set SCENELIFT_DATA to the folder with the images, or name an archive of your own with --data")
    return Path(name)


@dataclass(frozen=True)
class Sample:
    """The images a table is about."""

    images: Images
    bands: tuple[str, ...]
    """Name of each band; decides the MTF and the noise model."""
    peak: float
    """Reflectance that PSNR takes as full scale: 255 levels."""
    title: str
    places: NDArray[np.int64] | None = None
    """(N,) which images are of one place, if there are scenes of several: intervals are then over places."""

    @property
    def level(self) -> float:
        """Reflectance of one level of 255."""
        return self.peak / 255


def read_sample(
    data: Path | Sequence[Path] | None = None,
    each: int = 60,
    seed: int = 0,
    bands: tuple[int, ...] | None = None,
    mask: str | None = None,
    mask_classes: tuple[str, ...] = (),
) -> Sample:
    """Return the images to evaluate on.

    Parameters
    ----------
    data : path or sequence of paths, optional
        Zips or folders of images in class folders (``each`` of every class are drawn), scenes or arrays, or folders of
        them (10 x ``each`` patches of all together); looked for below SCENELIFT_DATA where there is none at the path.
        Default: EuroSAT's validation split there.
    each, seed : int
        Images a class, and the seed of the draw.
    bands : tuple of int, optional
        1-based bands to keep, in this order; default: all.
    mask, mask_classes
        As of `SceneSource`: no patch of a scene has a pixel that they hide.

    Raises
    ------
    ModelError
        If there is nothing to evaluate on, or the sources are not alike.

    Notes
    -----
    Scenes with ground in common (other dates, overlapping neighbours) count as one place.
    """
    named = [data] if isinstance(data, Path) else list(data or [DEFAULT])
    files = [file for path in named for file in files_at(path)]
    scenes = sum(not holds_images(file) for file in files)
    share = max(1, SCENE_SHARE * each // max(1, scenes))
    parts = []
    for file in files:
        patches = read_source(file, SCENE_SIDE, bands, most=share, seed=seed, mask=mask, mask_classes=mask_classes)
        if holds_images(file):
            chosen = balanced(patches.labels, each, seed)
        else:
            chosen = np.arange(min(share, len(patches.values)))  # arrays come whole
        parts.append(select(patches, chosen))
    kept = [(file, part) for file, part in zip(files, parts, strict=True) if len(part.values)]
    if not kept:
        raise ModelError(f"{files[0]} has no patch of {SCENE_SIDE} valid pixels to evaluate on")
    names = _common_bands(kept)
    images = np.concatenate([part.reflectance(slice(None)).numpy() for _, part in kept])
    places = _places(kept)
    return Sample(images, names, 255 * kept[0][1].level, _title(kept, places, len(images), seed), places)


def files_at(path: Path) -> list[Path]:
    """Return the files a path stands for, here or in the data folder."""
    there = path
    if not path.exists():
        if path != DEFAULT and "SCENELIFT_DATA" not in os.environ:
            raise ModelError(f"no images at {path}: there is no such file or folder")
        there = data_folder() / path
    files = files_of(there)
    if not files:
        raise ModelError(f"no images at {there}" if not there.exists() else f"{there} holds no scenes, zips or images")
    return files


def _common_bands(kept: list[tuple[Path, PatchSet]]) -> tuple[str, ...]:
    """Return the names of the bands, which all sources must share, as must their patches' size."""
    (first, one), *others = kept
    names = one.bands or ("",) * one.values.shape[1]
    for file, other in others:
        if other.values.shape[1:] != one.values.shape[1:]:
            mine, theirs = (sides(part.values.shape[1:]) for part in (one, other))
            raise ModelError(
                f"{first} gives images of {mine}, {file} of {theirs}: evaluate them apart or choose --bands"
            )
        if other.level != one.level:
            raise ModelError(f"one of {first} and {file} is an 8-bit scene read as 0 to 1: evaluate them apart")
        named = zip(names, other.bands or ("",) * len(names), strict=True)
        if any(a and b and a != b for a, b in named):
            bands = ", ".join(other.bands)
            raise ModelError(f"{first} has the bands {', '.join(names)}, {file} {bands}: evaluate them apart")
    return names


def _title(kept: list[tuple[Path, PatchSet]], places: NDArray[np.int64] | None, count: int, seed: int) -> str:
    unit = "images" if all(holds_images(file) for file, _ in kept) else "patches"
    what = kept[0][0].name if len(kept) == 1 else f"{len(kept)} sources ({', '.join(file.name for file, _ in kept)})"
    where = "" if places is None else f" of {len(np.unique(places))} places"
    return f"{what}, {count} {unit}{where}, seed {seed}"


def _places(kept: list[tuple[Path, PatchSet]]) -> NDArray[np.int64] | None:
    """Number what is drawn as one where intervals are made: a place whole, an image of a zip by itself."""
    scenes = [part for file, part in kept if not holds_images(file)]
    of_scenes = places_of(scenes) if scenes else np.zeros(0, np.int64)
    if not scenes or (len(scenes) == len(kept) and of_scenes.max() == 0):
        return None
    numbers, following = iter(of_scenes), len(scenes)
    found: list[NDArray[np.int64]] = []
    for file, part in kept:
        count = len(part.values)
        if holds_images(file):
            found.append(following + np.arange(count))
            following += count
        else:
            found.append(np.full(count, next(numbers)))
    return np.concatenate(found)
