"""Train the sharpening network: ``python -m scenelift.workflows.sharpening.train --data DIR -o sharpen.safetensors``.

It learns from Sentinel-2's own 20 m bands made 40 m and 120 m: its task, one scale lower.
Places that are left out are measured afterwards; where none is, the lower fifth of every place is.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from scenelift.models.checkpoint import load_checkpoint, save_checkpoint
from scenelift.models.enhancer import pick_device
from scenelift.models.networks.sharpener import DetailNetwork
from scenelift.models.sharpening.adapting import fit_network
from scenelift.models.sharpening.closed import ClosedForm
from scenelift.models.sharpening.layout import BandGrid, coarse
from scenelift.models.sharpening.learning import Example, Schedule, example, train
from scenelift.models.sharpening.network import Sharpener
from scenelift.models.spec import ModelSpec
from scenelift.pipeline.errors import UsageError
from scenelift.workflows.sharpening.compare import run_whole, score_trial
from scenelift.workflows.sharpening.places import Coarse, Place, Trial, degrade, find_places, read_place
from scenelift.workflows.training.runs import save_card

PLACES = ("s2_20m", "s2/us_va_eastern_shore_10m.tif", "s2/us_va_eastern_shore_20m.tif")
RATIOS = {2: 0.7, 6: 0.3}
"""How much coarser the bands are made, and how often each is drawn."""
BLURS = 0.25
"""Largest change (natural logarithm) of a sensor's MTF in the second example of every place."""
HELD_OUT = 0.2
"""Share of a place's rows, at its lower end, that are only measured on where no place is left out."""
PART, LEAST_PART = 0.6, 50
"""Share of a place's sides that a corner of it has, and coarse pixels below which it is none."""
CHANNELS, BLOCKS = 32, 3


def changed(place: Place, rng: np.random.Generator) -> Place:
    """Return the place as a sensor with other MTFs would be told of it."""

    def other(band: BandGrid) -> BandGrid:
        mtf = float(np.clip(band.mtf * np.exp(rng.uniform(-BLURS, BLURS)), 0.12, 0.5))
        return dataclasses.replace(band, mtf=mtf)

    coarse_grids = tuple(Coarse(part.values, tuple(map(other, part.bands))) for part in place.coarse)
    return dataclasses.replace(place, bands=tuple(map(other, place.bands)), coarse=coarse_grids)


def mixed(place: Place, rng: np.random.Generator) -> Place:
    """Return the place with mixtures of its coarse bands in their stead, as of unknown sensors.

    There are few places; that a band follows its guides in another way in each of them is learned from more bands.
    """
    coarse_grids = []
    for part in place.coarse:
        shares = rng.dirichlet(np.full(len(part.values), 0.5), len(part.values)).astype(np.float32)
        values = np.einsum("mb,bhw->mhw", shares, part.values)
        coarse_grids.append(Coarse(values, tuple(dataclasses.replace(b, name="", wavelength=0.0) for b in part.bands)))
    return changed(dataclasses.replace(place, coarse=tuple(coarse_grids)), rng)


def part_of(trial: Trial, rows: slice, cols: slice) -> Trial:
    """Return a part of a trial, rows and columns in coarse pixels."""
    fine = slice(None), *(slice(trial.ratio * cut.start, trial.ratio * cut.stop) for cut in (rows, cols))
    seen = trial.seen[:, rows, cols]
    return dataclasses.replace(trial, images=trial.images[fine], truth=trial.truth[fine], seen=seen)


def corners(trial: Trial) -> list[Trial]:
    """Return the four overlapping corners of a trial, each of which is fitted by itself: a place is not one scene."""
    height, width = (round(PART * side) for side in trial.seen.shape[1:])
    if min(height, width) < LEAST_PART:
        return []
    starts = ((row, col) for row in (0, trial.seen.shape[1] - height) for col in (0, trial.seen.shape[2] - width))
    return [part_of(trial, slice(row, row + height), slice(col, col + width)) for row, col in starts]


def upper(trial: Trial) -> Trial:
    """Return the rows of a trial that are learned from where its lower ones are measured on."""
    rows, cols = trial.seen.shape[1:]
    return part_of(trial, slice(0, int(rows * (1 - HELD_OUT))), slice(0, cols))


