"""The models of a chain, with every setting of the run, loaded and checked once."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scenelift.models.catalog import ModelRef, find, is_denoiser, is_fitted, wants_blur, with_colour, with_settings
from scenelift.models.extras import WEIGHTS, Extra, bind_extras
from scenelift.models.loading import measure, verify
from scenelift.models.shipped import checkpoint_path, of_quality
from scenelift.pipeline.enhance import Enhancer, Spec
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.jobs.plan import ModelHandle
from scenelift.pipeline.scenes.scenes import Scene
from scenelift.workflows.choosing.runtime import Runtime
from scenelift.workflows.conditions import NOISIEST, Conditions, colour_bands
from scenelift.workflows.fitting.scene import fit_to_scene
from scenelift.workflows.settings import EnhanceSettings

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
class ChosenModel:
    """A model of the chain, ready to travel."""

    handle: ModelHandle
    spec: Spec
    precision: str

    @property
    def extras(self) -> tuple[Extra, ...]:
        """What the model does besides enhancing."""
        return self.handle.extras if isinstance(self.handle, ModelRef) else ()

    def without_errors(self) -> ModelHandle:
        """Return it without the extras that add bands: those say how sure it is, and leave the image as it is."""
        extras = tuple(extra for extra in self.extras if extra.out_per_band == 1)
        return with_settings(self.handle, extras=extras) if isinstance(self.handle, ModelRef) else self.handle


def of_one_quality(names: list[str | Enhancer], quality: str | None) -> list[str | Enhancer]:
    """Return a chain with the smaller or the larger network of each name.

    Raises
    ------
    UsageError
        If none of them comes in two sizes.
    """
    if quality is None:
        return names
    both = [{of_quality(name, each) for each in ("lean", "best")} if isinstance(name, str) else set() for name in names]
    if max(map(len, both)) < 2:
        listed = ", ".join(name if isinstance(name, str) else name.spec.name for name in names)
        raise UsageError(f"--quality {quality}: no model of {listed} comes in two sizes, as sr-x2 or denoise does")
    return [of_quality(name, quality) if isinstance(name, str) else name for name in names]


def is_network(name: str | Enhancer) -> bool:
    """Whether a name is that of a trained network."""
    return isinstance(name, str) and (name.endswith(".safetensors") or checkpoint_path(name) is not None)


def denoising_note(names: Sequence[str | Enhancer], noise: tuple[float, ...], *, given: bool) -> tuple[str, ...]:
    """Return a line with the noise that denoising networks are told, where none tells the conditions."""
    told = [name for name in names if isinstance(name, str) and is_network(name) and is_denoiser(name)]
    if not told or not noise:
        return ()
    low, high = f"{min(noise):.4f}", f"{max(noise):.4f}"
    origin = "given" if given else "estimated: --noise says otherwise"
    return (f"{', '.join(told)} takes away noise of {' to '.join(dict.fromkeys((low, high)))} reflectance ({origin})",)


def resolve(
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
