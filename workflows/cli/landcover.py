"""The commands about land cover. Imported by the command line; imports late."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scenelift.workflows.cli.cluster_options import ClusterKeys, ClusterOption, cluster_settings
from scenelift.workflows.cli.enhance import Stall, Walltime, run_stoppably
from scenelift.workflows.cli.options import (
    AllowHoles,
    Bands,
    Block,
    Crs,
    Device,
    Inputs,
    Json,
    Nodata,
    Noise,
    Offset,
    Precision,
    Scale,
    Scheduler,
    Tile,
    Tta,
    Workers,
    gpus_for,
    parse_noise,
    scene_source,
    split_names,
)
from scenelift.workflows.cli.training import Processes, start_processes

app = typer.Typer(no_args_is_help=True, help="Train land-cover networks and classify images.")


def register(main: typer.Typer, evaluations: typer.Typer) -> None:
    """Add the commands to the command line."""
    main.add_typer(app, name="landcover")
    main.command()(classify)
    main.command()(tiles)
    evaluations.command("landcover")(evaluate)
    evaluations.command("segmentation")(evaluate_segmentation)


@app.command()
def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A land-cover recipe: a TOML file, or the name of one that ships.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="segmentation: train on a --scene and its --labels.")] = None,
    scene: Annotated[Path | None, typer.Option(help="A raster to learn from.")] = None,
    labels: Annotated[Path | None, typer.Option(help="The raster of its labels, on the same grid.")] = None,
    classes: Annotated[str, typer.Option(help="What the labels mean: 1=Forest,2=Water; default: their numbers.")] = "",
    steps: Annotated[int, typer.Option(help="Training steps on a --scene.")] = 300,
    run: Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/NAME.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder the recipe's paths start from.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Checkpoint to write.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the state in the run's folder.")] = True,
    device: Device = "auto",
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's; its run is NAME-seedN.")] = None,
    processes: Processes = 1,
) -> None:
    """Train a land-cover network, from a recipe or on a labelled scene; a killed run goes on where it was."""
    from scenelift.workflows.cli.train_command import OwnScene, landcover_recipe, run_training

    start_processes(processes)
    own = OwnScene(task, scene, labels, split_names(classes), steps) if (task or scene or labels) else None
    where = {"data": data, "weights": output, "threads": threads, "resume": resume, "device": device}
    if said := run_training(landcover_recipe(recipe, own), run, seed, **where):
        print(said)


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Images, zips or folders of images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The CSV to write.")] = Path("predictions.csv"),
    model: Annotated[str, typer.Option("--model", "-m", help="A shipped classifier or a checkpoint.")] = (
        "landcover-eurosat"
    ),
) -> None:
    """Name the class of every image: one CSV row an image, with the probability of each class."""
    from scenelift.workflows.landcover.predict import predict as run

    counts = run(images, output, model)
    named = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    print(f"{output}: {sum(counts.values())} images: {named}")


def evaluate(
    data: Annotated[
        Path | None,
        typer.Option(help="Zip or folder in EuroSAT's layout, CLASS/name.jpg; default: see SCENELIFT_DATA."),
    ] = None,
    each: Annotated[int, typer.Option(help="Images of every class; 0: all.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the draw of images and of the noise.")] = 0,
    cases: Annotated[
        str, typer.Option(help="What is done to the images: x2, x4, noise5 (levels of 255), sensor; with commas.")
    ] = "x2,x4,noise5,noise15,noise25,noise50,sensor",
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Networks to try, with commas; default: those that ship.")
    ] = None,
    classifier: Annotated[
        str | None, typer.Option(help="Classifiers or checkpoints, with commas; default: those of EuroSAT that ship.")
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Also tune the classifier on each arm's images: slow.")
    ] = False,
    training: Annotated[Path, typer.Option(help="Labelled images to tune on.")] = Path("eurosat_rgb_train.zip"),
    steps: Annotated[int, typer.Option(help="Steps of that tuning.")] = 120,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for confusion matrices, per-class scores, JSON.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Does enhancement help a land-cover classifier? Spoil images, mend them by every method, classify them."""
    import sys

    from scenelift.workflows.evidence.landcover import LandcoverSettings, run_experiment, shipped_classifiers
    from scenelift.workflows.evidence.retrain import Budget
    from scenelift.workflows.evidence.tables import to_json, to_markdown, write_folder

    settings = LandcoverSettings(
        data=data,
        each=each,
        seed=seed,
        cases=split_names(cases),
        networks=None if model is None else split_names(model),
        classifiers=shipped_classifiers() if classifier is None else split_names(classifier),
        retrain=training if retrain else None,
        budget=Budget(steps=steps),
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
    """Does super-resolution help a segmenter? Coarsen images, mend them by every method, score the maps."""
    from scenelift.workflows.evidence.segmentation import run_segmentation, to_markdown
    from scenelift.workflows.training.recipe import load_recipe

    arms = run_segmentation(load_recipe(recipe), weights, split_names(model), scale, data)
    print(to_markdown(arms, f"{recipe}, validation strips, ×{scale}; intervals over blocks of 32 x 32 pixels."))


def classify(
    inputs: Inputs,
    output: Annotated[Path, typer.Option("--output", "-o", help="What to write: *.tif (COG) or *.zarr.")],
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="A land-cover model, or a chain ending with one: denoise-rgb,sr-x2-rgb,landcover-…"
        ),
    ] = "landcover-eurosat",
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Store the probability of every class, not the class.")
    ] = False,
    bands: Bands = None,
    tile: Tile = None,
    block: Block = 1024,
    workers: Workers = None,
    scheduler: Scheduler = None,
    cluster: ClusterOption = None,
    cluster_option: ClusterKeys = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    noise: Noise = "auto",
    tta: Tta = False,
    scale: Scale = None,
    offset: Offset = None,
    nodata: Nodata = None,
    crs: Crs = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    allow_holes: AllowHoles = False,
    walltime: Walltime = None,
    stall: Stall = 1800,
    as_json: Json = False,
) -> None:
    """Turn a scene, as it is or enhanced on the way, into a map of land cover with class names and a palette."""
    from scenelift.workflows.classify import classify as run
    from scenelift.workflows.settings import EnhanceSettings

    source = scene_source(inputs, bands, scale, offset, nodata, crs)
    settings = EnhanceSettings(
        tile=tile,
        block=block,
        device=device,
        precision=precision,
        noise=parse_noise(noise),
        tta=tta,
        overwrite=overwrite,
        allow_holes=allow_holes,
    )
    where = cluster_settings(cluster, cluster_option, workers, scheduler, gpus_for(device))
    run_stoppably(
        lambda progress, say: run(source, output, model, settings, where, progress, say, probabilities=probabilities),
        walltime,
        stall,
        as_json,
    )


