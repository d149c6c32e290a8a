"""`scenelift evaluate haze|stripes`: scenes in simulated haze, or with simulated stripes, restored and measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from scenelift.models.catalog import find, load_spec
from scenelift.models.errors import ModelError
from scenelift.models.fitted import METHODS
from scenelift.models.fitted.running import fit, fitted_method
from scenelift.models.fitted.views import ImageView
from scenelift.models.sensing.atmosphere import Air
from scenelift.models.whole import Images
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.pipeline.scores.bootstrap import Interval, interval
from scenelift.pipeline.tiles import Window
from scenelift.workflows.evidence.cases import HAZY, Degradation, by_scenes, under_haze
from scenelift.workflows.evidence.metrics import measure, psnrs
from scenelift.workflows.evidence.samples import Sample, files_at
from scenelift.workflows.evidence.score import plain

CLASSICAL = tuple(name for name in METHODS if name != "destripe")
ORDER_SIDE = 32
"""Side of the images by which the order of lightness is compared, pixels."""
DARK = 0.01
"""Reflectance up to which a share of a pixel's value says nothing."""
EDGE = 2.0
"""Standard deviation, in pixels, of the Gaussian that tells local contrast from the rest."""


@dataclass(frozen=True)
class HazeRow:
    """One method's figures over all images."""

    method: str
    psnr: float
    """dB, to the images without haze."""
    ssim: float
    against: Interval | None
    """Mean paired PSNR difference to the hazy images, and its 95 % bootstrap interval over places."""
    contrast: float
    """Local contrast over that of the images without haze."""
    order: float
    """Share of pairs of pixels of which the lighter one has become the darker one."""


def evaluate_haze(sample: Sample, models: Sequence[str], air: Air, seed: int = 0) -> list[HazeRow]:
    """Put images under haze, take it away by every method, and measure against what they were.

    Parameters
    ----------
    sample : Sample
        Images of one place are one scene, by which methods are fitted; without places, each 16 images are.
    models : sequence of str
        Networks beside the classical methods.
    air : Air
        Its airlight and depth are the same for all scenes; where the haze is thick is drawn for each image.
    seed : int

    Raises
    ------
    ModelError
        If a model enlarges, or takes other bands.
    """
    count = len(sample.bands)
    for name in models:
        spec = load_spec(find(name))
        if spec.scale != 1 or spec.task == "landcover" or spec.bands not in (None, count):
            raise ModelError(f"{name} does not take haze from images of {count} bands: choose bands by --bands")
    clean = sample.images
    _, scenes = np.unique(_scenes(sample), return_inverse=True)
    made = {HAZY: under_haze(clean, sample.bands, air, scenes, seed)}
    for name in (*CLASSICAL, *models):
        made[name] = by_scenes(name, made[HAZY], scenes)
    base = psnrs(clean, made[HAZY], 1, sample.peak)
    return [_row(name, clean, out, sample.peak, base, scenes) for name, out in made.items()]


def _scenes(sample: Sample) -> NDArray[np.int64]:
    """Return which scene each image is of."""
    return Degradation(haze=1).scenes(len(sample.images)) if sample.places is None else sample.places


def _row(
    name: str, clean: Images, out: Images, peak: float, base: NDArray[np.float64], places: NDArray[np.int64]
) -> HazeRow:
    each = [measure(x, y, 1, peak, ("psnr", "ssim")) for x, y in zip(clean, out, strict=True)]
    psnr = np.array([values["psnr"] for values in each])
    return HazeRow(
        name,
        float(psnr.mean()),
        float(np.mean([values["ssim"] for values in each])),
        None if name == HAZY else interval(psnr - base, places),
        float(np.sqrt(np.mean(_local(out) ** 2) / np.mean(_local(clean) ** 2))),
        float(np.mean([order_error(x, y) for x, y in zip(clean, out, strict=True)])),
    )


def _local(images: Images) -> Images:
    return images - ndimage.gaussian_filter(images, (0, 0, EDGE, EDGE))


