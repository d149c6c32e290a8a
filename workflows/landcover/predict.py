"""`scenelift landcover predict`: the class of every image, with the probability of each, as a CSV."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from scenelift.models.checkpoint import write_atomically
from scenelift.models.degradations import EUROSAT
from scenelift.models.errors import ModelError
from scenelift.models.shipped import CLASSIFIER, load_classifier
from scenelift.pipeline.errors import SceneliftError
from scenelift.pipeline.scenes.radiometry import ASSUMED_SCALE
from scenelift.pipeline.scenes.rasters import open_raster
from scenelift.pipeline.tiles import Window
from scenelift.workflows.training.classifier import BATCH, probabilities
from scenelift.workflows.training.image_files import decode, image_files


def predict(sources: list[Path], output: Path, model: str = CLASSIFIER) -> dict[str, int]:
    """Classify images and write name, class and the probability of every class, one row an image.

    Parameters
    ----------
    sources : list of path
        Images, zips or folders of images. 8-bit images are read by EuroSAT's stretch (255 is reflectance 0.275),
        GeoTIFFs of other types by their scale, or as `scenelift enhance` would.
    output : path
        The CSV; replaced only once the new one is whole.
    model : str

    Returns
    -------
    dict
        Number of images named as each class.

    Raises
    ------
    ModelError
        If an image cannot be read or has another number of bands than the classifier.
    """
    module, spec = load_classifier(model)
    if not output.parent.is_dir():
        raise ModelError(f"no such folder for the output: {output.parent}; make it first")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "class", *module.classes])
    counts = dict.fromkeys(module.classes, 0)
    for names, images in _batches(sources, spec.bands or 1, module.window):
        shares = probabilities(module, torch.from_numpy(images)).numpy()
        for name, row in zip(names, shares, strict=True):
            named = module.classes[int(row.argmax())]
            counts[named] += 1
            writer.writerow([name, named, *(f"{share:.6f}" for share in row)])
    write_atomically(output, text.getvalue().encode())
    return counts


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
            if isinstance(file, Path) and file.suffix.lower() in (".tif", ".tiff"):
                yield name, _read_tiff(file)
            else:
                yield name, decode(file, f"{source}: {name}").astype(np.float32) * np.float32(EUROSAT.level)


def _read_tiff(path: Path) -> NDArray[np.float32]:
    """Return the reflectance (C, H, W) of a small raster."""
    try:
        raster = open_raster(os.fspath(path))
        bands = [raster.read(i, Window(0, 0, *raster.shape))[0] for i in range(1, raster.count + 1)]
    except SceneliftError as error:
        raise ModelError(str(error)) from None
    rows = []
    for values, scale, offset in zip(bands, raster.scales, raster.offsets, strict=True):
        kind = str(values.dtype)
        if (scale, offset) == (1.0, 0.0):
            scale = EUROSAT.level if kind == "uint8" else ASSUMED_SCALE.get(kind, 1.0)
        rows.append(values.astype(np.float32) * np.float32(scale) + np.float32(offset))
    return np.stack(rows)
