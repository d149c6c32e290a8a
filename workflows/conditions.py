"""What networks are told about a scene: noise, blur and which bands are colours, once, before any block is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenelift.models.sensing.blurs import MTF_RANGE, Blur
from scenelift.models.sensing.estimation import CANDIDATES, BlurEstimate, cut_tiles, estimate_blur, quantile
from scenelift.models.sensing.sensors import SENSORS, parse_blur, sensor_blur
from scenelift.pipeline.scenes.noise import estimate_noise, scene_noise
from scenelift.pipeline.scenes.products.bands import Label, common_name
from scenelift.pipeline.scenes.scenes import Readable

UNSURE = 0.5
"""Probability of the kind of blur below which a summary says that it is a guess."""
POSSIBLE = 0.03
"""Probability from which on a resampling is one that the pixels may have been made by."""
NOISIEST = 0.008
"""Largest noise (reflectance) that super-resolution networks were trained for."""
SOME, MUCH = (0.0015, 0.004), (0.006, 0.0095)
"""Noise (reflectance) by either estimate between which the second one takes over, see `noise_of`."""
FEW = 16
"""Tiles up to which the learned estimate is coarse, and the second one takes over from half as much noise on."""
IMAGES = 128
"""Images of a set that blur and noise are found in."""
ASSUMED = Blur("gaussian", 0.26)
"""Of a band in which nothing is to be seen."""
COLOURS = "red", "green", "blue"


@dataclass(frozen=True)
class Conditions:
    """Blur and noise of a scene's bands, and where the numbers come from."""

    blur: tuple[Blur, ...]
    noise: tuple[float, ...]
    """Standard deviation in each band, reflectance."""
    origin: str
    """"given", "estimated", or the sensor whose published values they are."""
    warnings: tuple[str, ...] = ()
    chances: tuple[tuple[float, ...] | None, ...] = ()
    """Probability in each band of each of `estimation.CANDIDATES`, where the blur was estimated."""
    statistics: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """"brightness" and "contrast" of each band: medians over tiles of mean and standard deviation, reflectance."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        blur = [{"kind": b.kind} | ({"mtf": b.mtf} if b.kind == "gaussian" else {}) for b in self.blur]
        return {"blur": blur, "noise": [round(sigma, 6) for sigma in self.noise], "origin": self.origin}

    def plausible(self, count: int) -> list[tuple[Blur, ...]]:
        """Return blurs of the bands that the scene may have, each as often as it is likely; all alike if known.

        The first few are as good a sample as all: quantiles in van der Corput's order.
        """
        if not any(self.chances):
            return [self.blur] * count
        pairs = list(zip(self.chances, self.blur, strict=True))
        points = [_van_der_corput(number + 1) for number in range(count)]
        return [tuple(quantile(chances, at) if chances else blur for chances, blur in pairs) for at in points]

    def others(self) -> list[tuple[Blur, float]]:
        """Return the resamplings that may have made the pixels instead of what is told, and how likely each is.

        Only those that blur less: what is told too strong a blur sharpens what is sharp.
        """
        known = [chances for chances in self.chances if chances]
        told = float(np.mean([blur.at_nyquist(2) for blur in self.blur]))
        mean = np.mean(known, 0) if known else np.zeros(len(CANDIDATES))
        return [
            (blur, round(float(chance), 3))
            for blur, chance in zip(CANDIDATES, mean, strict=True)
            if blur.kind != "gaussian" and chance >= POSSIBLE and blur.at_nyquist(2) > told
        ]

    def lines(self, denoised: bool = False) -> tuple[str, ...]:
        """Return what a summary says of them; `denoised`: of a job that denoises before super-resolution."""
        warnings = [line for line in self.warnings if not (denoised and line == _too_noisy(self.noise))]
        return (self.describe(), *warnings)

    def describe(self) -> str:
        """Return one line for people."""
        listed = [blur.describe() for blur in self.blur]
        blurs = listed[0] if len(set(listed)) == 1 else ", ".join(listed)
        noise = dict.fromkeys(f"{sigma:.4f}" for sigma in (min(self.noise), max(self.noise)))
        return f"blur {blurs} ({self.origin}); noise {' to '.join(noise)} reflectance"


def scene_conditions(
    scene: Readable, blur: str = "auto", noise: float | None = None, *, published: bool = True
) -> Conditions:
    """Find the blur and the noise of each band.

    Parameters
    ----------
    scene : Readable
    blur : str
        See `scenelift.models.sensing.sensors.parse_blur`.
    noise : float, optional
        A known level in the scene's own units (DN); None: estimated.
    published : bool
        Whether the blur of a sensor that is known is taken from what is published of it, and not estimated.

    Raises
    ------
    ModelError
        If ``blur`` is nothing that can be understood, or does not fit the bands.
    """
    tiles = _tiles(scene)
    return replace(_found(scene, tiles, blur, noise, published), statistics=_statistics(tiles))


def noise_of(learned: float, eigenvalues: float, tiles: int) -> float:
    """Return the noise by two estimates, each of which is right where the other is wrong.

    In clean crops the network of `scenelift.models.sensing.estimation` finds some 0.0002 (median), and added noise
    within a fifth. The smallest eigenvalues of patches (`scenelift.pipeline.scenes.noise`) find 0.003 in clean crops of
    Sentinel-2 (0.045 in an aerial image), since fine texture has no smaller ones; strong noise within a few percent.

    Parameters
    ----------
    learned, eigenvalues : float
        Standard deviations, reflectance.
    tiles : int
        That the network saw.
    """
    less = 2 if tiles <= FEW else 1
    share = min(_ramp(less * learned, *SOME), _ramp(less * eigenvalues, *MUCH))
    return (1 - share) * learned + share * eigenvalues


def _ramp(value: float, low: float, high: float) -> float:
    return min(max((value - low) / (high - low), 0.0), 1.0)


def image_noise(band: np.ndarray) -> float:
    """Return the noise of one band (H, W) of an image, reflectance; see `noise_of`."""
    tiles, level = cut_tiles(band), estimate_noise(band)
    (found,) = estimate_blur([tiles])
    return noise_of(found.sigma, level, len(tiles)) if found else level


def images_conditions(images: Sequence[NDArray[np.float32]]) -> Conditions:
    """Find the blur and the noise of images (C, H, W) of one sensor, as of windows of one scene.

    Parameters
    ----------
    images : sequence of ndarray
        Reflectance, of one band count; of many, `IMAGES` spread over all are looked at.
    """
    images = images[:: -(-len(images) // IMAGES)]
    bands = range(len(images[0]))
    tiles = [_same_side([cut_tiles(image[band]) for image in images]) for band in bands]
    eigenvalues = [float(np.median([estimate_noise(image[band]) for image in images])) for band in bands]
    found = estimate_blur(tiles)
    return _estimated(found, _levels(found, eigenvalues, tiles))


def _found(scene: Readable, tiles: list[np.ndarray], blur: str, noise: float | None, published: bool) -> Conditions:
    names = [band.description or "" for band in scene.bands]
    given = parse_blur(blur, names)
    if noise is None:
        with ThreadPoolExecutor(1) as beside:  # both are arithmetic of arrays, of about the same length
            eigenvalues = beside.submit(scene_noise, scene)
            found = estimate_blur(tiles)
        levels = _levels(found, eigenvalues.result(), tiles)
    else:
        found = estimate_blur(tiles) if given is None else (None,) * len(names)
        levels = tuple(noise * abs(band.scale) for band in scene.bands)
    if given is not None:
        word = blur.strip().lower()
        origin = f"{word}, published" if word in SENSORS else "given"
        return Conditions(given, levels, origin, tuple(_warnings(given, levels, None)))
    sharpened = any(scene.coarse.values())  # what is published is of their own pixels
    if published and scene.sensor == "sentinel-2" and not sharpened:
        return Conditions(sensor_blur("sentinel-2", names), levels, "sentinel-2, published")
    return _estimated(found, levels)


def _estimated(found: Sequence[BlurEstimate | None], levels: tuple[float, ...]) -> Conditions:
    blurs = tuple(each.blur if each else ASSUMED for each in found)
    certainty = next((each.certainty for each in found if each), None)
    origin = "assumed: nothing to tell it by" if certainty is None else "estimated"
    chances = tuple(each.chances if each else None for each in found)
    return Conditions(blurs, levels, origin, tuple(_warnings(blurs, levels, certainty)), chances)


def _levels(
    found: Sequence[BlurEstimate | None], eigenvalues: Sequence[float], tiles: Sequence[np.ndarray]
) -> tuple[float, ...]:
    """Return the noise of each band by both estimates."""
    both = zip(found, eigenvalues, tiles, strict=True)
    return tuple(noise_of(each.sigma, level, len(seen)) if each else level for each, level, seen in both)


def _van_der_corput(number: int) -> float:
    """Return a number's binary digits mirrored at the point: 1/2, 1/4, 3/4, 1/8, 5/8 ..."""
    return int(f"{number:b}"[::-1], 2) / 2 ** number.bit_length()


