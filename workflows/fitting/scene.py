"""A scene as the models of a chain see it one after the other, for methods that are fitted to it before they run."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenelift.models.catalog import ModelRef
from scenelift.pipeline.enhance import Enhancer, context, enhance_region
from scenelift.pipeline.scenes.scenes import Scene
from scenelift.pipeline.tiles import Window, sample_windows


@dataclass(frozen=True)
class SceneView:
    """What the models before a method make of a scene; a `View` of `scenelift.models.fitted.views`."""

    scene: Scene
    before: tuple[Enhancer, ...] = ()

    @property
    def scale(self) -> int:
        """Pixels seen per pixel of the scene, along each axis."""
        return math.prod(enhancer.spec.scale for enhancer in self.before)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.scene.grid.shape
        return height * self.scale, width * self.scale

    @functools.cached_property
    def bands(self) -> int:
        """Number of bands."""
        count = len(self.scene.bands)
        for enhancer in self.before:
            count = enhancer.spec.out_bands or count * enhancer.spec.out_per_band
        return count

    @functools.cached_property
    def sample(self) -> Sequence[NDArray[np.float32]]:
        """Reflectance of the windows of the scene's own sample; nothing is read twice."""
        if not self.before:
            return [region.with_nan() for region in self.scene.sample]
        windows = [window.scaled(self.scale) for window in sample_windows(self.scene.grid.shape)]
        return [self.read(window.row, window.col, window.height, window.width) for window in windows]

    def read(self, row: int, col: int, height: int, width: int) -> NDArray[np.float32]:
        """Return the reflectance of one window, NaN where there is no data."""
        wanted = Window(row, col, height, width)
        if not self.before:
            return self.scene.read(wanted).with_nan()
        target = wanted.coarsened(self.scale)
        shape, masked = self.scene.grid.shape, self.scene.masked
        wide = context(shape, target, [enhancer.spec for enhancer in self.before], masked)[0]
        made = enhance_region(self.scene.read(wide), target, shape, self.before, masked=masked)
        return made.crop(wanted).with_nan()


def fit_to_scene(ref: ModelRef, scene: Scene, before: Sequence[ModelRef]) -> ModelRef:
    """Return the reference of a method with its numbers, found in what the models before it make of the scene.

    Raises
    ------
    ModelError, SceneError
        If a number of the user's is out of range, or the scene cannot be read.
    """
    from scenelift.models.fitted.running import fit  # and scipy, which no other job waits for

    view = SceneView(scene, tuple(model.load() for model in before))
    coefficients = json.dumps(fit(ref.name, view), sort_keys=True)
    return dataclasses.replace(ref, coefficients=coefficients, noise=None, blur=None)
