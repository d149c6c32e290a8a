"""What the checks share: where they run, a synthetic scene, and the program as a function and as a command."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine

from scenelift.models.classical.resampling import upsample
from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.outputs.geotiffs import write_geotiff
from scenelift.pipeline.scenes.scenes import SceneSource, no_crs
from scenelift.workflows.enhance import enhance
from scenelift.workflows.settings import EnhanceSettings

DN = 1e-4
"""Reflectance of one digital number."""
PIXEL = 10.0
"""Metres a pixel of a synthetic scene."""
CRS = "EPSG:32633"


def scenelift(*words: str) -> list[str]:
    """Return a command of this program."""
    return [sys.executable, "-m", "scenelift.workflows.cli.app", *words]


def said(output: str) -> str:
    """Return the last line of what a command wrote."""
    return ([line for line in output.splitlines() if line.strip()] or ["nothing"])[-1]


@dataclass(frozen=True)
class Row:
    """What one check found."""

    check: str
    passed: bool | None
    """None: a figure, or not tried here (the value says why)."""
    value: str


@dataclass(frozen=True)
class Bench:
    """What all checks share."""

    device: str
    folder: Path
    side: int
    """Pixels a side of the whole tile."""

    @property
    def cuda(self) -> bool:
        """Whether this is the real thing."""
        return self.device == "cuda"

    @property
    def here(self) -> ClusterSettings:
        """This process alone."""
        return ClusterSettings(workers=0)

    @property
    def workers(self) -> ClusterSettings:
        """A worker process of its own, with the GPU if there is one."""
        return ClusterSettings(workers=1, gpus=1 if self.cuda else 0)

    def scene(self, side: int, name: str, hole: bool = False) -> Path:
        """Write a synthetic scene of four bands, uint16; the same for the same side."""
        path = self.folder / f"{name}.tif"
        if not path.exists():
            write_synthetic(path, side, hole)
        return path

    def run(self, source: Path, output: str, models: str, cluster: ClusterSettings, **settings: Any) -> Path:
        """Enhance; return the output."""
        path = self.folder / output
        chosen = EnhanceSettings(device=self.device, overwrite=True, expect=False, blur="sentinel-2", **settings)  # type: ignore[arg-type]
        enhance(SceneSource((str(source),), scale=DN, offset=0.0, crs=CRS), path, models, chosen, cluster)
        return path

    def command(self, source: Path, output: str, models: str, *more: str) -> list[str]:
        """Return the same as a command line."""
        words = ["enhance", str(source), "-o", str(self.folder / output), "-m", models, "--device", self.device]
        words += f"--no-expect --blur sentinel-2 --scale {DN} --offset 0 --crs {CRS} --overwrite".split()
        return scenelift(*words, *more)


def write_synthetic(path: Path, side: int, hole: bool = False) -> None:
    """Write fields with sharp borders, hills and fine texture: four bands of 10 m, uint16, nodata 0.

    Parameters
    ----------
    path : Path
    side : int
        Pixels a side.
    hole : bool
        A corner without data, and single missing pixels.
    """
    scene = np.empty((4, side, side), np.uint16)
    corners = [(row, col) for row in range(0, side, 512) for col in range(0, side, 512)]
    for number, (row, col) in enumerate(corners):
        rng = np.random.default_rng(number)
        hills = upsample(rng.uniform(300, 3000, (1, 4, 70, 70)).astype(np.float32), 8, "bicubic")[0][:, 8:520, 8:520]
        fields = np.kron(rng.integers(-400, 400, (4, 16, 16)), np.ones((32, 32)))
        block = np.clip(hills + fields + rng.normal(0, 15, hills.shape), 1, 10_000)
        room = scene[:, row : row + 512, col : col + 512]
        room[...] = block[:, : room.shape[1], : room.shape[2]]
    if hole:
        scene[:, :100, :140] = 0
        scene[:, 200::97, 150::61] = 0
    grid = GeoGrid(no_crs(), Affine(PIXEL, 0, 5e5, 0, -PIXEL, 5e6), side, side)
    write_geotiff(path, scene, grid, nodata=0)
