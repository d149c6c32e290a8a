"""The commands about land cover. Imports late, so that --help is quick."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from scenelift.pipeline.settings import option
from scenelift.workflows.cli.enhance import Running
from scenelift.workflows.cli.options import (
    DataFolder,
    Inputs,
    Json,
    Output,
    Source,
    Where,
    examples,
    refuse,
    with_options,
)
from scenelift.workflows.landcover.settings import AUTO, MeasureSettings, OwnScene, TileSettings, split_chain
from scenelift.workflows.settings import (
    INPUT,
    MODEL,
    OUTPUT,
    EnhanceSettings,
    TrainingRun,
    split_names,
)

PANEL = "Land cover"
CASES = "x2,x4,noise5,noise15,noise25,noise50,sensor"
CHAIN = (
    "A classifier, or a chain that ends with one, with commas; auto before it takes the enhancement that was measured "
    "to help it most at this noise and blur, or none."
)
FORCE = "Go on although the chain lowers the classifier's accuracy at this noise and blur."


def register(main: typer.Typer) -> None:
    """Add the commands to the command line."""
    group = typer.Typer(no_args_is_help=True, help="Train land-cover networks and classify images.")
    _add(
        group,
        train,
        "landcover train landcover-eurosat --data images/",
        "landcover train --task segmentation --scene a.tif --labels classes.tif",
    )
    _add(
        group,
        predict,
        "landcover predict images/ -o predictions.csv",
        "landcover predict noisy.zip -o out.csv -m auto,landcover-eurosat",
    )
    _add(
        group,
        measure,
        "landcover measure landcover-eurosat",
        "landcover measure mine.safetensors --data images.zip --each 100",
    )
    _add(
        main,
        classify,
        "classify scene.tif -o map.tif --bands 4,3,2",
        "classify scene.tif -o map.tif --bands 4,3,2 -m auto,landcover-eurosat",
        panel=PANEL,
    )
    _add(
        main, tiles, "tiles scene.tif -o tiles --size 64", "tiles better.zarr -o tiles --format webdataset", panel=PANEL
    )
    main.add_typer(group, name="landcover", rich_help_panel=PANEL)


def register_evaluations(group: typer.Typer) -> None:
    """Add what measures land cover to the group `evaluate`."""
    _add(
        group,
        evaluate,
        "evaluate landcover --each 20 --cases x2,noise25",
        "evaluate landcover -o out --json",
        name="landcover",
    )
    shown = "evaluate segmentation recipe.toml --weights map.safetensors"
    _add(group, evaluate_segmentation, shown, f"{shown} -m sr-x2 --scale 2", name="segmentation")


def _add(app: typer.Typer, command: Any, *shown: str, panel: str | None = None, name: str | None = None) -> None:
    app.command(name, epilog=examples(*shown), rich_help_panel=panel)(command)


@with_options(OwnScene, TrainingRun)
def train(
    own: OwnScene,
    training: TrainingRun,
    recipe: Annotated[
        str | None, typer.Argument(help="A land-cover recipe: a TOML file, or the name of one that ships.")
    ] = None,
    data: DataFolder = None,
) -> None:
    """Train a land-cover network, from a recipe or on a labelled scene; a killed run goes on where it was."""
    from scenelift.workflows.cli.train_command import run_training

    if said := run_training(recipe, training, data, own):
        print(said)


def predict(
    images: Annotated[list[Path], typer.Argument(help="Images, zips or folders of images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The CSV to write.")] = Path("predictions.csv"),
    model: Annotated[str, typer.Option("--model", "-m", help=CHAIN)] = "landcover-eurosat",
    force: Annotated[bool, typer.Option("--force", help=FORCE)] = False,
) -> None:
    """Name the class of every image: one CSV row an image, with the probability of each class."""
    from scenelift.workflows.landcover.predict import predict as run

    counts = run(images, output, model, force=force, say=lambda line: print(line, file=sys.stderr))
    named = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    print(f"{output}: {sum(counts.values())} images: {named}")


@with_options(MeasureSettings)
def measure(
    classifiers: Annotated[list[str], typer.Argument(help="Classifiers of the same classes: names or checkpoints.")],
    settings: MeasureSettings,
) -> None:
    """Measure which enhancement helps a classifier at which noise and blur; predict and classify choose by it.

    It is written beside the weights (NAME.chains), and holds for these weights alone.
    """
    from scenelift.workflows.landcover.measuring import measure as run
    from scenelift.workflows.landcover.measuring import to_markdown

    for path, found in run(tuple(classifiers), settings, lambda text: print(text, file=sys.stderr)).items():
        print(to_markdown(path, found))


@dataclass(frozen=True)
class Experiment:
    """Which images, degraded how, restored and classified by what."""

    data: Path | None = option(
        None, "Zip or folder in EuroSAT's layout, CLASS/name.jpg; default: see SCENELIFT_DATA.", panel=INPUT
    )
    each: int = option(100, "Images of every class; 0: all.", panel=INPUT)
    seed: int = option(0, "Seed of the draw of images and of the noise.", panel=INPUT)
    cases: str = option(CASES, "What is done to the images: x2, noise5 (levels of 255), sensor, haze0.3; with commas.")
    model: str | None = option(
        None, "Networks to try, with commas; default: those that ship.", "--model", "-m", panel=MODEL
    )
    classifier: str | None = option(
        None, "Classifiers or checkpoints, with commas; default: those of EuroSAT that ship.", panel=MODEL
    )
    retrain: bool = option(False, "Also tune the classifier on the images of each method: slow.")
    training: Path = option(Path("eurosat_rgb_train.zip"), "Labelled images to tune on.", panel=INPUT)
    steps: int = option(120, "Steps of that tuning.")


@with_options(Experiment)
def evaluate(
    experiment: Experiment,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder for confusion matrices, per-class scores, JSON.", rich_help_panel=OUTPUT
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Does enhancement help a land-cover classifier? Degrade images, restore them by every method, classify them."""
    from scenelift.workflows.evidence.landcover import LandcoverSettings, run_experiment, shipped_classifiers
    from scenelift.workflows.evidence.retrain import Budget
    from scenelift.workflows.evidence.tables import to_json, to_markdown, write_folder

    model, classifier = experiment.model, experiment.classifier
    settings = LandcoverSettings(
        data=experiment.data,
        each=experiment.each,
        seed=experiment.seed,
        cases=split_names(experiment.cases),
        networks=None if model is None else split_names(model),
        classifiers=shipped_classifiers() if classifier is None else split_names(classifier),
        retrain=experiment.training if experiment.retrain else None,
        budget=Budget(steps=experiment.steps),
    )
    found = run_experiment(settings, lambda text: print(text, file=sys.stderr))
    if output is not None:
        write_folder(found, output)
    print(to_json(found) if as_json else to_markdown(found, settings.budget.describe()))


