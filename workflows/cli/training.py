"""Commands that make enhancers and measure them: training, and tables of quality."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from scenelift.pipeline.errors import UsageError
from scenelift.workflows.cli.options import Bands, Device, Json, Tta, band_numbers

Each = Annotated[int, typer.Option(help="Images of every class, or a tenth of the patches of scenes.")]
Seed = Annotated[int, typer.Option(help="Seed of the draw of images and of the noise.")]
Data = Annotated[
    list[Path] | None,
    typer.Option(help="A zip or folder of images, or scenes; repeatable. Default: EuroSAT in SCENELIFT_DATA."),
]

Processes = Annotated[int, typer.Option(help="Train on so many processes of this machine, one a GPU.")]


def register(app: typer.Typer) -> typer.Typer:
    """Add the commands of this file to the program; return the group `evaluate`, to which others add theirs."""
    evaluations = typer.Typer(no_args_is_help=True, help="Print tables of quality against classical methods.")
    evaluations.command("sr")(evaluate_sr)
    evaluations.command("denoise")(evaluate_denoise)
    app.command("train")(train)
    app.add_typer(evaluations, name="evaluate")
    return evaluations


def train(
    recipe: Annotated[
        list[str] | None,
        typer.Argument(help="A recipe: a TOML file, or the name of one that ships. With --task: more scenes."),
    ] = None,
    task: Annotated[str | None, typer.Option(help="Adapt this shipped model to your own --scenes.")] = None,
    scenes: Annotated[list[str] | None, typer.Option(help="Rasters, folders or zips to adapt to; repeatable.")] = None,
    bands: Bands = None,
    run: Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/NAME.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder the recipe's paths start from.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Checkpoint to write.")] = None,
    steps: Annotated[int, typer.Option(help="Steps of an adaptation.")] = 600,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the state in the run's folder.")] = True,
    device: Device = "auto",
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's; its run is NAME-seedN.")] = None,
    processes: Processes = 1,
) -> None:
    """Train a model from a recipe, or adapt a shipped one to your own scenes; a killed run goes on where it was."""
    from scenelift.workflows.cli.train_command import restoration_recipe, run_training

    start_processes(processes)
    named, chosen = list(recipe or []), list(scenes or [])
    if task is not None:  # --scenes a.tif b.tif: the shell's words after the first are arguments
        named, chosen = [], chosen + named
    if len(named) > 1:
        raise UsageError(f"one recipe at a time, got {', '.join(named)}; several scenes go with --task")
    wanted = restoration_recipe(named[0] if named else None, task, chosen, steps, band_numbers(bands))
    where = {"data": data, "weights": output, "threads": threads, "resume": resume, "device": device}
    if said := run_training(wanted, run, seed, **where):
        print(said)


def start_processes(count: int) -> None:
    """Run this command in so many processes instead, and exit as they do; return in each of them."""
    from scenelift.models.training.processes import is_one_of_several, launch

    if count > 1 and not is_one_of_several():
        raise typer.Exit(launch([sys.executable, "-m", "scenelift.workflows.cli", *sys.argv[1:]], count))


def evaluate_sr(
    model: Annotated[list[str], typer.Option("--model", "-m", help="A shipped model or a checkpoint.")],
    scale: Annotated[int, typer.Option(help="2, 3 or 4.")] = 2,
    data: Data = None,
    bands: Bands = None,
    each: Each = 60,
    seed: Seed = 0,
    degradation: Annotated[
        str, typer.Option(help="mtf (the sensor's blur), mtf=.35, area or bicubic; with noise: area:noise=2.")
    ] = "mtf",
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    tta: Tta = False,
    consistency: Annotated[int, typer.Option(help="Back-projection steps after the network.")] = 0,
    as_json: Json = False,
) -> None:
    """Degrade images, super-resolve them, score them against themselves (Wald's protocol)."""
    from scenelift.workflows.evidence.cases import Degradation
    from scenelift.workflows.evidence.evaluate import evaluate
    from scenelift.workflows.evidence.metrics import print_rows
    from scenelift.workflows.evidence.samples import read_sample

    sample = read_sample(data, each, seed, band_numbers(bands))
    case = Degradation.parse(f"x{scale}" if degradation == "mtf" else f"x{scale}:{degradation}")
    rows = evaluate(sample, model, case, precision=precision, tta=tta, consistency=consistency, seed=seed)
    print_rows(rows, sample.title, sample.peak, "ibp", as_json)


def evaluate_denoise(
    model: Annotated[list[str], typer.Option("--model", "-m", help="A shipped model or a checkpoint.")],
    level: Annotated[float | None, typer.Option(help="White noise, 8-bit levels; default: the sensor's noise.")] = None,
    times: Annotated[float, typer.Option(help="Factor on the sensor's noise.")] = 1.0,
    auto: Annotated[bool, typer.Option("--auto", help="Estimate the noise instead of giving it.")] = False,
    data: Data = None,
    bands: Bands = None,
    each: Each = 60,
    seed: Seed = 0,
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    tta: Tta = False,
    baselines: Annotated[bool, typer.Option(help="Score the classical filters as well.")] = True,
    as_json: Json = False,
) -> None:
    """Add noise to images, denoise them, score them against the clean ones."""
    from scenelift.workflows.evidence.cases import Degradation
    from scenelift.workflows.evidence.evaluate import evaluate
    from scenelift.workflows.evidence.metrics import print_rows
    from scenelift.workflows.evidence.samples import read_sample

    sample = read_sample(data, each, seed, band_numbers(bands))
    case = Degradation(sensor=times) if level is None else Degradation(noise=level)
    rows = evaluate(sample, model, case, precision=precision, tta=tta, auto=auto, seed=seed, baselines=baselines)
    print_rows(rows, sample.title, sample.peak, "noisy", as_json)
