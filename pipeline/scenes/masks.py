"""Masks: which pixels of a scene are cloud, shadow, snow and the like, and are to be read as missing.

A mask is a layer of the product (Sentinel-2's scene classification, Landsat's bits of quality) or any raster. It is
brought onto the scene's grid by georeference: a fine pixel takes the value of the mask's pixel that covers its centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.scenes.multigrid import Axis, Placement, lay_on
from scenelift.pipeline.scenes.rasters import Reader
from scenelift.pipeline.tiles import Window

SCL, QA, CLOUDS, FILE = "scl", "qa_pixel", "clouds", "file"
FOUND = "-clouds.tif"
"""How files end that hold clouds found in the pixels."""
LAYERS = (SCL, QA)
"""Masks that are layers of a product."""
SCL_CLASSES: dict[str, tuple[int, ...]] = {
    "nodata": (0,), "saturated": (1,), "dark": (2,), "shadow": (3,), "vegetation": (4,), "bare": (5,), "water": (6,),
    "unclassified": (7,), "cloud": (8, 9), "medium": (8,), "high": (9,), "cirrus": (10,), "snow": (11,),
}  # fmt: skip
"""Values of Sentinel-2's scene classification (ESA, Sen2Cor)."""
QA_BITS: dict[str, tuple[int, ...]] = {
    "nodata": (0,), "dilated": (1,), "cirrus": (2,), "cloud": (3,), "shadow": (4,), "snow": (5,), "clear": (6,),
    "water": (7,),
}  # fmt: skip
"""Bits of Landsat Collection 2's QA_PIXEL (USGS, LSDS-1619)."""
_FOUND: dict[str, tuple[int, ...]] = {"cloud": (1,), "shadow": (2,)}
_NAMES: dict[str, dict[str, tuple[int, ...]]] = {SCL: SCL_CLASSES, QA: QA_BITS, CLOUDS: _FOUND}
_USUAL = {
    SCL: ("nodata", "saturated", "shadow", "cloud", "cirrus", "snow"),
    QA: ("nodata", "dilated", "cirrus", "cloud", "shadow", "snow"),
    CLOUDS: ("cloud", "shadow"),
}
"""What is masked where nothing else is asked for."""
STRIP = 1024
"""Rows of a mask that are read at once where its share is counted."""


class Shares(NamedTuple):
    """How much of a scene a mask hides, from 0 to 1."""

    masked: float
    """Of all pixels."""
    missing: float
    """Of all pixels: those that the mask itself calls without data, or does not cover."""

    @property
    def of_data(self) -> float:
        """Masked pixels among those with data."""
        return (self.masked - self.missing) / (1 - self.missing) if self.missing < 1 else 0.0


@dataclass(frozen=True)
class Rule:
    """Which values of a mask hide a pixel."""

    kind: str
    """One of `SCL`, `QA`, `FILE`."""
    numbers: tuple[int, ...] = ()
    """Values, or bits of `QA`; empty: every value but 0."""

    @classmethod
    def of(cls, kind: str, classes: Sequence[str]) -> Rule:
        """Return the rule for classes given by name or number; none given: the usual ones.

        Raises
        ------
        UsageError
            If one is unknown.
        """
        names, numbers = _NAMES.get(kind, {}), list[int]()
        for text in classes or _USUAL.get(kind, ()):
            known = names.get(text.lower()) or ((int(text),) if text.isdecimal() else None)
            if known is None or (kind == QA and not 0 <= known[0] <= 15):
                listed = f"{', '.join(names)}, or numbers" if names else "whole numbers"
                raise UsageError(f"--mask-classes must be {listed}, got {text!r}")
            numbers += known
        return cls(kind, tuple(sorted(set(numbers))))

    def hides(self, values: NDArray[np.generic]) -> NDArray[np.bool_]:
        """Return where values hide their pixel."""
        if not self.numbers:
            return np.asarray(values != 0)
        if self.kind == QA:
            return np.asarray(values & np.asarray(sum(1 << n for n in self.numbers), values.dtype)) != 0
        return np.isin(values, self.numbers)

    def lacks(self, values: NDArray[np.generic]) -> NDArray[np.bool_]:
        """Return where a mask of hidden pixels says that there is no data at all."""
        if self.kind not in LAYERS or 0 not in self.numbers:
            return np.zeros(values.shape, bool)
        return np.asarray((values & np.asarray(1, values.dtype)) != 0 if self.kind == QA else values == 0)

    def describe(self) -> str:
        """Return it for people: "cloud, shadow"."""
        names: dict[tuple[int, ...], str] = {}
        for name, numbers in _NAMES.get(self.kind, {}).items():
            names.setdefault(numbers, name)
        left, told = list(self.numbers), []
        for numbers, name in sorted(names.items(), key=lambda item: (-len(item[0]), item[0])):
            if set(numbers) <= set(left):
                told.append((numbers[0], name))
                left = [n for n in left if n not in numbers]
        told += [(n, str(n)) for n in left]
        return ", ".join(name for _, name in sorted(told)) or "every value but 0"


