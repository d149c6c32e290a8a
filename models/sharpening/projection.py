"""From fine pixels to what a coarse band sees of them and back, as convolutions without padding."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from scenelift.models.networks.layers import crop
from scenelift.models.precision import no_tf32
from scenelift.models.sharpening.filters import RADIUS, Taps, blur, first_fine, interpolation, pick
from scenelift.models.sharpening.layout import BandGrid

Image = NDArray[np.float32]


@contextlib.contextmanager
def whole_float32(device: torch.device) -> Iterator[None]:
    """Compute in float32 whatever the precision around it: neither autocast nor, on a GPU, TF32's ten bits."""
    with torch.autocast(device.type, enabled=False), no_tf32(device):
        yield


class Projection(nn.Module):
    """Bands of one coarse grid and the filters between it and the fine one.

    Patches start at multiples of the ratio. Of a patch of ``size`` fine pixels, results are on its inner
    ``size - 2 * halo``.

    Parameters
    ----------
    bands : sequence of BandGrid
        With ratio, row and col in common; each has its own MTF.
    radius : int
        Coarse pixels on either side that an interpolated pixel is made of.
    """

    def __init__(self, bands: Sequence[BandGrid], radius: int = RADIUS) -> None:
        super().__init__()
        first = bands[0]
        self.ratio, self.radius = first.ratio, radius
        centres = first.row, first.col
        self._picks = [pick(self.ratio, at) for at in centres]
        blurs = [[blur(band.mtf, self.ratio, at) for band in bands] for at in centres]
        self._blurs = [_widest(taps) for taps in blurs]
        self._first = [first_fine(self.ratio, at) for at in centres]
        for axis, name in enumerate("rc"):
            widest = self._blurs[axis]
            self.register_buffer(f"blur_{name}", _column(_padded(blurs[axis], widest), axis), persistent=False)
            weights = [interpolation(band.mtf, self.ratio, centres[axis], radius) for band in bands]
            stacked = torch.tensor([w.tolist() for w in weights]).flatten(0, 1)[:, None]  # (bands x ratio, 1, taps)
            self.register_buffer(f"up_{name}", _column(stacked, axis), persistent=False)
            chosen = torch.tensor(self._picks[axis].weights).expand(len(bands), 1, -1)
            self.register_buffer(f"pick_{name}", _column(chosen, axis), persistent=False)
        self.margin = max(
            max(taps.before(self.ratio), taps.after(self.ratio), chosen.before(self.ratio), chosen.after(self.ratio))
            for taps, chosen in zip(self._blurs, self._picks, strict=True)
        )
        """Coarse pixels on each side of a patch that may lack the fine pixels they are made of."""
        self.halo = self.ratio * (self.margin + radius + 1)
        """Fine pixels on every side that `interpolate` of `observe` uses up."""

    def pick(self, x: Tensor) -> Tensor:
        """Return the coarse pixels (N, bands, h, w) of replicated bands (N, bands, H, W), without the margin."""
        return self._sample(x, self._picks, "pick")

    def observe(self, x: Tensor) -> Tensor:
        """Return what the sensor of each band would see of fine pixels (N, bands, H, W): (N, bands, h, w)."""
        return self._sample(x, self._blurs, "blur")

    def interpolate(self, coarse: Tensor) -> Tensor:
        """Return the fine pixels (N, bands, H - 2 halo, W - 2 halo) of coarse ones, as of `pick`."""
        bands = coarse.shape[1]
        y = F.conv2d(coarse, self.get_buffer("up_r"), groups=bands)
        n, _, h, w = y.shape
        y = y.reshape(n, bands, self.ratio, h, w).transpose(2, 3).reshape(n, bands, h * self.ratio, w)
        y = F.conv2d(y, self.get_buffer("up_c"), groups=bands)
        n, _, h, w = y.shape
        y = y.reshape(n, bands, self.ratio, h, w).permute(0, 1, 3, 4, 2).reshape(n, bands, h, w * self.ratio)
        # the first pixel of y is that of coarse pixel margin + radius; the core starts one coarse pixel later
        rows, cols = (self.ratio - first for first in self._first)
        size = [side - 2 * self.ratio for side in y.shape[2:]]
        return y[:, :, rows : rows + size[0], cols : cols + size[1]]

    def crop(self, x: Tensor) -> Tensor:
        """Cut the halo off fine pixels (..., H, W)."""
        return crop(x, self.halo)

    def _sample(self, x: Tensor, taps: Sequence[Taps], name: str) -> Tensor:
        """Filter both axes and keep the coarse pixels ``margin`` to H / ratio - margin."""
        for axis, letter in enumerate("rc"):
            start = taps[axis].first + self.ratio * self.margin
            count = x.shape[2 + axis] // self.ratio - 2 * self.margin
            length = self.ratio * (count - 1) + len(taps[axis].weights)
            stride = (self.ratio, 1) if axis == 0 else (1, self.ratio)
            x = F.conv2d(
                x.narrow(2 + axis, start, length),
                self.get_buffer(f"{name}_{letter}"),
                stride=stride,
                groups=x.shape[1],
            )
        return x