def gains(network: DetailNetwork, trials: list[Trial], share: float = 1.0) -> dict[str, dict[str, float]]:
    """Return scores of the closed form and of the network on the lower share of each trial's rows, SRE in dB."""
    found = {}
    for trial in trials:
        coefficients = fit_network([trial.images], trial.layout, network)
        modules: dict[str, ClosedForm | Sharpener] = {
            "closed": ClosedForm(trial.layout, coefficients),
            "network": Sharpener(trial.layout, coefficients, network),
        }
        skipped = int(len(trial.seen[0]) * (1 - share))  # coarse rows
        rows = slice(skipped * trial.ratio, None)
        part = dataclasses.replace(
            trial, images=trial.images[:, rows], truth=trial.truth[:, rows], seen=trial.seen[:, skipped:]
        )
        row: dict[str, float] = {}
        for name, module in modules.items():
            measured = score_trial(part, run_whole(module, trial.images)[coarse(trial.layout)][:, rows])
            row |= {f"{name} {score}": round(measured[score], 3) for score in ("sre", "sam", "ergas")}
        found[f"{trial.place} x{trial.ratio}"] = row
    return found


def train_sharpener(
    data: Annotated[Path, typer.Option(help="Folder that the places' paths start from.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Weights to write (.safetensors).")],
    leave_out: Annotated[str, typer.Option(help="Places, with commas, to measure on instead of learning from.")] = "",
    steps: Annotated[int, typer.Option(help="Steps of training.")] = 900,
    minutes: Annotated[float, typer.Option(help="The schedule is shortened to end about then.")] = 30.0,
    seed: int = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "cpu",
) -> None:
    """Train the sharpening network."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    started, rng = time.perf_counter(), np.random.default_rng(seed)
    places = [read_place(name, files[:2]) for name, files in find_places(data / path for path in PLACES)]
    left = [name for name in leave_out.split(",") if name]
    if unknown := sorted(set(left) - {place.name for place in places}):
        raise UsageError(f"--leave-out: no place {unknown[0]!r}, there are {', '.join(p.name for p in places)}")
    examples: list[Example] = []
    measured: list[Trial] = []
    for place in places:
        for ratio, share in RATIOS.items():
            trial = degrade(place, ratio)
            if place.name in left:
                measured.append(trial)
                continue
            if not left:
                measured.append(trial)
            whole = [trial, *(degrade(make(place, rng), ratio) for make in (changed, mixed, mixed))]
            whole = whole if left else list(map(upper, whole))
            parts = [part for one in whole[:2] for part in corners(one)]
            examples += [example(each.images, each.truth, each.layout, share) for each in whole]
            examples += [example(each.images, each.truth, each.layout, share / 2) for each in parts]
    network = DetailNetwork(channels=CHANNELS, blocks=BLOCKS).to(pick_device(device))
    plan = Schedule(steps=steps, seconds=60 * minutes)
    trained = train(examples, network, plan, seed, _say)
    spec = ModelSpec("sharpen", "sharpening", halo=trained.halo)
    arch = {"kind": "sharpener", "guides": trained.guides, "channels": CHANNELS, "blocks": BLOCKS}
    save_checkpoint(output, trained.half(), spec, arch)
    stored, _ = load_checkpoint(output)
    assert isinstance(stored, DetailNetwork)
    facts: dict[str, Any] = {
        "trained_on": [place.name for place in places if place.name not in left],
        "split": f"{leave_out} left out" if left else f"the lower {HELD_OUT:.0%} of every place's rows left out",
        "steps": steps,
        "seed": seed,
        "minutes_of_this_process": round((time.perf_counter() - started) / 60, 1),
        "validation": gains(stored, measured, 1.0 if left else HELD_OUT),
    }
    print(facts["validation"])
    save_card(
        output,
        "Sentinel-2's 20 m and 60 m bands on the 10 m grid, guided by the four 10 m bands.",
        "Learned one scale lower (Wald's protocol): finer detail than a band's sensor saw is inferred from the guides. "
        "Bands that the guides do not follow (thermal, water vapour) gain less.",
        "Apache-2.0 (weights and code); training data: Copernicus Sentinel data (free and open), DSen2 (CC BY 4.0)",
        facts,
    )


def _say(step: int, loss: float) -> None:
    print(f"step {step}: loss {loss:.4f}", flush=True)


if __name__ == "__main__":
    typer.run(train_sharpener)
