"""Which models run on a scene, where, and what they are told of it: found once, before anything is planned."""

from __future__ import annotations

import hashlib
import itertools
import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scenelift.models.catalog import (
    ModelRef,
    find,
    interpolates,
    is_classical,
    is_denoiser,
    is_fitted,
    is_sharpener,
    is_visual,
    precision_for,
    wants_blur,
    with_colour,
    with_settings,
)
from scenelift.models.extras import WEIGHTS, Extra, bind_extras
from scenelift.models.loading import measure, verify
from scenelift.models.shipped import checkpoint_path
from scenelift.models.spec import PRECISIONS
from scenelift.pipeline.addresses import work_folder
from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.enhance import Enhancer, Spec
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.jobs.checks import check_image
from scenelift.pipeline.jobs.journal import read_fingerprint
from scenelift.pipeline.jobs.plan import ModelHandle
from scenelift.pipeline.scenes.inputs import input_stamps
from scenelift.pipeline.scenes.limits import absolute
from scenelift.pipeline.scenes.masks import Shares
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.products.safe import check_manifest
from scenelift.pipeline.scenes.scenes import Readable, Scene, SceneSource
from scenelift.workflows.clouds import with_clouds
from scenelift.workflows.conditions import NOISIEST, Conditions, band_names, colour_bands, scene_conditions
from scenelift.workflows.familiarity import unfamiliar
from scenelift.workflows.fitting.scene import fit_to_scene
from scenelift.workflows.multigrid import SharpenedScene, open_for, prepare_sharpener, read_for
from scenelift.workflows.refusals import model_names
from scenelift.workflows.settings import EnhanceSettings

if TYPE_CHECKING:  # what needs torch is imported where a model runs
    from scenelift.workflows.expect import Expectation

SMALL = 2_000_000
"""Pixels of a scene up to which one process with all its threads is sooner done than workers that must start."""
LEFT_BY_DENOISING = 0.25
"""Share of the noise (standard deviation) that a network after a denoiser is told."""


@dataclass(frozen=True)
class GivenModel:
    """A model given as an object, as a `ModelHandle`."""

    enhancer: Enhancer

    @property
    def name(self) -> str:
        """Name of the enhancer's spec."""
        return self.enhancer.spec.name

    def load(self, worker: int = 0) -> Enhancer:
        """Return the enhancer; torch's ways to run out of memory become MemoryError."""
        from scenelift.models.enhancer import Translated

        return Translated(self.enhancer)

    def provenance(self) -> dict[str, Any]:
        """Return the name: nothing else is known."""
        return {"name": self.name}

    def identity(self) -> dict[str, Any]:
        """Return what tells one object from another that could be mistaken for it."""
        try:
            content = pickle.dumps(self.enhancer)
        except (pickle.PicklingError, AttributeError, TypeError):
            content = repr(self.enhancer.spec).encode()
        return {"name": self.name, "sha256": hashlib.sha256(content).hexdigest()}


@dataclass(frozen=True)
class Runtime:
    """Where models run, and how precisely."""

    device: str
    """Where the blocks are done: "cpu" or "cuda"."""
    here: str
    """Where this process can run a model: the workers may have what this machine has not."""
    precision: str
    """As it was asked for."""
    threads: int
    begun: Mapping[str, Any]
    """What an unfinished or finished job of the same output says about its models, by number."""

    @classmethod
    def choose(
        cls, settings: EnhanceSettings, cluster: ClusterSettings, path: Path | None, names: Sequence[str | Enhancer]
    ) -> Runtime:
        """Choose the device for "auto"."""
        begun = (path and read_fingerprint(work_folder(path))) or {}
        models = begun.get("models", {})
        usual = settings.device in ("auto", "cpu") and settings.precision in ("auto", *PRECISIONS)
        if usual and all(isinstance(name, str) and is_classical(name) for name in names):
            return cls("cpu", "cpu", settings.precision, cluster.threads, models)  # without a second's import of torch
        from scenelift.models.enhancer import gpu_count, pick_device
        from scenelift.models.precision import pick_precision

        device = pick_device(settings.device, cluster.elsewhere)
        pick_precision(settings.precision, device)  # refuses an unknown one, whatever the models are
        here = device if gpu_count() else "cpu"
        return cls(device, here, settings.precision, cluster.threads, models)

    def precision_of(self, ref: ModelRef, number: int) -> str:
        """Return "fp32" or "bf16"; "auto" stays what it was for a job begun on a machine with another processor."""
        before = self.begun.get(str(number), {})
        if self.precision == "auto" and before.get("sha256") == ref.digest and before.get("precision") in PRECISIONS:
            return str(before["precision"])
        return precision_for(ref.name, self.precision, self.device)


