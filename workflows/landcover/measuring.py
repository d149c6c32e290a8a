"""`scenelift landcover measure`: how many images a classifier names rightly with and without each enhancement.

Its validation images are blurred, made coarser and noisy, enhanced as `predict` and `classify` would (told what is
estimated, not what was added), and classified; what is written is what `scenelift.workflows.landcover.chains` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from scenelift.models.checkpoint import checkpoint_digest
from scenelift.models.degradations import DEFAULT_MTF, mtf_decimate
from scenelift.models.errors import ModelError
from scenelift.models.networks.classifier import Classifier
from scenelift.models.shipped import checkpoint_path
from scenelift.models.whole import Images, spec_of
from scenelift.pipeline.files import check_writable
from scenelift.workflows.conditions import COLOURS, images_conditions
from scenelift.workflows.evidence.landcover import existing, load_classifiers
from scenelift.workflows.evidence.samples import DEFAULT
from scenelift.workflows.evidence.statistics import balanced_interval
from scenelift.workflows.landcover.chains import Chains, Gain, Row, Seen, best_of, chains_path, harms, write_chains
from scenelift.workflows.landcover.predict import load_chain, run_chain
from scenelift.workflows.landcover.settings import MeasureSettings
from scenelift.workflows.training.classifier import probabilities
from scenelift.workflows.training.labelled_images import LabelledImages, read_labelled

NOISES = (0.0, 0.0015, 0.003, 0.006, 0.012, 0.03)
"""Noise that is added, standard deviation, reflectance."""
CASES = (
    *((1, 0.0, noise) for noise in NOISES),
    *((1, 1.0, noise) for noise in NOISES[::2]),
    *((2, 0.0, noise) for noise in NOISES[::2]),
)
"""How images are degraded: times coarser, standard deviation of the blur (pixels), noise."""
USUAL = {
    True: (
        "denoise-rgb-taught",
        "denoise-rgb",
        "sr-x2-rgb",
        "sr-x2-rgb-taught",
        "denoise-rgb-taught,sr-x2-rgb",
        "denoise-rgb,sr-x2-rgb",
    ),
    False: ("denoise", "sr-x2", "denoise,sr-x2"),
}
"""What is measured for colour images, and for others."""
LEAST_SIDE = 16
"""Pixels that a degraded image must have."""


def measure(classifiers: tuple[str, ...], settings: MeasureSettings, say: Callable[[str], None]) -> dict[Path, Chains]:
    """Measure what enhancement does to classifiers, and write it beside their weights.

    Parameters
    ----------
    classifiers : tuple of str
        Shipped classifiers or checkpoints, of the same classes.
    settings : MeasureSettings
    say : callable
        Told what is being done.

    Returns
    -------
    dict
        File written to what it holds.

    Raises
    ------
    ModelError, UsageError
        If images, classes, networks or classifiers do not fit together, or a file cannot be written.
    """
    modules = load_classifiers(classifiers)
    first = next(iter(modules.values()))
    path = existing(settings.data or DEFAULT)
    images = read_labelled(path, first.classes)
    sample = images.balanced(settings.each, settings.seed) if settings.each else images
    if sample.values.shape[1] != first.bands:
        raise ModelError(f"{path} has {sample.values.shape[1]} bands, {classifiers[0]} takes {first.bands}")
    chains = settings.chains or USUAL[first.bands == len(COLOURS)]
    _check(chains, first.bands)
    for name in modules:
        check_writable(_checkpoint(name).parent)
    rows: dict[str, list[Row]] = {name: [] for name in modules}
    for case in CASES:
        for name, row in _rows(case, sample, chains, modules, settings.seed):
            rows[name].append(row)
        say(f"{case[0]} times coarser, blurred by {case[1]:g} pixels, noise {case[2]:g}: done")
    title = f"{path.name}, {len(sample)} images, seed {settings.seed}"
    networks = {name: checkpoint_digest(_checkpoint(name)) for chain in chains for name in chain.split(",")}
    written = {}
    for name, found in rows.items():
        own = _checkpoint(name)
        made = Chains(checkpoint_digest(own), title, settings.pixel, sample.values.shape[2], networks, tuple(found))
        write_chains(chains_path(own), made)
        written[chains_path(own)] = made
    return written


def _checkpoint(name: str) -> Path:
    path = checkpoint_path(name)
    if path is None:
        raise ModelError(f"only networks with weights can be measured, got {name!r}")
    return path


def _check(chains: tuple[str, ...], bands: int) -> None:
    """Refuse chains that cannot run on such images, before any work is spent."""
    for chain in chains:
        for name in chain.split(","):
            _checkpoint(name)
            spec = spec_of(name)
            if spec.bands not in (None, bands) or spec.out_bands is not None:
                raise ModelError(f"{name} cannot stand before a classifier of {bands} bands: choose another")


def _rows(
    case: tuple[int, float, float],
    sample: LabelledImages,
    chains: tuple[str, ...],
    modules: dict[str, Classifier],
    seed: int,
) -> Iterator[tuple[str, Row]]:
    """Yield each classifier's name and what it makes of the degraded images with each chain; nothing of tiny images."""
    coarse, blur, noise = case
    low = degraded(sample.reflectance().numpy(), coarse, blur, noise, seed)
    if min(low.shape[2:]) < LEAST_SIDE:
        return
    conditions = images_conditions(list(low))
    seen, labels = Seen.of(conditions, coarse), sample.labels
    plain = {name: _right(module, low, labels) for name, module in modules.items()}
    gains: dict[str, dict[str, Gain]] = {name: {} for name in modules}
    windows: dict[str, dict[str, Gain]] = {name: {} for name in modules}
    made: dict[tuple[str, ...], Images] = {(): low}  # what a longer chain begins with is made once
    for chain in sorted(chains, key=len):
        models = tuple(chain.split(","))
        done = max(count for count in range(len(models)) if models[:count] in made)
        images = run_chain(load_chain(models, conditions, "auto")[done:], made[models[:done]])
        made[models] = images
        for name, module in modules.items():
            gains[name][chain] = _gain(labels, _right(module, images, labels) - plain[name])
            if min(images.shape[2:]) > module.window:
                inner = _middle(images, module.window)
                windows[name][chain] = _gain(labels, _right(module, inner, labels) - plain[name])
    for name in modules:
        accuracy = round(100 * balanced_interval(labels, plain[name]).mean, 1)
        yield name, Row(coarse, blur, noise, seen.noise, seen.mtf, accuracy, gains[name], windows[name])


