"""Small images with a known truth: degraded by rule, enhanced as the engine would, mirrored at their edges."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scenelift.models.wald import coarsen
from scenelift.pipeline.enhance import Enhancer
from scenelift.pipeline.errors import UsageError
from scenelift.workflows.training.images import balanced, read_images

Image = NDArray[np.float32]
"""Float32 reflectance, shape (C, H, W)."""

LEVEL = 2750 / 255 / 10000
"""Reflectance of one level of EuroSAT's 8-bit images."""


def data_folder() -> Path:
    """Return the folder that ``SCENELIFT_DATA`` names.

    Raises
    ------
    UsageError
        If the variable is not set or names no folder.
    """
    name = os.environ.get("SCENELIFT_DATA", "")
    if not name or not Path(name).is_dir():
        raise UsageError("set SCENELIFT_DATA to the folder with the images, or name an archive of your own with --data")
    return Path(name)


def validation_images(each: int, seed: int = 0, archive: Path | None = None) -> tuple[list[Image], list[str]]:
    """Return ``each`` images of every class of an archive of images, and their classes.

    Parameters
    ----------
    each : int
        Images of every class; the same ones for the same seed.
    seed : int
    archive : Path, optional
        A zip of equally large 8-bit images in folders named by class; by default EuroSAT's validation split.

    Returns
    -------
    list of ndarray
        Reflectance, shape (C, H, W).
    list of str
    """
    patches = read_images(archive or data_folder() / "eurosat_rgb_val.zip")
    chosen = balanced(patches.labels, each, seed)
    images = list(patches.reflectance(chosen).numpy())
    return images, [patches.labels[i] for i in chosen]


def with_noise(image: Image, sigma: float, seed: int) -> Image:
    """Add white Gaussian noise of standard deviation ``sigma`` (reflectance), the same for the same seed."""
    draw = np.random.default_rng(seed).standard_normal(image.shape, np.float32)
    return image + np.float32(sigma) * draw


def shrunk(image: Image, scale: int) -> Image:
    """Return the image that a sensor of ``scale`` times coarser pixels would see (Wald's protocol, MTF 0.26)."""
    return coarsen(image, scale, [None] * len(image))


def enhance_image(enhancer: Enhancer, image: Image) -> Image:
    """Run a model over a whole image in one pass, mirrored at its edges like a scene.

    Parameters
    ----------
    enhancer : Enhancer
    image : ndarray of float32, shape (C, H, W)

    Returns
    -------
    ndarray of float32, shape (C', scale * H, scale * W)
    """
    spec = enhancer.spec
    height, width = image.shape[1:]
    side = -(-max(height, width) // spec.multiple_of) * spec.multiple_of
    halo = spec.halo
    pads = ((0, 0), (halo, halo + side - height), (halo, halo + side - width))
    out = enhancer(np.pad(image, pads, mode="reflect")[None])[0]
    return out[:, : height * spec.scale, : width * spec.scale]
