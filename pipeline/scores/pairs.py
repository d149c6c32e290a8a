"""Two scenes of one place, read together: on one grid, or the second on a grid some whole times as fine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import Scene, SceneSource, crs_name
from scenelift.pipeline.scores.areas import Area
from scenelift.pipeline.scores.sums import Coarse
from scenelift.pipeline.tiles import Window

MAX_FACTOR = 16


@dataclass(frozen=True)
class Pair:
    """A reference and what is to be compared with it."""

    reference: Scene
    test: Scene
    factor: int
    """Test pixels per reference pixel along each axis; their mean is compared where it is not 1."""

    @property
    def band_names(self) -> tuple[str, ...]:
        """Name of each band, as the reference gives them, else their numbers."""
        return tuple(band.description or f"band {i}" for i, band in enumerate(self.reference.bands, start=1))

    def read(self, area: Area) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
        """Read both images and where both have data, on the reference's grid, as reflectance.

        Parameters
        ----------
        area : Area
            On the reference's grid.

        Returns
        -------
        reference, test : ndarray of float32, shape (C, height, width)
        valid : ndarray of bool, same shape
        """
        return self.read_window(Window(*area.origin, *area.shape))

    def read_window(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window of the reference's grid, as :meth:`read`."""
        mine, theirs = self.reference.read(window), self.test.read(window.scaled(self.factor))
        values, valid = _mean(theirs.values, theirs.valid, self.factor)
        return mine.values, values, mine.valid & valid


@dataclass(frozen=True)
class Triple:
    """A pair beside the coarse scene that its second one was made of."""

    pair: Pair
    coarse: Scene
    factor: int
    """Pixels of the pair per coarse pixel along each axis."""

    def read_coarse(self, area: Area) -> Coarse:
        """Read the coarse pixels that touch an area of the pair's grid."""
        first = [o // self.factor for o in area.origin]
        ends = [-(-(o + n) // self.factor) for o, n in zip(area.origin, area.shape, strict=True)]
        region = self.coarse.read(Window(first[0], first[1], ends[0] - first[0], ends[1] - first[1]))
        return Coarse(region.values, self.factor, region.valid)


def open_triple(reference: SceneSource, test: SceneSource, coarse: SceneSource) -> Triple:
    """Open a truth, what was made by super-resolution, and what it was made of.

    Raises
    ------
    UsageError
        If the first two do not lie on one grid, or the third not on one some whole times as coarse.
    SceneError
        If one of them cannot be read.
    """
    pair, first = open_pair(reference, test), open_pair(coarse, test)
    if pair.factor != 1:
        raise UsageError(
            f"{pair.reference.name} is {pair.factor} times coarser than {pair.test.name}: give the truth on the grid "
            f"of {pair.test.name} first, and the coarse scene with --input"
        )
    if first.factor == 1:
        raise UsageError(
            f"the --input {first.reference.name} lies on the grid of {pair.test.name}: it must be the coarser scene "
            "that was super-resolved"
        )
    return Triple(pair, first.reference, first.factor)


def _mean(
    values: NDArray[np.float32], valid: NDArray[np.bool_], factor: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    if factor == 1:
        return values, valid
    bands, height, width = values.shape
    shape = bands, height // factor, factor, width // factor, factor
    mean = np.where(valid, values, 0).reshape(shape).mean(axis=(2, 4), dtype=np.float64)
    return mean.astype(np.float32), valid.reshape(shape).min(axis=(2, 4))


def open_pair(reference: SceneSource, test: SceneSource) -> Pair:
    """Open two scenes and check that they can be compared pixel by pixel.

    Raises
    ------
    UsageError
        If they differ in bands, coordinate reference system, extent or grid; the message says how.
    SceneError
        If one of them cannot be read.
    """
    mine, theirs = open_scene(reference), open_scene(test)
    names = f"{mine.name} and {theirs.name}"
    if len(mine.bands) != len(theirs.bands):
        raise UsageError(
            f"{names} have {len(mine.bands)} and {len(theirs.bands)} bands; choose the same ones with --bands"
        )
    if mine.grid.crs != theirs.grid.crs:
        raise UsageError(
            f"{names} are in different coordinate reference systems, {crs_name(mine.grid.crs)} and "
            f"{crs_name(theirs.grid.crs)}; warp one onto the grid of the other first"
        )
    return Pair(mine, theirs, _factor(mine, theirs))


def _factor(mine: Scene, theirs: Scene) -> int:
    factor = theirs.grid.times_finer(mine.grid)
    if factor and factor <= MAX_FACTOR:
        return factor
    if back := mine.grid.times_finer(theirs.grid):
        raise UsageError(f"{theirs.name} is {back} times coarser than {mine.name}: enhance it first, or swap the two")
    raise UsageError(
        f"{mine.name} and {theirs.name} do not lie on one grid: {_place(mine)} against {_place(theirs)}; "
        "cut and resample one onto the grid of the other first"
    )


def _place(scene: Scene) -> str:
    height, width = scene.grid.shape
    left, bottom, right, top = scene.grid.bounds
    return f"{width} x {height} px from ({left:.10g}, {bottom:.10g}) to ({right:.10g}, {top:.10g})"
