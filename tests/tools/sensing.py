"""How well blur and gain are told in advance: in tests/, ``python -m tools.sensing --data DIR --packages DIR``.

Crops of places (all, or those that the estimator was trained without) are shrunk in a known way and given to the tool
as scenes: the blur it estimates is compared with the true one, and the gain it expects with what the job then gains.
With ``--images ZIP`` a scene is many small images of one class of a labelled set, of which only the blur is asked.
"""

from __future__ import annotations

import csv
import functools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rasterio
import torch
import typer
from numpy.typing import NDArray
from rasterio.transform import Affine

from scenelift.models.catalog import find, load_spec
from scenelift.models.classical.classical import classical
from scenelift.models.sensing import estimation
from scenelift.models.sensing.blurs import MTF_RANGE, Blur, decimate
from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.workflows.choosing.prepared import prepare
from scenelift.workflows.conditions import images_conditions
from scenelift.workflows.expect import run_chain, squared_errors
from scenelift.workflows.settings import EnhanceSettings
from scenelift.workflows.training.estimation.places import place_names, read_place
from scenelift.workflows.training.labelled_images import read_labelled

SIDE, BANDS = 384, 3
"""Of a crop."""
SCALE = 2
"""By which images are shrunk."""
RESAMPLED = ("area", "bicubic", "lanczos")


@dataclass(frozen=True)
class Outcome:
    """One scene, shrunk in one way."""

    scene: str
    blur: str
    noise: float
    mtf: float
    """True transfer at Nyquist."""
    found: str
    error: float
    """Estimated minus true transfer at Nyquist, mean over bands."""
    gain: float
    """dB over Lanczos, mean over bands."""
    expected: float | None
    low: float | None
    high: float | None
    doubted: bool
    """Whether a resampling was named by which the gain would be lost."""