@dataclass(frozen=True)
class ChosenModel:
    """A model of the chain, ready to travel."""

    handle: ModelHandle
    spec: Spec
    precision: str


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
        loaded = [_without_errors(model).load() for model in self.models[1 if self.sharpened else 0 :]]
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
    part = settings.window_on(scene.grid)
    cluster = _here_if_small(part.shape if part else scene.grid.shape, cluster)
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
    chosen = [*first, *_resolve(rest, scene, settings, runtime, conditions, noise, first)]
    notes += () if conditions else _denoised(rest, noise, given=settings.noise is not None)
    warnings = notes if found is None else (*notes, *unfamiliar(rest, band_names(scene), found, noise))
    warnings += tuple(note for model in chosen for extra in _extras_of(model) for note in extra.notes())
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


def _here_if_small(shape: tuple[int, int], cluster: ClusterSettings) -> ClusterSettings:
    """Return the cluster, or this process with all its threads: starting workers would take longer than the work."""
    asked = cluster != ClusterSettings()
    return cluster if asked or math.prod(shape) > SMALL else replace(cluster, workers=0)


def by_numbers(scene: Scene) -> Scene:
    """Return a scene whose source names its bands by number: they are found once, the same for all workers."""
    if not any(isinstance(band, str) for band in scene.source.bands or ()):
        return scene
    return open_scene(replace(scene.source, bands=scene.numbers))


def _without_errors(model: ChosenModel) -> ModelHandle:
    """Return the model without the extras that add bands: those say how sure it is, and leave the image as it is."""
    extras = tuple(extra for extra in _extras_of(model) if extra.out_per_band == 1)
    return with_settings(model.handle, extras=extras) if isinstance(model.handle, ModelRef) else model.handle


def _extras_of(model: ChosenModel) -> tuple[Extra, ...]:
    return model.handle.extras if isinstance(model.handle, ModelRef) else ()


def is_network(name: str | Enhancer) -> bool:
    """Whether a name is that of a trained network."""
    return isinstance(name, str) and (name.endswith(".safetensors") or checkpoint_path(name) is not None)


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


def _earlier(models: Sequence[ChosenModel], name: str, device: str) -> list[ModelRef]:
    """Return the models before one that is fitted, to be run here.

    Raises
    ------
    UsageError
        If one was given as an object.
    """
    known = [model.handle for model in models if isinstance(model.handle, ModelRef)]
    if len(known) < len(models):
        raise UsageError(f"{name} is fitted to what comes before it: no model before it may be given as an object")
    return [with_settings(ref, device=device) for ref in known]


def _rounded(noise: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(float(f"{sigma:.3g}") for sigma in noise)


def _denoised(names: Sequence[str | Enhancer], noise: tuple[float, ...], *, given: bool) -> tuple[str, ...]:
    """Return a line with the noise that denoising networks are told, where none tells the conditions."""
    told = [name for name in names if isinstance(name, str) and is_network(name) and is_denoiser(name)]
    if not told or not noise:
        return ()
    low, high = f"{min(noise):.4f}", f"{max(noise):.4f}"
    origin = "given" if given else "estimated: --noise says otherwise"
    return (f"{', '.join(told)} takes away noise of {' to '.join(dict.fromkeys((low, high)))} reflectance ({origin})",)


def _resolve(
    names: list[str | Enhancer],
    scene: Scene,
    settings: EnhanceSettings,
    runtime: Runtime,
    conditions: Conditions | None,
    noise: tuple[float, ...],
    first: list[ChosenModel],
) -> list[ChosenModel]:
    """Turn names into references that carry every setting of the run, and check the halo of each model.

    `first` are the models of the chain that come before.
    """
    denoised, extras, before = False, settings.extras(), len(first)
    chosen: list[ChosenModel] = []
    if before and not names and extras:
        raise UsageError(f"--{extras[0].name} is for networks, and there is none after the sharpener")
    for number, name in enumerate(names, start=before + 1):
        if not isinstance(name, str):
            chosen.append(ChosenModel(GivenModel(name), name.spec, "fp32"))
            continue
        last, ref = number == before + len(names), find(name)
        ref = with_settings(
            ref,
            device=runtime.here,
            precision=runtime.precision_of(ref, number),
            threads=runtime.threads,
            noise=noise,
            extras=bind_extras(extras, ref.name, last),
        )
        if not any(extra.stage == WEIGHTS for extra in extras):
            ref = with_colour(ref, colour_bands(scene))
        if conditions is not None and wants_blur(name):
            left = LEFT_BY_DENOISING if denoised else 1.0
            told = tuple(min(left * sigma, NOISIEST) for sigma in conditions.noise)
            ref = with_settings(ref, blur=conditions.blur, noise=told)
        denoised = denoised or is_denoiser(name)
        if is_fitted(name):
            ref = fit_to_scene(ref, scene, _earlier([*first, *chosen], name, runtime.here))
        ref = measure(ref)
        spec = verify(ref)
        for extra in ref.extras:
            if spec.out_per_band < extra.out_per_band:
                raise UsageError(f"--{extra.name} needs a network as the last model, got {name}")
        chosen.append(ChosenModel(with_settings(ref, device=runtime.device), spec, ref.precision))
    return chosen
