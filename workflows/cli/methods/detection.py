"""The command `evaluate detection`. Imports late, so that --help is quick."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.settings import option
from scenelift.workflows.cli.options import Json, examples, with_options
from scenelift.workflows.settings import INPUT, MODEL, OUTPUT, numbers, split_names


def register_detection(evaluations: typer.Typer) -> None:
    """Add the command of this file to the group `evaluate`."""
    shown = examples(
        "evaluate detection before.tif after.tif --labels water.tif --difference 2,4",
        "evaluate detection --positive Forest --case noise25 -o forest",
    )
    evaluations.command("detection", epilog=shown)(evaluate_detection)


def _two(text: str) -> tuple[int, ...]:
    return numbers("--difference", "two bands such as 2,4", int, 2, text, split_names(text))


@dataclass(frozen=True)
class OnScenes:
    """Detectors of one number a pixel."""

    labels: Path | None = option(None, "Raster of whole numbers: what is where. For scenes.", panel=INPUT)
    difference: tuple[int, int] | None = option(
        None, "Detect by (a - b) / (a + b) of two bands: 2,4 of blue, green, red, infrared for water.", parse=_two
    )
    band: int = option(1, "Detect by one band, such as a probability.")
    place: int = option(64, "Label pixels a side of what is drawn as one for intervals.")


@dataclass(frozen=True)
class OnImages:
    """A classifier of images as a detector."""

    data: Path | None = option(
        None, "Zip or folder in EuroSAT's layout, CLASS/name.jpg; default: see SCENELIFT_DATA.", panel=INPUT
    )
    each: int = option(100, "Images of every class; 0: all.", panel=INPUT)
    seed: int = option(0, "Seed of the draw of images and of the noise.", panel=INPUT)
    case: str = option("x2", "What is done to the images: x2, x4, noise25 (levels of 255), sensor.")
    model: str | None = option(
        None, "Networks to try, with commas; default: those that ship.", "--model", "-m", panel=MODEL
    )
    classifier: str = option("landcover-eurosat", "A classifier or a checkpoint.", panel=MODEL)


@with_options(OnScenes, OnImages)
def evaluate_detection(
    on_scenes: OnScenes,
    on_images: OnImages,
    scenes: Annotated[list[str] | None, typer.Argument(help="The scene before, then what was made of it.")] = None,
    positive: Annotated[
        str | None,
        typer.Option(help="What is looked for, with commas: numbers of the labels (default: all but 0), or classes."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Numbers above it detect. Default: the best for the first scene; for images 0.5."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the table, JSON, ROC curves.", rich_help_panel=OUTPUT),
    ] = None,
    as_json: Json = False,
) -> None:
    """Does enhancement help to detect something (water, forest, burnt ground)? Sensitivity, specificity, AUC.

    With scenes and --labels a pixel is detected by a number of its bands; without scenes a classifier looks for the
    --positive classes in images that were degraded and restored.
    """
    if bool(scenes) != (on_scenes.labels is not None):
        raise UsageError("scenes and --labels go together; without both, images are searched for --positive classes")
    from scenelift.workflows.evidence.detection.rates import rate
    from scenelift.workflows.evidence.detection.scenes import Detector, detect
    from scenelift.workflows.evidence.detection.tables import to_json, to_markdown, write_folder

    wanted = split_names(positive) if positive is not None else ()
    if scenes:
        from scenelift.workflows.cli.options import Source
        from scenelift.workflows.refusals import refuse_inputs

        refuse_inputs([*scenes, str(on_scenes.labels)])
        if not all(name.lstrip("-").isdigit() for name in wanted):
            raise UsageError(f"--positive must be numbers of the labels such as 1,4, got {positive!r}")
        numbers = tuple(int(name) for name in wanted)
        detector = Detector(on_scenes.difference, on_scenes.band, numbers, threshold, on_scenes.place)
        found = detect([Source().of(name) for name in scenes], Source().of(str(on_scenes.labels)), detector)
        title = f"{detector.title}, labels {Path(str(on_scenes.labels)).name}"
    else:
        from scenelift.workflows.evidence.detection.images import DetectedClasses, detect_classes

        own = dict(vars(on_images))
        model, above = own.pop("model"), 0.5 if threshold is None else threshold
        networks = None if model is None else split_names(model)
        settings = DetectedClasses(wanted, networks=networks, threshold=above, **own)
        found = detect_classes(settings)
        title = f"{', '.join(wanted)} by {settings.classifier}, {settings.case}"
    rates = rate(found.arms, found.threshold, on_images.seed)
    if output is not None:
        write_folder(found, rates, title, output)
    print(to_json(found, rates, title) if as_json else to_markdown(found, rates, title))
