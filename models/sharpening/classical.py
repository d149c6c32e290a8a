"""What others do to sharpen a band: interpolation, back-projection, injection and substitution, over whole images.

They are here to be compared with. Most look at the statistics of the whole image, so they are no enhancers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenelift.models.sharpening.filters import first_fine
from scenelift.models.sharpening.layout import BandGrid, coarse, guides
from scenelift.models.sharpening.projection import observe

Image = NDArray[np.float32]
Values = NDArray[np.float64]
STEPS = 10
"""Of back-projection."""


@dataclass(frozen=True)
class Task:
    """Bands of one coarse grid, and their guides."""

    layout: tuple[BandGrid, ...]
    images: Image
    """(bands, H, W): all bands on the fine grid, coarse ones replicated."""
    seen: Image
    """(coarse bands, h, w)."""

    @property
    def guides(self) -> Image:
        """(guides, H, W)."""
        return self.images[guides(self.layout)]

    @property
    def bands(self) -> list[BandGrid]:
        """The coarse bands."""
        return [self.layout[i] for i in coarse(self.layout)]

    def larger(self, values: Image) -> Image:
        """Interpolate coarse pixels (n, h, w) by cubic convolution."""
        return enlarge(values, self.bands[0], self.images.shape[1:])

    def as_seen(self, fine: Image, band: BandGrid) -> Image:
        """Return what a band's sensor would see of fine images (n, H, W)."""
        return observe(fine, [band] * len(fine), (self.seen.shape[1], self.seen.shape[2]))


def enlarge(values: Image, band: BandGrid, shape: tuple[int, ...]) -> Image:
    """Interpolate coarse pixels (n, h, w) onto the fine grid by Keys' cubic convolution (a = -0.5)."""
    out = values.astype(np.float64)
    for axis, (side, at) in enumerate(zip(shape, (band.row, band.col), strict=True), start=1):
        block = (np.arange(side) - first_fine(band.ratio, at)) // band.ratio
        place = (np.arange(side) - at) / band.ratio
        count, total = out.shape[axis], 0.0
        for step in range(-2, 3):
            x = np.abs(block + step - place)
            near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
            weight = np.where(x < 1, near, np.where(x < 2, far, 0))
            index = (block + step) % (2 * count)  # mirrored between pixels
            taken = np.take(out, np.minimum(index, 2 * count - 1 - index), axis)
            total = total + taken * (weight[:, None] if axis == 1 else weight)
        out = np.asarray(total)
    return out.astype(np.float32)


def cubic(task: Task) -> Image:
    """Interpolate by cubic convolution; the guides are not looked at."""
    return task.larger(task.seen)


def back_projection(task: Task) -> Image:
    """Interpolate, then correct until the sensor would reproduce the input (Irani and Peleg, CVGIP 53(3), 1991)."""
    found = cubic(task)
    for _ in range(STEPS):
        again = observe(found, task.bands, (task.seen.shape[1], task.seen.shape[2]))
        found = found + task.larger(task.seen - again)
    return found


def glp(task: Task) -> Image:
    """Inject the detail of the best guide by regression: MTF-GLP-CBD (Alparone et al., IEEE TGRS 45(10), 2007).

    The detail is what the band's own blur takes from the guide; of several guides that with the highest correlation is
    taken (Selva et al., IEEE JSTARS 8(6), 2015).
    """
    found = []
    for band, seen, large in zip(task.bands, task.seen, cubic(task), strict=True):
        low = task.as_seen(task.guides, band)
        best = int(np.argmax([_correlation(seen, each) for each in low]))
        gain = _gain(seen, low[best])
        found.append(large + gain * (task.guides[best] - task.larger(low[best : best + 1])[0]))
    return np.stack(found).astype(np.float32)


def brovey(task: Task) -> Image:
    """Multiply every band by guide over intensity (Gillespie et al., RSE 22(3), 1987), intensity by least squares."""
    large = cubic(task)
    intensity = _intensity(task, large)
    safe = np.where(np.abs(intensity) < 1e-6, 1.0, intensity)
    return (large * (task.guides[0] / safe)).astype(np.float32)


def gram_schmidt(task: Task) -> Image:
    """Substitute an adaptive intensity by the guide: GSA (Aiazzi et al., IEEE TGRS 45(10), 2007)."""
    large = cubic(task)
    intensity = _intensity(task, large)
    gains = np.array([_gain(band, intensity) for band in large])
    return (large + gains[:, None, None] * (task.guides[0] - intensity)).astype(np.float32)


def _correlation(one: Image, other: Image) -> float:
    """Return the squared correlation, 0 where nothing varies."""
    covariance = np.cov(one.ravel().astype(np.float64), other.ravel())
    spread = float(covariance[0, 0] * covariance[1, 1])
    return float(covariance[0, 1] ** 2 / spread) if spread > 0 else 0.0


def _gain(values: Image, against: Image | Values) -> float:
    covariance = np.cov(values.ravel().astype(np.float64), against.ravel())
    return float(covariance[0, 1] / covariance[1, 1]) if covariance[1, 1] > 0 else 0.0


def _intensity(task: Task, large: Image) -> Values:
    """Return the combination of bands that is most like the guide at the coarse grid, at the fine one."""
    low = task.as_seen(task.guides[:1], task.bands[0])[0]
    columns = np.stack([*(band.ravel() for band in task.seen), np.ones(low.size)]).astype(np.float64)
    weights = np.linalg.lstsq(columns.T, low.ravel().astype(np.float64), rcond=None)[0]
    return np.tensordot(weights[:-1], large.astype(np.float64), 1) + weights[-1]


METHODS: dict[str, Callable[[Task], Image]] = {
    "cubic": cubic,
    "back-projection": back_projection,
    "glp-mtf": glp,
    "brovey": brovey,
    "gram-schmidt": gram_schmidt,
}
ONE_GUIDE = ("brovey", "gram-schmidt")
"""Methods for a single guide: a panchromatic band."""
