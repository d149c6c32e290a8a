"""Commands that train networks, and print tables of their quality. Imports late, so that --help is quick."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from scenelift.models.extras import Consistency, Extra, SelfEnsemble, Uncertainty
from scenelift.pipeline.settings import option
from scenelift.workflows.cli.options import DataFolder, Json, band_numbers, examples, with_options
from scenelift.workflows.settings import INPUT, MODEL, TrainingRun


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the program, and the group `evaluate`, which has one of land cover too."""
    from scenelift.workflows.cli.landcover import register_evaluations
    from scenelift.workflows.cli.methods.detection import register_detection
    from scenelift.workflows.cli.methods.simulations import register_simulations

    evaluations = typer.Typer(no_args_is_help=True, help="Print tables of quality against classical methods.")
    evaluations.command("sr", epilog=examples("evaluate sr -m sr-x2 --scale 2", "evaluate sr -m sr-x4 --scale 4"))(
        evaluate_sr
    )
    evaluations.command(
        "denoise",
        epilog=examples("evaluate denoise -m denoise --level 25", "evaluate denoise -m denoise-fast --level 5"),
    )(evaluate_denoise)
    register_simulations(evaluations)
    shown = examples("train sr-x2-fast --data images", "train my.toml -o mine.safetensors")
    app.command("train", epilog=shown, rich_help_panel="Training")(train)
    register_evaluations(evaluations)
    register_detection(evaluations)
    app.add_typer(evaluations, name="evaluate", rich_help_panel="Measuring")


@with_options(TrainingRun)
def train(
    training: TrainingRun,
    recipe: Annotated[str, typer.Argument(help="A TOML file, or the name of a recipe that ships.")],
    data: DataFolder = None,
) -> None:
    """Train a model from a recipe; a killed run goes on where it was. Your own scenes: `scenelift adapt`."""
    from scenelift.workflows.cli.train_command import run_training

    if said := run_training(recipe, training, data):
        print(said)


@dataclass(frozen=True)
class Images:
    """The images that networks are evaluated on."""

    data: tuple[Path, ...] = option(
        (), "A zip or folder of images, or scenes; repeatable. Default: EuroSAT in SCENELIFT_DATA.", panel=INPUT
    )
    bands: str | None = option(None, "1-based bands in the order wanted, e.g. 4,3,2.", panel=INPUT)
    each: int = option(60, "Images of every class, or a tenth of the patches of scenes.", panel=INPUT)
    seed: int = option(0, "Seed of the draw of images and of the noise.", panel=INPUT)


@dataclass(frozen=True)
class Networks:
    """The networks that are evaluated, and how they run."""

    model: tuple[str, ...] = option(
        MISSING,
        "A shipped model, a checkpoint, or a chain (bilateral,denoise); repeatable.",
        "--model",
        "-m",
        panel=MODEL,
    )
    precision: Literal["fp32", "bf16"] = option("fp32", "Numbers the model computes with.", panel=MODEL)
    tta: bool = option(False, SelfEnsemble.help, panel=MODEL)

    def extras(self) -> tuple[Extra, ...]:
        """Return what --tta asks for: the mean and, for its table, the standard deviation."""
        return (Uncertainty(),) if self.tta else ()


@with_options(Images, Networks)
def evaluate_sr(
    images: Images,
    networks: Networks,
    scale: Annotated[int, typer.Option(help="2, 3 or 4.")] = 2,
    degradation: Annotated[
        str, typer.Option(help="mtf (the sensor's blur), mtf=.35, area or bicubic; with noise: area:noise=2.")
    ] = "mtf",
    consistency: Annotated[int, typer.Option(help="Back-projection steps after the network.")] = 0,
    as_json: Json = False,
) -> None:
    """Degrade images, super-resolve them, score them against themselves (Wald's protocol)."""
    from scenelift.workflows.evidence.cases import Degradation
    from scenelift.workflows.evidence.evaluate import evaluate
    from scenelift.workflows.evidence.metrics import print_rows
    from scenelift.workflows.evidence.samples import read_sample

    sample = read_sample(images.data, images.each, images.seed, band_numbers(images.bands))
    case = Degradation.parse(f"x{scale}" if degradation == "mtf" else f"x{scale}:{degradation}")
    extras = (Consistency(consistency), *networks.extras())
    rows = evaluate(sample, networks.model, case, precision=networks.precision, extras=extras, seed=images.seed)
    print_rows(rows, sample.title, sample.peak, "ibp", as_json)


@with_options(Images, Networks)
def evaluate_denoise(
    images: Images,
    networks: Networks,
    level: Annotated[float | None, typer.Option(help="White noise, 8-bit levels; default: the sensor's noise.")] = None,
    times: Annotated[float, typer.Option(help="Factor on the sensor's noise.")] = 1.0,
    auto: Annotated[bool, typer.Option("--auto", help="Estimate the noise instead of giving it.")] = False,
    baselines: Annotated[bool, typer.Option(help="Score the classical filters as well.")] = True,
    as_json: Json = False,
) -> None:
    """Add noise to images, denoise them, score them against the clean ones."""
    from scenelift.workflows.evidence.cases import Degradation
    from scenelift.workflows.evidence.evaluate import evaluate
    from scenelift.workflows.evidence.metrics import print_rows
    from scenelift.workflows.evidence.samples import read_sample

    sample = read_sample(images.data, images.each, images.seed, band_numbers(images.bands))
    case = Degradation(sensor=times) if level is None else Degradation(noise=level)
    how: dict[str, Any] = {"precision": networks.precision, "extras": networks.extras(), "seed": images.seed}
    rows = evaluate(sample, networks.model, case, auto=auto, baselines=baselines, **how)
    print_rows(rows, sample.title, sample.peak, "noisy", as_json)
