"""The patches a run learns from and the ones it is validated on, which come from other places."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scenelift.models.errors import ModelError
from scenelift.workflows.patches import PatchSet
from scenelift.workflows.recipe import Recipe
from scenelift.workflows.sources import find_sources, read_source

MIN_PATCHES = 64


def read_data(recipe: Recipe, folder: Path | None) -> tuple[list[tuple[PatchSet, float]], list[PatchSet]]:
    """Read training and validation patches; without validation places, a tenth of the training ones is kept.

    Raises
    ------
    ModelError
        If fewer than ``MIN_PATCHES`` usable training patches are found.
    """
    loaded = []
    for place, (path, source) in enumerate(find_sources(recipe.data.train, folder)):
        patches = read_source(path, recipe.data.side, source.bands, place)
        if len(patches.values):
            loaded.append((patches, source.weight))
    held_out = [
        read_source(path, recipe.data.side, source.bands)
        for path, source in find_sources(recipe.data.validation, folder)
    ]
    if not held_out:
        loaded, held_out = _hold_out(loaded)
    count = sum(len(patches.values) for patches, _ in loaded)
    if count < MIN_PATCHES:
        raise ModelError(
            f"only {count} usable patches of {recipe.data.side} pixels (masked and constant ones are left out); "
            f"training needs at least {MIN_PATCHES}: add scenes or lower data.side"
        )
    return loaded, held_out


def _hold_out(
    loaded: list[tuple[PatchSet, float]],
) -> tuple[list[tuple[PatchSet, float]], list[PatchSet]]:
    """Split by place: whole scenes where there are several, else the last tenth of one scene's rows."""
    if len(loaded) > 1:
        smallest = min(range(len(loaded)), key=lambda i: len(loaded[i][0].values))
        return [pair for i, pair in enumerate(loaded) if i != smallest], [loaded[smallest][0]]
    if not loaded:
        return [], []
    patches, weight = loaded[0]
    places = np.unique(patches.places)
    if len(places) > 1:
        aside = np.isin(patches.places, places[-max(1, len(places) // 10) :])
    else:  # patches of a scene are in row order: the last tenth is a strip of its own
        aside = np.arange(len(patches.values)) >= len(patches.values) - max(1, len(patches.values) // 10)
    return [(_select(patches, ~aside), weight)], [_select(patches, aside)]


def _select(patches: PatchSet, kept: np.ndarray) -> PatchSet:
    labels = tuple(np.array(patches.labels)[kept]) if patches.labels else ()
    return PatchSet(patches.values[kept], patches.gain, patches.places[kept], labels)
