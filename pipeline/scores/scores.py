"""How close one image is to another: sums that add over blocks, and the scores made of them once, at the end."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scores.areas import Area
from scenelift.pipeline.scores.pixels import PixelSums, pixel_sums
from scenelift.pipeline.scores.similarity import InformationSums, SimilaritySums, information_sums, similarity_sums
from scenelift.pipeline.scores.sums import Sums, ratio
from scenelift.pipeline.scores.texture import TextureSums, texture_sums


@dataclass(frozen=True)
class Convention:
    """What scores must agree on before they can be added or compared."""

    data_range: float | tuple[float, ...] = 1.0
    """Full scale in the images' unit, for all bands or for each; PSNR and SSIM mean nothing without it."""
    ratio: float = 1.0
    """Coarse over fine pixel size, for ERGAS: 2 for a super-resolution by two."""
    windows: bool = True
    """Whether to measure SSIM, MS-SSIM, VIF and texture, or only what needs single pixels."""

    def __post_init__(self) -> None:
        ranges = np.atleast_1d(self.data_range)
        if not np.all(np.isfinite(ranges) & (ranges > 0)):
            raise UsageError(f"the data range must be positive, got {self.data_range}")
        if not self.ratio > 0:
            raise UsageError(f"the ratio of pixel sizes must be positive, got {self.ratio}")

    def ranges(self, bands: int) -> np.ndarray:
        """Return full scale per band, float64 of shape (bands,)."""
        ranges = np.atleast_1d(np.asarray(self.data_range, np.float64))
        if len(ranges) not in (1, bands):
            raise UsageError(f"{len(ranges)} data ranges were given for {bands} bands")
        return np.broadcast_to(ranges, bands)


@dataclass(frozen=True, eq=False)
class Statistics(Sums):
    """Everything a pair of images is scored by, summed over some part of them; parts add with ``+``."""

    pixels: PixelSums
    similarity: SimilaritySums | None
    information: InformationSums | None
    reference_texture: TextureSums | None
    test_texture: TextureSums | None


def block_statistics(
    reference: np.ndarray,
    test: np.ndarray,
    valid: np.ndarray | None = None,
    area: Area | None = None,
    convention: Convention | None = None,
) -> Statistics:
    """Sum what one block contributes to the scores of a scene.

    Parameters
    ----------
    reference, test : numpy.ndarray
        Shape (C, H, W) of one unit (reflectance or digital numbers): the block's core and its halo.
    valid : numpy.ndarray, optional
        Boolean, shape (H, W) or (C, H, W): pixels that are data in both images. Values that are not finite
        are invalid whatever it says.
    area : Area, optional
        Where the arrays lie in the scene and what the block owns (``Area.around`` gives the window to read);
        by default the arrays are the whole scene.
    convention : Convention, optional
        Data range and ratio; by default values are taken to span 0 to 1.

    Returns
    -------
    Statistics
        Add those of all blocks with ``+``, then call :func:`scores`.

    Raises
    ------
    UsageError
        If shapes differ or do not fit the area.
    """
    convention = convention or Convention()
    x, y, mask = _prepared(reference, test, valid)
    area = area or Area.whole(x.shape[1:])
    if x.shape[1:] != area.shape:
        raise UsageError(f"arrays of {x.shape[1:]} pixels were given for an area of {area.shape}")
    ranges = convention.ranges(len(x))
    pixels = pixel_sums(x, y, mask, area)
    if not convention.windows:
        return Statistics(pixels, None, None, None, None)
    return Statistics(
        pixels,
        similarity_sums(x, y, mask, area, ranges),
        information_sums(x, y, mask, area, ranges),
        texture_sums(x, mask, area, ranges),
        texture_sums(y, mask, area, ranges),
    )


