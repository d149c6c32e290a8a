"""Labelled pixels: a raster and the raster of its labels, or arrays of both; validation is a strip of its own."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scenelift.models.degradations import EUROSAT
from scenelift.models.errors import ModelError
from scenelift.models.training.labelled import IGNORED, turned
from scenelift.pipeline.errors import SceneliftError
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import Scene, SceneSource, crs_name
from scenelift.pipeline.tiles import Window

ASIDE = 0.25
"""Share of each image kept for validation: its last columns, never trained on."""
MAX_PIXELS = 1 << 28


@dataclass(frozen=True)
class LabelledImage:
    """One image with a label for each pixel."""

    values: NDArray[np.float32]
    """(C, H, W) reflectance."""
    labels: NDArray[np.int64]
    """(H, W) index into the classes, -1 where there is no label."""
    name: str

    def columns(self, start: int, stop: int) -> LabelledImage:
        """Return the part between two columns."""
        part = slice(start, stop)
        return LabelledImage(self.values[:, :, part].copy(), self.labels[:, part].copy(), self.name)

    def split(self) -> tuple[LabelledImage, LabelledImage]:
        """Return what is trained on and the strip of last columns that is not."""
        width = self.labels.shape[1]
        cut = round(width * (1 - ASIDE))
        return self.columns(0, cut), self.columns(cut, width)


class LabelledPixelSampler:
    """Draws square patches, turned and mirrored; every second one is centred on a pixel of a class drawn evenly."""

    def __init__(self, images: list[LabelledImage], side: int, classes: int) -> None:
        small = [image.name for image in images if min(image.labels.shape) < side]
        if small:
            raise ModelError(f"{small[0]} is smaller than patches of {side} pixels: lower data.side")
        self.images, self.side = images, side
        self.sites = [
            [(i, at) for i, image in enumerate(images) if len(at := np.flatnonzero(image.labels == k))]
            for k in range(classes)
        ]
        self.known = [k for k, sites in enumerate(self.sites) if sites]
        if not self.known:
            raise ModelError("no pixel is labelled, so there is nothing to learn from: check data.labels and classes")

    def __call__(self, count: int, subset: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return (count, C, side, side) reflectance and (count, side, side) labels."""
        draws = torch.rand(count, 5, generator=generator, dtype=torch.float64).tolist()
        pairs = [self._one(draw, centred=i % 2 == 0) for i, draw in enumerate(draws)]
        return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])

    def _one(self, draw: list[float], centred: bool) -> tuple[Tensor, Tensor]:
        if centred:
            sites = self.sites[self.known[int(draw[0] * len(self.known))]]
            index, at = sites[int(draw[1] * len(sites))]
            image = self.images[index]
            row, col = divmod(int(at[int(draw[2] * len(at))]), image.labels.shape[1])
            row, col = row - self.side // 2, col - self.side // 2
        else:
            image = self.images[int(draw[0] * len(self.images))]
            row, col = (int(d * (n - self.side + 1)) for d, n in zip(draw[1:3], image.labels.shape, strict=True))
        row, col = (min(max(0, a), n - self.side) for a, n in zip((row, col), image.labels.shape, strict=True))
        part = slice(row, row + self.side), slice(col, col + self.side)
        turn = int(draw[3] * 8)
        values, labels = torch.from_numpy(image.values[:, *part]), torch.from_numpy(image.labels[part])
        return turned(values, turn), turned(labels, turn)


