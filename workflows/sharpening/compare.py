"""`scenelift compare --task sharpen`: every way of sharpening on the same places, one scale lower and as they are."""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scenelift.models import whole
from scenelift.models.catalog import CLOSED
from scenelift.models.checkpoint import load_checkpoint
from scenelift.models.enhancer import TorchEnhancer
from scenelift.models.errors import ModelError
from scenelift.models.networks.sharpener import DetailNetwork
from scenelift.models.sharpening.adapting import fit_network
from scenelift.models.sharpening.classical import METHODS, ONE_GUIDE, Task
from scenelift.models.sharpening.closed import ClosedForm
from scenelift.models.sharpening.fitting import fit
from scenelift.models.sharpening.layout import BandGrid, coarse, guides
from scenelift.models.sharpening.network import Sharpener
from scenelift.models.sharpening.projection import observe, replicate
from scenelift.models.sharpening.running import sharpening_spec
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.nodata import fill_nodata
from scenelift.pipeline.scores.bootstrap import Interval, interval
from scenelift.pipeline.scores.fusion import no_reference_sums, without_reference
from scenelift.pipeline.scores.scores import Convention, block_statistics, scores
from scenelift.workflows.sharpening.places import Place, Trial, degrade, find_places, read_place

Image = NDArray[np.float32]
REFERENCE = ("sre", "rmse", "ergas", "sam", "uiqi", "q2n")
"""Scores one scale lower, where the truth is known; ``again`` (the consistency) is added to them."""
BLIND = ("d_lambda", "d_s", "qnr")
"""Scores at full resolution, where it is not."""
AGAIN = "again"
REACH = 128
"""Pixels that are filled where there is no data."""
TITLES = {
    "sre": "SRE, dB",
    "rmse": "RMSE",
    "ergas": "ERGAS",
    "sam": "SAM, degrees",
    "uiqi": "UIQI",
    "q2n": "Q2n",
    AGAIN: "coarse RMS",
    "d_lambda": "D lambda",
    "d_s": "D S",
    "qnr": "QNR",
}
DIGITS = {"sre": 2, "rmse": 5, "ergas": 3, "sam": 3, AGAIN: 6}


@dataclass(frozen=True)
class SharpenSettings:
    """What is compared."""

    places: tuple[Path, ...]
    """Folders or files of places, see `scenelift.workflows.sharpening.places.find_places`."""
    ratio: int = 2
    """How much coarser the bands are made."""
    network: Path | None = None
    """A checkpoint, or a folder of checkpoints each named after the place that it has not seen."""
    mask: str | None = None
    """What hides pixels, see `SceneSource`; or a folder of masks each named after its place. Nothing hidden counts."""
    mask_classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 2 <= self.ratio <= 12:
            raise UsageError(f"--ratio must be from 2 to 12, got {self.ratio}")
        if not self.places:
            raise UsageError("nothing to compare: name a folder of places, or their files")


@dataclass(frozen=True)
class SharpenComparison:
    """Scores of every place and method."""

    ratio: int
    places: tuple[str, ...]
    methods: tuple[str, ...]
    values: dict[tuple[str, str], NDArray[np.float64]]
    """(method, score) to one value a place."""

    def mean(self, method: str, score: str) -> Interval:
        """Return the mean over places, with its interval over draws of places."""
        return interval(self.values[method, score])

    def difference(self, method: str, other: str, score: str) -> Interval:
        """Return the mean paired difference of two methods."""
        return interval(self.values[method, score] - self.values[other, score])


def compare_sharpening(
    settings: SharpenSettings, progress: Callable[[int, int], None] | None = None
) -> SharpenComparison:
    """Sharpen every place by every method, one scale lower and as it is, and score both.

    Raises
    ------
    UsageError, SceneError, ModelError
        If there are no places, their grids do not fit, or a network cannot be used.
    """
    torch.set_num_threads(1)
    found = find_places(settings.places)
    single = _one_kind(found)
    learned = (settings.network.stem,) if settings.network else ()
    methods = (*(m for m in METHODS if single or m not in ONE_GUIDE), CLOSED, *learned)
    rows: dict[tuple[str, str], list[float]] = {}
    for number, (name, files) in enumerate(found, start=1):
        place = read_place(name, files[:2], settings.mask, settings.mask_classes)
        network = load_network(settings.network, name) if settings.network else None
        for method, measured in _try(place, settings.ratio, methods, network):
            for score, value in measured.items():
                rows.setdefault((method, score), []).append(value)
        if progress:
            progress(number, len(found))
    values = {key: np.array(each) for key, each in rows.items()}
    return SharpenComparison(settings.ratio, tuple(name for name, _ in found), methods, values)


def _one_kind(found: Sequence[tuple[str, tuple[Path, ...]]]) -> bool:
    """Return whether the places have a single guide (a panchromatic band); they must be alike."""
    kinds = {files[0].stem.endswith("_pan") for _, files in found}
    if len(kinds) > 1:
        raise UsageError("places with a panchromatic band and places of several bands are compared apart")
    return kinds.pop()


def load_network(path: Path, place: str) -> DetailNetwork:
    """Load a sharpening network, of a folder the one that has not seen the place.

    Raises
    ------
    ModelError
        If there is none, or it is another kind of network.
    """
    file = path / f"{place}.safetensors" if path.is_dir() else path
    module, spec = load_checkpoint(file, valid=True)
    if not isinstance(module, DetailNetwork):
        raise ModelError(f"{file} must be a network for sharpening, got one for {spec.task}")
    return module


