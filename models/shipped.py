"""Networks by their files: those that come with the package, and checkpoints given by path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scenelift.models.checkpoint import checkpoint_digest, load_checkpoint
from scenelift.models.errors import ModelError
from scenelift.models.spec import ModelSpec

if TYPE_CHECKING:  # a name is looked up without waiting for torch
    from torch import nn

    from scenelift.models.networks.classifier import Classifier

WEIGHTS = Path(__file__).parent / "weights"
VARIANTS = ("gan", "taught")
"""Name suffixes of perceptual variants: adversarial (gan) and classifier-driven (taught)."""
FOR_SENTINEL2 = "-sentinel2"
"""Name suffix of the networks for Sentinel-2's blur alone."""
LEAN = "-lean"
"""Name suffix of networks of a quarter of the multiplications, which are told blur and noise too."""
CLASSIFIER = "landcover-eurosat"
"""Name of the default classifier of images."""


def shipped() -> dict[str, Path]:
    """Return the models that come with the package: name to checkpoint."""
    return {path.stem: path for path in sorted(WEIGHTS.glob("*.safetensors"))}


def card(name: str) -> dict[str, Any] | None:
    """Return the card of a shipped model or of a checkpoint: how it was trained and what it scored; None without one.

    A checkpoint's lies beside it, and is its own only if it names its digest.
    """
    own = name.endswith(".safetensors")
    path = Path(name).with_suffix(".json") if own else WEIGHTS / f"{name}.json"
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found if not own or found["sha256"] == checkpoint_digest(name) else None
    except (ValueError, TypeError, KeyError):
        if own:  # another file that happens to have this name
            return None
        raise


def work(bands: int | None, about: dict[str, Any]) -> float:
    """Return multiplications for one pixel of one band of the output; 0 where a card does not say.

    Each weight is used once a pixel of the grid on which the convolutions run: the input's, which has scale ** 2 fewer
    pixels than the output; a denoiser's has 4 times fewer.

    Parameters
    ----------
    bands : int, optional
        That the network takes together; None: each by itself.
    about : dict
        Its `card`.
    """
    if about.get("task") not in ("super-resolution", "denoise"):
        return 0.0
    pixels = about["scale"] ** 2 if about["task"] == "super-resolution" else 4
    return float(about["parameters"]) / pixels / (bands or 1)


def joint_of(name: str) -> str | None:
    """Return the shipped network for red, green and blue together that belongs to a shipped band-agnostic one."""
    plain = name.removesuffix(LEAN)
    joint = f"{plain}-rgb{name[len(plain) :]}"
    return joint if {name, joint} <= shipped().keys() else None


def of_quality(name: str, quality: str) -> str:
    """Return the shipped network of a quality, "lean" or "best", that does what a named one does.

    Returns
    -------
    str
        The name itself where there is but one.
    """
    plain = name.removesuffix(LEAN)
    found = plain + LEAN if quality == "lean" else plain
    return found if {plain, plain + LEAN} <= shipped().keys() else name


def checkpoint_path(name: str) -> Path | None:
    """Return the file of a shipped model or a checkpoint given by path, None for other names."""
    if name in shipped():
        return shipped()[name]
    if name.endswith(".safetensors"):
        if not Path(name).is_file():
            raise ModelError(f"no such checkpoint: {name}")
        return Path(name)
    return None


def load_unchanged(path: Path, digest: str | None) -> tuple[nn.Module, ModelSpec]:
    """Load a checkpoint, unpadded, that must still be the one with this digest.

    Raises
    ------
    ModelError
        If it is another one by now, or cannot be loaded.
    """
    from scenelift.models.checkpoint import load_checkpoint

    if checkpoint_digest(path) != digest:
        raise ModelError(f"{path} has changed since this job was planned; start again with --overwrite")
    return load_checkpoint(path, valid=True)


def variant_of(name: str) -> Path:
    """Return the checkpoint of the perceptual variant of a shipped network.

    Raises
    ------
    ModelError
        If it has none.
    """
    ours = shipped()
    variants = {}
    for network in ours:
        parent_of = f"{network.removesuffix(FOR_SENTINEL2)}-taught"  # sr-x2-rgb-taught began as sr-x2-rgb-sentinel2
        for variant in (parent_of, *(f"{network}-{kind}" for kind in VARIANTS)):
            if variant in ours:
                variants[network] = ours[variant]
    if name not in variants:
        raise ModelError(
            f"--realism needs a model with a perceptual variant ({', '.join(variants) or 'none'}), got {name!r}"
        )
    return variants[name]


def load_classifier(name: str) -> tuple[Classifier, ModelSpec]:
    """Load a classifier of images by its shipped name or checkpoint.

    Raises
    ------
    ModelError
        If there is none, or it is another kind of network.
    """
    import torch

    from scenelift.models.networks.classifier import Classifier

    path = checkpoint_path(name)
    if path is None:
        raise ModelError(f"no classifier {name!r}: give a shipped one ({CLASSIFIER}) or a .safetensors checkpoint")
    module, spec = load_checkpoint(path, valid=False)
    if not isinstance(module, Classifier):
        raise ModelError(f"{name} must be a classifier of images, got a network for {spec.task}")
    return module.to(memory_format=torch.channels_last), spec
