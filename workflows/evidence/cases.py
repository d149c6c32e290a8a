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
from scenelift.models.fitted import method_of
from scenelift.models.fitted.running import on_images
from scenelift.models.sensing import atmosphere
from scenelift.models.sensing.atmosphere import Air
from scenelift.models.shipped import shipped
from scenelift.models.whole import Images, load_method, run_whole, spec_of
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scenes.products.bands import wavelength

DENOISE, SHARPEN, DEHAZE = "denoise", "super-resolution", "dehaze"
INPUT, HAZY, REFERENCE = "noisy", "hazy", "reference"
"""Names in tables of the images with noise, under haze, and of the undegraded ones."""
CLASSICAL: dict[str, tuple[str, ...]] = {
    DENOISE: ("bilateral", "wavelet", "nlm", "tv", "wiener", "median"),
    SHARPEN: ("nearest", "bilinear", "bicubic", "lanczos", "ibp"),
    DEHAZE: ("dark-object", "dark-channel"),
}
"""Methods without learning, by task."""
GRAMMAR = "xSCALE[:mtf=M|:area|:bicubic][:noise=LEVELS], noiseLEVELS, sensor[:times=FACTOR], or hazeDEPTH"
MAX_SCALE, MAX_LEVELS, MAX_DEPTH = 8, 255, 5
TOGETHER = 16
"""Images that count as one scene under haze, where it is not known which are of one."""


@dataclass(frozen=True)
class Degradation:
    """How images are made worse: shrunk through a blur, then noise added; or put under haze."""

    scale: int = 1
    """Factor by which they are shrunk."""
    blur: str | float = "sensor"
    """What blurs before shrinking: "sensor" (each band's MTF), a transfer at Nyquist for all bands, "area" (the mean of
    scale x scale pixels) or "bicubic" (antialiased)."""
    noise: float = 0.0
    """White noise, levels of 255."""
    sensor: float = 0.0
    """Sentinel-2A's own signal-dependent noise, times this."""
    haze: float = 0.0
    """Optical depth of simulated haze at 550 nm."""

    def __post_init__(self) -> None:
        if not 1 <= self.scale <= MAX_SCALE:
            raise UsageError(f"scales must be from 2 to {MAX_SCALE}, got 'x{self.scale}'")
        if not 0 <= self.noise <= MAX_LEVELS or not 0 <= self.sensor <= MAX_LEVELS:
            raise UsageError(f"noise must be from 0 to {MAX_LEVELS} levels (or times the sensor's), got {self.name!r}")
        if isinstance(self.blur, float) and not 0 < self.blur < 1:
            raise UsageError(f"the MTF at Nyquist must lie between 0 and 1, got {self.name!r}")
        if not 0 <= self.haze <= MAX_DEPTH:
            raise UsageError(f"optical depths must be from 0 to {MAX_DEPTH}, got {self.name!r}")
        if (self.scale > 1 or self.noise > 0) + (self.sensor > 0) + (self.haze > 0) != 1:
            raise UsageError(
                "a degradation must shrink images, add white noise, or be the sensor's noise or haze alone"
            )

    @classmethod
    def parse(cls, text: str) -> Degradation:
        """Read a degradation's name: "x4", "x2:mtf=.35", "x2:area:noise=2", "noise25", "sensor:times=2", "haze0.3".

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
        if kind == "haze" and digits and not options:
            return cls(haze=amount)
        if head == "sensor" and not kinds and numbers.keys() <= {"times"}:
            return cls(sensor=numbers.get("times", 1.0))
        raise wrong

    @property
    def name(self) -> str:
        """What `parse` reads."""
        if self.haze:
            return f"haze{_plain(self.haze)}"
        if self.scale == 1:
            times = "" if self.sensor == 1 else f":times={_plain(self.sensor)}"
            return f"noise{_plain(self.noise)}" if self.noise else f"sensor{times}"
        blur = f":mtf={_plain(self.blur)}" if isinstance(self.blur, float) else f":{self.blur}"
        noise = f":noise={_plain(self.noise)}" if self.noise else ""
        return f"x{self.scale}{'' if self.blur == 'sensor' else blur}{noise}"

    @property
    def title(self) -> str:
        """Name for people."""
        if self.haze:
            return f"Haze of optical depth {_plain(self.haze)} at 550 nm"
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
        return DEHAZE if self.haze else SHARPEN if self.scale > 1 else DENOISE

    @property
    def unrestored(self) -> str:
        """Method that restores nothing: the degraded images, or their plain interpolation."""
        return HAZY if self.haze else "bicubic" if self.scale > 1 else INPUT

    def scenes(self, count: int) -> NDArray[np.int64]:
        """Return which scene each of so many images is of: haze is found in whole scenes, all else in an image alone.

        Images of a scene are taken from all over the list, so that one sorted by class gives scenes of many classes.
        """
        return np.arange(count) % -(-count // TOGETHER) if self.haze else np.arange(count)

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
            Of the noise, or of where the haze is thick.

        Returns
        -------
        degraded : ndarray of float32, shape (N, C, H / scale, W / scale)
        sigma : ndarray of float32, shape (N, C)
            Standard deviation of the noise in each image and band, reflectance.
        """
        if self.haze:
            air, scenes = Air(self.haze), self.scenes(len(images))
            return under_haze(images, bands, air, scenes, seed), np.zeros(images.shape[:2], np.float32)
        low = self.shrink(torch.from_numpy(np.ascontiguousarray(images, np.float32)), bands)
        if self.sensor:
            known = [band if band in SENTINEL2_NOISE else "B03" for band in bands]
            sigma = self.sensor * sentinel2_sigma(low, known)
        else:
            sigma = torch.full_like(low, self.noise * level)
        if self.noise or self.sensor:
            low = low + sigma * torch.randn(low.shape, generator=torch.Generator().manual_seed(seed))
        return low.numpy(), sigma.square().mean((2, 3)).sqrt().numpy()


