"""The commands that measure: score, compare, ablate, report. Imports late, so that --help is quick."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from scenelift.pipeline.settings import option
from scenelift.workflows.cli.options import (
    WORKERS,
    Json,
    Source,
    Where,
    examples,
    whole_numbers,
    with_options,
)
from scenelift.workflows.settings import (
    INPUT,
    MASK,
    MASK_CLASSES,
    MODEL,
    WHERE,
    AblateSettings,
    ScoreSettings,
    split_names,
)

Folder = Annotated[Path, typer.Option("--output", "-o", help="Folder for page, figure and tables.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for name, command, *shown in (
        ("score", score, "score truth.tif better.tif --map error.tif", "score truth.tif sr.tif --input scene.tif"),
        ("compare", compare, "compare --quick -o comparison", "compare -o comparison --levels 5,25"),
        ("ablate", ablate, "ablate --steps 300 -o ablation", "ablate --seeds 1 --each 2 -o ablation"),
        ("report", report, "report better.tif -o report.html", "report better.zarr -o report.html"),
    ):
        app.command(name, epilog=examples(*shown), rich_help_panel="Measuring")(command)


@dataclass(frozen=True)
class Written:
    """What is written of scores."""

    error_map: Path | None = option(None, "Write the absolute error as a GeoTIFF.", "--map")
    parquet: Path | None = option(None, "Write the scores as a Parquet table too.")
    as_json: bool = option(False, "Print one JSON object for machines instead of text.", "--json")


@with_options(Source, ScoreSettings, Where(workers=0), Written)
def score(
    reference: Annotated[str, typer.Argument(help="The reference scene, or the only scene.")],
    source: Source,
    settings: ScoreSettings,
    where: Where,
    written: Written,
    test: Annotated[
        str | None, typer.Argument(help="The scene to score. Without it REFERENCE is measured by itself.")
    ] = None,
    coarse: Annotated[
        str | None,
        typer.Option(
            "--input",
            help="The coarse scene that the second was super-resolved from: adds opensr-test's consistency, synthesis, "
            "improvement, omission and hallucination.",
            rich_help_panel=INPUT,
        ),
    ] = None,
) -> None:
    """Score a scene against a reference: PSNR, SSIM, VIF, spectral angle, sharpness and more."""
    import dataclasses

    from scenelift.workflows.refusals import refuse_inputs

    refuse_inputs([name for name in (reference, test, coarse) if name is not None], source.remote)
    from scenelift.workflows.cli.tables import print_scores, write_parquet
    from scenelift.workflows.evidence.score import score as run

    other, low = (
        None if name is None else dataclasses.replace(source.of(name), mask=None, mask_classes=(), time=None)
        for name in (test, coarse)
    )
    report = run(source.of(reference), other, settings, where.settings(), written.error_map, coarse=low)
    if written.parquet is not None:
        write_parquet(report.rows(), written.parquet)
    print(json.dumps(report.to_dict())) if written.as_json else print_scores(report)


@dataclass(frozen=True)
class Compared:
    """What is compared on which images."""

    data: Path | None = option(
        None, "Zip of images in class folders, or a raster. Default: see SCENELIFT_DATA.", panel=INPUT
    )
    quick: bool = option(False, "10 images a class, one noise level: minutes.")
    each: int | None = option(None, "Images of every class; default 20.", panel=INPUT)
    seed: int = option(0, "Which images are drawn, and their noise.", panel=INPUT)
    cases: str | None = option(None, "What is done to the images: x2, x2:area, x2:mtf=.4:noise=2, noise25, sensor.")
    levels: str | None = option(None, "Noise levels (8-bit), e.g. 5,15,25,50.")
    scales: str | None = option(None, "Scales of super-resolution, e.g. 2,4.")
    model: str | None = option(
        None, "Networks to try, with commas; default: all that ship.", "--model", "-m", panel=MODEL
    )
    workers: int | None = option(None, WORKERS, panel=WHERE)
    task: str = option("restore", "restore; or sharpen: coarse bands by fine ones, on PLACES of several grids.")
    ratio: int = option(2, "How much coarser the bands of PLACES are made.", panel=INPUT)
    mask: str | None = option(None, f"{MASK} Of several PLACES: a folder with PLACE.tif for each.", panel=INPUT)
    mask_classes: tuple[str, ...] = option((), MASK_CLASSES, panel=INPUT, parse=split_names)


@with_options(Compared)
def compare(
    compared: Compared,
    places: Annotated[
        list[Path] | None,
        typer.Argument(help="With --task sharpen: folders, or files NAME_10m.tif and NAME_20m.tif, or _pan and _ms."),
    ] = None,
    output: Folder = Path("comparison"),
    as_json: Json = False,
) -> None:
    """Compare every method on the same images: the paper's table and figure, with intervals."""
    if compared.task == "sharpen":
        from scenelift.workflows.cli.compare_command import run_sharpen
        from scenelift.workflows.sharpening.compare import SharpenSettings

        network = Path(compared.model) if compared.model else None
        hidden = compared.mask, compared.mask_classes
        sharpening = SharpenSettings(tuple(places or ()), compared.ratio, network, *hidden)
        print(run_sharpen(sharpening, output, as_json=as_json))
        return
    if compared.task != "restore" or places:
        from scenelift.pipeline.errors import UsageError

        given = f"--task {compared.task}" if not places else f"{places[0]} without --task sharpen"
        raise UsageError(f"--task must be restore (images: --data) or sharpen (places as arguments), got {given}")
    from scenelift.pipeline.cluster import ClusterSettings
    from scenelift.workflows.cli.compare_command import run_compare
    from scenelift.workflows.evidence.cases import Degradation
    from scenelift.workflows.evidence.compare import CASES, QUICK, QUICK_EACH, CompareSettings

    usual = QUICK if compared.quick else CASES
    denoised, sharpened, each = usual[:-2], usual[-2:], compared.each
    if compared.levels is not None:
        denoised = tuple(Degradation(noise=n) for n in whole_numbers("--levels", compared.levels))
    if compared.scales is not None:
        sharpened = tuple(Degradation(n) for n in whole_numbers("--scales", compared.scales))
    chosen = (*denoised, *sharpened)
    if compared.cases is not None:
        chosen = tuple(Degradation.parse(name) for name in split_names(compared.cases))
    if each is None:
        each = QUICK_EACH if compared.quick else CompareSettings.each
    networks = None if compared.model is None else split_names(compared.model)
    settings = CompareSettings(
        compared.data, each, compared.seed, chosen, networks, compared.mask, compared.mask_classes
    )
    print(run_compare(settings, ClusterSettings(compared.workers), output, as_json=as_json))