def _try(
    place: Place, ratio: int, methods: Sequence[str], network: DetailNetwork | None
) -> Iterable[tuple[str, dict[str, float]]]:
    trial = degrade(place, ratio)
    full = place.stack()
    for method in methods:
        run = functools.partial(_sharpen, method=method, network=network)
        measured = score_trial(trial, run(trial.layout, trial.images, trial.seen))
        sharp = run(place.layout, full, place.coarse[0].values)
        yield method, measured | score_blind(place, full, sharp)


def _sharpen(
    layout: tuple[BandGrid, ...], images: Image, seen: Image, method: str, network: DetailNetwork | None
) -> Image:
    """Return the sharpened bands of one coarse grid; where there is no data, their surroundings continued."""
    known = images
    images, seen = (fill_nodata(values, np.isfinite(values), REACH) for values in (images, seen))
    if method in METHODS:
        return METHODS[method](Task(layout, images, seen))
    if method == CLOSED or network is None:
        return run_whole(ClosedForm(layout, fit([known], layout)), images)[coarse(layout)]
    return run_whole(Sharpener(layout, fit_network([known], layout, network), network), images)[coarse(layout)]


def run_whole(module: ClosedForm | Sharpener, images: Image) -> Image:
    """Sharpen a whole image (bands, H, W), mirrored at its edges as the engine does."""
    return whole.run_whole(TorchEnhancer(module, sharpening_spec(module, CLOSED)), images[None])[0]


def score_trial(trial: Trial, found: Image) -> dict[str, float]:
    """Score sharpened bands against the truth, without a border of two coarse pixels and what has no data."""
    border = 2 * trial.ratio
    inner = (slice(None), slice(border, -border), slice(border, -border))
    convention = Convention(ratio=trial.ratio, names=REFERENCE)
    known = np.isfinite(np.concatenate([trial.truth, trial.images])).all(0)
    sums = block_statistics(trial.truth[inner], found[inner], np.asarray(known)[inner[1:]], None, convention)
    measured = scores(sums, convention).values
    bands = [trial.layout[i] for i in coarse(trial.layout)]
    again = observe(found, bands, (trial.seen.shape[1], trial.seen.shape[2])) - trial.seen
    return measured | {AGAIN: float(np.sqrt(np.nanmean(again[:, 2:-2, 2:-2].astype(np.float64) ** 2)))}


def score_blind(place: Place, full: Image, found: Image) -> dict[str, float]:
    """Score sharpened bands by themselves (QNR)."""
    bands = place.coarse[0].bands
    fine = place.guides
    shape = place.coarse[0].values.shape
    low = observe(fine, [bands[0]] * len(fine), (shape[1], shape[2]))
    before = full[len(guides(place.layout)) :][: len(bands)]
    sums = no_reference_sums(found[: len(bands)], before, fine, replicate(low, bands[0], fine.shape[1:]))
    return without_reference(sums)


def table(found: SharpenComparison) -> list[list[str]]:
    """Return the table: a head and one row a method, SRE with its interval and the difference to the closed form."""
    names = [*REFERENCE, AGAIN, *BLIND]
    rows = [["method", *(TITLES[name] for name in names), f"SRE over {CLOSED}"]]
    for method in found.methods:
        cells = [found.mean(method, "sre").text(".2f")]
        cells += [f"{found.mean(method, name).mean:.{DIGITS.get(name, 4)}f}" for name in names[1:]]
        over = "" if method == CLOSED else found.difference(method, CLOSED, "sre").text("+.2f")
        rows.append([method, *cells, over])
    return rows


def to_markdown(found: SharpenComparison, command: str) -> str:
    """Return the page."""
    head, *rows = table(found)
    lines = [
        "# Sharpening compared",
        "",
        f"{len(found.places)} places ({', '.join(found.places)}), bands made {found.ratio} times as coarse by their "
        "MTF and sharpened again (Wald's protocol), guides brought to the same scale; D lambda, D S and QNR: the bands "
        "as they are. SRE with its 95 % interval over places; coarse RMS: what the sensor would see of the result "
        f"less what it saw. Made by `{command}`.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        "SRE of each place, dB:",
        "",
        f"| method | {' | '.join(found.places)} |",
        f"|{'---|' * (1 + len(found.places))}",
    ]
    for method in found.methods:
        lines.append(f"| {method} | {' | '.join(f'{v:.2f}' for v in found.values[method, 'sre'])} |")
    return "\n".join(lines) + "\n"


def to_json(found: SharpenComparison) -> str:
    """Return every place's scores as JSON."""
    facts: dict[str, Any] = {"ratio": found.ratio, "places": list(found.places), "methods": {}}
    for (method, score), values in found.values.items():
        each = [float(v) if np.isfinite(v) else None for v in values]
        facts["methods"].setdefault(method, {})[score] = each
    return json.dumps(facts)


def write_places_csv(found: SharpenComparison, path: Path) -> None:
    """Write every place's scores: method, place, one column a score."""
    names = [*REFERENCE, AGAIN, *BLIND]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "place", *names])
        for method in found.methods:
            for index, place in enumerate(found.places):
                writer.writerow([method, place, *(f"{found.values[method, name][index]:.6g}" for name in names)])