def tiles(
    scene: Annotated[str, typer.Argument(help="A raster, a .SAFE folder or a Zarr store, enhanced or not.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    size: Annotated[int, typer.Option(help="Pixels a side.")] = 64,
    stride: Annotated[int | None, typer.Option(help="Pixels from tile to tile; default: the size.")] = None,
    kind: Annotated[str, typer.Option("--format", help="tif, npy, webdataset or zarr.")] = "tif",
    labels: Annotated[str | None, typer.Option(help="A raster of class numbers on the same grid.")] = None,
    valid: Annotated[float, typer.Option(help="Least share of pixels with data, 0 to 1.")] = 1.0,
    reflectance: Annotated[bool, typer.Option("--reflectance", help="Store float32 reflectance.")] = False,
    bands: Bands = None,
    as_json: Json = False,
) -> None:
    """Cut a scene into tiles for a classifier, with an index of their footprints (GeoParquet and CSV)."""
    import json

    from scenelift.workflows.landcover.tiles import TileSettings, cut_tiles

    truth = None if labels is None else scene_source(labels)
    facts = cut_tiles(scene_source(scene, bands), output, TileSettings(size, stride, kind, valid, reflectance), truth)
    print(json.dumps(facts) if as_json else f"{output}: {facts['tiles']} tiles of {size} x {size} px ({kind})")
