"""What an output raster will be: grid, data type, bands, nodata, radiometry, provenance. Decided before any pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.enhance import Spec
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.outputs.categories import MAX_CLASSES, MISSING, Category, categories_of
from scenelift.pipeline.scenes.radiometry import ASSUMED_SCALE, DTYPES, has_value
from scenelift.pipeline.scenes.scenes import Band, Scene, beside
from scenelift.pipeline.tiles import Window

CHUNK = 512
"""Wanted side of an inner chunk, output pixels."""

UNCERTAINTY = " uncertainty"
"""How the description of a band ends that tells the uncertainty of the one before it."""
LOWER, UPPER = " lower bound", " upper bound"
"""How those of the bands end between which the true value of the one before lies."""
COMPANIONS: dict[int, tuple[str, ...]] = {1: (), 2: (UNCERTAINTY,), 3: (LOWER, UPPER), 4: (UNCERTAINTY, LOWER, UPPER)}
"""What follows a band, by the number of bands a model returns for it."""


@dataclass(frozen=True)
class Output:
    """An output raster, fully described."""

    grid: GeoGrid
    dtype: str
    bands: tuple[Band, ...]
    nodata: float | None
    mask: bool
    """Whether an internal mask is stored beside the bands: the input had one, or the part that is made is no rectangle,
    and there is no nodata value."""
    block: tuple[int, int]
    """Height and width that one task writes: a whole number of chunks, written by no other task."""
    tags: dict[str, str] = field(default_factory=dict)
    tag_domains: dict[str, dict[str, str]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    """Models, settings, input digest: nothing that differs between two runs of the same job."""
    categories: tuple[Category, ...] = ()
    """Classes, if this is a class map: its values are numbers of classes, which must not be averaged."""
    compress: str | None = None
    """How it is compressed (`scenelift.pipeline.outputs.compression`); None: as its format does by default."""

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

    def encode(self, values: NDArray[np.float32], valid: NDArray[np.bool_] | None) -> NDArray[np.generic]:
        """Turn reflectance into the values to store.

        Rounded to nearest (ties to even) and clipped to the range of the data type for integers only; missing pixels
        become the nodata value (without one: 0, or NaN), and a valid pixel that would land on it moves one step off.

        Parameters
        ----------
        values : ndarray of float32, shape (C, height, width)
            Reflectance of the first C bands (an alpha band behind them is stored as it is).
        valid : ndarray of bool, same shape, or None
            None: every pixel has data.
        """
        out = np.empty(values.shape, self.dtype)
        missing = np.asarray(self.missing).astype(self.dtype)
        for index, (band, plane, stored) in enumerate(zip(self.bands, values, out, strict=False)):
            exact = (plane - np.float32(band.offset)) / np.float32(band.scale)
            if np.issubdtype(stored.dtype, np.integer):
                limits = np.iinfo(self.dtype)
                np.clip(np.rint(exact, out=exact), limits.min, limits.max, out=exact)
            stored[...] = exact
            if self.nodata is not None:
                on_it = stored == missing
                stored[on_it if valid is None else on_it & valid[index]] = beside(missing)
            if valid is not None:
                stored[~valid[index]] = missing
        return out


def _divisor(side: int, most: int) -> int:
    """Return the largest divisor of `side` up to `most`; `side` itself where that would make tiny chunks."""
    best = max(d for d in range(1, min(side, most) + 1) if side % d == 0)
    return best if best >= min(side, 64) else side


def _recoded(band: Band, was: str, dtype: str) -> Band:
    """Return how another data type than `was` stores a band: scale and offset that read back as the same reflectance.

    The numbers stay what they were where the new type holds them; else they become those that are usual for it, as
    reflectance times 10000 in 16 bits. Declared either way: a reader of the output would assume them from its type.
    """
    if np.can_cast(was, dtype):
        return replace(band, declared=True)
    limits, usual = np.iinfo(dtype), ASSUMED_SCALE[dtype]
    low, high = (limit * band.scale + band.offset for limit in (limits.min, limits.max))
    # whole numbers lose nothing to rounding, fractions do where the step is coarser than it need be
    fine = was != "float32" or band.scale <= usual * (1 + 1e-9)
    if fine and low <= 0 and high >= 1:
        return replace(band, declared=True)
    return replace(band, scale=usual, offset=0.0, declared=True)


def _nodata(scene: Scene, dtype: str) -> float | None:
    """Return the output's nodata value: the scene's, or for one that the data type lacks (NaN, -9999) its lowest."""
    nodata = scene.nodata
    if dtype == "float32":
        return nodata
    # NaN is missing, declared or not, and in one band alone where no mask of all bands can say so
    unmarked = scene.dtype == "float32" and nodata is None
    if unmarked or (nodata is not None and not has_value(dtype, nodata)):
        return float(np.iinfo(dtype).min)
    return nodata


def opaque(dtype: str) -> float:
    """Return the alpha of a pixel that can be seen wholly: the largest integer, 1 in floating point."""
    return 1.0 if dtype == "float32" else float(np.iinfo(dtype).max)


def recoded_alpha(alpha: NDArray[np.generic], dtype: str) -> NDArray[np.generic]:
    """Return an alpha band in another data type: opaque stays opaque, and what can be seen at all never vanishes."""
    was = str(alpha.dtype)
    if was == dtype:
        return alpha
    share = np.clip(np.nan_to_num(alpha.astype(np.float64), nan=0.0) / opaque(was), 0, 1)
    if dtype == "float32":
        return share.astype(np.float32)
    made = np.rint(share * opaque(dtype))
    return np.where((share > 0) & (made == 0), 1, made).astype(dtype)


def _scaled_domains(domains: dict[str, dict[str, str]], scale: int) -> dict[str, dict[str, str]]:
    """Return metadata domains for a finer grid: RPCs count lines and samples from the centre of the first pixel."""
    if scale == 1 or "RPC" not in domains:
        return domains
    rpc = dict(domains["RPC"])
    try:
        for axis in ("LINE", "SAMP"):
            rpc[f"{axis}_OFF"] = repr(scale * float(rpc[f"{axis}_OFF"]) + (scale - 1) / 2)
            rpc[f"{axis}_SCALE"] = repr(scale * float(rpc[f"{axis}_SCALE"]))
    except (KeyError, ValueError):  # better none than wrong ones
        return {name: tags for name, tags in domains.items() if name != "RPC"}
    return domains | {"RPC": rpc}


def cropped(output: Output, window: Window) -> Output:
    """Describe the part of an output that a window of it (output pixels) shows."""
    domains = dict(output.tag_domains)
    if rpc := domains.get("RPC"):
        shifts = {"LINE_OFF": window.row, "SAMP_OFF": window.col}
        domains["RPC"] = rpc | {name: repr(float(rpc[name]) - shift) for name, shift in shifts.items() if name in rpc}
    block = min(output.block[0], window.height), min(output.block[1], window.width)
    return replace(output, grid=output.grid.window(window), block=block, tag_domains=domains)


def _companion(band: Band, index: int, kind: str) -> Band:
    """Describe a band that tells how far off another may be; a spread has no offset, bounds have that of the band."""
    offset = 0.0 if kind == UNCERTAINTY else band.offset
    return Band((band.description or f"band {index + 1}") + kind, band.scale, offset, band.declared)


def pictures(bands: Sequence[Band]) -> list[int]:
    """Return the indices of the bands that do not tell how far off another may be; of all, if there are no others."""
    plain = [index for index, band in enumerate(bands) if not (band.description or "").endswith(COMPANIONS[4])]
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
        Another data type than the scene's; scale and offset are then chosen so that reflectance stays the same.
    provenance : dict, optional
        Written into tags and attributes.

    Raises
    ------
    UsageError
        If a model wants another number of bands than the scene has, or the data type is not supported.
    """
    dtype = dtype or scene.dtype
    if dtype not in DTYPES:
        raise UsageError(f"--dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    bands, scale = [band if dtype == scene.dtype else _recoded(band, scene.dtype, dtype) for band in scene.bands], 1
    for spec in specs:
        if spec.bands is not None and spec.bands != len(bands):
            raise UsageError(
                f"model {spec.name} wants {spec.bands} bands together, {scene.name} gives {len(bands)}; "
                f"choose bands with --bands{', such as --bands red,green,blue' if spec.bands == 3 else ''}"
            )
        labels = getattr(spec, "labels", ())
        if spec.out_bands is not None and (spec.out_bands != len(bands) or labels):
            names = labels or [f"{spec.name} {i + 1}" for i in range(spec.out_bands)]
            bands = [_recoded(Band(name, 1.0, 0.0, True), "float32", dtype) for name in names]
        kinds = COMPANIONS.get(spec.out_per_band, ())
        bands = [b for i, band in enumerate(bands) for b in (band, *(_companion(band, i, kind) for kind in kinds))]
        scale *= spec.scale
    if scene.alpha is not None:
        bands.append(Band("alpha", 1.0, 0.0, False, "alpha"))
    nodata = _nodata(scene, dtype)
    return Output(
        grid=scene.grid.scaled(scale),
        dtype=dtype,
        bands=tuple(bands),
        nodata=nodata,
        mask=scene.mask_kind == "mask" and nodata is None,
        block=(block[0] * scale, block[1] * scale),
        tags=scene.tags,
        tag_domains=_scaled_domains(scene.tag_domains, scale),
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
    bands = tuple(replace(band, scale=1.0, offset=0.0) for band in output.bands if band.color != "alpha")
    return replace(output, dtype="float32", bands=bands, nodata=float("nan"), mask=False)