def kind_of_file(name: str) -> str:
    """Return what the values of a mask's file mean: its name may say so, as products' names do."""
    upper = name.upper()
    if "_SCL" in upper or upper.startswith("SCL"):
        return SCL
    if name.endswith(FOUND):
        return CLOUDS
    return QA if "QA_PIXEL" in upper else FILE


@dataclass(frozen=True)
class SceneMask:
    """A mask on a scene's grid."""

    reader: Reader
    rule: Rule
    axes: tuple[Axis, Axis]
    grid: GeoGrid

    @classmethod
    def lay(cls, reader: Reader, rule: Rule, grid: GeoGrid, name: str) -> SceneMask:
        """Bring a mask onto a grid.

        Raises
        ------
        UsageError
            If it holds several bands, or does not fit the grid.
        """
        if reader.count != 1:
            raise UsageError(f"the mask {reader.path} holds {reader.count} bands, and must be one: store it by itself")
        if rule.numbers and np.dtype(reader.dtypes[0]).kind not in "iu":
            raise UsageError(f"the mask {reader.path} holds {reader.dtypes[0]}, and classes are whole numbers")
        return cls(reader, rule, lay_on(grid, reader, name), grid)

    def read(self, window: Window) -> NDArray[np.bool_]:
        """Return which pixels of a window are masked; those that the mask does not cover are."""
        rows, cols = (
            axis.indices(*span)
            for axis, span in zip(
                self.axes, ((window.row, window.stop_row), (window.col, window.stop_col)), strict=True
            )
        )
        inside = [(i >= 0) & (i < axis.count) for i, axis in zip((rows, cols), self.axes, strict=True)]
        if not (inside[0].any() and inside[1].any()):
            return np.ones(window.shape, bool)
        (top, bottom), (left, right) = ((i[ok][0], i[ok][-1]) for i, ok in zip((rows, cols), inside, strict=True))
        part = Window.from_bounds(int(top), int(left), int(bottom) + 1, int(right) + 1)
        hidden = self.rule.hides(self.reader.read([1], part)[0][0])
        at = np.ix_(np.clip(rows, top, bottom) - top, np.clip(cols, left, right) - left)
        return np.asarray(hidden[at] | ~(inside[0][:, None] & inside[1][None]))

    def read_coarse(self, window: Window, placement: Placement) -> NDArray[np.bool_]:
        """Return which pixels of a window belong to a pixel of a coarser grid that the mask touches anywhere.

        What a coarse pixel saw of a cloud in one corner it cannot be rid of.
        """
        if placement.ratio == 1:
            return self.read(window)
        wide = window.expand(placement.ratio).clip(self.grid.shape)
        hidden = self.read(wide)
        starts, stops = (wide.row, wide.col), (wide.stop_row, wide.stop_col)
        for axis, (at, start, stop) in enumerate(zip((placement.row, placement.col), starts, stops, strict=True)):
            coarse = Axis(placement.ratio, round(2 * at) + 1 - placement.ratio, 0).indices(start, stop)
            first = np.flatnonzero(np.diff(coarse, prepend=coarse[0] - 1))
            hidden = np.logical_or.reduceat(hidden, first, axis=axis).take(coarse - coarse[0], axis=axis)
        rows, cols = window.slices(wide)
        return np.asarray(hidden[rows, cols])

    def shares(self) -> Shares:
        """Count how much of the scene is masked, each pixel of the mask as often as the scene has it."""
        counts = []
        for axis, n in zip(self.axes, self.grid.shape, strict=True):
            at = axis.indices(0, n)
            counts.append(np.bincount(at[(at >= 0) & (at < axis.count)], minlength=axis.count))
        used_rows, used_cols = (np.flatnonzero(c) for c in counts)
        total = self.grid.height * self.grid.width
        if not (len(used_rows) and len(used_cols)):
            return Shares(1.0, 1.0)
        left, right = int(used_cols[0]), int(used_cols[-1]) + 1
        columns, masked, missing, seen = counts[1][left:right], 0, 0, 0
        for top in range(int(used_rows[0]), int(used_rows[-1]) + 1, STRIP):
            bottom = min(top + STRIP, int(used_rows[-1]) + 1)
            values = self.reader.read([1], Window.from_bounds(top, left, bottom, right))[0][0]
            rows = counts[0][top:bottom]
            seen += int(rows.sum() * columns.sum())
            masked += int(rows @ self.rule.hides(values).astype(np.int64) @ columns)
            missing += int(rows @ self.rule.lacks(values).astype(np.int64) @ columns)
        return Shares((masked + total - seen) / total, (missing + total - seen) / total)
