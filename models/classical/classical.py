"""What a user could do without a network: interpolation, back-projection and noise filters, as enhancers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenelift.models.classical import CLASSICAL
from scenelift.models.classical.resampling import KERNELS, back_project, back_projection_reach, upsample
from scenelift.models.errors import ModelError
from scenelift.models.sensing.blurs import DEFAULT_MTF
from scenelift.models.spec import ModelSpec

Patches = NDArray[np.float32]
"""Float32 reflectance, shape (N, C, height, width)."""

DEFAULT_SIGMA = 0.01
"""Noise assumed by the filters where none is given: about ten times Sentinel-2's own."""


@dataclass(frozen=True)
class Interpolation:
    """Interpolates by an integer factor."""

    spec: ModelSpec
    kernel: str
    """A key of ``resampling.KERNELS``."""

    def __call__(self, patches: Patches) -> Patches:
        """Return the cores of patches of shape (N, C, P + 2 halo, P + 2 halo), ``scale`` times as large."""
        return upsample(patches, self.spec.scale, self.kernel)


@dataclass(frozen=True)
class BackProjection:
    """Interpolates, then corrects until the sensor's MTF would reproduce the input."""

    spec: ModelSpec
    kernel: str
    steps: int
    mtf: float
    """Transfer of the sensor at the coarse Nyquist frequency."""
    gain: float

    def __call__(self, patches: Patches) -> Patches:
        """Return the cores of patches of shape (N, C, P + 2 halo, P + 2 halo), ``scale`` times as large."""
        return back_project(patches, self.spec.scale, self.kernel, self.mtf, self.steps, self.gain)


