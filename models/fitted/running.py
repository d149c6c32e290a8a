"""Fitted methods as enhancers, and what they are fitted by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenelift.models.errors import ModelError
from scenelift.models.fitted import METHODS, VISUAL, curves, haze, method_of, parameters, stripes
from scenelift.models.fitted.views import ImageView, View, pixels, rounded
from scenelift.models.spec import PERCENTILES, ModelSpec, Task

Patches = NDArray[np.float32]


@dataclass(frozen=True)
class Method:
    """One method: how it is fitted, and how it runs."""

    task: Task
    fit: Callable[[View, dict[str, float]], dict[str, Any]]
    run: Callable[..., Patches]
    halo: int = 0
    positioned: bool = False


ALL: dict[str, Method] = {
    "stretch": Method("contrast", curves.fit_stretch, curves.run_stretch),
    "gamma": Method("contrast", curves.fit_gamma, curves.run_gamma),
    "clahe": Method("contrast", curves.fit_clahe, curves.run_clahe, positioned=True),
    "dark-object": Method("dehaze", haze.fit_dark_object, haze.run_dark_object),
    "dark-channel": Method("dehaze", haze.fit_dark_channel, haze.run_dark_channel, halo=haze.HALO),
    "destripe": Method("destripe", stripes.fit_destripe, stripes.run_destripe, positioned=True),
}


@dataclass(frozen=True)
class FittedMethod:
    """An enhancer whose numbers were found in the whole scene."""

    spec: ModelSpec
    method: str
    options: dict[str, float]
    fitted: dict[str, Any] = field(repr=False)

    def __call__(self, patches: Patches, origins: NDArray[np.int64] | None = None) -> Patches:
        """Return the cores of patches (N, C, P + 2 halo, P + 2 halo).

        Parameters
        ----------
        patches : ndarray of float32
        origins : ndarray of int, shape (N, 2)
            Row and column of the first pixel of each core in the scene, for methods that depend on it.
        """
        run = ALL[self.method].run
        if not self.spec.positioned:
            return run(patches, self.fitted, self.options)
        if origins is None:
            raise ModelError(f"{self.spec.name} must be told where a patch lies")
        return run(patches, self.fitted, self.options, origins)


def spec_of(name: str, bands: int | None = None) -> ModelSpec:
    """Return the contract of a method; see `fitted_method` for the name."""
    method = ALL[method_of(name) or ""]
    return ModelSpec(name, method.task, halo=method.halo, bands=bands, positioned=method.positioned)


def fit(name: str, view: View) -> dict[str, Any]:
    """Find a method's numbers in a scene.

    Parameters
    ----------
    name : str
        A key of `METHODS`, and numbers of the user's: "stretch:low=1:high=99"; else a network that is told the
        percentiles of each band.
    view : View

    Returns
    -------
    dict
        Plain JSON values; those of keys that begin with "_" are many.

    Raises
    ------
    ModelError
        If a number is unknown or out of range.
    """
    method = method_of(name)
    if method is None:
        found = np.concatenate([np.percentile(plain, PERCENTILES) for plain in pixels(view)])
        return {"percentiles": rounded(found)}
    options = parameters(name)
    return {"bands": view.bands, **ALL[method].fit(view, options)}


def fitted_method(name: str, fitted: dict[str, Any]) -> FittedMethod:
    """Return a method that was fitted to a scene by `fit` as an enhancer."""
    method = method_of(name)
    if method is None:
        raise ModelError(f"no such method: {name}; give one of {', '.join(METHODS)}")
    return FittedMethod(spec_of(name, fitted["bands"]), method, parameters(name), fitted)


def provenance(name: str, coefficients: str) -> dict[str, Any]:
    """Return what an output says of a fitted method: its numbers, many of them by their digest, and what it made."""
    fitted = json.loads(coefficients)
    few = {key: value for key, value in fitted.items() if not key.startswith("_")}
    many = {
        f"{key[1:]}_sha256": hashlib.sha256(text.encode()).hexdigest()
        for key, text in fitted.items()
        if key.startswith("_")
    }
    product = "visual" if method_of(name) in VISUAL else "reflectance"
    return {"fitted": few | many, "product": product}


def on_images(name: str, images: Patches) -> Patches:
    """Fit a method to images (N, C, H, W) of one scene, which lie below each other in it, and run it on each.

    Edges of images are continued by reflection.
    """
    count, bands, height, width = images.shape
    made = fitted_method(name, fit(name, ImageView(images.transpose(1, 0, 2, 3).reshape(bands, -1, width))))
    halo = made.spec.halo
    wide = np.pad(images, ((0, 0), (0, 0), (halo, halo), (halo, halo)), mode="reflect")
    if not made.spec.positioned:
        return made(wide)
    return made(wide, np.array([(number * height, 0) for number in range(count)]))


def on_image(name: str, image: Patches) -> Patches:
    """Fit a method to one image (C, H, W) and run it: the image is the scene."""
    return on_images(name, image[None])[0]
