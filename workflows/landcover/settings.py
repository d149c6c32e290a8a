"""What users may choose of land cover; see `scenelift.workflows.settings`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.settings import option
from scenelift.workflows.settings import INPUT, MODEL, OUTPUT, split_names

AUTO = "auto"
"""Stands before a classifier for the enhancement that helps it most."""


def split_chain(models: str) -> tuple[tuple[str, ...], str]:
    """Return what stands before a classifier, and the classifier; `AUTO` alone stands before the default one.

    Raises
    ------
    UsageError
        If `AUTO` does not stand alone before it.
    """
    from scenelift.models.shipped import CLASSIFIER

    *before, last = models.split(",")
    if last == AUTO:
        before, last = [*before, AUTO], CLASSIFIER
    if AUTO in before and before != [AUTO]:
        raise UsageError(f"{AUTO} stands alone before the classifier ({AUTO},{last}), got {models}")
    return tuple(before), last


@dataclass(frozen=True)
class TileSettings:
    """How a scene is cut."""

    side: int = option(64, "Pixels a side.", "--size")
    stride: int | None = option(None, "Pixels from one tile to the next; default: the size, no overlap.")
    kind: Literal["tif", "npy", "webdataset", "zarr"] = option("tif", "Format of the tiles.", "--format", panel=OUTPUT)
    least: float = option(1.0, "Least share of pixels with data (in every band) of a tile that is kept.", "--valid")
    reflectance: bool = option(False, "Store float32 reflectance instead of the scene's numbers.", panel=OUTPUT)

    def __post_init__(self) -> None:
        if not 1 <= self.side <= 4096:
            raise UsageError(f"--size must be from 1 to 4096, got {self.side}")
        if self.stride is not None and not 1 <= self.stride <= 65536:
            raise UsageError(f"--stride must be from 1 to 65536, got {self.stride}")
        if not 0 <= self.least <= 1:
            raise UsageError(f"--valid must be a share from 0 to 1, got {self.least}")


@dataclass(frozen=True)
class OwnScene:
    """A raster and its labels, to train a segmenter on."""

    task: str | None = option(None, "segmentation: train on a --scene and its --labels.", panel=MODEL)
    scene: Path | None = option(None, "A raster to learn from.", panel=INPUT)
    labels: Path | None = option(None, "The raster of its labels, on the same grid.", panel=INPUT)
    classes: tuple[str, ...] = option(
        (), "What the labels mean: 1=Forest,2=Water; default: their numbers.", panel=INPUT, parse=split_names
    )
    steps: int = option(300, "Training steps on a --scene.", panel=MODEL)


@dataclass(frozen=True)
class MeasureSettings:
    """Which images, restored by what, a classifier is measured on."""

    data: Path | None = option(
        None,
        "Zip or folder of images that it was not trained on, CLASS/name.jpg; default: EuroSAT's validation images, see "
        "SCENELIFT_DATA.",
        panel=INPUT,
    )
    each: int = option(30, "Images of every class; 0: all.", panel=INPUT)
    seed: int = option(0, "Seed of the draw of images and of the noise.", panel=INPUT)
    pixel: float = option(10.0, "Size of the images' pixels on the ground, metres.", panel=INPUT)
    chains: tuple[str, ...] = option(
        (),
        "Enhancement to measure (a chain with commas), instead of the usual ones; repeatable.",
        "--model",
        "-m",
        panel=MODEL,
    )

    def __post_init__(self) -> None:
        if self.each < 0:
            raise UsageError(f"--each must not be below 0, got {self.each}")
        if not 0 < self.pixel < math.inf:
            raise UsageError(f"--pixel must be metres above 0, got {self.pixel:g}")