def order_error(reference: NDArray[np.floating], image: NDArray[np.floating]) -> float:
    """Return the share of pairs of pixels whose order of lightness has changed: 0 to 1.

    The lightness-order error of Wang et al. (IEEE TIP 22(9), 2013), lightness being the largest band, as a share of
    all pairs, on images thinned out to at most `ORDER_SIDE` pixels a side.

    Parameters
    ----------
    reference, image : ndarray
        (C, H, W).
    """
    step = max(1, -(-max(reference.shape[1:]) // ORDER_SIDE))
    a, b = (x[:, ::step, ::step].max(0).ravel() for x in (reference, image))
    return float(((a[:, None] >= a[None, :]) != (b[:, None] >= b[None, :])).mean())


@dataclass(frozen=True)
class StripeRow:
    """What is left of the stripes of one scene, and of its texture."""

    scene: str
    found: str
    """Kind of the stripes, as it was found."""
    left: float
    """Energy of the stripes that is left, share of what was put on."""
    texture_db: float
    """Energy of the finest texture that the method takes from the scene without stripes, dB."""
    changed: float
    """What the method changes in the scene without stripes: root mean square, share of each pixel's value."""
    gain_db: float
    """PSNR of the destriped scene less that of the striped one, against the scene without stripes."""


def evaluate_stripes(
    paths: Sequence[Path], share: float = 0.02, slant: float = 0.0, bands: tuple[int, ...] | None = None, seed: int = 0
) -> list[StripeRow]:
    """Put stripes on whole scenes, take them off, and measure what is left of them and of the scene.

    Parameters
    ----------
    paths : sequence of Path
        Rasters and folders of them; looked for below SCENELIFT_DATA where there is none at the path.
    share : float
        Standard deviation of the detectors' gains.
    slant : float
        Lines that a stripe moves per row.
    bands : tuple of int, optional
        1-based; default: all.
    seed : int

    Raises
    ------
    UsageError, SceneError
        If the share is out of range, or a scene cannot be read.
    """
    if not 0 < share <= 0.2:
        raise UsageError(f"--share must be above 0 and at most 0.2, got {share:g}")
    return [_stripes_of(file, share, slant, bands, seed) for path in paths for file in files_at(path)]


def _stripes_of(path: Path, share: float, slant: float, bands: tuple[int, ...] | None, seed: int) -> StripeRow:
    scene = open_scene(SceneSource((str(path),), bands))
    height, width = scene.grid.shape
    values = scene.read(Window(0, 0, height, width)).with_nan()
    clean = np.where(np.isfinite(values), values, np.float32(0))
    valid = np.isfinite(values)
    at = np.arange(width)[None, :] + slant * np.arange(height)[:, None]
    at = at - at.min()
    lines = np.random.default_rng(seed).normal(0, share, (len(clean), int(np.ceil(at.max())) + 2))
    low = np.floor(at).astype(np.int64)
    gains = 1 + lines[:, low] * (1 - (at - low)) + lines[:, low + 1] * (at - low)
    striped = (clean * gains).astype(np.float32)
    name, missing = f"destripe:slant={slant:g}" if slant else "destripe", np.float32("nan")
    restored, kind = _destriped(name, np.where(valid, striped, missing))
    untouched, _ = _destriped(name, np.where(valid, clean, missing))
    before, after = (_along(x / np.maximum(clean, 1e-3) - 1, valid, at) for x in (striped, restored))
    error = [np.square((x - clean)[valid], dtype=np.float64).mean() for x in (striped, restored)]
    bright = valid & (clean > DARK)
    changed = float(np.sqrt(np.square(untouched[bright] / clean[bright] - 1, dtype=np.float64).mean()))
    fine = [float(np.square(_local(x[None])[0][valid], dtype=np.float64).mean()) for x in (clean, untouched)]
    return StripeRow(
        path.name,
        kind,
        after / before,
        float(10 * np.log10(fine[0] / fine[1])),
        changed,
        float(10 * np.log10(error[0] / error[1])),
    )


def _destriped(name: str, values: NDArray[np.float32]) -> tuple[NDArray[np.float32], str]:
    """Return a scene without its stripes, 0 where there is no data, and of what kind they were."""
    fitted = fit(name, ImageView(values))
    made = fitted_method(name, fitted)
    return made(np.nan_to_num(values)[None], np.zeros((1, 2), np.int64))[0], fitted["kind"]


def _along(relative: NDArray[np.floating], valid: NDArray[np.bool_], at: NDArray[np.floating]) -> float:
    """Return the energy of the mean along each line."""
    line = np.rint(at).astype(np.int64).ravel()
    total = 0.0
    for plane, known in zip(relative, valid, strict=True):
        weights = known.ravel().astype(np.float64)
        counts = np.bincount(line, weights)
        sums = np.bincount(line, np.where(known, plane, 0).ravel())
        total += float((sums**2 / np.maximum(counts, 1)).sum() / max(weights.sum(), 1))
    return total


def print_haze(rows: Sequence[HazeRow], title: str, air: Air, as_json: bool) -> None:
    """Print a table for people, or one JSON object."""
    if as_json:
        facts = [vars(row) | {"against": row.against and list(astuple(row.against))} for row in rows]
        print(json.dumps({"sample": title, "air": vars(air), "rows": facts}))
        return
    print(f"{title}; optical depth {air.depth:g} at 550 nm, airlight {air.airlight:g}\n")
    print("| method | PSNR dB | SSIM | against hazy (95 %) | local contrast | order changed |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        gap = row.against
        told = "" if gap is None else f"{gap.mean:+.2f} ({gap.low:+.2f}..{gap.high:+.2f})"
        quality = f"{row.psnr:.2f} | {row.ssim:.4f} | {told}"
        print(f"| {row.method} | {quality} | {row.contrast:.2f} | {100 * row.order:.1f} % |")


def print_stripes(rows: Sequence[StripeRow], share: float, as_json: bool) -> None:
    """Print a table for people, or one JSON object."""
    if as_json:
        print(json.dumps({"share": share, "rows": [{k: plain(v) for k, v in vars(row).items()} for row in rows]}))
        return
    print(f"gains of the detectors off by {100 * share:g} % (standard deviation)\n")
    print("| scene | found | stripe energy left | PSNR gained, dB | without stripes: texture taken, dB | changed |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        left = f"{100 * row.left:.1f} %"
        untouched = f"{row.texture_db:.3f} | {100 * row.changed:.3f} %"
        print(f"| {row.scene} | {row.found} | {left} | {row.gain_db:+.1f} | {untouched} |")