@with_options(AblateSettings)
def ablate(settings: AblateSettings, output: Folder = Path("ablation")) -> None:
    """Train and score the paper's ablation study; a stopped one goes on where it was."""
    from scenelift.workflows.evidence.pages import run_ablation

    print(run_ablation(settings, output))


def report(
    run: Annotated[Path, typer.Argument(help="An enhanced scene, or the folder of a demo.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("report.html"),
    before: Annotated[
        Path | None, typer.Option(help="The scene it was made from; default: found beside it by name.")
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="The true scene on the same grid, if there is one.")] = None,
    uncertainty: Annotated[Path | None, typer.Option(help="A raster of uncertainty on the same grid.")] = None,
    summary: Annotated[
        Path | None, typer.Option(help="What `scenelift enhance --json` printed: timing and expected gain.")
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Folder for the pictures and tables as PNG and CSV.")] = None,
) -> None:
    """Write one page that shows a run: pictures to swipe, maps, scores, spectra, place and making."""
    import dataclasses

    from scenelift.workflows.report.page import sources_of, write_report

    sources = sources_of(run, before, truth)
    sure = Source().of(str(uncertainty)) if uncertainty else None
    sources = dataclasses.replace(sources, uncertainty=sure, summary=summary)
    print(write_report(sources, output, export))
