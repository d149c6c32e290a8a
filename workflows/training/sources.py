"""Reading training data of any kind into patches: images, arrays, georeferenced scenes."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scenelift.models.degradations import EUROSAT
from scenelift.models.errors import ModelError
from scenelift.pipeline.errors import SceneliftError
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.places import boxes_of
from scenelift.pipeline.scenes.products.recognizing import is_product
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.tiles import Window
from scenelift.workflows.clouds import with_clouds
from scenelift.workflows.training.image_files import SUFFIXES
from scenelift.workflows.training.images import (
    PatchSet,
    chosen_bands,
    drop_constant,
    is_constant,
    read_images,
)
from scenelift.workflows.training.recipe import Source

RASTERS = (".tif", ".tiff", ".jp2", ".nc", ".zarr", ".vrt")
DATA_VARIABLE = "SCENELIFT_DATA"
MAX_PATCHES = 4096
"""Patches kept of one scene, drawn from all over it, whatever its size."""
STORED_GAIN = 1e-4


def find_sources(sources: tuple[Source, ...], folder: Path | None = None) -> list[tuple[Path, Source]]:
    """Return the files the sources name, globs expanded, in a fixed order.

    Relative paths are looked for below ``folder``, else below the environment variable SCENELIFT_DATA, else
    below the current folder.

    Raises
    ------
    ModelError
        If a source names nothing.
    """
    base = folder or Path(os.environ.get(DATA_VARIABLE, "."))
    found = []
    for source in sources:
        path = base / source.path
        paths = files_of(path) if path.exists() else _matching(path.absolute())
        if not paths:
            hint = "" if folder or DATA_VARIABLE in os.environ else f" (set {DATA_VARIABLE} to the data folder)"
            raise ModelError(f"no training data at {path}{hint}")
        found += [(p, source) for p in paths]
    return found


def _matching(pattern: Path) -> list[Path]:
    root = Path(pattern.anchor)
    return sorted(root.glob(str(pattern.relative_to(root))))


def files_of(path: Path) -> list[Path]:
    """Return what a path stands for: itself, or the scenes, zips and arrays of a folder; nothing if it is not there.

    A folder with none of them, but with images in it or in folders below (named by class), stands for itself.
    """
    if not _is_folder(path):
        return [path] if path.exists() else []
    found = sorted(p for p in path.iterdir() if is_product(p) or p.suffix.lower() in (*RASTERS, ".zip", ".npz"))
    if not found and any(p.suffix.lower() in SUFFIXES for p in path.rglob("*")):
        return [path]
    return found


def _is_folder(path: Path) -> bool:
    """Whether a path is a folder that is no scene by itself."""
    return path.is_dir() and path.suffix != ".zarr" and not is_product(path)


def holds_images(path: Path) -> bool:
    """Whether a path is a zip or a folder of images, not a scene."""
    return (path.suffix.lower() == ".zip" and not is_product(path)) or _is_folder(path)


def read_source(
    path: Path,
    side: int,
    bands: tuple[int, ...] | None = None,
    place: int = 0,
    most: int = MAX_PATCHES,
    seed: int = 0,
    mask: str | None = None,
    mask_classes: tuple[str, ...] = (),
) -> PatchSet:
    """Read one source into patches of ``side`` pixels, of a scene ``most`` at most; no invalid or constant ones.

    ``mask`` and ``mask_classes`` are those of `SceneSource`: a patch has no pixel that they hide.

    Raises
    ------
    ModelError
        If it cannot be read.
    """
    plain = holds_images(path) or path.suffix.lower() == ".npz"
    if plain and (mask or mask_classes):
        raise ModelError(f"--mask hides pixels of scenes, and {path} holds images without a place: leave it out")
    if plain:
        return read_images(path, bands) if holds_images(path) else read_npz(path, side, bands, place)
    try:
        scene = open_scene(with_clouds(SceneSource((str(path),), bands, mask=mask, mask_classes=mask_classes)))
        return _read_scene(scene, side, place, most, seed)
    except SceneliftError as error:
        raise ModelError(f"cannot read {path} as images: {error}") from None


def _read_scene(scene: Scene, side: int, place: int = 0, most: int = MAX_PATCHES, seed: int = 0) -> PatchSet:
    """Cut a scene into patches on a grid, windowed; of more than ``most`` usable ones so many are drawn."""
    height, width = scene.grid.shape
    corners = [(r, c) for r in range(0, height - side + 1, side) for c in range(0, width - side + 1, side)]
    waiting = np.random.default_rng(seed).permutation(len(corners))
    kept: dict[Window, NDArray[np.int16]] = {}
    while len(waiting) and len(kept) < most:
        missing = most - len(kept)
        drawn, waiting = np.sort(waiting[:missing]), waiting[missing:]  # sorted: read in the order files are stored in
        for row, col in (corners[i] for i in drawn):
            window = Window(row, col, side, side)
            region = scene.read(window)
            values = np.rint(region.values / STORED_GAIN).clip(-32768, 32767).astype(np.int16)
            if region.valid.all() and not is_constant(values):
                kept[window] = values
    windows = sorted(kept)
    stack = np.stack([kept[w] for w in windows]) if kept else np.zeros((0, len(scene.bands), side, side), np.int16)
    names = tuple(band.description or "" for band in scene.bands)
    try:
        boxes = boxes_of(scene.grid, windows)
    except SceneliftError:  # coordinates of no place on Earth: such a scene is a place of its own
        boxes = None
    level = 1 / 255 if scene.is_byte else EUROSAT.level
    labels = (scene.name,) * len(stack)
    return PatchSet(stack, STORED_GAIN, np.full(len(stack), place), labels, names, level, boxes)


def read_npz(path: Path, side: int, bands: tuple[int, ...] | None = None, place: int = 0) -> PatchSet:
    """Cut the arrays (C, H, W) or (H, W) of an npz file into patches; 8-bit arrays use EuroSAT's stretch."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images = [array[None] if array.ndim == 2 else array for array in (arrays[name] for name in arrays)]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(f"cannot read {path} as images: {error}") from None
    usable = [image for image in images if image.ndim == 3 and min(image.shape[1:]) >= side]
    if not usable:
        raise ModelError(f"{path} holds no array (bands, rows, columns) of at least {side} x {side} pixels")
    first = usable[0]
    same = [image for image in usable if image.shape[0] == first.shape[0] and image.dtype == first.dtype]
    gain = 1.0 if first.dtype.kind == "f" else EUROSAT.level if first.dtype == np.uint8 else STORED_GAIN
    values = np.concatenate([_cut(image, side) for image in same])
    if bands is not None:
        values = values[:, chosen_bands(bands, values.shape[1], path)]
    values = drop_constant(values)
    return PatchSet(values, gain, np.full(len(values), place), (path.name,) * len(values))


def _cut(image: NDArray[np.generic], side: int) -> NDArray[np.generic]:
    rows, cols = image.shape[1] // side, image.shape[2] // side
    cut = image[:, : rows * side, : cols * side].reshape(len(image), rows, side, cols, side)
    return cut.transpose(1, 3, 0, 2, 4).reshape(-1, len(image), side, side)
