"""Places whose bands lie on several grids, and what Wald's protocol makes of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scenelift.models.sharpening.layout import BandGrid
from scenelift.models.sharpening.projection import coarsened, observe, replicate
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.pipeline.tiles import Window
from scenelift.workflows.clouds import with_clouds
from scenelift.workflows.multigrid import layout_of

Image = NDArray[np.float32]
PAN, GUIDE = ("pan", "ms"), ("10m", "20m", "60m")
"""Ends of the names of files that belong together: the first is the fine one."""
MOST = 1024
"""Fine pixels along each axis that are taken of a large place, from its middle."""


@dataclass(frozen=True)
class Coarse:
    """Bands of one coarse grid."""

    values: Image
    """(bands, h, w)."""
    bands: tuple[BandGrid, ...]


@dataclass(frozen=True)
class Place:
    """Bands of one place on a fine grid and on coarser ones, as reflectance (or whatever the files hold)."""

    name: str
    guides: Image
    """(guides, H, W); NaN: no data."""
    bands: tuple[BandGrid, ...]
    """Of the guides."""
    coarse: tuple[Coarse, ...]

    @property
    def layout(self) -> tuple[BandGrid, ...]:
        """How all bands lie, the guides first."""
        return (*self.bands, *(band for part in self.coarse for band in part.bands))

    def stack(self) -> Image:
        """Return all bands on the fine grid, the coarse ones replicated: what a sharpener is given."""
        shape = self.guides.shape[1:]
        parts = [replicate(part.values, part.bands[0], shape) for part in self.coarse]
        return np.concatenate([self.guides, *parts]).astype(np.float32)


def find_places(paths: Iterable[Path]) -> list[tuple[str, tuple[Path, ...]]]:
    """Return the places of folders or files: name, and the files of each, the finest first.

    Files belong together if their names differ only in what follows the last underscore: ``_10m``, ``_20m`` and
    ``_60m``, or ``_pan`` and ``_ms``.

    Raises
    ------
    UsageError
        If there is no place of at least two grids.
    """
    named: dict[str, dict[str, Path]] = {}
    paths = list(paths)
    for path in paths:
        for file in sorted(path.rglob("*.tif")) if path.is_dir() else [path]:
            match = re.fullmatch(r"(.+)_(10m|20m|60m|pan|ms)", file.stem)
            if match:
                named.setdefault(match[1], {})[match[2]] = file
    found = []
    for name, files in sorted(named.items()):
        for ends in (GUIDE, PAN):
            own = tuple(files[end] for end in ends if end in files)
            if ends[0] in files and len(own) > 1:
                found.append((name, own))
    if not found:
        raise UsageError(
            f"{', '.join(map(str, paths)) or 'nothing'}: no pair of grids found; files must be named NAME_10m.tif and "
            "NAME_20m.tif (and NAME_60m.tif), or NAME_pan.tif and NAME_ms.tif"
        )
    return found


def read_place(name: str, files: Sequence[Path], mask: str | None = None, mask_classes: tuple[str, ...] = ()) -> Place:
    """Read what all grids of a place cover, paired by georeference; NaN where there is no data or the mask hides it.

    Parameters
    ----------
    name : str
    files : sequence of path
    mask, mask_classes
        As of `SceneSource`; of a mask that is a folder, the file that is called as the place.

    Raises
    ------
    SceneError
        If a grid does not fit the finest one, or a file cannot be read.
    UsageError
        If all grids are the same, or the mask cannot be one.
    """
    if mask and Path(mask).is_dir():
        mask = str(Path(mask, f"{name}.tif"))
    source = SceneSource(tuple(map(str, files)), extent="common", mask=mask, mask_classes=mask_classes)
    scene = open_scene(with_clouds(source))
    if not scene.coarse:
        raise UsageError(f"{' and '.join(file.name for file in files)} lie on one grid: there is nothing to sharpen")
    shape = min(scene.grid.height, MOST), min(scene.grid.width, MOST)
    row, col = ((side - kept) // 2 // 12 * 12 for side, kept in zip(scene.grid.shape, shape, strict=True))
    values = scene.read(Window(row, col, *shape)).with_nan()
    layout, _ = layout_of(scene, pan=len(scene.guides) == 1)
    guides = list(scene.guides)
    coarse = []
    for members in scene.coarse.values():
        bands = tuple(layout[i] for i in members)
        rows, cols = (  # a pixel stands where its centre is; of one that the edge cuts there it does not
            slice(int(at), int(at) + (side - 1 - math.ceil(at)) // bands[0].ratio * bands[0].ratio + 1, bands[0].ratio)
            for at, side in zip((bands[0].row, bands[0].col), shape, strict=True)
        )
        coarse.append(Coarse(values[list(members), rows, cols], bands))
    return Place(name, values[guides], tuple(layout[i] for i in guides), tuple(coarse))


@dataclass(frozen=True)
class Trial:
    """A place one scale lower, where the truth is known (Wald et al., PE&RS 63(6), 1997)."""

    place: str
    layout: tuple[BandGrid, ...]
    images: Image
    """(bands, H, W): guides, and coarse bands replicated: what methods are given; NaN: no data."""
    seen: Image
    """(coarse bands, h, w): the coarse pixels themselves."""
    truth: Image
    """(coarse bands, H, W)."""

    @property
    def ratio(self) -> int:
        return self.layout[-1].ratio

    @property
    def guides(self) -> int:
        """How many of the bands are guides."""
        return len(self.images) - len(self.truth)


def degrade(place: Place, ratio: int, part: int = 0) -> Trial:
    """Take one coarse grid for the fine one: guides are brought onto it, and its bands are made coarser.

    Parameters
    ----------
    place : Place
    ratio : int
        How much coarser the bands are made.
    part : int
        Which of the place's coarse grids is the truth.
    """
    own = place.coarse[part]
    first = own.bands[0]
    rows, cols = _covered(own, place.name)
    as_seen = [BandGrid(first.ratio, first.row, first.col, band.mtf) for band in place.bands]
    guides = observe(place.guides, as_seen, (own.values.shape[1], own.values.shape[2]))[:, rows, cols]
    truth = own.values[:, rows, cols]
    same = ratio == first.ratio and first.row % 1 == 0  # a grid that lies half a pixel aside does so again
    at = (first.row, first.col) if same else ((ratio - 1) / 2,) * 2
    bands = tuple(replace(band, ratio=ratio, row=at[0], col=at[1]) for band in own.bands)
    images, seen, truth = coarsened(truth, guides, bands)
    return Trial(place.name, (*place.bands, *bands), images, seen, truth)


def _covered(own: Coarse, name: str) -> tuple[slice, slice]:
    """Return the rows and columns of coarse pixels that have data."""
    known = np.logical_and.reduce(np.isfinite(own.values))
    rows, cols = (np.flatnonzero(np.logical_or.reduce(known, axis=axis)) for axis in (1, 0))
    if not len(rows):
        raise UsageError(f"{name} holds no coarse pixel with data: leave the place out, or mask less")
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(cols[0]), int(cols[-1]) + 1)
