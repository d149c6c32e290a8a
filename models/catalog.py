"""Find a model by name, checkpoint or factory, and load it once per process."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import importlib
import importlib.util
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scenelift.models.checkpoint import checkpoint_digest, read_metadata
from scenelift.models.classical import CLASSICAL
from scenelift.models.errors import ModelError
from scenelift.models.extras import Extra, apply_extras, code_digest
from scenelift.models.fitted import METHODS, VISUAL, method_of, parameters
from scenelift.models.onnx import SUFFIX as ONNX
from scenelift.models.shipped import checkpoint_path, joint_of, load_unchanged, shipped
from scenelift.models.spec import ModelSpec

if TYPE_CHECKING:  # what runs a model is imported where it is loaded: a wrong name is refused without torch
    import numpy as np
    from numpy.typing import NDArray

    from scenelift.models.composite import ByBands
    from scenelift.models.enhancer import TorchEnhancer
    from scenelift.models.sensing.blurs import Blur
    from scenelift.models.sharpening.layout import BandGrid

ENTRY_POINTS = "scenelift.networks"
"""Group of entry points by which an installed package names its networks: name, ``module.path:factory``."""
CLOSED = "sharpen-closed"
"""Name of the sharpener without weights."""
PAN = "pansharpen"
"""Name of the same with one panchromatic band as the guide."""


@dataclass(frozen=True)
class ModelRef:
    """A model by reference: what travels to workers instead of weights. Small and picklable."""

    name: str
    """Shipped name, classical method, path of a checkpoint, or ``module.path:factory``."""
    digest: str
    """SHA-256 of the checkpoint, or of the name and package version for code."""
    device: str = "cpu"
    """"cpu", "cuda" or "cuda:1"."""
    precision: str = "fp32"
    """"fp32" or "bf16"."""
    threads: int = 1
    """CPU threads that run patches side by side."""
    noise: tuple[float, ...] | None = None
    """Noise level of each band (standard deviation, reflectance), for models that take one."""
    blur: tuple[Blur, ...] | None = None
    """Blur of each band, for models that take it."""
    colour: tuple[int, int, int] | None = None
    """0-based bands with red, green, blue: they go through the joint network NAME-rgb, the others through NAME."""
    joint: str | None = None
    """SHA-256 of that joint network's checkpoint where ``colour`` is given."""
    extras: tuple[Extra, ...] = ()
    """What is done around the network."""
    layout: tuple[BandGrid, ...] | None = None
    """How the grids of the scene's bands lie to each other, for sharpeners."""
    coefficients: str | None = None
    """What a sharpener or another method was fitted to the scene with, or what an ONNX file was measured to be."""

    def load(self, worker: int = 0) -> Any:
        """Load the model in this process; each worker of a machine takes the GPU of its own number."""
        return load(with_settings(self, device=f"cuda:{worker}") if self.device == "cuda" else self)

    def provenance(self) -> dict[str, Any]:
        """Return what an output says about a model that made it: weights, settings, noise levels."""
        noise = [round(s, 9) for s in self.noise] if self.noise else None
        name = Path(self.name).name if self.name.endswith((".safetensors", ONNX)) else self.name
        device = self.device.partition(":")[0]
        facts = {"name": name, "sha256": self.digest, "precision": self.precision, "device": device, "noise": noise}
        extras = {key: value for extra in self.extras for key, value in extra.provenance().items()}
        told = {} if self.blur is None else {"blur": [[b.kind, b.mtf] for b in self.blur]}
        joint = {} if self.colour is None else {"colour": list(self.colour), "joint_sha256": self.joint}
        return facts | extras | told | joint | self._sharpening() | self._fitted()

    def _sharpening(self) -> dict[str, Any]:
        if self.layout is None:
            return {}
        layout = [dataclasses.asdict(band) for band in self.layout]
        return {"layout": layout, "coefficients": json.loads(self.coefficients or "null")}

    def _fitted(self) -> dict[str, Any]:
        if self.layout is not None or self.coefficients is None or self.name.endswith(ONNX):
            return {}
        from scenelift.models.fitted.running import provenance

        return provenance(self.name, self.coefficients)

    def identity(self) -> dict[str, Any]:
        """Return everything that decides what the model makes of a scene."""
        code = {key: value for extra in self.extras for key, value in code_digest(extra).items()}
        return self.provenance() | {"code": _code_digest(self.name)} | code


def installed() -> dict[str, str]:
    """Return the networks that installed packages name: name to ``module.path:factory``."""
    return {entry.name: entry.value for entry in entry_points(group=ENTRY_POINTS)}


