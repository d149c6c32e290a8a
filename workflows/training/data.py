"""The patches a run learns from and the ones it is validated on, which come from other places."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from scenelift.models.errors import ModelError
from scenelift.workflows.training.images import PatchSet
from scenelift.workflows.training.recipe import Recipe, Source
from scenelift.workflows.training.sources import MAX_PATCHES, find_sources, read_source
from scenelift.workflows.training.splitting import Mask, apart, select, split

MIN_PATCHES = 64
TOTAL_PATCHES = 131_072
"""Patches kept of all scenes together (4 GB of 64 x 64 pixels in 4 bands): of an archive, fewer of each scene."""
LEAST_OF_A_SCENE = 16


def read_data(
    recipe: Recipe, folder: Path | None, run: Path | None = None
) -> tuple[list[tuple[PatchSet, float]], list[PatchSet]]:
    """Read training and validation patches; without validation places, a tenth of the training ones is kept.

    Parameters
    ----------
    recipe : Recipe
    folder : path, optional
        Folder that the recipe's paths are relative to.
    run : path, optional
        Folder with room for the patches, which are kept in nameless files; default: that of temporary files.

    Raises
    ------
    ModelError
        If fewer than ``MIN_PATCHES`` usable training patches are found.
    """
    found = find_sources(recipe.data.train, folder)
    sets = on_disk(_read(found, recipe.data.side), run)
    if recipe.data.validation:
        held_out = on_disk(_read(find_sources(recipe.data.validation, folder), recipe.data.side), run)
        held_out = [patches for patches in held_out if len(patches.values)]
        learned = apart(sets, held_out)
    else:
        learned, validated = split(sets)
        held_out = [patches for patches in _chosen(sets, validated, run) if len(patches.values)]
    usable = sum(len(patches.values) for patches in sets)
    weights = [source.weight for _, source in found]
    training = [pair for pair in zip(_chosen(sets, learned, run), weights, strict=True) if len(pair[0].values)]
    count = sum(len(patches.values) for patches, _ in training)
    if count < MIN_PATCHES:
        aside = f", {usable - count} of {usable} lie where it validates" if count < usable else ""
        raise ModelError(
            f"only {count} usable patches of {recipe.data.side} pixels (masked and constant ones are left out{aside}); "
            f"training needs at least {MIN_PATCHES}: add scenes or lower data.side"
        )
    if not held_out:
        raise ModelError(
            f"no usable patch of {recipe.data.side} pixels to validate on: "
            "name other sources in data.validation, or lower data.side"
        )
    return training, held_out


def _read(found: list[tuple[Path, Source]], side: int) -> Iterator[PatchSet]:
    most = max(LEAST_OF_A_SCENE, min(MAX_PATCHES, TOTAL_PATCHES // len(found)))
    for place, (path, source) in enumerate(found):
        yield read_source(path, side, source.bands, place, most)


def _chosen(sets: list[PatchSet], masks: list[Mask], run: Path | None) -> list[PatchSet]:
    """Return the patches chosen of every set; sets chosen whole stay in the file they are in."""
    if all(mask.all() for mask in masks):
        return sets
    return on_disk((select(patches, mask) for patches, mask in zip(sets, masks, strict=True)), run)


def on_disk(sets: Iterable[PatchSet], folder: Path | None = None) -> list[PatchSet]:
    """Return the same patch sets with values that are mapped from one file; the system caches what is drawn often.

    Parameters
    ----------
    sets : iterable of PatchSet
        Taken one at a time: memory holds one of them, whatever their number.
    folder : path, optional
        Where the file is; default: the system's folder for temporary files. It has no name there, so that nothing
        is left of it when the process ends, however it ends.

    Raises
    ------
    ModelError
        If the file cannot be written, e.g. on a full disk.
    """
    kept: list[tuple[PatchSet, int, tuple[int, ...], np.dtype[np.generic]]] = []
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for patches in sets:
                values = np.ascontiguousarray(patches.values)
                file.write(bytes(-file.tell() % 8))
                rest = replace(patches, values=np.empty(0, values.dtype))  # a view would keep the whole alive
                kept.append((rest, file.tell(), values.shape, values.dtype))
                file.write(values.data if values.size else b"")
            file.write(bytes(8))  # an empty file cannot be mapped
            file.flush()
            whole = np.memmap(file, np.uint8, "r")
    except OSError as error:
        where = folder or tempfile.gettempdir()
        raise ModelError(f"cannot keep training patches in {where}: {error.strerror or error}") from None
    return [
        replace(patches, values=np.ndarray(shape, dtype, buffer=whole, offset=start))
        for patches, start, shape, dtype in kept
    ]
