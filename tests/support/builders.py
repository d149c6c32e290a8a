"""Builders for tiny rasters and for models whose arithmetic is exact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from scenelift.models.spec import ModelSpec

UTM = Affine(10, 0, 500_000, 0, -10, 5_000_000)
ROTATED = Affine(500_000 / 50_000, 2.5, 500_000, 1.5, -10, 5_000_000)
SOUTH_UP = Affine(10, 0, 500_000, 0, 10, 5_000_000)


@dataclass(frozen=True)
class IntegerNet:
    """A convolution with small integer weights, then pixel repetition: exact in float32 in any order of additions.

    `radius` rings of context go in with different weights at every position, so a wrong pixel anywhere in the halo
    changes the result.
    """

    spec: ModelSpec
    radius: int

    def __call__(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        n, c, height, width = patches.shape
        h, r, k = self.spec.halo, self.radius, self.spec.scale
        core = height - 2 * h, width - 2 * h
        out = np.zeros((n, c, *core), np.float32)
        for dy in range(-r, r + 1):
            for dx in range(-r, r + 1):
                weight = 1 + (3 * dy + 5 * dx) % 7
                out += weight * patches[:, :, h + dy : h + dy + core[0], h + dx : h + dx + core[1]]
        fine = out.repeat(k, axis=2).repeat(k, axis=3)
        # each sub-pixel its own value, so that a shift by one fine pixel shows
        phase = np.arange(k)[:, None] * k + np.arange(k)[None]
        return fine + np.tile(phase, core).astype(np.float32)


def integer_net(scale: int = 1, radius: int = 2, patch: int = 32, halo: int | None = None) -> IntegerNet:
    """Make an :class:`IntegerNet` whose halo is its radius unless said otherwise."""
    halo = radius if halo is None else halo
    return IntegerNet(ModelSpec("integer", "other", scale=scale, halo=halo, patch=patch), radius)


@dataclass(frozen=True)
class Repeat:
    """Repeats pixels, so that the right output is known exactly; travels to workers as it is."""

    scale: int

    @property
    def spec(self) -> ModelSpec:
        return ModelSpec("repeat", "other", scale=self.scale, halo=1, patch=8)

    @property
    def name(self) -> str:
        return "repeat"

    def load(self, worker: int = 0) -> Repeat:
        return self

    def __call__(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        return patches[:, :, 1:-1, 1:-1].repeat(self.scale, axis=2).repeat(self.scale, axis=3)


def whole_image(net: IntegerNet, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run a net over a whole image in one pass, mirrored at its edges by numpy."""
    halo = (net.spec.halo, net.spec.halo)
    return net(np.pad(values, ((0, 0), halo, halo), mode="reflect")[None])[0]


def noise_image(seed: int, shape: tuple[int, ...], dtype: str = "uint16", high: int = 12_000) -> NDArray[Any]:
    """Return random DN, some above 10000."""
    rng = np.random.default_rng(seed)
    return rng.integers(1, min(high, np.iinfo(dtype).max) if dtype != "float32" else high, shape).astype(dtype)


def write_raster(
    path: Path,
    values: NDArray[Any],
    transform: Affine = UTM,
    crs: str | None = "EPSG:32633",
    scales: list[float] | None = None,
    offsets: list[float] | None = None,
    descriptions: list[str] | None = None,
    tags: dict[str, str] | None = None,
    mask: NDArray[np.uint8] | None = None,
    colorinterp: list[Any] | None = None,
    **profile: Any,
) -> Path:
    """Write a GeoTIFF (or another driver's file) with every kind of metadata that must survive."""
    settings: dict[str, Any] = {"driver": "GTiff", "tiled": True, "blockxsize": 64, "blockysize": 64} | profile
    if settings["driver"] != "GTiff":
        settings = dict(profile)
    bands, height, width = values.shape
    settings |= {"height": height, "width": width, "count": bands, "dtype": values.dtype}
    settings |= {"crs": crs, "transform": transform}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", **settings) as out,
    ):
        if colorinterp:
            out.colorinterp = colorinterp
        out.write(values)
        if scales:
            out.scales = scales
        if offsets:
            out.offsets = offsets
        for i, text in enumerate(descriptions or [], start=1):
            out.set_band_description(i, text)
        if tags:
            out.update_tags(**tags)
        if mask is not None:
            out.write_mask(mask)
    return path


def landcover_net() -> tuple[Any, ModelSpec]:
    """Make a network that names three classes by a 3 x 3 mean, cheap enough for scenes of any size."""
    import torch

    class Net(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            mean = torch.nn.functional.avg_pool2d(x, 3, 1)  # unpadded: one pixel of halo
            return torch.softmax(20 * (mean - mean.mean(1, keepdim=True)), 1)

    labels = ("Forest", "River & lake", "Rock")
    return Net(), ModelSpec("names", "landcover", halo=1, bands=3, out_bands=3, labels=labels, patch=32)


def untrained_classifier(path: Path, names: tuple[str, ...]) -> Path:
    """Write a classifier of windows of 32 pixels that was trained on nothing."""
    import torch

    from scenelift.models.checkpoint import save_checkpoint
    from scenelift.models.networks.architectures import build

    torch.manual_seed(3)
    arch = {"kind": "landcover-classifier", "classes": list(names), "window": 32, "side": 32, "stages": 1, "step": 16}
    module = build(arch, valid=True)
    spec = ModelSpec("tiny", "landcover", halo=module.halo, bands=3, out_bands=3, multiple_of=16, patch=32)
    save_checkpoint(path, module, spec, arch)
    return path
