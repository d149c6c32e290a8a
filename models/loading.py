"""Models put to work: from a reference to what maps patches, once per process."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import itertools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from scenelift.models.catalog import ModelRef, classical_method, is_sharpener
from scenelift.models.errors import ModelError
from scenelift.models.extras import apply_extras
from scenelift.models.fitted import method_of
from scenelift.models.onnx import SUFFIX as ONNX
from scenelift.models.shipped import checkpoint_path, joint_of, load_unchanged, shipped
from scenelift.models.spec import ModelSpec

if TYPE_CHECKING:  # what runs a model is imported where it is loaded: classical methods need no torch
    import numpy as np
    from numpy.typing import NDArray

    from scenelift.models.composite import ByBands
    from scenelift.models.enhancer import TorchEnhancer
    from scenelift.models.sharpening.layout import BandGrid


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
    if named := classical_method(ref.name):
        from scenelift.models.classical.classical import classical

        method, scale = named
        if method != "ibp" or ref.blur is None:
            return classical(method, scale, ref.noise)
        from scenelift.models.sensing.blurs import middle_transfer

        return classical(method, scale, mtf=middle_transfer(ref.blur, scale))
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
    module, spec = running(open_onnx(ref.name, ref.digest, ref.precision), json.loads(measured.coefficients or ""))
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

    path = checkpoint_path(ref.name)
    network = None if path is None else load_unchanged(path, ref.digest)[0]
    found, warnings = fit_to(layout, samples, network)
    coefficients = json.dumps(found)
    return dataclasses.replace(ref, layout=tuple(layout), coefficients=coefficients, noise=None, blur=None), warnings


def _folded(ref: ModelRef, module: Any, spec: ModelSpec) -> tuple[list[Any], ModelSpec]:
    """Return the plain networks for the scene's blur and noise: one, or one a band; others are returned as they are.

    A network that wants to know blur and noise, and is told none, is one for Sentinel-2's blur without noise.
    """
    from scenelift.models.networks.layers import wrong_bands
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
    if len(told) % together:
        raise wrong_bands(together, len(told))
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
    exact = not classical_method(ref.name) and not ref.name.endswith(ONNX) and enhancer.spec.halo_kind == "exact"
    if exact and ref.name not in shipped() and enhancer.spec.task != "sharpening":
        from scenelift.models.enhancer import TorchEnhancer
        from scenelift.models.receptive import check_halo

        if isinstance(enhancer, TorchEnhancer):
            check_halo(enhancer.module, enhancer.spec)
    return enhancer.spec