def crops(
    data: Path, packages: Path | None, places: Sequence[str], generator: np.random.Generator, count: int
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield names and crops (C, SIDE or less, ...) of reflectance-like values, the places in turn."""
    read = functools.lru_cache(maxsize=16)(read_place)
    for number in range(count):
        place = places[number % len(places)]
        bands = read(data, packages, place)
        shape = bands[int(generator.integers(len(bands)))].shape
        alike = [band for band in bands if band.shape == shape]
        height, width = (min(SIDE, n // 8 * 8) for n in shape)
        row, col = (int(generator.integers(n - m + 1)) for n, m in zip(shape, (height, width), strict=True))
        chosen = generator.permutation(len(alike))[:BANDS]
        crop = np.stack([alike[index][row : row + height, col : col + width] for index in chosen])
        if (crop == 0).mean() < 0.01 and crop.std() > 1e-3:
            yield f"{place} {row} {col}", crop


def errors_of_images(path: Path, each: int, generator: np.random.Generator, noise: float, count: int) -> Iterator[str]:
    """Yield a row for each scene of ``each`` images of one class, the classes in turn; then what they come to."""
    images, found = read_labelled(path), []
    for number in range(count):
        label = number % len(images.classes)
        chosen = generator.choice(np.flatnonzero(images.labels == label), each, replace=False)
        blur, sigma = blurs(generator), float(generator.uniform(0, noise)) if generator.random() < 0.5 else 0.0
        low = decimate(images.reflectance(chosen), SCALE, [[blur.kernel(SCALE)] * BANDS] * each).numpy()
        low = low + sigma * generator.standard_normal(low.shape).astype(np.float32)
        told = images_conditions(list(low)).blur
        found.append(float(np.mean([b.at_nyquist(SCALE) for b in told])) - blur.at_nyquist(SCALE))
        yield f"{images.classes[label]},{blur.describe()},{sigma:.5f},{told[0].describe()},{found[-1]:.3f}"
    yield blur_line(found)


def blurs(generator: np.random.Generator) -> Blur:
    """Draw a blur: a Gaussian of any transfer, or what libraries do."""
    if generator.random() < 0.6:
        return Blur("gaussian", round(float(generator.uniform(*MTF_RANGE)), 3))
    return Blur(RESAMPLED[int(generator.integers(len(RESAMPLED)))])


def outcome(name: str, crop: NDArray[np.float32], blur: Blur, sigma: float, model: str, folder: Path) -> Outcome:
    """Shrink a crop, let the tool estimate and expect, run the job, and compare."""
    scale = load_spec(find(model)).scale
    low = decimate(torch.from_numpy(crop)[None], scale, [[blur.kernel(scale)] * len(crop)])[0].numpy()
    low = low + sigma * np.random.default_rng(0).standard_normal(low.shape).astype(np.float32)
    path = folder / "scene.tif"
    profile: dict[str, Any] = {"driver": "GTiff", "count": len(low), "height": low.shape[1], "width": low.shape[2]}
    profile |= {"dtype": "uint16", "crs": "EPSG:32633", "transform": Affine(20, 0, 5e5, 0, -20, 5e6)}
    with rasterio.open(path, "w", **profile) as out:
        out.write(np.rint(low * 10_000).clip(1, 65_535).astype(np.uint16))
        out.scales, out.offsets = (1e-4,) * len(low), (0.0,) * len(low)
    settings = EnhanceSettings()
    prepared = prepare(SceneSource((str(path),)), model, settings, ClusterSettings(workers=0))
    expected = prepared.expect(settings)
    image = np.rint(low * 10_000).clip(1, 65_535).astype(np.float32) * np.float32(1e-4)
    ours = run_chain([m.handle.load() for m in prepared.models], image)
    lanczos = run_chain([classical("lanczos", scale)], image)
    mine, theirs = (squared_errors(made, crop, 2 * scale, [0.0] * len(crop)) for made in (ours, lanczos))
    gain = float(np.mean(10 * np.log10(theirs / mine)))
    told = prepared.conditions.blur if prepared.conditions else ()
    true = blur.at_nyquist(scale)
    found = None if expected is None else expected.gain_db["lanczos"]
    return Outcome(
        name,
        blur.describe(),
        sigma,
        round(true, 3),
        told[0].describe(),
        round(float(np.mean([b.at_nyquist(scale) for b in told])) - true, 3),
        round(gain, 3),
        *((None,) * 3 if found is None else (round(v, 3) for v in (found.mean, found.low, found.high))),
        bool(expected and expected.doubts),
    )


def main(
    data: Annotated[Path | None, typer.Option(help="Folder with the scenes.")] = None,
    count: Annotated[int, typer.Option(help="Scenes to try.")] = 100,
    model: Annotated[str, typer.Option("--model", "-m", help="What is run.")] = "sr-x2",
    noise: Annotated[float, typer.Option(help="Largest noise, reflectance; half of the scenes have none.")] = 0.002,
    packages: Annotated[Path | None, typer.Option(help="Folder with the archives of packages, see there.")] = None,
    places: Annotated[
        list[str] | None, typer.Option("--place", help="Start of a place's name; default: all (estimation/places.py).")
    ] = None,
    estimator: Annotated[
        Path | None, typer.Option(help="Weights of another estimator, as of one without them.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Labelled images instead of scenes (zip or folder).")] = None,
    each: Annotated[int, typer.Option(help="Images that make a scene.")] = 100,
    seed: int = 0,
) -> None:
    """Print a row a scene as CSV, and what they come to."""
    torch.set_num_threads(1)
    if estimator is not None:
        estimation.WEIGHTS = estimator
    generator = np.random.default_rng(seed)
    if images is not None:
        for line in errors_of_images(images, each, generator, noise, count):
            print(line, flush=True)
        return
    if data is None:
        raise typer.BadParameter("--data or --images says what to try")
    chosen = [name for name in place_names(packages) if name.startswith(tuple(places or [""]))]
    rows: list[Outcome] = []
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(Outcome.__dataclass_fields__)
    with tempfile.TemporaryDirectory() as folder:
        for name, crop in crops(data, packages, chosen, generator, count):
            sigma = float(generator.uniform(0, noise)) if generator.random() < 0.5 else 0.0
            rows.append(outcome(name, crop, blurs(generator), round(sigma, 5), model, Path(folder)))
            writer.writerow(asdict(rows[-1]).values())
            sys.stdout.flush()
    print("\n".join(conclusions(rows)))


def blur_line(errors: Sequence[float]) -> str:
    """Return how often the blur is told right."""
    off = np.abs(errors)
    return (
        f"scenes: {len(off)}; blur within .05 of the true transfer: {np.mean(off <= 0.05):.0%}, "
        f"median error {np.median(off):.3f}"
    )


def conclusions(rows: list[Outcome]) -> list[str]:
    """Return what the outcomes come to, lines for people."""
    gains = np.array([row.gain for row in rows])
    tried = [row for row in rows if row.expected is not None]
    off = np.abs([row.gain - float(row.expected or 0) for row in tried])
    inside = np.mean([float(row.low or 0) <= row.gain <= float(row.high or 0) for row in tried])
    silent = sum(row.gain < 0 and float(row.low or 0) > 0 and not row.doubted for row in tried)
    return [
        blur_line([row.error for row in rows]),
        f"gain over Lanczos: mean {gains.mean():.2f} dB, least {gains.min():.2f} dB, negative in {(gains < 0).sum()}",
        f"expected gain: within 0.3 dB {np.mean(off <= 0.3):.0%}, within 0.5 dB {np.mean(off <= 0.5):.0%}, "
        f"mean difference {np.mean([row.gain - float(row.expected or 0) for row in tried]):+.2f} dB, "
        f"inside its interval {inside:.0%}",
        f"worse than Lanczos without a word: {silent}",
    ]


if __name__ == "__main__":
    typer.run(main)
