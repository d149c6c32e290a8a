"""Scenes of several grids: how these lie to each other, what a sharpener is fitted to, and the scene it makes."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scenelift.models.catalog import CLOSED, PAN, ModelRef, is_sharpener
from scenelift.models.loading import fit_sharpener
from scenelift.models.sensing.sensors import SENTINEL2
from scenelift.models.sharpening.layout import BandGrid
from scenelift.pipeline.enhance import Enhancer, context, enhance_region
from scenelift.pipeline.errors import GridsError, TimesError, UsageError
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.regions import Region
from scenelift.pipeline.scenes.opening import WARP, open_scene
from scenelift.pipeline.scenes.products.bands import sentinel2_code, wavelength
from scenelift.pipeline.scenes.scenes import Band, Scene, SceneSource
from scenelift.pipeline.tiles import Window
from scenelift.workflows.conditions import band_names

UNKNOWN_MTF = 0.3
"""Transfer at Nyquist of a band whose sensor is unknown."""
PAN_MTF = 0.15
"""Of a panchromatic band that no list knows (Vivone et al., 2015)."""


@dataclass(frozen=True)
class SharpenedScene:
    """A scene of several grids on its finest, as the models after its sharpener see it: what networks are told of."""

    scene: Scene
    sharpener: Enhancer

    @property
    def source(self) -> SceneSource:
        """Where the scene is."""
        return self.scene.source

    @property
    def grid(self) -> GeoGrid:
        """The finest."""
        return self.scene.grid

    @property
    def bands(self) -> tuple[Band, ...]:
        """All bands of the scene, in its order."""
        return self.scene.bands

    @property
    def sensor(self) -> str | None:
        """As of the scene."""
        return self.scene.sensor

    @property
    def coarse(self) -> Mapping[int, tuple[int, ...]]:
        """As of the scene."""
        return self.scene.coarse

    @functools.cached_property
    def sample(self) -> tuple[Region, ...]:
        """Reflectance of the windows of the scene's own sample, sharpened once."""
        return tuple(self.read(region.window) for region in self.scene.sample)

    def read(self, window: Window) -> Region:
        """Read reflectance, sharpened."""
        shape, masked = self.grid.shape, self.scene.masked
        wide = context(shape, window, [self.sharpener.spec], masked)[0]
        return enhance_region(self.scene.read(wide), window, shape, [self.sharpener], masked=masked)


def read_for(source: SceneSource, names: Sequence[object]) -> SceneSource:
    """Return how a scene is read for a chain of models.

    Raises
    ------
    UsageError
        If a sharpener is not the first of them, or an extent is given and there is none.
    """
    first, *others = names
    for name in others:
        if isinstance(name, str) and is_sharpener(name):
            raise UsageError(f"{name} must be the first model: what comes before it would need all bands on one grid")
    if isinstance(first, str) and is_sharpener(first):
        return replace(source, extent=source.extent or "common")
    if source.extent is not None:
        raise UsageError(f"--extent is for scenes of several grids: begin with a sharpener (-m {CLOSED}), got {first}")
    return source


def open_for(source: SceneSource) -> Scene:
    """Open a scene; if it has several grids and is to have one, say what brings them together.

    Raises
    ------
    Others
        As for `scenelift.pipeline.scenes.opening.open_scene`.
    """
    try:
        return open_scene(source)
    except GridsError as error:
        if source.extent is not None:
            raise
        open_scene(replace(source, extent="common"))  # says what else is wrong, if it is
        raise GridsError(
            str(error).replace(WARP, f"add -m {CLOSED} first, which brings them onto the finest")
        ) from None


def open_to_show(source: SceneSource) -> Scene:
    """Open a scene of one grid or of several, a cube at its first time if none is chosen.

    Raises
    ------
    Others
        As for `scenelift.pipeline.scenes.opening.open_scene`.
    """
    try:
        return open_scene(source)
    except TimesError:
        return open_to_show(replace(source, time="1"))
    except GridsError:
        return open_scene(replace(source, extent=source.extent or "common"))


def one_grid(scene: Scene) -> Scene:
    """Return a scene with those of its bands alone whose own grid it has."""
    if not scene.coarse:
        return scene
    return open_scene(replace(scene.source, bands=tuple(scene.numbers[i] for i in scene.guides)))


def prepare_sharpener(ref: ModelRef, scene: Scene) -> tuple[ModelRef, tuple[str, ...]]:
    """Return a sharpener fitted to a scene, and what people should know: lines for the summary.

    Raises
    ------
    UsageError
        If all bands of the scene lie on one grid.
    """
    if not scene.coarse:
        raise UsageError(
            f"{ref.name} sharpens bands of coarser grids, and all {len(scene.bands)} bands of {scene.name} lie on one: "
            "name the rasters of the other grids too, or a product that has them (Sentinel-2; Landsat Level-1, whose "
            "panchromatic band Level-2 lacks)"
        )
    if ref.name == PAN and len(scene.guides) != 1:
        raise UsageError(
            f"{PAN} is guided by one panchromatic band, and {len(scene.guides)} bands of {scene.name} are on the "
            f"finest grid: use {CLOSED}, or choose bands with --bands"
        )
    layout, unknown = layout_of(scene, pan=ref.name == PAN)
    fitted, warnings = fit_sharpener(ref, layout, [region.with_nan() for region in scene.sample])
    notes = [describe(scene), *warnings]
    if ref.name not in (CLOSED, PAN) and not all(band.wavelength for band in layout if band.ratio == 1):
        notes.append("the guides' names do not say their colours: taken for blue, green, red, near infrared in order")
    if unknown:
        notes.append(f"the sensor's blur of {', '.join(unknown)} is unknown: an MTF of {UNKNOWN_MTF} is assumed")
    return fitted, tuple(notes)


def layout_of(scene: Scene, pan: bool = False) -> tuple[tuple[BandGrid, ...], list[str]]:
    """Return how the grids of a scene's bands lie to each other, and the coarse bands whose blur is not known.

    `pan`: whether the finest grid holds a panchromatic band, whose sensor blurs more than the others.
    """
    pan = pan or (scene.sensor == "landsat" and len(scene.guides) == 1)
    layout, unknown = [], []
    for name, band, placement in zip(band_names(scene), scene.bands, scene.placements, strict=True):
        mtf = SENTINEL2.get(sentinel2_code(name))
        if mtf is None and pan and placement.ratio == 1:
            mtf = PAN_MTF
        if mtf is None and placement.ratio > 1 and scene.sensor != "landsat":
            unknown.append(name)
        at = placement.ratio, placement.row, placement.col
        layout.append(BandGrid(*at, mtf or UNKNOWN_MTF, name, wavelength(name, band.tags)))
    return tuple(layout), unknown


def describe(scene: Scene) -> str:
    """Return one line for people: which bands come from which resolution."""
    names, sizes = band_names(scene), scene.grid.resolution

    def size(ratio: int) -> str:
        return " x ".join(f"{side * ratio:g}" for side in sizes)

    parts = [f"{', '.join(names[i] for i in members)} from {size(ratio)}" for ratio, members in scene.coarse.items()]
    unit = scene.grid.crs.units_factor[0]
    guides = ", ".join(names[i] for i in scene.guides)
    return f"sharpened to {size(1)} {unit}: {'; '.join(parts)}, guided by {guides}"