def _widest(taps: Sequence[Taps]) -> Taps:
    return max(taps, key=lambda t: len(t.weights))


def _padded(taps: Sequence[Taps], widest: Taps) -> Tensor:
    """Return the weights of all bands at the places of the widest, shape (bands, 1, taps)."""
    out = torch.zeros(len(taps), 1, len(widest.weights))
    for row, each in zip(out, taps, strict=True):
        start = each.first - widest.first
        row[0, start : start + len(each.weights)] = torch.tensor(each.weights)
    return out


def _column(weights: Tensor, axis: int) -> Tensor:
    """Return weights (out, 1, taps) as a kernel along one axis of an image."""
    return weights[..., None] if axis == 0 else weights[:, :, None]


def mirrored(x: Image, before: int, after: tuple[int, int]) -> Image:
    """Continue an image (bands, H, W) by reflection, as the engine does at a scene's edge."""
    return np.pad(x, ((0, 0), (before, after[0]), (before, after[1])), mode="reflect")


def observe(x: Image, bands: Sequence[BandGrid], shape: tuple[int, int]) -> Image:
    """Return what coarse bands see of a whole fine image.

    Parameters
    ----------
    x : ndarray of float32, shape (bands, H, W)
        At least as large as the filters.
    bands : sequence of BandGrid
        One a band, of one grid.
    shape : (int, int)
        Height and width of the result.

    Returns
    -------
    ndarray of float32, shape (bands, *shape)
    """
    projection = Projection(bands).double()
    ratio, margin = projection.ratio, projection.margin
    wide = ratio * margin
    after = [ratio * (count + margin) - side for count, side in zip(shape, x.shape[1:], strict=True)]
    padded = mirrored(x, wide, (max(0, after[0]), max(0, after[1])))
    padded = padded[:, : ratio * (shape[0] + 2 * margin), : ratio * (shape[1] + 2 * margin)]
    with torch.no_grad():
        return projection.observe(torch.from_numpy(padded.astype(np.float64))[None])[0].numpy().astype(np.float32)


def coarsened(truth: Image, guides: Image, bands: Sequence[BandGrid]) -> tuple[Image, Image, Image]:
    """Make bands coarser that are known on the guides' grid (Wald et al., PE&RS 63(6), 1997).

    Parameters
    ----------
    truth : ndarray of float32, shape (bands, H, W)
    guides : ndarray of float32, shape (guides, H, W)
    bands : sequence of BandGrid
        What they are made.

    Returns
    -------
    images : ndarray of float32, shape (guides + bands, H', W')
        What a sharpener is given, coarse bands replicated; without rows and columns that fill no coarse pixel.
    seen : ndarray of float32, shape (bands, h, w)
        The coarse pixels.
    truth : ndarray of float32, shape (bands, H', W')
    """
    ratio = bands[0].ratio
    rows, cols = (side // ratio for side in truth.shape[1:])
    truth, guides = (x[:, : rows * ratio, : cols * ratio] for x in (truth, guides))
    seen = observe(truth, bands, (rows, cols))
    images = np.concatenate([guides, replicate(seen, bands[0], truth.shape[1:])])
    return images.astype(np.float32, copy=False), seen, truth


def replicate(coarse: Image, band: BandGrid, shape: tuple[int, ...]) -> Image:
    """Return coarse pixels (bands, h, w) on the fine grid: every fine pixel holds that of the one that covers it.

    Fine pixels beyond the first or the last coarse pixel hold that one.
    """
    index = [
        np.clip((np.arange(side) - first_fine(band.ratio, at)) // band.ratio, 0, count - 1)
        for side, at, count in zip(shape, (band.row, band.col), coarse.shape[1:], strict=True)
    ]
    return np.ascontiguousarray(coarse[:, index[0][:, None], index[1]])
