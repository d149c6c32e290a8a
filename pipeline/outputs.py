"""What an output raster will be: grid, data type, bands, nodata, radiometry, provenance. Decided before any pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.categories import MAX_CLASSES, MISSING, Category, categories_of
from scenelift.pipeline.enhance import Spec
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.opening import DTYPES
from scenelift.pipeline.scenes import Band, Scene, beside

CHUNK = 512
"""Wanted side of an inner chunk, output pixels."""

UNCERTAINTY = " uncertainty"
"""How the description of a band ends that tells the uncertainty of the one before it."""


@dataclass(frozen=True)
class Output:
    """An output raster, fully described."""

    grid: GeoGrid
    dtype: str
    bands: tuple[Band, ...]
    nodata: float | None
    mask: bool
    """Whether an internal mask is stored beside the bands (the input had one, and no nodata value)."""
    block: tuple[int, int]
    """Height and width that one task writes: a whole number of chunks, owned by nobody else."""
    tags: dict[str, str] = field(default_factory=dict)
    tag_domains: dict[str, dict[str, str]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    """Models, settings, input digest: nothing that differs between two runs of the same job."""
    categories: tuple[Category, ...] = ()
    """Classes, if this is a class map: its values are numbers of classes, and nobody may average them."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, height, width."""
        return len(self.bands), *self.grid.shape

    @property
    def chunk(self) -> tuple[int, int]:
        """Height and width of a chunk: the largest divisor of the block that is at most 512."""
        height, width = (_divisor(side, CHUNK) for side in self.block)
        return height, width

    @property
    def missing(self) -> float:
        """Value stored where there is no data."""
        if self.nodata is not None:
            return self.nodata
        return float("nan") if np.issubdtype(np.dtype(self.dtype), np.floating) else 0

    @property
    def nbytes(self) -> int:
        """Uncompressed size."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def encode(self, values: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.generic]:
        """Turn reflectance into the values to store.

        Rounded to nearest (ties to even) and clipped to the range of the data type for integers only; missing pixels
        become the nodata value (without one: 0, or NaN), and a valid pixel that would land on it moves one step off.

        Parameters
        ----------
        values : ndarray of float32, shape (C, height, width)
            Reflectance of the first C bands (an alpha band behind them is stored as it is).
        valid : ndarray of bool, same shape
        """
        bands = self.bands[: len(values)]
        scale = np.array([b.scale for b in bands])[:, None, None]
        offset = np.array([b.offset for b in bands])[:, None, None]
        exact = (values - offset.astype(np.float32)) / scale.astype(np.float32)
        if np.issubdtype(np.dtype(self.dtype), np.integer):
            limits = np.iinfo(self.dtype)
            exact = np.clip(np.rint(exact), limits.min, limits.max)
        out = exact.astype(self.dtype)
        missing = np.asarray(self.missing).astype(self.dtype)
        if self.nodata is not None:
            out[valid & (out == missing)] = beside(missing)
        out[~valid] = missing
        return out


def _divisor(side: int, most: int) -> int:
    """Return the largest divisor of `side` up to `most`; `side` itself where that would make tiny chunks."""
    best = max(d for d in range(1, min(side, most) + 1) if side % d == 0)
    return best if best >= min(side, 64) else side


def _uncertainty(band: Band, index: int) -> Band:
    """Describe the band that tells how uncertain another is: a spread, so it has no offset."""
    return Band((band.description or f"band {index + 1}") + UNCERTAINTY, band.scale, 0.0, band.declared)


def pictures(bands: Sequence[Band]) -> list[int]:
    """Return the indices of the bands that do not tell the uncertainty of another; of all, if there are no others."""
    plain = [index for index, band in enumerate(bands) if not (band.description or "").endswith(UNCERTAINTY)]
    return plain or list(range(len(bands)))


def output_of(
    scene: Scene,
    specs: Sequence[Spec],
    block: tuple[int, int],
    *,
    dtype: str | None = None,
    provenance: dict[str, Any] | None = None,
) -> Output:
    """Describe what a chain of models makes of a scene.

    Parameters
    ----------
    scene : Scene
    specs : sequence of Spec
        The models, in order.
    block : (int, int)
        Height and width of a block in *input* pixels.
    dtype : str, optional
        Another data type than the scene's.
    provenance : dict, optional
        Written into tags and attributes.

    Raises
    ------
    UsageError
        If a model wants another number of bands than the scene has, or the data type is not supported.
    """
    dtype = dtype or scene.dtype
    if dtype not in DTYPES:
        raise UsageError(f"data type {dtype!r} is not supported; choose one of {', '.join(DTYPES)}")
    bands, scale = list(scene.bands), 1
    for spec in specs:
        if spec.bands is not None and spec.bands != len(bands):
            raise UsageError(
                f"model {spec.name} wants {spec.bands} bands together, {scene.name} gives {len(bands)}; "
                "choose bands with --bands"
            )
        labels = getattr(spec, "labels", ())
        if spec.out_bands is not None and (spec.out_bands != len(bands) or labels):
            names = labels or [f"{spec.name} {i + 1}" for i in range(spec.out_bands)]
            bands = [Band(name, 1.0, 0.0, True) for name in names]
        if spec.out_per_band == 2:
            bands = [b for i, band in enumerate(bands) for b in (band, _uncertainty(band, i))]
        scale *= spec.scale
    if scene.alpha is not None:
        bands.append(Band("alpha", 1.0, 0.0, False, "alpha"))
    if scene.nodata is not None and not np.issubdtype(np.dtype(dtype), np.floating):
        limits = np.iinfo(dtype)
        if not limits.min <= scene.nodata <= limits.max:
            raise UsageError(f"nodata value {scene.nodata:g} of {scene.name} does not exist in {dtype}")
    return Output(
        grid=scene.grid.scaled(scale),
        dtype=dtype,
        bands=tuple(bands),
        nodata=scene.nodata,
        mask=scene.mask_kind == "mask",
        block=(block[0] * scale, block[1] * scale),
        tags=scene.tags,
        tag_domains=scene.tag_domains,
        provenance=provenance or {},
    )


def as_classes(output: Output, names: Sequence[str]) -> Output:
    """Describe a map of classes instead: one byte a pixel, a palette, 255 where there is no data.

    Raises
    ------
    UsageError
        If there are no class names, or more than bytes can number.
    """
    if not 1 <= len(names) <= MAX_CLASSES:
        raise UsageError(f"a class map needs 1 to {MAX_CLASSES} named classes, the model has {len(names)}")
    band = Band("land cover", 1.0, 0.0, False, "palette")
    return replace(output, dtype="uint8", bands=(band,), nodata=MISSING, mask=False, categories=categories_of(names))


def as_shares(output: Output) -> Output:
    """Describe a map of probabilities instead: float32, NaN where there is no data."""
    bands = tuple(band for band in output.bands if band.color != "alpha")
    return replace(output, dtype="float32", bands=bands, nodata=float("nan"), mask=False)
