"""Whole images through a model in one pass, continued by reflection at their edges as the engine does."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from scenelift.models.catalog import find, is_fitted, load_spec, with_settings
from scenelift.models.checkpoint import load_checkpoint
from scenelift.models.classical import CLASSICAL
from scenelift.models.classical.classical import classical
from scenelift.models.enhancer import TorchEnhancer
from scenelift.models.errors import ModelError
from scenelift.models.extras import Extra, apply_extras
from scenelift.models.fitted.running import fit
from scenelift.models.fitted.views import ImageView
from scenelift.models.loading import load
from scenelift.models.networks.layers import mirror
from scenelift.models.sensing.blurs import Blur
from scenelift.models.sensing.estimation import cut_tiles, estimate_blur
from scenelift.models.shipped import checkpoint_path
from scenelift.models.spec import ModelSpec
from scenelift.models.wrappers import blend

Images = NDArray[np.float32]
"""(N, C, H, W) reflectance."""


def run_whole(model: Any, images: Images, sigma: NDArray[np.float32] | None = None) -> Images:
    """Run a model over whole images.

    Parameters
    ----------
    model : enhancer
        A classical method, or a network with its contract (`scenelift.models.enhancer.TorchEnhancer`).
    images : ndarray of float32, shape (N, C, H, W)
        Reflectance. The prediction of an image does not depend on the others.
    sigma : ndarray, optional
        Noise level of each image and band, shape (N, C), for models that take one; default: the model's own.

    Returns
    -------
    ndarray of float32, shape (N, C', scale * H, scale * W)
    """
    spec = model.spec
    height, width = images.shape[2:]
    rows, columns = (mirror(n, spec.halo, -n % spec.multiple_of).numpy() for n in (height, width))
    patches = images[:, :, rows[:, None], columns]
    out = model(patches, sigma) if spec.needs_noise and sigma is not None else model(patches)
    return np.asarray(out[:, :, : height * spec.scale, : width * spec.scale])


def load_method(
    name: str,
    scale: int = 1,
    *,
    precision: str = "fp32",
    extras: tuple[Extra, ...] = (),
    images: Images | None = None,
) -> Any:
    """Load a method by the name that tables know it by.

    Parameters
    ----------
    name : str
        A classical method ("lanczos"), whatever `enhance` takes as a model, or a blend of two checkpoints, written
        FIRST~SECOND@SHARE.
    scale : int
        Of a classical method.
    precision : {"fp32", "bf16"}
    extras : tuple of Extra
        What is done around a network.
    images : ndarray, optional
        (N, C, H, W) images of one sensor, from which blur and noise are estimated for networks that want to know them;
        without, such a network takes Sentinel-2's blur and no noise. Networks that are told the percentiles of a scene
        are told those of these images.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    if name in CLASSICAL:
        return classical(name, scale)
    settings: dict[str, Any] = {"precision": precision, "extras": extras}
    if images is not None and spec_of(name).needs_blur:
        settings |= _conditions(images)
    if images is not None and "~" not in name and is_fitted(name):
        below = images.transpose(1, 0, 2, 3).reshape(images.shape[1], -1, images.shape[3])
        settings["coefficients"] = json.dumps(fit(name, ImageView(below)))
    if "~" not in name:
        return load(with_settings(find(name), threads=torch.get_num_threads(), **settings))
    (one, spec), (other, _), share = _blended(name)
    if spec.needs_blur:
        raise ModelError(f"{name}: a network that is told the blur is blended by --realism, not by ~")
    module, spec = apply_extras(extras, blend(one, other, share), spec, Blur())
    return TorchEnhancer(module, spec, precision=precision, threads=torch.get_num_threads())


def _conditions(images: Images) -> dict[str, Any]:
    """Return the blur and the noise of each band of images of one sensor, as settings of a model."""
    bands = [np.concatenate([cut_tiles(image[band]) for image in images]) for band in range(images.shape[1])]
    found = estimate_blur(bands)
    return {
        "blur": tuple(each.blur if each else Blur() for each in found),
        "noise": tuple(each.sigma if each else 0.0 for each in found),
    }


def spec_of(name: str) -> ModelSpec:
    """Return the contract of a network that `load_method` loads.

    Raises
    ------
    ModelError
        If there is no such network.
    """
    return _blended(name)[0][1] if "~" in name else load_spec(find(name))


def _blended(name: str) -> tuple[tuple[nn.Module, ModelSpec], tuple[nn.Module, ModelSpec], float]:
    pair, _, share = name.partition("@")
    try:
        part = float(share)
    except ValueError:
        raise ModelError(f"a blend must be FIRST~SECOND@SHARE, got {name!r}") from None
    one, other = (_checkpoint(half) for half in pair.split("~", 1))
    return one, other, part


def _checkpoint(name: str) -> tuple[nn.Module, ModelSpec]:
    path = checkpoint_path(name)
    if path is None:
        raise ModelError(f"only checkpoints and shipped networks can be blended, got {name!r}")
    return load_checkpoint(path, valid=True)