def _tiles(scene: Readable) -> list[np.ndarray]:
    """Return for each band the tiles (n, side, side) of a fixed sample of windows that no missing pixel touches."""
    tiles: list[list[np.ndarray]] = [[] for _ in scene.bands]
    for region in scene.sample:
        for kept, values, valid in zip(tiles, region.values, region.valid, strict=True):
            kept.append(cut_tiles(values, valid))
    return [_same_side(kept) for kept in tiles]


def _statistics(tiles: list[np.ndarray]) -> dict[str, tuple[float, ...]]:
    found = [(t.mean((1, 2)), t.std((1, 2))) if len(t) else (np.array([np.nan]),) * 2 for t in tiles]
    means, deviations = zip(*((float(np.median(m)), float(np.median(s))) for m, s in found), strict=True)
    return {"brightness": means, "contrast": deviations}


def _same_side(parts: list[np.ndarray]) -> np.ndarray:
    """Put the tiles of windows together; those of a window at the edge that is smaller than a tile are left out."""
    side = max(part.shape[1] for part in parts)
    return np.concatenate([part for part in parts if part.shape[1] == side])


def _warnings(blurs: Sequence[Blur], noise: Sequence[float], certainty: float | None) -> list[str]:
    low, high = MTF_RANGE
    found = []
    outside = [b.mtf for b in blurs if b.kind == "gaussian" and not low < b.mtf < high]
    if outside:
        found.append(f"blur outside what the networks were trained for (MTF {low} to {high}): {outside[0]:g}")
    if max(noise) > NOISIEST:
        found.append(_too_noisy(noise))
    if certainty is not None and certainty < UNSURE:
        found.append(f"the kind of blur is uncertain (probability {certainty:.2f}): give --blur if you know it")
    return found


def _too_noisy(noise: Sequence[float]) -> str:
    return f"more noise than super-resolution was trained for ({NOISIEST}): {max(noise):.4f}; denoise first"


def band_names(scene: Readable) -> list[str]:
    """Return the name of each band, "band 1" and so on for those without."""
    return [band.description or f"band {number}" for number, band in enumerate(scene.bands, start=1)]


def colour_bands(scene: Readable) -> tuple[int, int, int] | None:
    """Return the 0-based bands with red, green and blue, by name or by colour interpretation; None without them.

    A name is the colour's, or holds a Sentinel-2 code ("T33UUP_20240501T100031_B04_10m"); tags may hold a common name.
    """
    labels = [Label((band.description or "").strip(), band.color, band.tags) for band in scene.bands]
    found = []
    for word in COLOURS:
        at = [i for i, label in enumerate(labels) if word in (common_name(label), (label.name or "").lower())]
        at = at or [i for i, label in enumerate(labels) if label.color == word]
        if len(at) != 1:
            return None
        found.append(at[0])
    return (found[0], found[1], found[2])
