"""Models by name, checkpoint or factory: what there is, and what a name says, without loading anything."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scenelift.models.checkpoint import checkpoint_digest, read_metadata
from scenelift.models.classical import CLASSICAL
from scenelift.models.errors import ModelError
from scenelift.models.extras import Extra, code_digest
from scenelift.models.fitted import METHODS, VISUAL, method_of, parameters
from scenelift.models.onnx import SUFFIX as ONNX
from scenelift.models.shipped import checkpoint_path, joint_of, shipped
from scenelift.models.spec import ModelSpec

if TYPE_CHECKING:  # a wrong name is refused without torch
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
        from scenelift.models.loading import load

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
    from importlib.metadata import entry_points  # late, as the command line is quick without it

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
    if name in (CLOSED, PAN) or method_of(name) or classical_method(name) or _is_factory(name):
        return ModelRef(name, hashlib.sha256(name.encode()).hexdigest())
    if name in installed():
        return find(installed()[name])
    choices = known_names()
    near = difflib.get_close_matches(name, choices, 1)
    if near:
        raise ModelError(f"unknown model {name!r}: did you mean {near[0]}? `scenelift models` lists them all")
    raise ModelError(
        f"unknown model {name!r}: give one of {', '.join(choices)}, a .safetensors checkpoint, an ONNX file, "
        "or module.path:factory"
    )


def _is_factory(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name) is not None


def classical_method(name: str) -> tuple[str, int] | None:
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
    return classical_method(name) is not None


def interpolates(name: str) -> bool:
    """Whether a model of this name only interpolates: it needs to know nothing of the scene."""
    named = classical_method(name)
    return named is not None and named[1] > 1 and named[0] != "ibp"


def known_names() -> list[str]:
    """Return the names of all models that need no file and no module."""
    return [*shipped(), *installed(), CLOSED, PAN, *classical_names(), *METHODS]


def classical_names() -> list[str]:
    """Return the methods without learning, those that take any factor with one."""
    return [f"{method}-x2" if scales else method for method, scales in CLASSICAL.items()]


def is_fitted(name: str) -> bool:
    """Whether a model of this name is fitted to the whole scene, or told numbers of it, before it runs."""
    path = checkpoint_path(name)
    return method_of(name) is not None or (path is not None and read_metadata(path)[0].needs_statistics)


def is_visual(name: str) -> bool:
    """Whether what a model of this name makes is for the eye, and no reflectance any longer."""
    return method_of(name) in VISUAL


def is_sharpener(name: str) -> bool:
    """Whether a model of this name brings the coarse bands of a scene of several grids to the finest."""
    path = checkpoint_path(name)
    return name in (CLOSED, PAN) or (path is not None and read_metadata(path)[0].task == "sharpening")


def with_colour(ref: ModelRef, colour: tuple[int, int, int] | None) -> ModelRef:
    """Return the reference with red, green and blue given to the joint network, where one ships; else unchanged."""
    joint = joint_of(ref.name)
    if colour is None or joint is None:
        return ref
    return dataclasses.replace(ref, colour=colour, joint=checkpoint_digest(shipped()[joint]))


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
    compute in float32 whatever is said here, and so do ONNX files but those that were made for OpenVINO, whose cost was
    measured when they were made.

    Raises
    ------
    ModelError
        If the precision is unknown.
    """
    if name.endswith(ONNX):
        return _precision_of_onnx(name, wanted)
    if classical_method(name) or method_of(name):
        return "fp32"
    from scenelift.models.precision import pick_precision

    picked = pick_precision(wanted, device)
    return picked if wanted != "auto" or name in shipped() else "fp32"


def _precision_of_onnx(path: str, wanted: str) -> str:
    from scenelift.models.onnx.files import read_onnx
    from scenelift.models.onnx.openvino import wants_openvino

    if not wants_openvino(read_onnx(path)):
        return "fp32"
    from scenelift.models.precision import pick_precision

    return pick_precision(wanted, "cpu")


def wants_blur(name: str) -> bool:
    """Whether a model of this name is told the blur of each band."""
    path = checkpoint_path(name)
    if path is None:
        return (classical_method(name) or ("",))[0] == "ibp"
    return read_metadata(path)[0].needs_blur


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
    if path is not None:
        return read_metadata(path)[0]
    spec: ModelSpec = ref.load().spec
    return spec


def with_settings(ref: ModelRef, **settings: Any) -> ModelRef:
    """Return the reference with other run settings (device, precision, threads, noise)."""
    return dataclasses.replace(ref, **settings)
