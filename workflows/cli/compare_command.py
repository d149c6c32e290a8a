"""What `scenelift compare` does around the comparison: a progress bar, files, a table on the screen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.files import folder_for_results
from scenelift.workflows.cli.console import bar, table
from scenelift.workflows.evidence.cases import REFERENCE
from scenelift.workflows.evidence.compare import (
    BASELINES,
    CASES,
    CompareSettings,
    Comparison,
    compare,
    table_rows,
    to_json,
    write_images_csv,
)
from scenelift.workflows.evidence.pages import write_page
from scenelift.workflows.sharpening.compare import SharpenSettings, compare_sharpening, to_markdown, write_places_csv
from scenelift.workflows.sharpening.compare import table as sharpening_table
from scenelift.workflows.sharpening.compare import to_json as places_json


def run_compare(settings: CompareSettings, cluster: ClusterSettings, output: Path, as_json: bool = False) -> str:
    """Compare, write ``comparison.md``, ``.png``, ``.json`` and ``comparison-images.csv``, and return the last line.

    Raises
    ------
    UsageError
        If the folder cannot be written.
    """
    with folder_for_results(output):
        found = dataclasses.replace(_with_bar(settings, cluster, quiet=as_json), command=_command_of(settings))
    page = write_page(found, output)
    write_images_csv(found, output / "comparison-images.csv")
    text = to_json(found)
    (output / "comparison.json").write_text(text + "\n", encoding="utf-8")
    if as_json:
        return text
    _print_tables(found)
    return f"page, figure and tables: {page}"


def run_sharpen(settings: SharpenSettings, output: Path, as_json: bool = False) -> str:
    """Compare ways of sharpening, write ``sharpening.md``, ``.json`` and ``.csv``, and return the last line.

    Raises
    ------
    UsageError
        If the folder cannot be written.
    """
    ratio, network = settings.ratio, settings.network
    with folder_for_results(output), bar("comparing", "places", as_json) as move:
        found = compare_sharpening(settings, move)
    command = f"scenelift compare --task sharpen {' '.join(path.name for path in settings.places)}"
    command += f" --ratio {ratio}" if ratio != SharpenSettings.ratio else ""
    command += f" --model {network.name}" if network else ""
    command += _mask_of(settings)
    page = output / "sharpening.md"
    page.write_text(to_markdown(found, command), encoding="utf-8")
    write_places_csv(found, output / "sharpening.csv")
    text = places_json(found)
    (output / "sharpening.json").write_text(text + "\n", encoding="utf-8")
    if as_json:
        return text
    head, *rows = sharpening_table(found)
    table(f"{len(found.places)} places, {ratio} times as coarse", head, rows)
    return f"page and tables: {page}"


def _with_bar(settings: CompareSettings, cluster: ClusterSettings, quiet: bool) -> Comparison:
    with bar("comparing", "images", quiet) as move:
        return compare(settings, cluster, move)


def _command_of(settings: CompareSettings) -> str:
    """Return the command that makes a comparison again."""
    parts = ["scenelift compare", f"--each {settings.each}"]
    parts += [f"--seed {settings.seed}"] if settings.seed else []
    if settings.cases != CASES:
        parts += [f"--cases {','.join(case.name for case in settings.cases)}"]
    parts += [f"--data {settings.data.name}"] if settings.data else []
    parts += [f"--model {','.join(settings.networks)}"] if settings.networks is not None else []
    return " ".join(parts) + _mask_of(settings)


def _mask_of(settings: CompareSettings | SharpenSettings) -> str:
    """Return the options of a mask, as they follow others."""
    classes = f" --mask-classes {','.join(settings.mask_classes)}" if settings.mask_classes else ""
    return f" --mask {Path(settings.mask).name}{classes}" if settings.mask else ""


def _print_tables(found: Comparison) -> None:
    """Print one table a case."""
    for case in found.cases:
        baseline, best = BASELINES[case.task], found.best_classical(case)
        rows = []
        for row in table_rows(found, case):
            psnr = "identical" if row["method"] == REFERENCE else str(row["psnr"])
            figures = [psnr, *(f"{row[name].mean:.3f}" for name in ("ssim", "vif"))]
            rows.append(
                [
                    row["method"],
                    *figures,
                    *("" if row[key] is None else row[key].text("+.2f") for key in ("over_baseline", "over_best")),
                ]
            )
        heads = ["method", "PSNR dB [95 %]", "SSIM", "VIF", f"over {baseline}", f"over {best}"]
        table(case.title, heads, rows)