def under_haze(images: Images, bands: Sequence[str], air: Air, scenes: NDArray[np.int64], seed: int = 0) -> Images:
    """Put images (N, C, H, W) under haze, which is as thick for all scenes, and lies elsewhere in each image.

    Parameters
    ----------
    images : ndarray
        Reflectance.
    bands : sequence of str
        Name of each band, for its wavelength; three without names are red, green and blue.
    air : Air
    scenes : ndarray of int, shape (N,)
        Which images are of one scene.
    seed : int
    """
    found = [wavelength(name, {}) for name in bands]
    unnamed = len(found) == len(atmosphere.COLOURS) and not any(found)
    at = atmosphere.COLOURS if unnamed else [nm or atmosphere.REFERENCE for nm in found]
    generator = torch.Generator().manual_seed(seed)
    fields = atmosphere.thickness(len(images), (images.shape[2], images.shape[3]), generator)
    hazy = np.empty_like(images)
    for scene in np.unique(scenes):
        own = scenes == scene
        hazy[own] = atmosphere.through(torch.from_numpy(images[own]), air, fields[torch.from_numpy(own)], at).numpy()
    return hazy


def by_scenes(name: str, images: Images, scenes: NDArray[np.int64]) -> Images:
    """Run a method on images, after it was fitted to each scene by itself."""
    out = np.empty_like(images)
    for scene in np.unique(scenes):
        own = images[scenes == scene]
        out[scenes == scene] = (
            on_images(name, own) if method_of(name) else run_whole(load_method(name, images=own), own)
        )
    return out


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
        if name == degradation.unrestored and degradation.scale == 1:
            yield name, low
        elif degradation.haze:
            yield name, by_scenes(name, low, degradation.scenes(len(low)))
        else:
            yield name, run_whole(load_method(name, degradation.scale, images=low), low, sigma)


def _plain(number: float | str) -> str:
    return repr(number).removesuffix(".0")
