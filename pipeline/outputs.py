"""What an output raster will be: grid, data type, bands, nodata, radiometry, provenance. Decided before any pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scenelift.pipeline.enhance import Spec
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.scenes import DTYPES, Band, Scene

CHUNK = 512
"""Wanted side of an inner chunk, output pixels."""


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


def _divisor(side: int, most: int) -> int:
    """Return the largest divisor of `side` up to `most`; `side` itself where that would make tiny chunks."""
    best = max(d for d in range(1, min(side, most) + 1) if side % d == 0)
    return best if best >= min(side, 64) else side


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
        if spec.out_bands is not None and spec.out_bands != len(bands):
            bands = [Band(f"{spec.name} {i + 1}", 1.0, 0.0, True) for i in range(spec.out_bands)]
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
