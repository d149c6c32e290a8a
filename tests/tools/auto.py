"""Whether `auto` chooses well: ``cd tests && python -m tools.auto`` on images that no measurement of it has seen.

Validation images that `scenelift landcover measure` did not draw are degraded between the conditions that it measured,
and named by `scenelift landcover predict` as they are, with what `auto` takes, and with the same enhancement always.
"""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from support.builders import write_raster

from scenelift.models.networks.classifier import Classifier
from scenelift.workflows.evidence.landcover import existing, load_classifiers, shipped_classifiers
from scenelift.workflows.evidence.samples import DEFAULT
from scenelift.workflows.landcover.measuring import degraded
from scenelift.workflows.landcover.predict import predict
from scenelift.workflows.landcover.settings import MeasureSettings
from scenelift.workflows.training.labelled_images import LabelledImages, read_labelled

CASES = (
    *((1, 0.0, noise) for noise in (0.001, 0.002, 0.004, 0.009, 0.02)),
    (1, 0.8, 0.0),
    (2, 0.0, 0.0),
    (2, 0.0, 0.004),
)
"""Times coarser, blur (pixels), noise (reflectance)."""
ALWAYS = ("denoise-rgb-taught", "sr-x2-rgb")


def unseen(path: Path, module: Classifier, each: int) -> LabelledImages:
    """Return images of every class that a measurement with its usual settings did not draw."""
    images, usual = read_labelled(path, module.classes), MeasureSettings()
    drawn = set(images.balanced(usual.each, usual.seed).names)
    others = np.array([number for number, name in enumerate(images.names) if name not in drawn])
    return images.select(others).balanced(each, seed=7)


def accuracy(folder: Path, model: str) -> tuple[float, str]:
    """Return the share of images (in folders by class, as many in each) that are named rightly, and what was said."""
    said: list[str] = []
    predict([folder], folder.parent / "found.csv", model, force=True, say=said.append)
    with (folder.parent / "found.csv").open(newline="", encoding="utf-8") as file:
        right = [row["class"] == Path(row["name"]).parent.name for row in csv.DictReader(file)]
    return 100 * float(np.mean(right)), said[0] if said else ""


def main(each: Annotated[int, typer.Option(help="Images of every class.")] = 25) -> None:
    """Print a table: balanced accuracy without enhancement, with what `auto` takes, and with the same always."""
    torch.set_num_threads(1)
    modules = load_classifiers(shipped_classifiers())
    sample = unseen(existing(DEFAULT), next(iter(modules.values())), each)
    print(f"| {len(sample)} images | classifier | as they are | auto | it took | {' | '.join(ALWAYS)} |")
    print("|---" * (5 + len(ALWAYS)) + "|")
    for coarse, blur, noise in CASES:
        values = degraded(sample.reflectance().numpy(), coarse, blur, noise, seed=11)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "images"
            for image, label, file in zip(values, sample.labels, sample.names, strict=True):
                (folder / sample.classes[label]).mkdir(parents=True, exist_ok=True)
                write_raster(folder / sample.classes[label] / f"{Path(file).stem}.tif", image)
            for classifier in modules:
                plain = accuracy(folder, classifier)[0]
                found, said = accuracy(folder, f"auto,{classifier}")
                took = said.removeprefix("auto chose ").partition(":")[0]
                always = " | ".join(f"{accuracy(folder, f'{chain},{classifier}')[0]:.1f}" for chain in ALWAYS)
                what = f"{10 * coarse} m, blur {blur:g} px, noise {noise:g}"
                print(f"| {what} | `{classifier}` | {plain:.1f} | {found:.1f} | {took} | {always} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