def degraded(images: Images, coarse: int, blur: float, noise: float, seed: int) -> Images:
    """Return images (N, C, H, W) blurred by a Gaussian (pixels), made coarser by a sensor's blur, and noisy."""
    if blur:
        images = gaussian_filter(images, (0, 0, blur, blur), mode="mirror")
    if coarse > 1:
        height, width = (n - n % coarse for n in images.shape[2:])
        images = mtf_decimate(torch.from_numpy(images[..., :height, :width]), coarse, DEFAULT_MTF).numpy()
    grain = np.random.default_rng(seed).standard_normal(images.shape, np.float32)
    return (images + np.float32(noise) * grain).astype(np.float32)


def _right(module: Classifier, images: Images, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return 1 for each image that is named rightly, 0 for the others."""
    shares = probabilities(module, torch.from_numpy(np.ascontiguousarray(images)))
    found: NDArray[np.float64] = (shares.numpy().argmax(1) == labels).astype(np.float64)
    return found


def _middle(images: Images, side: int) -> Images:
    top, left = ((n - side) // 2 for n in images.shape[2:])
    return images[..., top : top + side, left : left + side]


def _gain(labels: NDArray[np.int64], differences: NDArray[np.float64]) -> Gain:
    found = balanced_interval(labels, differences)
    mean, low, high = (round(100 * value, 1) + 0.0 for value in (found.mean, found.low, found.high))
    return mean, low, high


def to_markdown(path: Path, chains: Chains) -> str:
    """Return what a measurement decides as a table; all of its figures are in the file."""
    lines = [
        f"**{path.stem}** ({chains.images}; points of balanced accuracy with 95 % intervals)",
        "",
        "| images | noise, MTF found | without, % | auto takes for images | for a scene | refused for a scene |",
        "|---|---|---|---|---|---|",
    ]
    for row in chains.rows:
        blurred = f", blurred by {row.blur:g} px" if row.blur else ""
        what = f"{row.coarse * chains.pixel:g} m{blurred}, noise {row.added:g}"
        scene = row.seen(windows=True)
        refused = "; ".join(f"`{name}` {gain[0]:+.1f}" for name, gain in scene.items() if harms(gain))
        found = f"{row.noise:.4f}, {row.mtf:.2f} | {row.accuracy:.1f} | {_best(row.gains)} | {_best(scene)}"
        lines.append(f"| {what} | {found} | {refused} |")
    return "\n".join(lines) + "\n"


def _best(gains: dict[str, Gain]) -> str:
    best = best_of(gains)
    mean, low, high = gains[best] if best else (0.0, 0.0, 0.0)
    return f"`{best}` {mean:+.1f} [{low:+.1f}, {high:+.1f}]" if best else "nothing"
