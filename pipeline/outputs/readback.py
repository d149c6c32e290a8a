"""Reading an output back as it was stored, to tell whether it still is what was published."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from scenelift.pipeline.errors import SceneError, SceneliftError
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.tiles import Window


class Readable(Protocol):
    """An open output."""

    @property
    def facts(self) -> dict[str, Any]:
        """Those of "shape", "dtype", "crs" (WKT) and "transform" (six coefficients) that the format can tell."""
        ...

    def read(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.uint8] | None]:
        """Read values, (C, height, width), and mask, (height, width), as they were stored."""
        ...


@dataclass(frozen=True)
class ReadableScene:
    """An output that this package reads as a scene."""

    scene: Scene
    mask: bool
    """Whether a mask was stored."""

    @property
    def facts(self) -> dict[str, Any]:
        """See `Readable`."""
        crs = self.scene.readers[0][0].crs
        return {
            "shape": [len(self.scene.bands) + (self.scene.alpha is not None), *self.scene.grid.shape],
            "dtype": self.scene.dtype,
            "crs": crs.to_wkt() if crs else None,
            "transform": [float(v) for v in tuple(self.scene.grid.transform)[:6]],
        }

    def read(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.uint8] | None]:
        """Read values (the alpha band behind them) and mask of a block."""
        bands = [*self.scene.readers, *([self.scene.alpha] if self.scene.alpha else [])]
        reader = bands[0][0]  # an output is one file
        values, valid = reader.read([index for _, index in bands], window)
        return values, np.where(valid[0], np.uint8(255), np.uint8(0)) if self.mask else None


def open_as_scene(path: Path, recorded: dict[str, Any]) -> ReadableScene:
    """Open an output as a scene; with its CRS given, one in plain pixel coordinates is no scene without a place.

    Raises
    ------
    SceneliftError
        If it cannot be read.
    """
    try:
        scene = open_scene(SceneSource((str(path),), crs=recorded["crs"]))
    except SceneliftError:
        raise
    except (RasterioError, ValueError, KeyError) as error:
        raise SceneError(" ".join(str(error).split())) from error
    return ReadableScene(scene, bool(recorded["mask"]))


def provenance_of(scene: Scene) -> dict[str, Any]:
    """Return what an enhanced scene says of its making; empty if it says nothing."""
    group = Path(scene.source.paths[0]) / "zarr.json"
    try:
        if group.is_file():
            found = json.loads(group.read_text(encoding="utf-8")).get("attributes", {}).get("scenelift", {})
        else:
            found = json.loads(scene.tags.get("SCENELIFT", "{}"))
    except (ValueError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}
