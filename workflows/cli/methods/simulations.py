"""The commands `evaluate haze` and `evaluate stripes`. Imports late, so that --help is quick."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from scenelift.pipeline.settings import option
from scenelift.workflows.cli.options import Json, band_numbers, examples, with_options
from scenelift.workflows.settings import INPUT, MODEL


def register_simulations(evaluations: typer.Typer) -> None:
    """Add the commands of this file to the group `evaluate`."""
    shown = examples("evaluate haze --data scenes/ --bands 3,2,1", "evaluate haze --depth 0.8 --json")
    evaluations.command("haze", epilog=shown)(evaluate_haze)
    shown = examples("evaluate stripes --data scene.tif", "evaluate stripes --data scene.tif --share 0.05 --slant 0.2")
    evaluations.command("stripes", epilog=shown)(evaluate_stripes)


@dataclass(frozen=True)
class SimulatedAir:
    """The haze that is simulated; see `scenelift.models.sensing.atmosphere.Air`."""

    depth: float = option(0.5, "Optical depth at 550 nm, mean of a scene.", panel=MODEL)
    structure: float = option(0.5, "0: everywhere as thick; 1: from none to twice as much.", panel=MODEL)
    exponent: float = option(1.0, "Optical depth falls with the wavelength to this power.", panel=MODEL)
    airlight: float = option(0.35, "Reflectance of endless haze.", panel=MODEL)
    sun: float = option(1.0, "Share of the light that comes, as under a low sun.", panel=MODEL)
    contrast: float = option(1.0, "Share of the contrast that is left.", panel=MODEL)


@dataclass(frozen=True)
class Places:
    """What is degraded."""

    data: tuple[Path, ...] = option(
        (), "A zip or folder of images, or scenes; repeatable. Default: EuroSAT in SCENELIFT_DATA.", panel=INPUT
    )
    bands: str | None = option(None, "1-based bands in the order wanted, e.g. 4,3,2.", panel=INPUT)
    seed: int = option(0, "Seed of what is drawn.", panel=INPUT)


@with_options(Places, SimulatedAir)
def evaluate_haze(
    places: Places,
    simulated: SimulatedAir,
    each: Annotated[int, typer.Option(help="Images of every class, or a tenth of the patches of scenes.")] = 30,
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="A network beside the classical methods; repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put images under simulated haze, take it away, score them against the clear ones."""
    from scenelift.models.sensing.atmosphere import Air
    from scenelift.workflows.evidence.samples import read_sample
    from scenelift.workflows.evidence.simulated import evaluate_haze as run
    from scenelift.workflows.evidence.simulated import print_haze

    air = Air(**vars(simulated))
    sample = read_sample(places.data, each, places.seed, band_numbers(places.bands))
    print_haze(run(sample, model or [], air, places.seed), sample.title, air, as_json)


@with_options(Places)
def evaluate_stripes(
    places: Places,
    share: Annotated[float, typer.Option(help="Standard deviation of the detectors' gains.")] = 0.02,
    slant: Annotated[float, typer.Option(help="Lines that a stripe moves per row.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Put stripes on whole scenes, take them off, score what is left of them and of the scene."""
    from scenelift.pipeline.errors import UsageError
    from scenelift.workflows.evidence.simulated import evaluate_stripes as run
    from scenelift.workflows.evidence.simulated import print_stripes

    if not places.data:
        raise UsageError("evaluate stripes needs whole scenes: name rasters by --data")
    print_stripes(run(places.data, share, slant, band_numbers(places.bands), places.seed), share, as_json)
