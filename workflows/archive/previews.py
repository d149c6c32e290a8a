"""A small picture of each finished scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.previews import coarse_level, overview
from scenelift.pipeline.scenes.quicklooks import channels, factor_for, png, stretch_of, view_of
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.workflows.archive.record import write_durably

SIDE = 192
"""Longer side of a picture, pixels."""


def write_preview(path: Path, scene: Scene, picture: Path) -> None:
    """Write a PNG of an output, made from its overviews.

    Parameters
    ----------
    path : Path
        GeoTIFF or Zarr group.
    scene : Scene
        The same, opened.
    picture : Path
    """
    view = _zarr_view(path) if path.is_dir() else overview(path, [i + 1 for i in channels(scene)], SIDE)
    write_durably(picture, png(stretch_of(view)(view)))


def _zarr_view(path: Path) -> NDArray[np.float32]:
    scene = open_scene(SceneSource((str(coarse_level(path, SIDE)),)))
    factor = factor_for(scene, SIDE)
    height, width = scene.grid.shape
    return view_of(scene, factor, (max(1, height // factor), max(1, width // factor)))
