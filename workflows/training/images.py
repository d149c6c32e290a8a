"""Clean patches to learn from: zips and folders of images, arrays, georeferenced scenes; split by place."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scenelift.models.degradations import EUROSAT
from scenelift.models.errors import ModelError
from scenelift.workflows.training.image_files import decode, image_files

MIDDLE_GREY = 0.12
"""Reflectance that a random exponent leaves as it is."""
RGB = ("B04", "B03", "B02")
"""Bands of a colour image, by Sentinel-2's names."""


@dataclass(frozen=True)
class PatchSet:
    """Patches of one source, in the stored type; multiplied by ``gain`` they are reflectance."""

    values: NDArray[np.generic]
    """(n, C, S, S)."""
    gain: float
    places: NDArray[np.int64]
    """(n,) number of the place (scene, class folder's image) each patch is of."""
    labels: tuple[str, ...] = ()
    """Name of each patch's class or scene."""
    bands: tuple[str, ...] = ()
    """Name of each band, where the source says."""
    level: float = EUROSAT.level
    """Reflectance of one level where noise or a full scale is told in levels of 255."""
    boxes: NDArray[np.float64] | None = None
    """(n, 4) west, south, east, north of each patch, degrees (WGS 84); None: unknown."""

    def __post_init__(self) -> None:
        order = np.argsort([rank(int(p)) for p in np.unique(self.places)])
        object.__setattr__(self, "_order", np.unique(self.places)[order])

    def indices(self, subset: float) -> NDArray[np.int64]:
        """Return the patches of the given share of the places, always the same ones."""
        if subset >= 1:
            return np.arange(len(self.values))
        kept = self._order[: max(1, round(subset * len(self._order)))]  # type: ignore[attr-defined]
        return np.flatnonzero(np.isin(self.places, kept))

    def reflectance(self, at: NDArray[np.int64] | slice) -> Tensor:
        """Return (n, C, S, S) float32 reflectance."""
        return torch.from_numpy(self.values[at].astype(np.float32) * np.float32(self.gain))


def rank(place: int) -> str:
    """Return what puts places into an order that is random and always the same."""
    return hashlib.sha256(str(place).encode()).hexdigest()


