"""Labelled images: a zip or folder in EuroSAT's layout, CLASS/name.jpg."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scenelift.models.degradations import EUROSAT
from scenelift.models.errors import ModelError
from scenelift.models.training.labelled import turned
from scenelift.workflows.training.image_files import SUFFIXES, decode, image_files


@dataclass(frozen=True)
class LabelledImages:
    """Equally large 8-bit images with the class each shows."""

    values: NDArray[np.uint8]
    """(n, C, H, W)."""
    labels: NDArray[np.int64]
    """(n,) index into ``classes``; -1 where the image lies in no class folder."""
    names: tuple[str, ...]
    """Path of each image inside the zip or folder."""
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.values)

    def reflectance(self, at: NDArray[np.int64] | slice = slice(None)) -> Tensor:
        """Return (n, C, H, W) float32 reflectance, by EuroSAT's stretch."""
        return torch.from_numpy(self.values[at].astype(np.float32) * np.float32(EUROSAT.level))

    def select(self, at: NDArray[np.int64]) -> LabelledImages:
        """Return the images at those positions."""
        return LabelledImages(self.values[at], self.labels[at], tuple(self.names[i] for i in at), self.classes)

    def balanced(self, each: int, seed: int = 0) -> LabelledImages:
        """Return up to ``each`` images of every class, drawn with a seed."""
        rng = np.random.default_rng(seed)
        groups = [np.flatnonzero(self.labels == k) for k in range(len(self.classes))]
        return self.select(np.concatenate([np.sort(rng.permutation(group)[:each]) for group in groups]))


class ClassBalancedSampler:
    """Draws images, each in one of its eight symmetric forms, so that every class comes equally often.

    Parameters
    ----------
    values : ndarray, shape (n, C, H, W)
    labels : ndarray of int64, shape (n,)
        Below ``classes``.
    classes : int
    gain : float
        Reflectance of one unit of the values.
    """

    def __init__(
        self, values: NDArray[np.generic], labels: NDArray[np.int64], classes: int, gain: float = EUROSAT.level
    ) -> None:
        self.values, self.labels, self.gain = values, labels, gain
        self.groups = [group for k in range(classes) if len(group := np.flatnonzero(labels == k))]

    def __call__(self, count: int, subset: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return (count, C, H, W) reflectance and (count,) labels; ``subset`` is the share of each class used."""
        draws = torch.rand(count, 3, generator=generator, dtype=torch.float64).tolist()
        at, samples = [], []
        for which, where, turn in draws:
            group = self.groups[int(which * len(self.groups))]
            at.append(group[int(where * max(1, round(subset * len(group))))])
            samples.append(turned(torch.from_numpy(self.values[at[-1]]), int(turn * 8)))
        return torch.stack(samples).float() * self.gain, torch.from_numpy(self.labels[np.array(at)])


def read_labelled(path: Path, classes: tuple[str, ...] | None = None) -> LabelledImages:
    """Read the images of a zip or folder in EuroSAT's layout.

    Parameters
    ----------
    path : path
    classes : sequence of str, optional
        Names that may occur, in the order of the labels; default: the folders found, sorted.

    Raises
    ------
    ModelError
        If there is no such file, no image, an image outside a class folder, an unknown class, images of different
        sizes or band counts.
    """
    images, names = read_images(path)
    folders = [Path(name).parent.name for name in names]
    if bare := [name for name, folder in zip(names, folders, strict=True) if not folder]:
        raise ModelError(
            f"{path}: {bare[0]} has no label: labelled images lie in folders named by class, CLASS/name.jpg"
        )
    known = classes or tuple(sorted(set(folders)))
    if unknown := sorted(set(folders) - set(known)):
        raise ModelError(f"{path}: unknown class {unknown[0]!r}; known are {', '.join(known)}")
    labels = np.array([known.index(folder) for folder in folders], dtype=np.int64)
    return LabelledImages(images, labels, tuple(names), known)


def read_images(path: Path) -> tuple[NDArray[np.uint8], list[str]]:
    """Read every image of a zip or folder, or one image, in the order of their names: (n, C, H, W) and the names.

    Raises
    ------
    ModelError
        As `read_labelled`.
    """
    images, names = [], []
    for name, file in image_files(path):
        images.append(decode(file, f"{path}: {name}"))
        names.append(name)
        if images[-1].shape != images[0].shape:
            raise ModelError(
                f"{path}: {name} is (bands, rows, columns) {images[-1].shape}, {names[0]} is {images[0].shape}: "
                "give images of one size and band count"
            )
    if not images:
        raise ModelError(f"{path} holds no images ({', '.join(SUFFIXES)}): name another source")
    return np.stack(images), names
