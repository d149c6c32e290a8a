"""A scene and the models that will run on it: found once, before anything is planned."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from scenelift.models.catalog import (
    find,
    interpolates,
    is_denoiser,
    is_fitted,
    is_sharpener,
    is_visual,
    wants_blur,
    with_settings,
)
from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.enhance import Enhancer
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.jobs.checks import check_image
from scenelift.pipeline.scenes.inputs import input_stamps
from scenelift.pipeline.scenes.limits import absolute
from scenelift.pipeline.scenes.masks import Shares
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.products.safe import check_manifest
from scenelift.pipeline.scenes.scenes import Readable, Scene, SceneSource
from scenelift.workflows.choosing.models import ChosenModel, denoising_note, is_network, of_one_quality, resolve
from scenelift.workflows.choosing.runtime import Runtime, here_if_small
from scenelift.workflows.clouds import with_clouds
from scenelift.workflows.conditions import Conditions, band_names, scene_conditions
from scenelift.workflows.familiarity import unfamiliar
from scenelift.workflows.multigrid import SharpenedScene, open_for, prepare_sharpener, read_for
from scenelift.workflows.refusals import model_names
from scenelift.workflows.settings import EnhanceSettings

if TYPE_CHECKING:  # what needs torch is imported where a model runs
    from scenelift.workflows.expect import Expectation


@dataclass(frozen=True)
class Prepared:
    """A scene that has been opened, and the models that will run on it, loaded and checked."""

    scene: Scene
    stamps: tuple[str, ...]
    """State of the scene's files when it was opened."""
    names: tuple[str | Enhancer, ...]
    models: tuple[ChosenModel, ...]
    device: str
    conditions: Conditions | None
    """What the networks are told; None if none of them asks."""
    warnings: tuple[str, ...] = ()
    """What networks were not trained for, and what is not calibrated: lines for people."""
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    """Where the blocks are done: in this process if the scene is small and nothing else was asked for."""
    sharpened: SharpenedScene | None = None
    """The scene on one grid, where it has several: the first model makes it, and the others see it."""
    hidden: Shares | None = None
    """How much the mask hides; None without one."""

    @property
    def interpolates(self) -> bool:
        """Whether there is nothing to be found out about what these models gain."""
        return all(isinstance(name, str) and interpolates(name) for name in self.names)

    @property
    def denoises_first(self) -> bool:
        """Whether noise is taken away before the scene is made finer."""
        coarse = itertools.takewhile(lambda pair: pair[1].spec.scale == 1, zip(self.names, self.models, strict=True))
        return any(isinstance(name, str) and is_denoiser(name) for name, _ in coarse)

    def expect(self, settings: EnhanceSettings, seconds: float = math.inf) -> Expectation | None:
        """Try the models on the scene one level coarser.

        Returns
        -------
        Expectation or None
            None if they do not enlarge, if one was given as an object, or if there is no window to try them on.
        """
        specs = [model.spec for model in self.models]
        objects = not all(isinstance(name, str) for name in self.names)
        if objects or specs[-1].out_bands or math.prod(spec.scale for spec in specs) == 1:
            return None
        if any(isinstance(name, str) and is_fitted(name) for name in self.names):  # to this scene, not to a coarser one
            return None
        scene: Readable = self.sharpened or self.scene
        loaded = [model.without_errors().load() for model in self.models[1 if self.sharpened else 0 :]]
        if loaded[-1].spec.out_per_band > 1:  # of the network itself
            return None
        conditions = self.conditions or scene_conditions(scene, settings.blur, settings.noise)
        from scenelift.workflows.expect import expect

        return expect(scene, loaded, conditions, seconds)


def prepare(
    source: SceneSource,
    models: str | Enhancer | Sequence[str | Enhancer],
    settings: EnhanceSettings,
    cluster: ClusterSettings,
    path: Path | None = None,
) -> Prepared:
    """Open a scene, find what networks are told of it, and load the models.

    Parameters
    ----------
    source : SceneSource
    models : str, Enhancer or sequence of them
    settings : EnhanceSettings
    cluster : ClusterSettings
    path : Path, optional
        The output: a job of it that was begun keeps its precision.

    Raises
    ------
    UsageError, SceneError, ModelError
        If the scene cannot be read, or a model not be used on it.
    """
    names = model_names(models)
    source, scene = opened(source, names)
    return prepare_opened(scene, input_stamps(source), names, settings, cluster, path)