class PatchSampler:
    """Draws augmented patches from several sets.

    Parameters
    ----------
    sets : list of (PatchSet, weight)
        Sources and how often each is drawn from.
    bands : int
        1: every sample is one band of a patch, drawn at random; more: a patch's bands, which must be as many.
    side : int
        Side of the samples; larger patches are cut at random.
    gains : tuple of float
        Range of a random factor on the reflectance (the paper's scale augmentation); (1, 1): no factor.
    gammas : tuple of float
        Range of a random exponent on the reflectance about ``MIDDLE_GREY``; (1, 1): no exponent.
    """

    def __init__(
        self,
        sets: list[tuple[PatchSet, float]],
        bands: int,
        side: int,
        gains: tuple[float, float] = (1.0, 1.0),
        gammas: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        if not sets or sum(len(s.values) for s, _ in sets) == 0:
            raise ModelError("there is no patch to train on: name other sources, or lower data.side")
        for patches, _ in sets:
            if min(patches.values.shape[2:]) < side:
                raise ModelError(
                    f"patches must be at least {side} pixels a side, got {min(patches.values.shape[2:])}: "
                    "lower data.side"
                )
            check_bands(patches, bands)
        self.sets = [s for s, _ in sets]
        self.weights = torch.tensor([w for _, w in sets], dtype=torch.float64)
        self.bands, self.side, self.gains, self.gammas = bands, side, gains, gammas
        self._indices: dict[float, list[NDArray[np.int64]]] = {}

    def __call__(self, count: int, subset: float, generator: torch.Generator) -> Tensor:
        """Return (count, bands, side, side) reflectance."""
        if subset not in self._indices:
            self._indices[subset] = [s.indices(subset) for s in self.sets]
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        draws = torch.rand(count, 6, generator=generator).tolist()
        curves = torch.rand(count, 1, 1, 1, generator=generator) if self.gammas != (1.0, 1.0) else None
        indices = self._indices[subset]
        values = np.empty((count, self.bands, self.side, self.side), np.float32)
        for at, (which, draw) in enumerate(zip(chosen.tolist(), draws, strict=True)):
            self._fill(values[at], which, draw, indices)
        clean = torch.from_numpy(values)
        if curves is None:
            return clean
        low, high = self.gammas
        return MIDDLE_GREY * (clean.clamp(min=0) / MIDDLE_GREY) ** (low * (high / low) ** curves)

    def _fill(self, room: NDArray[np.float32], which: int, draw: list[float], indices: list[NDArray[np.int64]]) -> None:
        """Write one patch, turned and brightened as drawn, into its place in a batch."""
        patches, known = self.sets[which], indices[which]
        values = patches.values[known[int(draw[0] * len(known))]]
        band = int(draw[1] * values.shape[0]) if self.bands == 1 else 0
        top, left = (int(d * (n - self.side + 1)) for d, n in zip(draw[2:4], values.shape[1:], strict=True))
        part = values[band : band + self.bands, top : top + self.side, left : left + self.side]
        turn = int(draw[4] * 8)
        part = np.rot90(part, turn % 4, axes=(1, 2))
        part = part[:, :, ::-1] if turn >= 4 else part
        low, high = self.gains
        factor = np.float32(patches.gain * low * (high / low) ** draw[5])
        np.multiply(part, factor, out=room, dtype=np.float32, casting="unsafe")


def check_bands(patches: PatchSet, bands: int) -> None:
    """Refuse patches that a network of ``bands`` bands (1: any, one at a time) would see wrongly.

    Raises
    ------
    ModelError
    """
    have = patches.values.shape[1]
    if bands > 1 and have != bands:
        raise ModelError(f"patches have {have} bands, the network wants {bands} together: choose them by --bands")


def read_images(path: Path, bands: tuple[int, ...] | None = None) -> PatchSet:
    """Read a zip or a folder of equally large 8-bit images; every image is a place, its folder its label.

    Parameters
    ----------
    path : path
    bands : tuple of int, optional
        1-based bands to keep.

    Raises
    ------
    ModelError
        If it is neither, holds no 8-bit images, or they lack a band.
    """
    read = [(name, decode(file, f"{path}/{name}")) for name, file in image_files(path)]
    if not read:
        raise ModelError(f"{path} holds no images: name another source")
    names, images = zip(*read, strict=True)
    (shape, alike), *others = Counter(image.shape for image in images).most_common()
    if others:
        raise ModelError(
            f"{path} holds images of several sizes, {alike} of {sides(shape)} and others, e.g. {sides(others[0][0])}"
        )
    band_names = RGB if shape[0] == 3 else ("",) * shape[0]
    at = list(range(shape[0])) if bands is None else chosen_bands(bands, shape[0], path)
    band_names = tuple(band_names[i] for i in at)
    keep = [i for i, image in enumerate(images) if not is_constant(image[at])]
    if not keep:
        raise ModelError(f"{path}: in every image a band is constant or empty; choose others by --bands")
    values = np.stack([images[i][at] for i in keep])
    labels = tuple(Path(names[i]).parent.name for i in keep)
    return PatchSet(values, EUROSAT.level, np.array(keep, dtype=np.int64), labels, band_names)


def chosen_bands(bands: tuple[int, ...], count: int, path: Path) -> list[int]:
    """Return 0-based indices of the 1-based bands chosen of an image of ``count``.

    Raises
    ------
    ModelError
        If the image in ``path`` has no such band.
    """
    if wrong := [band for band in bands if not 1 <= band <= count]:
        raise ModelError(f"{path} has bands 1 to {count}, there is no band {wrong[0]}: choose others by --bands")
    return [band - 1 for band in bands]


def sides(shape: tuple[int, ...]) -> str:
    """Return a shape (C, H, W) in words."""
    return f"{shape[0]} bands, {shape[1]} x {shape[2]} pixels"


def is_constant(image: NDArray[np.generic]) -> bool:
    """Whether a band is constant, has values that are none, or is zero in more than a tenth: nodata, not ground."""
    flat = image.reshape(len(image), -1)
    if flat.dtype.kind == "f" and not np.isfinite(flat).all():
        return True
    return bool((flat.min(1) == flat.max(1)).any() or ((flat == 0).all(0).mean() > 0.1))


def drop_constant(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Leave out patches (n, C, S, S) with a constant band or with nodata's zeros."""
    return values[[i for i, patch in enumerate(values) if not is_constant(patch)]]


def balanced(labels: tuple[str, ...], each: int, seed: int = 0) -> NDArray[np.int64]:
    """Return indices of ``each`` patches of every label, drawn with a seed."""
    rng = np.random.default_rng(seed)
    known = np.array(labels)
    groups: Iterator[NDArray[np.int64]] = (np.flatnonzero(known == name) for name in sorted(set(labels)))
    return np.concatenate([np.sort(rng.permutation(group)[:each]) for group in groups])
