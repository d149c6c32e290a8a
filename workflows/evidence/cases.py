"""One experiment: images degraded by a rule, restored by any method, to be measured against what they were."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scenelift.models.degradations import (
    EUROSAT,
    SENTINEL2_NOISE,
    area_decimate,
    bicubic_decimate,
    mtf_decimate,
    mtf_of,
    sentinel2_sigma,
)
from scenelift.models.shipped import shipped
from scenelift.models.whole import Images, load_method, run_whole, spec_of
from scenelift.pipeline.errors import UsageError

DENOISE, SHARPEN = "denoise", "super-resolution"
INPUT, REFERENCE = "noisy", "reference"
"""Names in tables of the degraded images and of the undegraded ones."""
CLASSICAL: dict[str, tuple[str, ...]] = {
    DENOISE: ("bilateral", "wavelet", "nlm", "tv", "wiener", "median"),
    SHARPEN: ("nearest", "bilinear", "bicubic", "lanczos", "ibp"),
}
"""Methods without learning, by task."""
GRAMMAR = "xSCALE[:mtf=M|:area|:bicubic][:noise=LEVELS], noiseLEVELS, or sensor[:times=FACTOR]"
MAX_SCALE, MAX_LEVELS = 8, 255


@dataclass(frozen=True)
class Degradation:
    """How images are made worse: shrunk through a blur, then noise added."""

    scale: int = 1
    """Factor by which they are shrunk."""
    blur: str | float = "sensor"
    """What blurs before shrinking: "sensor" (each band's MTF), a transfer at Nyquist for all bands, "area" (the mean of
    scale x scale pixels) or "bicubic" (antialiased)."""
    noise: float = 0.0
    """White noise, levels of 255."""
    sensor: float = 0.0
    """Sentinel-2A's own signal-dependent noise, times this."""

    def __post_init__(self) -> None:
        if not 1 <= self.scale <= MAX_SCALE:
            raise UsageError(f"scales must be from 2 to {MAX_SCALE}, got 'x{self.scale}'")
        if not 0 <= self.noise <= MAX_LEVELS or not 0 <= self.sensor <= MAX_LEVELS:
            raise UsageError(f"noise must be from 0 to {MAX_LEVELS} levels (or times the sensor's), got {self.name!r}")
        if isinstance(self.blur, float) and not 0 < self.blur < 1:
            raise UsageError(f"the MTF at Nyquist must lie between 0 and 1, got {self.name!r}")
        if (self.scale > 1 or self.noise > 0) == (self.sensor > 0):
            raise UsageError("a degradation must shrink images, add white noise, or be the sensor's noise alone")

    @classmethod
    def parse(cls, text: str) -> Degradation:
        """Read a degradation's name: "x4", "x2:mtf=.35", "x2:area:noise=2", "noise25", "sensor", "sensor:times=2".

        Raises
        ------
        UsageError
            If it is none, or a number is out of range.
        """
        wrong = UsageError(f"no degradation {text!r}: give {GRAMMAR}, e.g. x2, x2:area:noise=2, noise25")
        head, *options = text.strip().split(":")
        kind, digits = re.fullmatch(r"([a-z]*)(.*)", head, re.DOTALL).groups()  # type: ignore[union-attr]
        kinds = [option for option in options if "=" not in option]
        given = dict(option.split("=", 1) for option in options if "=" in option)
        try:
            amount, numbers = float(digits or "nan"), {name: float(value) for name, value in given.items()}
        except ValueError:
            raise wrong from None
        if kind == "x" and not 2 <= amount <= MAX_SCALE:
            raise UsageError(f"scales must be from 2 to {MAX_SCALE}, got {text!r}")
        if kind == "x" and amount == int(amount) and kinds in ([], ["area"], ["bicubic"]):
            blur: str | float = numbers["mtf"] if "mtf" in numbers else (*kinds, "sensor")[0]
            if numbers.keys() <= {"noise"} or (numbers.keys() <= {"noise", "mtf"} and not kinds):
                return cls(int(amount), blur, numbers.get("noise", 0.0))
        if kind == "noise" and digits and not options:
            return cls(noise=amount)
        if head == "sensor" and not kinds and numbers.keys() <= {"times"}:
            return cls(sensor=numbers.get("times", 1.0))
        raise wrong

    @property
    def name(self) -> str:
        """What `parse` reads."""
        if self.scale == 1:
            times = "" if self.sensor == 1 else f":times={_plain(self.sensor)}"
            return f"noise{_plain(self.noise)}" if self.noise else f"sensor{times}"
        blur = f":mtf={_plain(self.blur)}" if isinstance(self.blur, float) else f":{self.blur}"
        noise = f":noise={_plain(self.noise)}" if self.noise else ""
        return f"x{self.scale}{'' if self.blur == 'sensor' else blur}{noise}"

    @property
    def title(self) -> str:
        """Name for people."""
        if self.sensor:
            times = "" if self.sensor == 1 else f", {_plain(self.sensor)} times as strong"
            return f"Sentinel-2's own signal-dependent noise{times}"
        noise = f"white noise of {_plain(self.noise)} levels of 255 ({self.noise * EUROSAT.level:.4f} reflectance)"
        if self.scale == 1:
            return noise.capitalize()
        blurs = {"sensor": "blurred by the sensor's MTF, decimated", "area": "means of areas", "bicubic": "antialiased"}
        blur = blurs.get(str(self.blur), f"blurred to an MTF of {self.blur} at Nyquist, decimated")
        return f"Super-resolution ×{self.scale} ({blur}{', ' + noise if self.noise else ''})"

    @property
    def task(self) -> str:
        """Task of the networks that undo it."""
        return SHARPEN if self.scale > 1 else DENOISE

    @property
    def unrestored(self) -> str:
        """Method that restores nothing: the degraded images, or their plain interpolation."""
        return "bicubic" if self.scale > 1 else INPUT

    def cut(self, images: Images) -> Images:
        """Return images (N, C, H, W) cut to whole multiples of the scale."""
        height, width = (n - n % self.scale for n in images.shape[2:])
        return images[..., :height, :width]

    def shrink(self, images: Tensor, bands: Sequence[str]) -> Tensor:
        """Return the images without the noise, (N, C, H / scale, W / scale), each by itself."""
        if self.scale == 1:
            return images
        if isinstance(self.blur, str) and self.blur != "sensor":
            shrink = {"area": area_decimate, "bicubic": bicubic_decimate}[self.blur]
            return torch.cat([shrink(image, self.scale) for image in images.split(1)])
        mtf = [self.blur] * len(bands) if isinstance(self.blur, float) else mtf_of(bands)
        return torch.cat([mtf_decimate(image, self.scale, mtf) for image in images.split(1)])

    def apply(
        self, images: Images, bands: Sequence[str], level: float = EUROSAT.level, seed: int = 0
    ) -> tuple[Images, NDArray[np.float32]]:
        """Degrade images.

        Parameters
        ----------
        images : ndarray of float32, shape (N, C, H, W)
            Reflectance; sides multiples of the scale.
        bands : sequence of str
            Name of each band, for its MTF and its noise; "" where it is not known.
        level : float
            Reflectance of one of 255 levels.
        seed : int
            Of the noise.

        Returns
        -------
        degraded : ndarray of float32, shape (N, C, H / scale, W / scale)
        sigma : ndarray of float32, shape (N, C)
            Standard deviation of the noise in each image and band, reflectance.
        """
        low = self.shrink(torch.from_numpy(np.ascontiguousarray(images, np.float32)), bands)
        if self.sensor:
            known = [band if band in SENTINEL2_NOISE else "B03" for band in bands]
            sigma = self.sensor * sentinel2_sigma(low, known)
        else:
            sigma = torch.full_like(low, self.noise * level)
        if self.noise or self.sensor:
            low = low + sigma * torch.randn(low.shape, generator=torch.Generator().manual_seed(seed))
        return low.numpy(), sigma.square().mean((2, 3)).sqrt().numpy()


@functools.cache
def networks_for(degradation: Degradation, names: tuple[str, ...], bands: int) -> tuple[str, ...]:
    """Return those of the networks that undo a degradation and take images of so many bands.

    Raises
    ------
    ModelError
        If there is no such network.
    """
    specs = {name: spec_of(name) for name in names}
    fitting = {name: spec for name, spec in specs.items() if spec.bands in (None, bands) and spec.out_bands is None}
    return tuple(n for n, s in fitting.items() if (s.task, s.scale) == (degradation.task, degradation.scale))


def shipped_networks() -> tuple[str, ...]:
    """Return the names of the shipped networks that denoise or sharpen."""
    return tuple(name for name in shipped() if spec_of(name).task in (DENOISE, SHARPEN))


def restore(
    degradation: Degradation, low: Images, sigma: NDArray[np.float32], methods: Sequence[str]
) -> Iterator[tuple[str, Images]]:
    """Yield each method's name and the images (N, C, H, W) that it makes of the degraded ones."""
    for name in methods:
        yield name, low if name == INPUT else run_whole(load_method(name, degradation.scale, images=low), low, sigma)


def _plain(number: float | str) -> str:
    return repr(number).removesuffix(".0")
