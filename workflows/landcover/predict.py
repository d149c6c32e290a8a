"""`scenelift landcover predict`: the class of every image, with the probability of each, as a CSV."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scenelift.models.catalog import (
    find,
    is_denoiser,
    is_fitted,
    is_sharpener,
    load_spec,
    precision_for,
    wants_blur,
    with_settings,
)
from scenelift.models.checkpoint import write_atomically
from scenelift.models.degradations import EUROSAT
from scenelift.models.errors import ModelError
from scenelift.models.shipped import CLASSIFIER, joint_of, load_classifier
from scenelift.models.whole import Images, run_whole
from scenelift.pipeline.errors import SceneliftError, UsageError
from scenelift.pipeline.scenes.radiometry import ASSUMED_SCALE
from scenelift.pipeline.scenes.rasters import open_raster
from scenelift.pipeline.tiles import Window
from scenelift.workflows.choosing.models import LEFT_BY_DENOISING
from scenelift.workflows.conditions import COLOURS, IMAGES, NOISIEST, Conditions, images_conditions
from scenelift.workflows.landcover.chains import Choice, Seen, choose, read_chains, unmeasured
from scenelift.workflows.landcover.settings import AUTO, split_chain
from scenelift.workflows.training.classifier import BATCH, probabilities
from scenelift.workflows.training.image_files import decode, image_files


def predict(
    sources: list[Path],
    output: Path,
    model: str = CLASSIFIER,
    *,
    force: bool = False,
    say: Callable[[str], None] | None = None,
) -> dict[str, int]:
    """Classify images and write name, class and the probability of every class, one row an image.

    Parameters
    ----------
    sources : list of path
        Images, zips or folders of images. 8-bit images are read by EuroSAT's stretch (255 is reflectance 0.275),
        GeoTIFFs of other types by their scale, or as `scenelift enhance` would.
    output : path
        The CSV; replaced only once the new one is whole. Of enhanced images, OUTPUT.json beside it says how.
    model : str
        A classifier, or a chain that ends with one, as `scenelift.workflows.landcover.classify.classify` takes them:
        what networks are told, and what "auto" takes, is found once in all images together.
    force : bool
        Go on although the chain lowers the classifier's accuracy on such images.
    say : callable, optional
        Given a line about the choice.

    Returns
    -------
    dict
        Number of images named as each class.

    Raises
    ------
    ModelError, UsageError
        If an image cannot be read or has another number of bands than the classifier, or a model does not fit.
    UnfitError
        If the chain surely lowers accuracy, by what was measured, and `force` is not given.
    """
    before, classifier = split_chain(model)
    module, spec = load_classifier(classifier)
    if not output.parent.is_dir():
        raise ModelError(f"no such folder for the output: {output.parent}; make it first")
    bands = spec.bands or 1
    choice, conditions = _choose(sources, before, classifier, bands, force)
    if say and choice.note:
        say(choice.note)
    enhancers = load_chain(choice.names, conditions) if conditions else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "class", *module.classes])
    counts = dict.fromkeys(module.classes, 0)
    for names, images in _batches(sources, bands, module.window):
        shares = probabilities(module, torch.from_numpy(run_chain(enhancers, images))).numpy()
        for name, row in zip(names, shares, strict=True):
            named = module.classes[int(row.argmax())]
            counts[named] += 1
            writer.writerow([name, named, *(f"{share:.6f}" for share in row)])
    write_atomically(output, text.getvalue().encode())
    if choice.names and conditions:
        _write_provenance(output, (*choice.names, classifier), conditions, choice.note)
    return counts


def _choose(
    sources: list[Path], before: tuple[str, ...], classifier: str, bands: int, force: bool
) -> tuple[Choice, Conditions | None]:
    """Choose what goes before a classifier; return also what networks are told of the images, where that counts."""
    for name in before if before != (AUTO,) else ():
        if is_sharpener(name) or is_fitted(name):
            raise UsageError(f"{name} is fitted to a whole scene, not to images: leave it out, or classify the scene")
        spec = load_spec(find(name))
        if spec.bands not in (None, bands) or spec.out_bands is not None:
            raise ModelError(f"{name} cannot stand before {classifier}, which takes {bands} bands: choose another")
    joint = tuple((bands == len(COLOURS) and joint_of(name)) or name for name in before)
    chains = read_chains(classifier)
    images = _some(sources, bands) if chains or before else []
    conditions = images_conditions(images) if images else None
    if chains is None:
        return replace(unmeasured(before, classifier), names=joint), conditions
    if conditions is None:  # no image fits: which one, is said when all are read
        return Choice((), ""), None
    coarse = chains.side / float(np.median([min(image.shape[1:]) for image in images]))
    choice = choose(joint or before, classifier, chains, lambda: Seen.of(conditions, coarse), joint, force)
    return choice, conditions


def load_chain(names: tuple[str, ...], conditions: Conditions, precision: str = "fp32") -> list[Any]:
    """Load models that run one after the other over whole images, told blur and noise as of a scene.

    Parameters
    ----------
    names : tuple of str
    conditions : Conditions
    precision : {"fp32", "bf16", "auto"}
    """
    loaded, left = [], 1.0
    for name in names:
        told: dict[str, Any] = {"noise": conditions.noise, "precision": precision_for(name, precision, "cpu")}
        if wants_blur(name):
            told |= {"blur": conditions.blur, "noise": tuple(min(left * s, NOISIEST) for s in conditions.noise)}
        left = LEFT_BY_DENOISING if is_denoiser(name) else left
        loaded.append(with_settings(find(name), threads=torch.get_num_threads(), **told).load())
    return loaded


def run_chain(enhancers: list[Any], images: Images) -> Images:
    """Return what models make of images (N, C, H, W), one after the other."""
    for enhancer in enhancers:
        images = np.concatenate([run_whole(enhancer, images[at : at + BATCH]) for at in range(0, len(images), BATCH)])
    return images


def _write_provenance(output: Path, models: tuple[str, ...], conditions: Conditions, note: str) -> None:
    """Write beside a CSV by which models its images were enhanced and classified, and why."""
    facts = {
        "software": f"scenelift {version('scenelift')}",
        "models": [{"name": name, "sha256": find(name).digest} for name in models],
        "conditions": conditions.to_dict(),
        "choice": note,
    }
    write_atomically(output.with_name(f"{output.name}.json"), (json.dumps(facts, indent=2) + "\n").encode())


def _some(sources: list[Path], bands: int) -> list[NDArray[np.float32]]:
    """Return up to `IMAGES` images of so many bands that are spread over all."""
    kept: list[tuple[str, Path | bytes]] = []
    step = 1
    files = ((f"{source}: {name}", file) for source in sources for name, file in image_files(source))
    for number, found in enumerate(files):
        if number % step == 0:
            kept.append(found)
        if len(kept) > IMAGES:
            kept, step = kept[::2], 2 * step
    images = [_read(file, name) for name, file in kept]
    return [image for image in images if image.shape[0] == bands]


def _batches(sources: list[Path], bands: int, window: int) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
    """Yield names and reflectance (n, bands, H, W) of up to ``BATCH`` images of one size at a time."""
    names: list[str] = []
    images: list[NDArray[np.float32]] = []
    for name, image in _images(sources):
        if image.shape[0] != bands:
            raise ModelError(
                f"{name} has {image.shape[0]} bands, the classifier takes {bands}: "
                "of a scene `scenelift classify --bands` takes some"
            )
        if min(image.shape[1:]) < window // 4:
            raise ModelError(f"{name} is {image.shape[1]} x {image.shape[2]} pixels, too small for windows of {window}")
        if images and (image.shape != images[0].shape or len(images) == BATCH):
            yield names, np.stack(images)
            names, images = [], []
        names.append(name)
        images.append(image)
    if not images:
        raise ModelError(f"no images in {', '.join(map(str, sources))}: name files, folders or zips that hold some")
    yield names, np.stack(images)


def _images(sources: list[Path]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for source in sources:
        for name, file in image_files(source):
            yield name, _read(file, f"{source}: {name}")


def _read(file: Path | bytes, name: str) -> NDArray[np.float32]:
    """Return the reflectance (C, H, W) of an image that is called `name` where it cannot be read."""
    if isinstance(file, Path) and file.suffix.lower() in (".tif", ".tiff"):
        return _read_tiff(file)
    return decode(file, name).astype(np.float32) * np.float32(EUROSAT.level)


def _read_tiff(path: Path) -> NDArray[np.float32]:
    """Return the reflectance (C, H, W) of a small raster."""
    try:
        raster = open_raster(os.fspath(path))
        bands, _ = raster.read(range(1, raster.count + 1), Window(0, 0, *raster.shape))
    except SceneliftError as error:
        raise ModelError(str(error)) from None
    rows = []
    for values, scale, offset in zip(bands, raster.scales, raster.offsets, strict=True):
        kind = str(values.dtype)
        if (scale, offset) == (1.0, 0.0):
            scale = EUROSAT.level if kind == "uint8" else ASSUMED_SCALE.get(kind, 1.0)
        rows.append(values.astype(np.float32) * np.float32(scale) + np.float32(offset))
    return np.stack(rows)