def find(name: str) -> ModelRef:
    """Resolve a model's name without loading it.

    Raises
    ------
    ModelError
        If there is no such model; the message names the nearest, or lists those there are.
    """
    path = checkpoint_path(name)
    if path is not None:
        return ModelRef(name, checkpoint_digest(path))
    if name.endswith(ONNX):
        from scenelift.models.onnx.files import onnx_digest

        return ModelRef(name, onnx_digest(name))
    if method_of(name):
        parameters(name)  # refuses what it cannot take
    if name in (CLOSED, PAN) or method_of(name) or _classical(name) or _is_factory(name):
        return ModelRef(name, hashlib.sha256(name.encode()).hexdigest())
    if name in installed():
        return find(installed()[name])
    choices = [*shipped(), *installed(), CLOSED, PAN, *_classical_names(), *METHODS]
    near = difflib.get_close_matches(name, choices, 1)
    if near:
        raise ModelError(f"unknown model {name!r}: did you mean {near[0]}? `scenelift models` lists them all")
    raise ModelError(
        f"unknown model {name!r}: give one of {', '.join(choices)}, a .safetensors checkpoint, an ONNX file, "
        "or module.path:factory"
    )


def _is_factory(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name) is not None


def _classical(name: str) -> tuple[str, int] | None:
    """Split "lanczos-x2" into method and scale; None if it is no classical method."""
    match = re.fullmatch(r"([a-z-]+?)(?:-x([2-9]))?", name)
    if match is None or match[1] not in CLASSICAL:
        return None
    scales = CLASSICAL[match[1]]
    if scales != bool(match[2]):  # a resampler needs a scale, a filter has none
        return None
    return match[1], int(match[2] or 1)


def is_classical(name: str) -> bool:
    """Whether a model of this name is a method without learning, which needs no torch."""
    return _classical(name) is not None


def interpolates(name: str) -> bool:
    """Whether a model of this name only interpolates: it needs to know nothing of the scene."""
    named = _classical(name)
    return named is not None and named[1] > 1 and named[0] != "ibp"


def _classical_names() -> list[str]:
    return [f"{method}-x2" if scales else method for method, scales in CLASSICAL.items()]


@functools.lru_cache(maxsize=32)
def load(ref: ModelRef) -> Any:
    """Load a model as an enhancer; later calls with the same reference return the same object.

    Raises
    ------
    ModelError
        If it cannot be loaded, its spec promises a smaller halo than its receptive radius, or the checkpoint is no
        longer the one the reference was made from.
    """
    if ref.colour is not None:
        return _by_bands(ref, ref.colour)
    if is_sharpener(ref.name):
        return _sharpener(ref)
    path = checkpoint_path(ref.name)
    if path is not None:
        return _running(ref, *load_unchanged(path, ref.digest))
    if ref.name.endswith(ONNX):
        return _from_onnx(ref)
    if method_of(ref.name):
        from scenelift.models.fitted.running import fitted_method

        if ref.coefficients is None:
            raise ModelError(f"{ref.name} is fitted to a whole scene, and runs on no image by itself")
        return fitted_method(ref.name, json.loads(ref.coefficients))
    if named := _classical(ref.name):
        from scenelift.models.classical.classical import classical

        method, scale = named
        return classical(method, scale, ref.noise)
    return _from_factory(ref)


def _running(ref: ModelRef, module: Any, spec: ModelSpec) -> TorchEnhancer:
    """Put a network to work as the reference says."""
    from scenelift.models.enhancer import TorchEnhancer
    from scenelift.models.sensing.blurs import Blur
    from scenelift.models.wrappers import Cropped

    spec = dataclasses.replace(spec, labels=tuple(getattr(module, "classes", ())) or spec.labels)
    modules, spec = _folded(ref, module, spec)
    if ref.extras and checkpoint_path(ref.name) is None:
        modules = [Cropped(plain, spec) for plain in modules]
    blurs = ref.blur if spec.scale > 1 and ref.blur else (Blur(),)
    wrapped = [apply_extras(ref.extras, plain, spec, blurs[i % len(blurs)]) for i, plain in enumerate(modules)]
    ready = [network for network, _ in wrapped]
    return TorchEnhancer(ready, wrapped[-1][1], ref.device, ref.precision, ref.threads, ref.noise)


def _from_onnx(ref: ModelRef) -> TorchEnhancer:
    """Put an ONNX file to work; it runs on the CPU, whatever the device of the others is."""
    from scenelift.models.onnx.running import open_onnx, running

    measured = measure(ref)
    module, spec = running(open_onnx(ref.name, ref.digest), json.loads(measured.coefficients or ""))
    return _running(dataclasses.replace(ref, device="cpu", precision="fp32"), module, spec)


