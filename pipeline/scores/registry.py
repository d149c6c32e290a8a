"""The table of scores: how each is summed over blocks, made of the sums, and shown; and how others are added to it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scores.areas import HALO
from scenelift.pipeline.scores.fusion import fusion_sums
from scenelift.pipeline.scores.opensr import HALO as TILE_HALO
from scenelift.pipeline.scores.opensr import opensr_sums
from scenelift.pipeline.scores.pixels import pixel_sums
from scenelift.pipeline.scores.similarity import information_sums, similarity_sums
from scenelift.pipeline.scores.sums import Block, Sums, ratio
from scenelift.pipeline.scores.texture import texture_sums

if TYPE_CHECKING:
    from scenelift.pipeline.scores.scores import Convention, Statistics

ENTRY_POINTS = "scenelift.scores"
"""Group of entry points by which an installed package adds scores of its own."""

RATIO_DIGITS = 3
"""Decimals of a ratio of two images' scores."""

Values = NDArray[np.float64]
Kind = Literal["pair", "ratio", "test", "single", "input"]


@dataclass(frozen=True)
class Score:
    """One score: how it is summed over blocks, made of the sums, and shown. One row of every table.

    Every formula must work on sums with further leading axes: intervals are made of many sums at once.
    """

    name: str
    """Key in JSON and in tables for machines."""
    label: str
    measure: Callable[[Block], Sums]
    """What a block adds. A score of one image looks at ``block.test`` alone."""
    of: Callable[[Any, Convention], Values] | None = None
    """Sums to the score of each band, shape (..., C); None: there is none band by band."""
    overall: Callable[[Any, Convention], Values] | None = None
    """Sums to the score over all bands, shape (...); None: the mean over bands."""
    unit: str = ""
    digits: int = 3
    """Decimals where the score stands in a table of a page."""
    kind: Kind = "pair"
    """"pair": of a test image against a reference. The others are of one image: of a pair, "ratio" is test over
    reference (1 is as much as the reference has), "test" is the test image's; "single" is not measured on pairs.
    "input" is a pair beside the coarse image that the test image was made of, and is not measured without it."""
    halo: int = HALO
    """Pixels around a block's core that ``measure`` needs; 0 for a score of single pixels."""
    tables: tuple[str, ...] = ("compare", "archive", "report")
    """Pages that have a column of it; `scenelift score` shows all."""

    @property
    def title(self) -> str:
        """Label with the unit."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    def text(self, value: float, *, paired: bool = True) -> str:
        """Return a value as a page shows it; ``paired``: of two images."""
        return f"{value:.{RATIO_DIGITS if paired and self.kind == 'ratio' else self.digits}f}"

    def bands(self, sums: Statistics, convention: Convention) -> Values | None:
        """Return the score of each band, shape (..., C); None if there is none band by band."""
        return self._value(self.of, sums, convention) if self.of else None

    def value(self, sums: Statistics, convention: Convention) -> Values:
        """Return the score over all bands, shape (...); NaN where it cannot be measured."""
        if self.overall:
            return self._value(self.overall, sums, convention)
        return _mean(self._value(self.of, sums, convention)) if self.of else np.array(np.nan)

    def keys(self, paired: bool, with_input: bool = False) -> list[str]:
        """Return the names of the sums that the score is made of; none where it is not measured."""
        if self.kind == "input":
            return [f"input {self.measure.__module__}.{self.measure.__qualname__}"] if paired and with_input else []
        if (self.kind == "single") if paired else (self.kind == "pair"):
            return []
        images = {"pair": ["pair"], "ratio": ["test", "reference"]}.get(self.kind, ["test"]) if paired else ["single"]
        return [f"{image} {self.measure.__module__}.{self.measure.__qualname__}" for image in images]

    def _value(self, formula: Callable[[Any, Convention], Values], sums: Statistics, convention: Convention) -> Values:
        mine, *theirs = (formula(sums[key], convention) for key in self.keys(sums.paired, sums.with_input))
        return ratio(mine, theirs[0]) if theirs else mine


def decibels(relative: np.ndarray) -> np.ndarray:
    """Return the PSNR of mean squared errors relative to full scale squared; infinite for 0, NaN for NaN."""
    with np.errstate(divide="ignore"):
        return -10 * np.log10(relative)


def _mean(values: Values) -> Values:
    """Return the mean over bands, (..., C) to (...); bands that are NaN are left out."""
    seen = ~np.isnan(values)
    return ratio(np.where(seen, values, 0).sum(axis=-1), seen.sum(axis=-1))


def _pooled(
    name: str,
    label: str,
    unit: str,
    digits: int,
    parts: Callable[[Any, Convention], tuple[Values, Values]],
    finish: Callable[[Values], Values] = lambda values: values,
    **more: Any,
) -> Score:
    """Return a score of single pixels: a quotient of sums, of each band and of the totals over bands."""

    def of(sums: Any, convention: Convention) -> Values:
        return finish(ratio(*parts(sums, convention)))

    def overall(sums: Any, convention: Convention) -> Values:
        top, bottom = parts(sums, convention)
        return finish(ratio(top.sum(axis=-1), bottom.sum(axis=-1)))

    return Score(name, label, pixel_sums, of, overall, unit, digits, **({"halo": 0} | more))


def _relative(sums: Any, convention: Convention) -> tuple[Values, Values]:
    return sums.squared / convention.ranges(sums.squared.shape[-1]) ** 2, sums.pixels


def _mean_psnr(sums: Any, convention: Convention) -> Values:
    return _mean(decibels(ratio(*_relative(sums, convention))))


def _coarse(sums: Any, convention: Convention) -> tuple[Values, Values]:
    return sums.coarse, sums.coarse_cells


def _angle(sums: Any, convention: Convention) -> Values:
    return np.degrees(ratio(sums.angle, sums.angles))


def _ergas(sums: Any, convention: Convention) -> Values:
    mean = ratio(sums.reference, sums.pixels)
    return 100 / convention.ratio * np.sqrt(_mean(ratio(ratio(sums.squared, sums.pixels), mean**2)))


def _reconstruction(sums: Any, convention: Convention) -> Values:
    return decibels(ratio(sums.squared, sums.power))


def _texture(name: str, label: str, unit: str, digits: int, of: str, kind: Kind, **more: Any) -> Score:
    """Return a score of one image; one with a ``unit`` is multiplied by full scale."""

    def formula(sums: Any, convention: Convention) -> Values:
        values: Values = getattr(sums, of)
        return values * convention.ranges(values.shape[-1]) if unit else values

    return Score(name, label, texture_sums, formula, None, unit, digits, kind, **more)


def _opensr(name: str, label: str, column: str, unit: str, digits: int) -> Score:
    """Return one of the measures of opensr-test."""
    return Score(
        name, label, opensr_sums, None, lambda s, c: s.mean(column), unit, digits, "input", TILE_HALO, ("compare",)
    )


_REFLECTANCE = "reflectance"
_whole = functools.partial(Score, measure=pixel_sums, halo=0)
_BUILT_IN = (
    _pooled("psnr", "PSNR", "dB", 2, _relative, decibels),
    _whole("psnr_mean", "PSNR, mean of bands", overall=_mean_psnr, unit="dB", digits=2, tables=()),
    _pooled("mae", "MAE", _REFLECTANCE, 5, lambda s, c: (s.absolute, s.pixels), tables=("report",)),
    _pooled("rmse", "RMSE", _REFLECTANCE, 5, lambda s, c: (s.squared, s.pixels), np.sqrt, tables=("compare",)),
    _pooled("bias", "bias", _REFLECTANCE, 6, lambda s, c: (s.error, s.pixels), tables=()),
    _whole("sam", "spectral angle", overall=_angle, unit="degrees", tables=("compare", "report")),
    _whole("ergas", "ERGAS", overall=_ergas, digits=2, tables=("compare",)),
    _pooled("coarse_rmse", "RMSE of 2 x 2 means", _REFLECTANCE, 5, _coarse, np.sqrt, halo=1, tables=()),
    Score("ssim", "SSIM", similarity_sums, lambda s, c: s.mean_ssim, digits=4, tables=("compare", "report")),
    Score("ms_ssim", "MS-SSIM", similarity_sums, lambda s, c: s.ms_ssim, tables=("compare",)),
    _whole("sre", "SRE", of=_reconstruction, unit="dB", digits=2, tables=()),
    Score("uiqi", "universal quality", fusion_sums, lambda s, c: ratio(s.quality, s.windows), digits=4, tables=()),
    Score("q2n", "Q2n", fusion_sums, overall=lambda s, c: ratio(s.together, s.windows_together), digits=4, tables=()),
    Score("vif", "VIF", information_sums, lambda s, c: s.vif, tables=("compare", "report")),
    _texture("tenengrad", "Tenengrad", "", 6, "tenengrad", "ratio"),
    _texture("high_frequency", "high-frequency energy", "", 6, "high_frequency", "ratio", tables=("compare", "report")),
    _texture("rms_contrast", "RMS contrast", "", 4, "rms_contrast", "ratio", tables=("report",)),
    _texture("visible_contrast", "visible contrast", "", 3, "visible_contrast", "ratio", tables=("compare",)),
    _texture("noise", "noise estimate", _REFLECTANCE, 5, "noise", "test", tables=("archive", "report")),
    _texture("mean", "mean", _REFLECTANCE, 4, "mean", "single", tables=()),
    _texture("snr", "signal to noise", "", 1, "signal_to_noise", "single", tables=("archive", "report")),
    _texture("enl", "equivalent looks", "", 0, "equivalent_looks", "single", tables=()),
    _opensr("consistency_reflectance", "consistency, reflectance", "reflectance", _REFLECTANCE, 5),
    _opensr("consistency_spectral", "consistency, spectral", "spectral", "degrees", 3),
    _opensr("consistency_spatial", "consistency, spatial", "spatial", "input pixels", 3),
    _opensr("synthesis", "synthesis", "synthesis", _REFLECTANCE, 5),
    _opensr("improvement", "improvement", "improvement", "", 3),
    _opensr("omission", "omission", "omission", "", 3),
    _opensr("hallucination", "hallucination", "hallucination", "", 3),
)
_KNOWN = {score.name: score for score in _BUILT_IN}


def register(score: Score) -> Score:
    """Add a score to every table of this process; an installed package does so by an entry point (``ENTRY_POINTS``).

    Raises
    ------
    UsageError
        If the name is taken.
    """
    if score.name in _KNOWN:
        raise UsageError(f"there is a score named {score.name!r} already; give yours another name")
    _KNOWN[score.name] = score
    return score


def known_scores() -> dict[str, Score]:
    """Return every score by name, in the order shown: the built-in ones, those of installed packages, those added here.

    Raises
    ------
    UsageError
        If a package's score cannot be loaded.
    """
    _load_installed()
    return dict(_KNOWN)


def columns(table: str) -> list[Score]:
    """Return the scores that a page ("compare", "archive", "report") shows."""
    return [score for score in known_scores().values() if table in score.tables]


def pixel_names() -> tuple[str, ...]:
    """Return the names of the scores that look at single pixels (or cells of 2 x 2) and are quick to measure."""
    return tuple(score.name for score in known_scores().values() if score.halo <= 1)


def without_input() -> tuple[str, ...]:
    """Return the names of the scores that need no coarse image: without the others, blocks need less context."""
    return tuple(score.name for score in known_scores().values() if score.kind != "input")


@functools.cache
def _load_installed() -> None:
    for point in entry_points(group=ENTRY_POINTS):
        try:
            score = point.load()
        except Exception as error:  # noqa: BLE001 - another package's import may fail in any way
            raise UsageError(f"the score {point.value!r} of an installed package cannot be loaded: {error}") from None
        if not isinstance(score, Score):
            raise UsageError(f"the entry point {point.value!r} of {ENTRY_POINTS} must be a Score, got {score!r}")
        register(score)
