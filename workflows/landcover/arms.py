"""Images spoilt by a rule and mended by every method: the arms of the land-cover experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from scenelift.models.catalog import find, load_spec, shipped
from scenelift.models.classical.classical import classical
from scenelift.models.degradations import SENTINEL2_MTF, mtf_decimate, sentinel2_sigma
from scenelift.models.errors import ModelError
from scenelift.models.whole import Images, answer_of, run_classical
from scenelift.workflows.training.images import EIGHT_BIT_GAIN, RGB

INTACT = "HR"
FILTERS = ("bilateral", "wavelet", "nlm")
RESAMPLERS = ("lanczos", "ibp")
CASES = ("x2", "x4", "noise5", "noise15", "noise25", "noise50", "sensor")
PREFERRED = {
    "x2": (("sr-x2-rgb", "sr-x2"), ("sr-x2-rgb-taught",)),
    "x4": (("sr-x4-rgb-deep", "sr-x4"), ("sr-x4-rgb-taught",), ("sr-x4-gan",)),
    "noise": (("denoise-rgb-deep", "denoise"), ("denoise-rgb-taught",)),
}
"""Networks by what they undo: those nearest to the truth, taught by a classifier, taught by a judge; the first of each
that fits is taken."""


@dataclass(frozen=True)
class Case:
    """One way to spoil images."""

    name: str
    """"x2", "x4", "noise5" … (levels of 255) or "sensor" (Sentinel-2's own noise)."""

    def __post_init__(self) -> None:
        number = self.name.removeprefix("noise").removeprefix("x")
        sized = self.name.startswith("x") or self.name.startswith("noise")
        if self.name != "sensor" and not (sized and number.isdigit() and 1 <= int(number) <= 255):
            raise ModelError(f"no case {self.name!r}: give x2, x4, noise25 (levels of 255) or sensor")
        if self.name.startswith("x") and not 2 <= self.amount <= 8:
            raise ModelError(f"scales are 2 to 8, got {self.name!r}")

    @property
    def amount(self) -> int:
        """The scale, or the levels of noise; 1 for the sensor's noise."""
        number = self.name.removeprefix("noise").removeprefix("x")
        return int(number) if number.isdigit() else 1

    @property
    def scale(self) -> int:
        """Factor by which the images are shrunk."""
        return self.amount if self.name.startswith("x") else 1

    @property
    def title(self) -> str:
        """Name for people."""
        if self.scale > 1:
            return f"×{self.scale}: blurred by the sensor's MTF, decimated, enlarged again"
        if self.name == "sensor":
            return "Sentinel-2's own signal-dependent noise"
        return f"White noise of {self.amount} levels (reflectance {self.amount * EIGHT_BIT_GAIN:.4f})"

    @property
    def spoilt(self) -> str:
        """Name of the arm that nothing mended."""
        return "bicubic" if self.scale > 1 else "noisy"

    @property
    def classical(self) -> tuple[str, ...]:
        """Names of the arms that a method without learning mended."""
        return RESAMPLERS if self.scale > 1 else FILTERS

    @property
    def undone_by(self) -> tuple[str, int]:
        """Task and scale of the networks that undo it."""
        return ("super-resolution", self.scale) if self.scale > 1 else ("denoise", 1)


def networks_for(case: Case, wanted: Sequence[str] | None, bands: int) -> tuple[str, ...]:
    """Return the networks of a case: those of the wanted ones that undo it, or of those that ship the one nearest to
    the truth, the one taught by a classifier and the one taught by a judge.

    Raises
    ------
    ModelError
        If a wanted network does not exist.
    """
    if wanted is not None:
        specs = {name: load_spec(find(name)) for name in wanted}
        return tuple(n for n, s in specs.items() if (s.task, s.scale) == case.undone_by and s.bands in (None, bands))
    choices = PREFERRED.get(case.name, PREFERRED["noise"] if case.scale == 1 else ())
    fitting = ([n for n in names if n in shipped() and load_spec(find(n)).bands in (None, bands)] for names in choices)
    return tuple(names[0] for names in fitting if names)


def make_arms(case: Case, images: Images, networks: Sequence[str], seed: int = 0) -> dict[str, Images]:
    """Return each arm's images, on the grid of the intact ones.

    Parameters
    ----------
    case : Case
    images : ndarray of float32, shape (N, C, H, W)
        Reflectance; sides multiples of the scale.
    networks : sequence of str
    seed : int
        Of the noise.

    Returns
    -------
    dict
        "HR", the spoilt images, the classical methods, the networks.
    """
    low, sigma = spoil(case, images, seed)
    arms = {INTACT: images}
    if case.scale > 1:
        arms |= {name: run_classical(classical(name, case.scale), low) for name in (case.spoilt, *case.classical)}
    else:
        arms[case.spoilt] = low
        arms |= {name: _filtered(name, low, sigma) for name in case.classical}
    return arms | {name: answer_of(name, low, sigma).images for name in networks}


def spoil(case: Case, images: Images, seed: int) -> tuple[Images, NDArray[np.float32]]:
    """Return the spoilt images, (N, C, H / scale, W / scale), and the noise in each band, (N, C) reflectance."""
    names = RGB if images.shape[1] == 3 else ("B03",) * images.shape[1]
    intact = torch.from_numpy(images)
    if case.scale > 1:
        low = mtf_decimate(intact, case.scale, [SENTINEL2_MTF[name] for name in names])
        return low.numpy(), np.zeros(images.shape[:2], np.float32)
    if case.name == "sensor":
        sigma = sentinel2_sigma(intact, names)
    else:
        sigma = torch.full_like(intact, case.amount * EIGHT_BIT_GAIN)
    draw = torch.randn(intact.shape, generator=torch.Generator().manual_seed(seed))
    return (intact + sigma * draw).numpy(), sigma.square().mean((2, 3)).sqrt().numpy()


def _filtered(name: str, noisy: Images, sigma: NDArray[np.float32]) -> Images:
    told = sigma.mean(1)
    return np.stack([run_classical(classical(name, 1, float(s)), x[None])[0] for s, x in zip(told, noisy, strict=True)])