def measure(ref: ModelRef) -> ModelRef:
    """Return the reference of an ONNX file with its contract, as it is measured; any other as it is.

    Raises
    ------
    ModelError
        If its tiles would not be exact, or it cannot be run.
    """
    if not ref.name.endswith(ONNX) or ref.coefficients is not None:
        return ref
    return dataclasses.replace(ref, coefficients=_measured(ref.name, ref.digest))


@functools.lru_cache(maxsize=8)
def _measured(path: str, digest: str) -> str:
    from scenelift.models.onnx.measuring import measure as measured
    from scenelift.models.onnx.running import open_onnx

    return json.dumps(measured(open_onnx(path, digest)), sort_keys=True)


def is_fitted(name: str) -> bool:
    """Whether a model of this name is fitted to the whole scene, or told numbers of it, before it runs."""
    path = checkpoint_path(name)
    return method_of(name) is not None or (path is not None and read_metadata(path)[0].needs_statistics)


def is_visual(name: str) -> bool:
    """Whether what a model of this name makes is for the eye, and no reflectance any longer."""
    return method_of(name) in VISUAL


def _sharpener(ref: ModelRef) -> TorchEnhancer:
    """Put the closed form, or the network that builds on it, to work on a scene's layout."""
    from scenelift.models.sharpening.running import closed_form, with_network

    if ref.layout is None or ref.coefficients is None:
        raise ModelError(f"{ref.name} sharpens the coarse bands of a scene of several grids, and runs on no other")
    path, fitted = checkpoint_path(ref.name), json.loads(ref.coefficients)
    if path is None:
        return closed_form(ref.layout, fitted, ref.name, ref.device, ref.threads)
    network = load_unchanged(path, ref.digest)
    return with_network(ref.layout, fitted, network, ref.name, ref.device, ref.precision, ref.threads)


def is_sharpener(name: str) -> bool:
    """Whether a model of this name brings the coarse bands of a scene of several grids to the finest."""
    path = checkpoint_path(name)
    return name in (CLOSED, PAN) or (path is not None and read_metadata(path)[0].task == "sharpening")


def fit_sharpener(
    ref: ModelRef, layout: Sequence[BandGrid], samples: Sequence[NDArray[np.float32]]
) -> tuple[ModelRef, list[str]]:
    """Return a sharpener's reference with the layout of a scene and what is fitted to it, and warnings of the fit.

    Parameters
    ----------
    ref : ModelRef
    layout : sequence of BandGrid
        One a band of the scene.
    samples : sequence of ndarray of float32, shape (bands, H, W)
        Windows of the scene, which start at multiples of the layout's period: reflectance, coarse bands replicated,
        NaN where there is no data.

    Raises
    ------
    ModelError
        If there is no band to be guided by, or none to sharpen.
    """
    from scenelift.models.sharpening.running import fit_to

    found, warnings = fit_to(layout, samples)
    coefficients = json.dumps(found)
    return dataclasses.replace(ref, layout=tuple(layout), coefficients=coefficients, noise=None, blur=None), warnings


def _folded(ref: ModelRef, module: Any, spec: ModelSpec) -> tuple[list[Any], ModelSpec]:
    """Return the plain networks for the scene's blur and noise: one, or one a band; others are returned as they are.

    A network that wants to know blur and noise, and is told none, is one for Sentinel-2's blur without noise.
    """
    from scenelift.models.sensing.blurs import Blur

    if spec.needs_statistics:
        if ref.coefficients is None:
            raise ModelError(f"{ref.name} is told numbers of a whole scene, and runs on no image by itself")
        folded = module.fold_statistics(json.loads(ref.coefficients)["percentiles"])
        return [folded], dataclasses.replace(spec, needs_statistics=False)
    if not spec.needs_blur:
        return [module], spec
    together = spec.bands or 1
    blurs = ref.blur or (Blur(),) * together
    noise = (ref.noise or (0.0,)) if ref.blur else (0.0,)
    told = list(zip(blurs, itertools.islice(itertools.cycle(noise), len(blurs)), strict=True))
    groups = [told[i : i + together] for i in range(0, len(told), together)]
    plain = dataclasses.replace(spec, needs_blur=False, needs_noise=False)
    return [module.fold([b for b, _ in group], [n for _, n in group]) for group in groups], plain


