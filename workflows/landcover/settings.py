"""What users may choose of land cover; see `scenelift.workflows.settings`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.settings import option
from scenelift.workflows.settings import INPUT, MODEL, OUTPUT, split_names


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
