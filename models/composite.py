"""Several models as one, each for its own bands: colours through a joint network, the rest band by band."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenelift.models.errors import ModelError
from scenelift.models.spec import ModelSpec


class ByBands:
    """Runs each part on its bands and puts the results together in the scene's order.

    Parameters
    ----------
    name : str
        Name of the whole.
    parts : sequence of (enhancer, sequence of int)
        Models of one scale, and the 0-based bands of the scene each gets, in the order it wants them. Every band of the
        scene belongs to one part.

    Raises
    ------
    ModelError
        If the parts differ in scale, in what they return for a band, or a band is missing or has two of them.
    """

    def __init__(self, name: str, parts: Sequence[tuple[Any, Sequence[int]]]) -> None:
        specs = [part.spec for part, _ in parts]
        bands = sorted(band for _, members in parts for band in members)
        if bands != list(range(len(bands))):
            raise ModelError(f"{name}: every band must belong to one model, got bands {bands}")
        if len({(s.scale, s.out_per_band) for s in specs}) > 1 or any(s.out_bands for s in specs):
            raise ModelError(f"{name}: models for different bands must enlarge alike and return bands for bands")
        self.parts = list(parts)
        step = math.lcm(*(s.multiple_of for s in specs))
        patch = max(s.patch for s in specs)
        halo = max(s.halo for s in specs)
        self.spec: ModelSpec = dataclasses.replace(
            specs[0],
            name=name,
            bands=len(bands),
            halo=-(-halo // step) * step,
            multiple_of=step,
            patch=-(-patch // step) * step,
        )

    def __call__(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Enhance a batch of patches; see `scenelift.pipeline.enhance.Enhancer`."""
        each, out = self.spec.out_per_band, None
        for part, members in self.parts:
            margin = self.spec.halo - part.spec.halo
            inner = slice(margin, -margin) if margin else slice(None)
            cores = part(patches[:, list(members), inner, inner])
            if out is None:
                out = np.empty((len(patches), patches.shape[1] * each, *cores.shape[2:]), np.float32)
            out[:, [band * each + i for band in members for i in range(each)]] = cores
        assert out is not None  # there is at least one part
        return out