def _by_bands(ref: ModelRef, colour: tuple[int, int, int]) -> ByBands:
    """Put a network for colours and one for the other bands to work on one scene."""
    from scenelift.models.composite import ByBands

    if ref.noise is None:
        raise ModelError(f"{ref.name}: to choose a network for each band, the noise of each band must be told")
    others = [band for band in range(len(ref.noise)) if band not in colour]

    def part(name: str, digest: str, bands: Sequence[int]) -> Any:
        blur = tuple(ref.blur[b] for b in bands) if ref.blur else None
        noise = tuple(ref.noise[b % len(ref.noise)] for b in bands) if ref.noise else None
        return load(dataclasses.replace(ref, name=name, digest=digest, blur=blur, noise=noise, colour=None, joint=None))

    parts: list[tuple[Any, Sequence[int]]] = [(part(joint_of(ref.name) or "", ref.joint or "", colour), colour)]
    if others:
        parts.append((part(ref.name, ref.digest, others), others))
    return ByBands(ref.name, parts)


def with_colour(ref: ModelRef, colour: tuple[int, int, int] | None) -> ModelRef:
    """Return the reference with red, green and blue given to the joint network, where one ships; else unchanged."""
    joint = joint_of(ref.name)
    if colour is None or joint is None:
        return ref
    return dataclasses.replace(ref, colour=colour, joint=checkpoint_digest(shipped()[joint]))


def _from_factory(ref: ModelRef) -> Any:
    """Call the user's factory: it returns an enhancer, or a torch module with its spec."""
    from scenelift.models.enhancer import TorchEnhancer, Translated

    module_name, _, function = ref.name.partition(":")
    try:
        made = getattr(importlib.import_module(module_name), function)()
    except (ImportError, AttributeError) as error:
        raise ModelError(f"cannot load model {ref.name!r}: {error}") from None
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], ModelSpec):
        return _running(ref, *made)
    if callable(made) and isinstance(getattr(made, "spec", None), ModelSpec):
        return made if isinstance(made, TorchEnhancer) else Translated(made)
    raise ModelError(f"{ref.name} must return an enhancer or (torch module, ModelSpec), got {type(made).__name__}")


def _code_digest(name: str) -> str | None:
    """Return the SHA-256 of the module that holds a factory; None for other kinds of models."""
    module = name.partition(":")[0]
    if ":" not in name or name.endswith((".safetensors", ONNX)) or method_of(name):
        return None
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None or not Path(found.origin).is_file():
        return None
    return hashlib.sha256(Path(found.origin).read_bytes()).hexdigest()


def precision_for(name: str, wanted: str, device: str) -> str:
    """Return "fp32" or "bf16" for a model; "auto" is bf16 for shipped networks alone, where its cost was measured.

    A user's own network may lose tens of digital numbers to bfloat16, so it must be asked for. Classical methods
    compute in float32 whatever is said here.

    Raises
    ------
    ModelError
        If the precision is unknown.
    """
    if _classical(name) or method_of(name) or name.endswith(ONNX):
        return "fp32"
    from scenelift.models.precision import pick_precision

    picked = pick_precision(wanted, device)
    return picked if wanted != "auto" or name in shipped() else "fp32"


def verify(ref: ModelRef) -> ModelSpec:
    """Load a model and check that its halo covers its receptive radius; return its spec.

    Raises
    ------
    ModelError
        If an "exact" halo is smaller than the radius measured on the module itself.
    """
    enhancer = load(ref)
    # Shipped models are measured by the tests; a second here for every run would buy nothing. That of a sharpener
    # follows from its layout.
    exact = not _classical(ref.name) and not ref.name.endswith(ONNX) and enhancer.spec.halo_kind == "exact"
    if exact and ref.name not in shipped() and enhancer.spec.task != "sharpening":
        from scenelift.models.enhancer import TorchEnhancer
        from scenelift.models.receptive import check_halo

        if isinstance(enhancer, TorchEnhancer):
            check_halo(enhancer.module, enhancer.spec)
    return enhancer.spec


def wants_blur(name: str) -> bool:
    """Whether a model of this name is told the blur of each band."""
    path = checkpoint_path(name)
    return path is not None and read_metadata(path)[0].needs_blur


def is_denoiser(name: str) -> bool:
    """Whether a model of this name takes noise away."""
    return load_spec(find(name)).task == "denoise"


def load_spec(ref: ModelRef) -> ModelSpec:
    """Return a model's spec, loading as little as possible."""
    if ref.name in (CLOSED, PAN) and ref.layout is None:
        return ModelSpec(ref.name, "sharpening")
    if method_of(ref.name) and ref.coefficients is None:
        from scenelift.models.fitted.running import spec_of

        return spec_of(ref.name)
    path = checkpoint_path(ref.name)
    return read_metadata(path)[0] if path is not None else load(ref).spec


def with_settings(ref: ModelRef, **settings: Any) -> ModelRef:
    """Return the reference with other run settings (device, precision, threads, noise)."""
    return dataclasses.replace(ref, **settings)