def read_rasters(scene: Path, labels: Path, values: tuple[int, ...] | None) -> tuple[LabelledImage, tuple[int, ...]]:
    """Read a raster and the raster of its labels.

    Parameters
    ----------
    scene, labels : path
        On one grid; the labels have one band of whole numbers.
    values : tuple of int, optional
        The label of each class; default: those found.

    Returns
    -------
    LabelledImage
    tuple of int
        The label of each class.

    Raises
    ------
    ModelError
        If a file cannot be read, the grids differ, nothing is labelled, or a label belongs to no class.
    """
    try:
        image, truth = open_scene(SceneSource((str(scene),))), open_scene(SceneSource((str(labels),)))
        _check_grids(image, truth)
        whole = Window(0, 0, *image.grid.shape)
        region = image.read(whole)
        numbers, labelled = truth.read_dn(whole)
    except SceneliftError as error:
        raise ModelError(str(error)) from None
    labelled = labelled[0] & region.valid.all(axis=0)
    coded, known = encode(numbers[0], labelled, values, labels.name)
    filled = np.where(region.valid, region.values, np.float32(0))
    return LabelledImage(filled, coded, scene.name), known


def _check_grids(image: Scene, truth: Scene) -> None:
    if len(truth.bands) != 1:
        raise ModelError(f"{truth.name} has {len(truth.bands)} bands: labels must be one band of class numbers")
    if truth.dtype == "float32":
        raise ModelError(f"{truth.name} holds float32: labels must be whole numbers")
    if image.grid.crs != truth.grid.crs:
        raise ModelError(
            f"{image.name} is in {crs_name(image.grid.crs)}, its labels {truth.name} in {crs_name(truth.grid.crs)}: "
            "warp the labels onto the scene's grid first"
        )
    if not image.grid.same_as(truth.grid):
        raise ModelError(
            f"{image.name} ({image.grid.width} x {image.grid.height} px) and its labels {truth.name} "
            f"({truth.grid.width} x {truth.grid.height} px) do not lie on one grid: warp the labels first"
        )
    if image.grid.width * image.grid.height * len(image.bands) > MAX_PIXELS:
        raise ModelError(f"{image.name} is too large to train on at once: cut out the labelled part")


def encode(
    numbers: NDArray[np.generic], labelled: NDArray[np.bool_], values: tuple[int, ...] | None, where: str
) -> tuple[NDArray[np.int64], tuple[int, ...]]:
    """Turn label numbers into indices of classes, -1 where nothing is labelled; return them and the number of each.

    Raises
    ------
    ModelError
        If nothing is labelled or a number belongs to no class.
    """
    found = sorted(int(v) for v in np.unique(numbers[labelled]))
    if not found:
        raise ModelError(f"{where} labels no pixel: check the classes")
    known = tuple(found) if values is None else values
    if unknown := [v for v in found if v not in known]:
        raise ModelError(f"{where}: unknown class {unknown[0]}; known are {', '.join(map(str, known))}")
    coded = np.full(numbers.shape, IGNORED, np.int64)
    for index, value in enumerate(known):
        coded[labelled & (numbers == value)] = index
    return coded, known


def read_arrays(
    files: list[Path], image: str, labels: str, values: tuple[int, ...] | None
) -> tuple[list[LabelledImage], tuple[int, ...]]:
    """Read npz files that hold an 8-bit image (C, H, W) and its labels (H, W) under those names.

    Raises
    ------
    ModelError
        If a file or array is missing, sizes differ, or a label belongs to no class.
    """
    loaded = []
    for path in files:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                loaded.append((path.name, arrays[image], arrays[labels]))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ModelError(f"cannot train on {path}: {error}") from None
        if loaded[-1][1].shape[1:] != loaded[-1][2].shape:
            raise ModelError(f"{path}: the image is {loaded[-1][1].shape}, its labels {loaded[-1][2].shape}")
    if not loaded:
        raise ModelError("no labelled arrays found: check data.train and data.labels")
    known = values or tuple(sorted({int(v) for _, _, numbers in loaded for v in np.unique(numbers)}))
    images = []
    for name, pixels, numbers in loaded:
        coded, _ = encode(numbers, np.ones(numbers.shape, bool), known, name)
        images.append(LabelledImage(pixels.astype(np.float32) * np.float32(EUROSAT.level), coded, name))
    return images, known