def opened(source: SceneSource, names: Sequence[str | Enhancer]) -> tuple[SceneSource, Scene]:
    """Open a scene for a chain of models; return also where it is, for workers in any folder.

    Raises
    ------
    UsageError, SceneError
        If it cannot be read, or is no image.
    """
    # absolute paths: workers may run in another folder, and so may who resumes
    source = replace(source, paths=tuple(absolute(p) for p in source.paths))
    source = with_clouds(source)
    if source.mask_file:
        source = replace(source, mask=absolute(source.mask_file))
    source = read_for(source, names)
    scene = by_numbers(open_for(source))
    check_product(source, scene)
    check_image(scene)
    return source, scene


def prepare_opened(
    scene: Scene,
    stamps: tuple[str, ...],
    names: list[str | Enhancer],
    settings: EnhanceSettings,
    cluster: ClusterSettings,
    path: Path | None = None,
) -> Prepared:
    """Find what networks are told of an open scene, and load the models; parameters and errors as of `prepare`."""
    names = of_one_quality(names, settings.quality)
    part = settings.window_on(scene.grid)
    cluster = here_if_small(part.shape if part else scene.grid.shape, cluster)
    runtime = Runtime.choose(settings, cluster, path, names)
    first, sharpened, notes = _sharpener(names, scene, runtime)
    rest = names[len(first) :]
    seen: Readable = sharpened or scene
    asks = any(isinstance(name, str) and not interpolates(name) for name in rest)
    found = scene_conditions(seen, settings.blur, settings.noise) if asks or any(map(is_network, rest)) else None
    if found and sharpened:  # which another processor makes with other last bits
        found = replace(found, noise=_rounded(found.noise))
    noise = found.noise if found and asks else ()
    asked = any(isinstance(name, str) and wants_blur(name) for name in rest)
    conditions = found if asked else None
    chosen = [*first, *resolve(rest, scene, settings, runtime, conditions, noise, first)]
    notes += () if conditions else denoising_note(rest, noise, given=settings.noise is not None)
    warnings = notes if found is None else (*notes, *unfamiliar(rest, band_names(scene), found, noise))
    warnings += tuple(note for model in chosen for extra in model.extras for note in extra.notes())
    warnings += tuple(
        f"{name} makes a product for the eye: its values are no reflectance any longer"
        for name in names
        if isinstance(name, str) and is_visual(name)
    )
    hidden = scene.mask.shares() if scene.mask else None
    if hidden and hidden.masked == 1:
        raise UsageError(f"{scene.name}: the mask hides every pixel; choose other classes with --mask-classes")
    return Prepared(
        scene, stamps, tuple(names), tuple(chosen), runtime.device, conditions, warnings, cluster, sharpened, hidden
    )


def by_numbers(scene: Scene) -> Scene:
    """Return a scene whose source names its bands by number: they are found once, the same for all workers."""
    if not any(isinstance(band, str) for band in scene.source.bands or ()):
        return scene
    return open_scene(replace(scene.source, bands=scene.numbers))


def check_product(source: SceneSource, scene: Scene) -> None:
    """Compare a Sentinel-2 product's files with its manifest."""
    if len(source.paths) == 1 and source.paths[0].upper().endswith(".SAFE"):
        check_manifest(Path(source.paths[0]), sorted({Path(reader.path) for reader, _ in scene.readers}))


def _sharpener(
    names: list[str | Enhancer], scene: Scene, runtime: Runtime
) -> tuple[list[ChosenModel], SharpenedScene | None, tuple[str, ...]]:
    """Return the sharpener of a chain, fitted to the scene, what it makes, and its notes; nothing if there is none."""
    name = names[0]
    if not (isinstance(name, str) and is_sharpener(name)):
        return [], None, ()
    ref = find(name)
    ref = with_settings(ref, device=runtime.here, precision=runtime.precision_of(ref, 1), threads=runtime.threads)
    ref, notes = prepare_sharpener(ref, scene)
    loaded = ref.load()
    chosen = ChosenModel(with_settings(ref, device=runtime.device), loaded.spec, ref.precision)
    return [chosen], SharpenedScene(scene, loaded), notes


def _rounded(noise: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(float(f"{sigma:.3g}") for sigma in noise)