@dataclass(frozen=True)
class Filter:
    """Runs a noise filter over each band."""

    spec: ModelSpec
    name: str
    """A key of ``FILTERS``."""
    sigma: tuple[float, ...]
    """Noise of every band, or one for all; reflectance."""
    settings: tuple[tuple[str, float | str], ...]
    """Parameters of the filter that differ from its defaults."""

    def __call__(self, patches: Patches, noise: NDArray[np.float32] | None = None) -> Patches:
        """Return the filtered cores of patches (N, C, P + 2 halo, P + 2 halo); ``noise`` (N, C) is theirs, if given."""
        sigma = np.asarray(self.sigma if noise is None else noise)
        if sigma.shape[-1] not in (1, patches.shape[1]):
            raise ModelError(
                f"{self.spec.name}: {sigma.shape[-1]} noise levels were given for {patches.shape[1]} bands"
            )
        levels = np.broadcast_to(sigma, patches.shape[:2])
        pairs = zip(patches, levels, strict=True)
        return np.stack([np.stack([self._band(x, s) for x, s in zip(*pair, strict=True)]) for pair in pairs])

    def _band(self, band: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
        halo = self.spec.halo
        if sigma == 0 and self.name in _BY_NOISE:
            return band[halo : band.shape[0] - halo, halo : band.shape[1] - halo]
        out = _filter_of(self.name)(band.astype(np.float64), float(sigma), **dict(self.settings))
        return out[halo : band.shape[0] - halo, halo : band.shape[1] - halo].astype(np.float32)


FILTERS: dict[str, str] = {
    "bilateral": "bilateral",
    "wavelet": "wavelet",
    "nlm": "non_local_means",
    "tv": "total_variation",
    "wiener": "wiener",
    "median": "median",
    "lee": "lee",
}
"""The noise filters, and the function of `scenelift.models.classical.filters` that each is."""


def _filter_of(name: str) -> Callable[..., NDArray[np.float64]]:
    """Return a filter's function; a process that only interpolates waits for no image library."""
    from scenelift.models.classical import filters

    found: Callable[..., NDArray[np.float64]] = getattr(filters, FILTERS[name])
    return found


_BY_NOISE = ("bilateral", "wavelet", "nlm", "tv", "wiener")
"""The filters that a noise level steers; without noise they change nothing."""

_REACH: dict[str, Callable[[dict[str, int]], int]] = {
    "bilateral": lambda p: p["radius"],
    "tv": lambda p: p["steps"] - 1,
    "wiener": lambda p: p["size"] // 2,
    "median": lambda p: p["size"] // 2,
    "lee": lambda p: p["size"] // 2,
    "nlm": lambda p: p["distance"] + p["size"] // 2 + 1,
    "wavelet": lambda p: 32,
}
"""Context in pixels on every side, from a filter's parameters."""

SEAM_ERROR = {"wavelet": 0.02, "nlm": 1e-6}
"""Largest difference (reflectance) between tiled and whole-image output of the filters that are not quite local.

Wavelet thresholds come from the statistics of the patch; non-local means adds up running sums, which round."""


def classical(
    name: str, scale: int = 1, sigma: float | tuple[float, ...] | None = None, **params: float | str
) -> Interpolation | BackProjection | Filter:
    """Make a classical method.

    Parameters
    ----------
    name : str
        A key of ``CLASSICAL``.
    scale : int
        Factor of the interpolations and of back-projection, at least 2; 1 for filters.
    sigma : float or tuple of float, optional
        Noise (standard deviation, reflectance) that a filter assumes, for all bands or for each.
    **params
        Parameters of the method (see ``filters``; ``kernel``, ``steps``, ``mtf`` and ``gain`` of "ibp").

    Returns
    -------
    Interpolation, BackProjection or Filter
        An enhancer: ``.spec``, and a call on float32 patches (N, C, P + 2 halo, P + 2 halo).

    Raises
    ------
    ModelError
        If there is no such method or parameter, or the scale or noise level does not fit.
    """
    if name not in CLASSICAL:
        raise ModelError(f"unknown method {name!r}: give one of {', '.join(CLASSICAL)}")
    if CLASSICAL[name]:
        if scale < 2:
            raise ModelError(f"{name} needs a scale of at least 2, got {scale}")
        return _resampler(name, scale, params)
    if scale != 1:
        raise ModelError(f"{name} is a filter and keeps the scale, got scale {scale}")
    return _filter(name, sigma, params)


def _resampler(name: str, scale: int, params: dict[str, float | str]) -> Interpolation | BackProjection:
    title = f"{name}-x{scale}"
    if name != "ibp":
        _check_names(name, params, {})
        return Interpolation(ModelSpec(title, "super-resolution", scale=scale, halo=KERNELS[name][1]), name)
    values: dict[str, float | str] = {"kernel": "lanczos", "steps": 8, "mtf": DEFAULT_MTF, "gain": 1.5}
    _check_names(name, params, values)
    values |= params
    kernel, steps, mtf = str(values["kernel"]), int(values["steps"]), float(values["mtf"])
    if kernel not in KERNELS or not 1 <= steps <= 50 or not 0 < mtf < 1:
        raise ModelError(f"ibp takes a kernel of {', '.join(KERNELS)}, 1 to 50 steps, an mtf in 0..1; got {values}")
    halo = back_projection_reach(scale, kernel, mtf, steps)
    spec = ModelSpec(title, "super-resolution", scale=scale, halo=halo)
    return BackProjection(spec, kernel, steps, mtf, float(values["gain"]))


def _filter(name: str, sigma: float | tuple[float, ...] | None, params: dict[str, float | str]) -> Filter:
    levels = DEFAULT_SIGMA if sigma is None else sigma
    sigmas = tuple(levels) if isinstance(levels, tuple) else (float(levels),)
    if not all(np.isfinite(s) and s >= 0 for s in sigmas):
        raise ModelError(f"{name}: the noise level must be a number from 0 up, got {sigma}")
    signature = inspect.signature(_filter_of(name)).parameters.values()
    defaults = {p.name: p.default for p in signature if p.default is not inspect.Parameter.empty}
    _check_names(name, params, defaults)
    spec = ModelSpec(
        name,
        "denoise",
        halo=_REACH[name](defaults | params),
        needs_noise=name in _BY_NOISE,
        halo_kind="measured" if name in SEAM_ERROR else "exact",
        seam_error=SEAM_ERROR.get(name),
    )
    return Filter(spec, name, sigmas, tuple(sorted(params.items())))


def _check_names(name: str, params: dict[str, float | str], known: Mapping[str, object]) -> None:
    if unknown := sorted(set(params) - set(known)):
        takes = f"takes {', '.join(known)}" if known else "takes no parameters"
        raise ModelError(f"{name} has no parameter {unknown[0]!r}: it {takes}")