def evaluate_segmentation(
    recipe: Annotated[str, typer.Argument(help="The recipe whose validation strips are used.")],
    weights: Annotated[str, typer.Option(help="The segmenter: a checkpoint or a shipped name.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Super-resolution networks, with commas.")] = "sr-x4",
    scale: Annotated[int, typer.Option(help="How much coarser the images are made.")] = 4,
    data: Annotated[Path | None, typer.Option(help="Folder the recipe's paths start from.")] = None,
) -> None:
    """Does super-resolution help a segmenter? Coarsen images, restore them by every method, score the maps."""
    from scenelift.workflows.evidence.segmentation import run_segmentation, to_markdown
    from scenelift.workflows.training.recipe import load_recipe

    arms = run_segmentation(load_recipe(recipe), weights, split_names(model), scale, data)
    print(to_markdown(arms, f"{recipe}, validation strips, ×{scale}; intervals over blocks of 32 x 32 pixels."))


@dataclass(frozen=True)
class Classification:
    """By what a scene is classified, and what of it is stored."""

    model: str = option(
        "landcover-eurosat",
        CHAIN,
        "--model",
        "-m",
        panel=MODEL,
    )
    force: bool = option(False, FORCE, panel=MODEL)
    probabilities: bool = option(False, "Store the probability of every class, not the class.", panel=OUTPUT)


@with_options(Source, Classification, EnhanceSettings(precision="fp32"), Where, Running)
def classify(
    inputs: Inputs,
    output: Output,
    source: Source,
    how: Classification,
    settings: EnhanceSettings,
    where: Where,
    running: Running,
) -> None:
    """Turn a scene, as it is or enhanced on the way, into a map of land cover with class names and a palette."""
    before, last = split_chain(how.model)
    refuse(inputs, source, ",".join((*(name for name in before if name != AUTO), last)), output, where)
    from scenelift.workflows.landcover.classify import classify as run

    scene, cluster = source.of(inputs), where.settings(settings.device)
    kind = {"probabilities": how.probabilities, "force": how.force}
    running.scene(
        lambda progress, console: run(scene, output, how.model, settings, cluster, progress, console.say, **kind),
        output,
        "classified",
    )


@with_options(Source, TileSettings)
def tiles(
    scene: Annotated[str, typer.Argument(help="A raster, a .SAFE folder or a Zarr store, enhanced or not.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.", rich_help_panel=OUTPUT)],
    source: Source,
    settings: TileSettings,
    labels: Annotated[
        str | None, typer.Option(help="A raster of class numbers on the same grid.", rich_help_panel=INPUT)
    ] = None,
    as_json: Json = False,
) -> None:
    """Cut a scene into tiles for a classifier, with an index of their footprints (GeoParquet and CSV)."""
    import json

    from scenelift.workflows.landcover.tiles import cut_tiles

    truth = None if labels is None else Source().of(labels)
    facts = cut_tiles(source.of(scene), output, settings, truth)
    size = f"{settings.side} x {settings.side} px ({settings.kind})"
    print(json.dumps(facts) if as_json else f"{output}: {facts['tiles']} tiles of {size}")
