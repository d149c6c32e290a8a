"""Places whose bands lie on several grids, and what Wald's protocol makes of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scenelift.models.sensing.sensors import SENTINEL2
from scenelift.models.sharpening.layout import BandGrid
from scenelift.models.sharpening.projection import observe, replicate
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.products.bands import wavelength
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.tiles import Window
from scenelift.workflows.conditions import band_names
from scenelift.workflows.multigrid import PAN_MTF, UNKNOWN_MTF

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
    """(guides, H, W)."""
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


def read_place(name: str, files: Sequence[Path]) -> Place:
    """Read a place, its grids paired by georeference.

    Parameters
    ----------
    name : str
    files : sequence of path
        The finest grid first.

    Raises
    ------
    UsageError
        If a grid's pixels are no whole multiple of the finest one's, or lie aside by no multiple of half of one.
    SceneError
        If a file cannot be read.
    """
    fine, *others = (open_scene(SceneSource((str(file),))) for file in files)
    pan = len(fine.bands) == 1
    window = _middle(fine.grid.shape, MOST)
    guides = _read(fine, window)
    bands = tuple(
        BandGrid(1, mtf=PAN_MTF if pan else mtf, name=label, wavelength=wavelength(label, {}))
        for label, mtf in zip(band_names(fine), _mtfs(fine), strict=True)
    )
    coarse = tuple(_coarse(scene, fine, window) for scene in others)
    return Place(name, guides, bands, coarse)


def _coarse(scene: Scene, fine: Scene, window: Window) -> Coarse:
    """Read the pixels of a coarse grid whose centres lie inside the window of the fine one."""
    one, other = fine.grid.transform, scene.grid.transform
    ratio = round(other.a / one.a)
    to_fine = ~one @ other  # from pixels of the coarse grid to those of the fine one
    centre = [float(v) - 0.5 for v in reversed(to_fine @ (0.5, 0.5))]
    row, col = (round(2 * v) / 2 - start for v, start in zip(centre, (window.row, window.col), strict=True))
    wrong = abs(to_fine.a - ratio) > 1e-3 or abs(to_fine.e - ratio) > 1e-3 or ratio < 2
    off = max(abs(2 * v - round(2 * v)) for v in centre)
    if wrong or off > 0.1:
        raise UsageError(
            f"{scene.name} does not fit the grid of {fine.name}: its pixels must be a whole number of times as large "
            "and lie aside by a multiple of half a fine pixel"
        )
    first = [math.ceil(-at / ratio) for at in (row, col)]
    starts = [max(0, k) for k in first]
    ends = [
        min(size, math.floor((side - 1 - at) / ratio) + 1)
        for size, side, at in zip(scene.grid.shape, window.shape, (row, col), strict=True)
    ]
    values = _read(scene, Window.from_bounds(starts[0], starts[1], ends[0], ends[1]))
    # pixels before the first that was read are missing: the grid's own first pixel is `first`
    lead = [k - f for k, f in zip(starts, first, strict=True)]
    values = np.pad(values, ((0, 0), (lead[0], 0), (lead[1], 0)), constant_values=np.nan)
    at = row + ratio * first[0], col + ratio * first[1]
    bands = tuple(
        BandGrid(ratio, at[0], at[1], mtf, label, wavelength(label, {}))
        for label, mtf in zip(band_names(scene), _mtfs(scene), strict=True)
    )
    return Coarse(values, bands)


def _middle(shape: tuple[int, int], most: int) -> Window:
    sides = [min(side, most) for side in shape]
    starts = [(side - kept) // 2 // 12 * 12 for side, kept in zip(shape, sides, strict=True)]
    return Window(starts[0], starts[1], sides[0], sides[1])


def _read(scene: Scene, window: Window) -> Image:
    return scene.read(window).with_nan()


def _mtfs(scene: Scene) -> list[float]:
    return [SENTINEL2.get(name, UNKNOWN_MTF) for name in band_names(scene)]


@dataclass(frozen=True)
class Trial:
    """A place one scale lower, where the truth is known (Wald et al., PE&RS 63(6), 1997)."""

    place: str
    layout: tuple[BandGrid, ...]
    images: Image
    """(bands, H, W): guides, and coarse bands replicated: what methods are given."""
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
    rows, cols = _covered(own, place.guides.shape[1:])
    as_seen = [BandGrid(first.ratio, first.row, first.col, band.mtf) for band in place.bands]
    guides = observe(place.guides, as_seen, (own.values.shape[1], own.values.shape[2]))[:, rows, cols]
    truth = own.values[:, rows, cols]
    same = ratio == first.ratio and first.row % 1 == 0  # a grid that lies half a pixel aside does so again
    at = (first.row, first.col) if same else ((ratio - 1) / 2,) * 2
    bands = tuple(replace(band, ratio=ratio, row=at[0], col=at[1]) for band in own.bands)
    sides = [side // ratio for side in truth.shape[1:]]
    truth, guides = (x[:, : sides[0] * ratio, : sides[1] * ratio] for x in (truth, guides))
    seen = observe(truth, bands, (sides[0], sides[1]))
    images = np.concatenate([guides, replicate(seen, bands[0], truth.shape[1:])])
    layout = (*place.bands, *bands)
    return Trial(place.name, layout, images.astype(np.float32), seen, truth)


def _covered(own: Coarse, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return which coarse pixels are there and lie wholly on the fine grid."""
    known = np.logical_and.reduce(np.isfinite(own.values))
    rows, cols = (np.flatnonzero(np.logical_or.reduce(known, axis=axis)) for axis in (1, 0))
    if not len(rows):
        raise UsageError("a place holds no coarse pixel with data")
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(cols[0]), int(cols[-1]) + 1)
