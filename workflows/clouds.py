"""`--mask clouds`: clouds and their shadows found in a scene's own pixels, for products that bring no mask.

By the networks of the package ukis-csmask (Wieland et al., ISPRS Archives XLIII-B3, 2022), which look at about 30 m.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.outputs.geotiffs import write_geotiff
from scenelift.pipeline.scenes.inputs import input_digest
from scenelift.pipeline.scenes.masks import CLOUDS, FOUND
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.products.bands import Label, choose
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.tiles import Window

BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
"""What the networks want; the last two make a better one."""
METRES = 30.0
"""Size of the pixels that they were made for."""
COARSEST = 60
STRIP = 64
"""Rows of these pixels that are read at once."""


def with_clouds(source: SceneSource) -> SceneSource:
    """Return a source whose mask "clouds" is a file: made now, or by an earlier command of the same input.

    It is kept in ``scenelift/clouds`` below ``XDG_CACHE_HOME`` (``~/.cache``).

    Raises
    ------
    UsageError
        If the package is not installed, or the scene lacks the bands it needs.
    """
    if source.mask is None or source.mask.lower() != CLOUDS:
        return source
    try:
        from ukis_csmask.mask import CSmask
    except ImportError:
        raise UsageError("--mask clouds needs the package ukis-csmask: pip install 'scenelift[clouds]'") from None
    plain = replace(source, mask=None, mask_classes=(), bands=None)
    moment = f" {plain.time}" if plain.time else ""
    facts = f"{input_digest(plain)} {plain.scale} {plain.offset} {version('ukis-csmask')}{moment}"
    key = hashlib.sha256(facts.encode())
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scenelift" / "clouds"
    path = folder / f"{key.hexdigest()[:24]}{FOUND}"
    if not path.is_file():
        scene = open_scene(plain)
        if scene.sensor == "sentinel-2":
            scene = open_scene(replace(plain, extent="common"))
        names, numbers = _bands_of(scene)
        scene = open_scene(replace(scene.source, bands=numbers))
        images, factor = _coarse(scene)
        level = "l2a" if "Level-2" in scene.product else "l1c"
        found = CSmask(images, list(names), level, providers=["CPUExecutionProvider"]).csm[..., 0]
        partial = path.with_name(f".{os.getpid()}{FOUND}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_geotiff(partial, found[None], scene.grid.coarsened(factor), None, ["0 clear, 1 cloud, 2 shadow"])
            partial.replace(path)
        except OSError as error:
            raise UsageError(f"cannot write {folder}: {error.strerror}; set XDG_CACHE_HOME to another folder") from None
    return replace(source, mask=str(path))


def _bands_of(scene: Scene) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the bands that a scene has of those wanted, and their numbers."""
    labels = [Label(band.description, band.color, band.tags) for band in scene.bands]
    for names in (BANDS, BANDS[:4]):
        try:
            return names, tuple(scene.numbers[n - 1] for n in choose(names, labels, scene.name, {}))
        except UsageError as error:
            problem = error
    raise UsageError(f"--mask clouds needs blue, green, red and near infrared: {problem}")


def _coarse(scene: Scene) -> tuple[NDArray[np.float32], int]:
    """Return means over about 30 m, shape (rows, columns, bands), and how many pixels each is of."""
    factor = min(COARSEST, max(1, round(METRES / scene.grid.metres)))
    grid = scene.grid.coarsened(factor)
    made = np.zeros((*grid.shape, len(scene.bands)), np.float32)
    edges = np.arange(0, scene.grid.width, factor)
    for top in range(0, grid.height, STRIP):
        window = Window(top * factor, 0, STRIP * factor, scene.grid.width).clip(scene.grid.shape)
        region = scene.read(window)
        starts = np.arange(0, window.height, factor)
        totals, counts = (
            np.add.reduceat(np.add.reduceat(part, starts, axis=1), edges, axis=2)
            for part in (np.where(region.valid, region.values, np.float32(0)), region.valid.astype(np.int32))
        )
        made[top : top + len(starts)] = np.moveaxis(totals / np.maximum(counts, 1), 0, 2)
    return made, factor