def _prepared(
    reference: np.ndarray, test: np.ndarray, valid: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = np.asarray(reference, np.float64), np.asarray(test, np.float64)
    if x.ndim != 3 or x.shape != y.shape:
        raise UsageError(f"images must have one shape (bands, height, width), got {x.shape} and {y.shape}")
    mask = np.isfinite(x) & np.isfinite(y)
    if valid is not None:
        mask &= np.asarray(valid, bool)
    return np.where(mask, x, 0), np.where(mask, y, 0), mask


@dataclass(frozen=True)
class Scores:
    """The scores of a pair of images, each over all bands; ``bands`` holds those that exist band by band.

    NaN stands for what cannot be measured (no valid pixel, no whole window, a constant reference), infinity for
    the PSNR of identical images. Window measures are None where they were not asked for.
    """

    pixels: int
    """Valid samples: pixels times bands."""
    psnr: float
    """dB; from the mean squared error over all bands, each relative to its data range."""
    psnr_mean: float
    """dB; mean over bands of each band's PSNR."""
    mae: float
    """Mean absolute error, the images' unit."""
    rmse: float
    """Root mean squared error, the images' unit."""
    bias: float
    """Mean of test - reference, the images' unit."""
    sam: float
    """Mean spectral angle, degrees; pixels with a zero spectrum in either image left out (for one band it is 0)."""
    ergas: float
    """100 / ratio x root mean squared relative error (Wald 2000): lower is better."""
    coarse_rmse: float
    """Low-resolution consistency: RMSE between means of 2 x 2 cells, the images' unit."""
    ssim: float | None = None
    ms_ssim: float | None = None
    vif: float | None = None
    tenengrad: float | None = None
    """Ratio test / reference; 1 is the reference's sharpness."""
    high_frequency: float | None = None
    """Ratio test / reference of the energy above about 0.1 cycles a pixel."""
    rms_contrast: float | None = None
    """Ratio test / reference."""
    visible_contrast: float | None = None
    """Ratio test / reference of the contrast weighted by the eye's sensitivity."""
    noise: float | None = None
    """Estimated noise of the test image, reflectance."""
    bands: dict[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """Return the scores over all bands as plain numbers, without those that were not measured."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "bands"}
        return {name: value for name, value in plain.items() if value is not None}


def scores(statistics: Statistics, convention: Convention | None = None) -> Scores:
    """Turn sums into scores: the one place where roots and logarithms are taken.

    Parameters
    ----------
    statistics : Statistics
        The sum over all blocks of a scene, or over all images of a set.
    convention : Convention, optional
        The one the statistics were made with.
    """
    convention = convention or Convention()
    sums = statistics.pixels
    ranges = convention.ranges(len(sums.pixels))
    relative = ratio(sums.squared, sums.pixels) / ranges**2
    bands = {
        "psnr": decibels(relative),
        "mae": ratio(sums.absolute, sums.pixels),
        "rmse": np.sqrt(ratio(sums.squared, sums.pixels)),
        "bias": ratio(sums.error, sums.pixels),
        "coarse_rmse": np.sqrt(ratio(sums.coarse, sums.coarse_cells)),
    } | _window_scores(statistics, ranges)
    total = sums.pixels.sum()
    windows = {name: _mean(bands[name]) for name in bands if name not in _PIXEL_SCORES}
    return Scores(
        pixels=int(total),
        psnr=float(decibels(ratio((sums.squared / ranges**2).sum(), total))),
        psnr_mean=_mean(bands["psnr"]),
        mae=float(ratio(sums.absolute.sum(), total)),
        rmse=float(np.sqrt(ratio(sums.squared.sum(), total))),
        bias=float(ratio(sums.error.sum(), total)),
        sam=float(np.degrees(ratio(sums.angle, sums.angles))),
        ergas=_ergas(sums, convention.ratio),
        coarse_rmse=float(np.sqrt(ratio(sums.coarse.sum(), sums.coarse_cells.sum()))),
        bands={name: tuple(map(float, values)) for name, values in bands.items()},
        **windows,
    )


_PIXEL_SCORES = ("psnr", "mae", "rmse", "bias", "coarse_rmse")


def decibels(relative: np.ndarray) -> np.ndarray:
    """Return the PSNR of mean squared errors relative to full scale squared; infinite for 0, NaN for NaN."""
    with np.errstate(divide="ignore"):
        return -10 * np.log10(relative)


def _window_scores(statistics: Statistics, ranges: np.ndarray) -> dict[str, np.ndarray]:
    similarity, information = statistics.similarity, statistics.information
    mine, theirs = statistics.test_texture, statistics.reference_texture
    if similarity is None or information is None or mine is None or theirs is None:
        return {}
    ratios = ("tenengrad", "high_frequency", "rms_contrast", "visible_contrast")
    return {
        "ssim": similarity.mean_ssim,
        "ms_ssim": similarity.ms_ssim,
        "vif": information.vif,
        **{name: ratio(getattr(mine, name), getattr(theirs, name)) for name in ratios},
        "noise": mine.noise * ranges,
    }


def _ergas(sums: PixelSums, pixel_ratio: float) -> float:
    mean = ratio(sums.reference, sums.pixels)
    relative = ratio(ratio(sums.squared, sums.pixels), mean**2)
    return 100 / pixel_ratio * float(np.sqrt(_mean(relative)))


def _mean(values: np.ndarray) -> float:
    seen = values[~np.isnan(values)]
    return float(seen.mean()) if seen.size else float("nan")
