"""Extras: what can be done around any network. Each is one small class, and nothing else names it.

This file knows no torch when it is imported: the command line reads the options from it before it does any work.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from scenelift.models.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

    from scenelift.models.sensing.blurs import Blur
    from scenelift.models.spec import ModelSpec

ENTRY_POINTS = "scenelift.extras"
"""Group of entry points by which an installed package adds extras: name on the command line, subclass of `Extra`."""
WEIGHTS, PASS, ENSEMBLE, RESULT = range(4)
"""Stages, from the network outwards: its weights; each pass through it; several passes; what they say together."""


@dataclass(frozen=True)
class Extra:
    """Something done around networks; its fields are what a user may choose.

    A subclass is a frozen dataclass, picklable: it travels to the workers in the reference of its model.
    """

    name: ClassVar[str]
    """Key in provenance; the name for ``--extra`` and, for the built-in ones, of an option."""
    help: ClassVar[str]
    stage: ClassVar[int] = PASS
    """Where it stands among the others."""
    last: ClassVar[bool] = False
    """Whether it is for the last model of a chain alone."""
    changes: ClassVar[bool] = False
    """Whether errors that were measured on the network are no longer those of the result."""
    out_per_band: ClassVar[int] = 1
    """Bands that it returns for each band."""

    def bound(self, model: str) -> Self:
        """Return the extra for a model of this name, with digests of the files that it needs; called once a job.

        Raises
        ------
        ModelError
            If it does not fit the model.
        """
        return self

    def wrap(self, module: nn.Module, spec: ModelSpec, blur: Blur) -> tuple[nn.Module, ModelSpec]:
        """Return the network with the extra around it, and the contract that this one keeps.

        Parameters
        ----------
        module : Module
            (N, C, P + 2 halo, P + 2 halo) to (N, C', scale P, scale P); see `ModelSpec`.
        spec : ModelSpec
        blur : Blur
            Blur of the band that the network gets, of the first band where it gets several.
        """
        raise NotImplementedError

    def provenance(self) -> dict[str, Any]:
        """Return what the output says of it, as plain JSON values."""
        values = asdict(self)
        return {self.name: next(iter(values.values())) if len(values) == 1 else values or True}

    def notes(self) -> tuple[str, ...]:
        """Return what people should know of its result, lines for the summary."""
        return ()


@dataclass(frozen=True)
class Realism(Extra):
    """Weights between a network and its perceptual variant."""

    share: float = 1.0
    model: str = ""
    digest: str | None = None
    """SHA-256 of the checkpoint of the model's variant."""
    name = "realism"
    help = "0 to 1: from the exact network to its perceptual variant (adversarially trained)."
    stage = WEIGHTS
    last = True
    changes = True

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ModelError(f"--realism must be from 0 to 1, got {self.share}")

    def bound(self, model: str) -> Self:
        from scenelift.models.checkpoint import checkpoint_digest
        from scenelift.models.shipped import variant_of

        return replace(self, model=model, digest=checkpoint_digest(variant_of(model)))

    def wrap(self, module: nn.Module, spec: ModelSpec, blur: Blur) -> tuple[nn.Module, ModelSpec]:
        from scenelift.models.networks.conditioned import ConditionedGenerator
        from scenelift.models.shipped import load_unchanged, variant_of
        from scenelift.models.wrappers import blend

        variant = load_unchanged(variant_of(self.model), self.digest)[0]
        if isinstance(variant, ConditionedGenerator):  # of a network that was folded for the scene
            variant = variant.fold_as(module)  # type: ignore[arg-type]
        return blend(module, variant, self.share), spec

    def provenance(self) -> dict[str, Any]:
        return {"realism": self.share, "twin_sha256": self.digest}


@dataclass(frozen=True)
class Consistency(Extra):
    """Back-projection; networks that do not enlarge are left as they are."""

    steps: int = 1
    name = "consistency"
    help = "Back-projection steps after super-resolution: the result, coarsened, gives the input again."

    def __post_init__(self) -> None:
        if not 0 <= self.steps <= 20:
            raise ModelError(f"--consistency must be from 0 to 20 steps, got {self.steps}")

    def wrap(self, module: nn.Module, spec: ModelSpec, blur: Blur) -> tuple[nn.Module, ModelSpec]:
        from scenelift.models.wrappers import Consistent

        if spec.scale == 1 or not self.steps:
            return module, spec
        wrapped = Consistent(module, spec.halo, spec.scale, blur.at_nyquist(spec.scale), self.steps)
        return wrapped, replace(spec, halo=wrapped.halo)


@dataclass(frozen=True)
class Strength(Extra):
    """Less of a network; those that name land cover are left as they are."""

    share: float = 1.0
    name = "strength"
    help = "0 to 1: from bicubic enlargement (of a denoiser: its input) to all that the network does."
    changes = True

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ModelError(f"--strength must be from 0 to 1, got {self.share}")

    def wrap(self, module: nn.Module, spec: ModelSpec, blur: Blur) -> tuple[nn.Module, ModelSpec]:
        from scenelift.models.wrappers import weakened

        if spec.out_bands is not None:
            return module, spec
        wrapped = weakened(module, spec, self.share)
        return wrapped, replace(spec, halo=wrapped.halo)


@dataclass(frozen=True)
class Clamp(Extra):
    """No value beyond those of the input's neighbourhood; networks that name land cover are left as they are."""

    wanted: bool = True
    name = "clamp"
    help = "Hold each new pixel within the 3 x 3 input pixels around it: no halo beside bright roofs, less grain."
    changes = True

    def wrap(self, module: nn.Module, spec: ModelSpec, blur: Blur) -> tuple[nn.Module, ModelSpec]:
        from scenelift.models.wrappers import clamped

        if spec.out_bands is not None:
            return module, spec
        wrapped = clamped(module, spec)
        return wrapped, replace(spec, halo=wrapped.halo)


@dataclass(frozen=True)
class SelfEnsemble(Extra):
    """The mean of eight passes."""

    name = "tta"
    help = "Average networks over eight turned and mirrored passes."
    stage = ENSEMBLE

    def wrap(self, module: nn.Module, spec: ModelSpec, blur: Blur) -> tuple[nn.Module, ModelSpec]:
        from scenelift.models.wrappers import Ensembled

        return Ensembled(module), spec


@dataclass(frozen=True)
class Uncertainty(Extra):
    """The standard deviation of the error: of one pass where an error model is at hand, else over eight passes."""

    wanted: bool = True
    errors: tuple[tuple[str, str], ...] = ()
    """Networks whose error models tell it, and the SHA-256 of those models; none: over eight passes."""
    note: str = ""
    """For the summary: why it is not calibrated."""
    name = "uncertainty"
    help = "Add a band with the standard deviation of the error after each band, calibrated on other places."
    stage = ENSEMBLE
    last = True
    out_per_band = 2

    def bound(self, model: str) -> Self:
        from scenelift.models.error_files import error_models

        try:
            return replace(self, errors=error_models(model))
        except ModelError as error:
            return self.spread(str(error))

    def spread(self, why: str) -> Self:
        """Return the extra for a network whose errors are not known."""
        note = f"the uncertainty is the spread over eight turned and mirrored passes, not calibrated: {why}"
        return replace(self, errors=(), note=note)

    def wrap(self, module: nn.Module, spec: ModelSpec, blur: Blur) -> tuple[nn.Module, ModelSpec]:
        from scenelift.models.calibration import Calibrated
        from scenelift.models.error_files import errors_for
        from scenelift.models.wrappers import Ensembled

        if self.errors:
            wrapped = Calibrated(module, spec, errors_for(self.errors, spec))
            return wrapped, replace(spec, halo=wrapped.halo, out_per_band=2)
        inner = module.module if isinstance(module, Ensembled) else module
        return Ensembled(inner, uncertainty=True), replace(spec, out_per_band=2)

    def provenance(self) -> dict[str, Any]:
        return {"uncertainty": True} | _error_digests(self.errors)

    def notes(self) -> tuple[str, ...]:
        return (self.note,) if self.note else ()


@dataclass(frozen=True)
class Interval(Extra):
    """Bounds between which a given share of the true values lies."""

    level: float = 0.9
    errors: tuple[tuple[str, str], ...] = ()
    """Networks whose error models tell them, and the SHA-256 of those models."""
    name = "interval"
    help = "Add bands with a lower and an upper bound after each band: so large a share of true values lies between."
    stage = ENSEMBLE
    last = True
    out_per_band = 3

    def __post_init__(self) -> None:
        if not 0.5 <= self.level <= 0.99:
            raise ModelError(f"--interval must be from 0.5 to 0.99, got {self.level}")

    def bound(self, model: str) -> Self:
        from scenelift.models.error_files import error_models

        try:
            return replace(self, errors=error_models(model))
        except ModelError as error:
            raise ModelError(f"--interval: {error}") from None

    def wrap(self, module: nn.Module, spec: ModelSpec, blur: Blur) -> tuple[nn.Module, ModelSpec]:
        from scenelift.models.calibration import Calibrated
        from scenelift.models.error_files import errors_for

        if isinstance(module, Calibrated):  # the standard deviation is asked for, too
            module.set_level(self.level)
            return module, replace(spec, out_per_band=4)
        wrapped = Calibrated(module, spec, errors_for(self.errors, spec), deviation=False)
        wrapped.set_level(self.level)
        return wrapped, replace(spec, halo=wrapped.halo, out_per_band=3)

    def provenance(self) -> dict[str, Any]:
        return {"interval": self.level} | _error_digests(self.errors)


def _error_digests(errors: tuple[tuple[str, str], ...]) -> dict[str, str]:
    return {f"{Path(name).stem}_errors_sha256": digest for name, digest in errors}


@dataclass(frozen=True)
class ClassMap(Extra):
    """The number of the most probable class instead of the probabilities."""

    name = "classes"
    help = "Store the number of the most probable class of the last model, which must name land cover, with a palette."
    stage = RESULT
    last = True

    def wrap(self, module: nn.Module, spec: ModelSpec, blur: Blur) -> tuple[nn.Module, ModelSpec]:
        from scenelift.models.networks.naming import Named

        if spec.task != "landcover" or not spec.labels:
            raise ModelError(f"{spec.name} names no classes: the last model of a class map must be one for land cover")
        return Named(module), replace(spec, out_bands=1)


BUILT_IN: dict[str, type[Extra]] = {
    kind.name: kind for kind in (Realism, Consistency, Strength, Clamp, SelfEnsemble, Uncertainty, Interval, ClassMap)
}


def extra_kind(name: str) -> type[Extra]:
    """Return an extra by its name, a built-in one or one of an installed package.

    Raises
    ------
    ModelError
        If there is none, or the package's cannot be loaded.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    from importlib.metadata import entry_points  # late, as the command line is quick without it

    for entry in entry_points(group=ENTRY_POINTS, name=name):
        try:
            kind = entry.load()
        except Exception as error:  # noqa: BLE001 - another package's import may fail in any way
            raise ModelError(f"the extra {entry.value!r} of an installed package cannot be loaded: {error}") from None
        if not (isinstance(kind, type) and issubclass(kind, Extra)):
            raise ModelError(f"the entry point {entry.value!r} of {ENTRY_POINTS} must be a subclass of Extra")
        return kind
    known = ", ".join([*BUILT_IN, *sorted(entry_points(group=ENTRY_POINTS).names)])
    raise ModelError(f"unknown extra {name!r}; known are {known}")


def bind_extras(extras: Iterable[Extra], model: str, last: bool) -> tuple[Extra, ...]:
    """Return the extras that are for a model of a chain, each bound to it; see `Extra.bound`.

    Parameters
    ----------
    extras : iterable of Extra
    model : str
        The model's name.
    last : bool
        Whether it is the last one of the chain.

    Raises
    ------
    ModelError
        If one does not fit the model, or bounds are asked of a network that another one changes.
    """
    chosen = [extra for extra in extras if last or not extra.last]
    changing = next((extra.name for extra in chosen if extra.changes), None)
    if changing and any(isinstance(extra, Interval) for extra in chosen):
        raise ModelError(f"--interval holds for the network as it was trained; leave --{changing} out")
    bound = [extra.bound(model) for extra in chosen]
    why = f"--{changing} changes the network"
    return tuple(extra.spread(why) if changing and isinstance(extra, Uncertainty) else extra for extra in bound)


def apply_extras(
    extras: Iterable[Extra], module: nn.Module, spec: ModelSpec, blur: Blur
) -> tuple[nn.Module, ModelSpec]:
    """Put extras around an unpadded network, each at its stage; see `Extra.wrap`."""
    for extra in sorted(extras, key=lambda each: each.stage):
        module, spec = extra.wrap(module, spec, blur)
    return module, spec


def code_digest(extra: Extra) -> dict[str, str]:
    """Return the SHA-256 of the file that an extra of another package stands in; nothing for a built-in one."""
    file = getattr(sys.modules[type(extra).__module__], "__file__", None)
    if type(extra) is BUILT_IN.get(extra.name) or file is None:
        return {}
    return {f"{extra.name}_code": hashlib.sha256(Path(file).read_bytes()).hexdigest()}
