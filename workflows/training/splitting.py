"""Which patches are validated on: those of other places than the ones that are learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from scenelift.workflows.training.images import PatchSet, rank

Mask = NDArray[np.bool_]
SHARE = 10
"""One place in so many is kept aside."""
LEAST_LEFT = 0.25
"""Share of the patches that must remain to learn from, or a strip is kept aside instead of whole scenes."""
TOUCH = 1e-7
"""Degrees (a centimetre) by which neighbours may seem to overlap."""


def apart(sets: Sequence[PatchSet], held_out: Sequence[PatchSet]) -> list[Mask]:
    """Return for every set which patches (n,) lie outside the places held out; all do where positions are unknown."""
    regions = _hulls(held_out)
    return [~_lying(patches, regions, wholly=False) for patches in sets]


def split(sets: Sequence[PatchSet]) -> tuple[list[Mask], list[Mask]]:
    """Return which patches of every set to learn from and which to validate on; no place is in both.

    1. Several scenes: a tenth of them are held out (of less than twenty, the one with the fewest patches), and with
       them all patches of other scenes on the same ground (other dates, overlapping neighbours).
    2. Several scenes of one site, so that (1) would leave too little to learn from: the southernmost tenth of the
       ground is held out, and patches across its edge are used for neither.
    3. A single scene: the last tenth of its rows is held out.

    Parameters
    ----------
    sets : sequence of PatchSet

    Returns
    -------
    learned, validated : list of ndarray of bool, shape (n,) each
    """
    filled = [i for i, patches in enumerate(sets) if len(patches.values)]
    if len(filled) > 1:
        count = len(filled) // SHARE
        ranked = sorted(filled, key=rank) if count > 1 else sorted(filled, key=lambda i: len(sets[i].values))
        aside = ranked[: max(1, count)]
        kept_aside = [sets[i] for i in aside]
        learned = [mask & (i not in aside) for i, mask in enumerate(apart(sets, kept_aside))]
        if sum(m.sum() for m in learned) >= LEAST_LEFT * sum(len(m) for m in learned):
            regions = _hulls(kept_aside)
            return learned, [_lying(patches, regions, wholly=True) | (i in aside) for i, patches in enumerate(sets)]
        return _strips(sets)
    validated = [_last_tenth(patches) for patches in sets]  # patches of one scene do not overlap
    return [~mask for mask in validated], validated


def places_of(sets: Sequence[PatchSet]) -> NDArray[np.int64]:
    """Number the places (n,) of sets: those with ground in common, directly or by way of others, are one place."""
    common = [[a is b or bool(_lying(a, _hulls([b]), wholly=False).any()) for b in sets] for a in sets]
    numbers: NDArray[np.int64] = connected_components(np.array(common))[1].astype(np.int64)
    return numbers


def select(patches: PatchSet, kept: Mask | NDArray[np.int64]) -> PatchSet:
    """Return some patches of a set."""
    labels = tuple(np.array(patches.labels)[kept]) if patches.labels else ()
    boxes = None if patches.boxes is None else patches.boxes[kept]
    values, places = patches.values[kept], patches.places[kept]
    return replace(patches, values=values, places=places, labels=labels, boxes=boxes)


def _strips(sets: Sequence[PatchSet]) -> tuple[list[Mask], list[Mask]]:
    norths = [patches.boxes[:, 3] for patches in sets if patches.boxes is not None]
    edge = float(np.quantile(np.concatenate(norths), 1 / SHARE)) if norths and sum(map(len, norths)) else 0.0
    learned, validated = [], []
    for patches in sets:
        if patches.boxes is not None:
            validated.append(patches.boxes[:, 3] <= edge + TOUCH)
            learned.append(patches.boxes[:, 1] >= edge - TOUCH)
        else:
            validated.append(_last_tenth(patches))
            learned.append(~validated[-1])
    return learned, validated


def _last_tenth(patches: PatchSet) -> Mask:
    places = sorted(np.unique(patches.places), key=lambda place: rank(int(place)))  # by name they come class by class
    if len(places) > 1:
        return np.isin(patches.places, places[: max(1, len(places) // SHARE)])
    count = len(patches.values)  # of one image: they are in row order, the last are a strip of their own
    return np.arange(count) >= count - max(1, count // SHARE)


def _hulls(sets: Sequence[PatchSet]) -> list[NDArray[np.float64]]:
    """Return the box around each set whose positions are known."""
    known = [patches.boxes for patches in sets if patches.boxes is not None and len(patches.boxes)]
    return [np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)]) for boxes in known]


def _lying(patches: PatchSet, regions: Sequence[NDArray[np.float64]], *, wholly: bool) -> Mask:
    """Return which patches lie wholly in one of the regions, or have any ground in common with one."""
    found = np.zeros(len(patches.values), bool)
    if patches.boxes is None:
        return found
    low, high = patches.boxes[:, :2], patches.boxes[:, 2:]
    for region in regions:
        near, far = region[:2], region[2:]
        if wholly:
            within = (low >= near - TOUCH) & (high <= far + TOUCH)
        else:
            within = (low < far - TOUCH) & (high > near + TOUCH)
        found |= within.all(1)
    return found
