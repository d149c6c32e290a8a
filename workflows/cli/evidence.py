"""The commands that prove or disprove: score, compare, ablate, report. Imported by the command line; imports late."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from scenelift.workflows.cli.options import (
    Bands,
    Block,
    Crs,
    Json,
    Nodata,
    Scale,
    Scheduler,
    Workers,
    scene_source,
    split_names,
    whole_numbers,
)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(score)
    app.command()(compare)
    app.command()(ablate)
    app.command()(report)


def score(
    reference: Annotated[str, typer.Argument(help="The scene that counts as true, or the only scene.")],
    test: Annotated[
        str | None, typer.Argument(help="The scene to score. Without it REFERENCE is judged by itself.")
    ] = None,
    bands: Bands = None,
    data_range: Annotated[
        float | None, typer.Option(help="Full scale in reflectance; default 0.3, or 1 for 8-bit images.")
    ] = None,
    ratio: Annotated[float, typer.Option(help="Coarse over fine pixel size, for ERGAS.")] = 1.0,
    border: Annotated[int, typer.Option(help="Pixels left out along the edge.")] = 0,
    pixels_only: Annotated[bool, typer.Option("--pixels-only", help="No SSIM, VIF or sharpness: faster.")] = False,
    error_map: Annotated[Path | None, typer.Option("--map", help="Write the absolute error as a GeoTIFF.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write the scores as a Parquet table too.")] = None,
    block: Block = 1024,
    workers: Workers = 0,
    scheduler: Scheduler = None,
    scale: Scale = None,
    nodata: Nodata = None,
    crs: Crs = None,
    as_json: Json = False,
) -> None:
    """Score a scene against a reference: PSNR, SSIM, VIF, spectral angle, sharpness and more."""
    from scenelift.pipeline.cluster import ClusterSettings
    from scenelift.workflows.evidence.score import ScoreSettings
    from scenelift.workflows.evidence.score import score as run
    from scenelift.workflows.score_tables import print_scores, write_parquet

    settings = ScoreSettings(data_range, ratio, border, not pixels_only, block)
    truth = scene_source(reference, bands, scale, nodata=nodata, crs=crs)
    other = scene_source(test, bands, scale, nodata=nodata, crs=crs) if test is not None else None
    report = run(truth, other, settings, ClusterSettings(workers, scheduler), error_map)
    if parquet is not None:
        write_parquet(report.rows(), parquet)
    if as_json:
        print(json.dumps(report.to_dict()))
    else:
        print_scores(report)


def compare(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for page, figure and tables.")] = Path(
        "comparison"
    ),
    data: Annotated[
        Path | None, typer.Option(help="Zip of images in class folders, or a raster. Default: see SCENELIFT_DATA.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="10 images a class, one noise level: minutes.")] = False,
    each: Annotated[int | None, typer.Option(help="Images of every class; default 20.")] = None,
    seed: Annotated[int, typer.Option(help="Which images are drawn, and their noise.")] = 0,
    cases: Annotated[
        str | None, typer.Option(help="What is done to the images: x2, x2:area, x2:mtf=.4:noise=2, noise25, sensor.")
    ] = None,
    levels: Annotated[str | None, typer.Option(help="Noise levels (8-bit), e.g. 5,15,25,50.")] = None,
    scales: Annotated[str | None, typer.Option(help="Scales of super-resolution, e.g. 2,4.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Networks to try, with commas; default: all that ship.")
    ] = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Compare every method on the same images: the paper's table and figure, with intervals."""
    from scenelift.pipeline.cluster import ClusterSettings
    from scenelift.workflows.cli.compare_command import run_compare
    from scenelift.workflows.evidence.cases import Degradation
    from scenelift.workflows.evidence.compare import CASES, QUICK, QUICK_EACH, CompareSettings

    usual = QUICK if quick else CASES
    chosen = (
        tuple(Degradation(noise=n) for n in whole_numbers("--levels", levels)) if levels is not None else usual[:-2]
    )
    chosen += tuple(Degradation(n) for n in whole_numbers("--scales", scales)) if scales is not None else usual[-2:]
    if cases is not None:
        chosen = tuple(Degradation.parse(name) for name in split_names(cases))
    count = each if each is not None else QUICK_EACH if quick else CompareSettings.each
    networks = split_names(model) if model is not None else None
    settings = CompareSettings(data, count, seed, chosen, networks)
    print(run_compare(settings, ClusterSettings(workers), output, as_json=as_json))


def ablate(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the page and the trainings.")] = Path(
        "ablation"
    ),
    data: Annotated[Path | None, typer.Option(help="Folder with the images; default: SCENELIFT_DATA.")] = None,
    steps: Annotated[int, typer.Option(help="Training steps of every variant.")] = 300,
    batch: Annotated[int, typer.Option(help="Patches a step.")] = 16,
    channels: Annotated[int, typer.Option(help="Channels of the network.")] = 32,
    blocks: Annotated[int, typer.Option(help="Residual blocks of the network.")] = 4,
    seeds: Annotated[int, typer.Option(help="Trainings of every variant.")] = 3,
    each: Annotated[int, typer.Option(help="Test images of every class.")] = 4,
) -> None:
    """Train and score the paper's ablation study; a stopped one goes on where it was."""
    from scenelift.workflows.evidence.ablate import AblateSettings
    from scenelift.workflows.evidence.ablate_page import run_ablation

    print(run_ablation(AblateSettings(steps, batch, channels, blocks, seeds, each, data), output))


def report(
    run: Annotated[Path, typer.Argument(help="An enhanced scene, or the folder of a demo.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("report.html"),
    before: Annotated[
        Path | None, typer.Option(help="The scene it was made from; default: found beside it by name.")
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="The true scene on the same grid, if there is one.")] = None,
    uncertainty: Annotated[Path | None, typer.Option(help="A raster of uncertainty on the same grid.")] = None,
    summary: Annotated[Path | None, typer.Option(help="What `scenelift enhance --json` printed: the timing.")] = None,
    export: Annotated[Path | None, typer.Option(help="Folder for the pictures and tables as PNG and CSV.")] = None,
) -> None:
    """Write one page that shows a run: pictures to swipe, maps, scores, spectra, place and making."""
    import dataclasses

    from scenelift.workflows.report.page import sources_of, write_report

    sources = sources_of(run, before, truth)
    sure = scene_source(str(uncertainty)) if uncertainty else None
    sources = dataclasses.replace(sources, uncertainty=sure, summary=summary)
    print(write_report(sources, output, export))
