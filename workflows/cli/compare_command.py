"""What `scenelift compare` does around the comparison: a progress bar, files, a table on the screen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.files import make_folder
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


def run_compare(settings: CompareSettings, cluster: ClusterSettings, output: Path, as_json: bool = False) -> str:
    """Compare, write ``comparison.md``, ``.png``, ``.json`` and ``comparison-images.csv``, and return the last line.

    Raises
    ------
    UsageError
        If the folder cannot be written.
    """
    make_folder(output)
    found = dataclasses.replace(_with_bar(settings, cluster, quiet=as_json), command=command_of(settings))
    page = write_page(found, output)
    write_images_csv(found, output / "comparison-images.csv")
    text = to_json(found)
    (output / "comparison.json").write_text(text + "\n", encoding="utf-8")
    if as_json:
        return text
    print_tables(found)
    return f"page, figure and tables: {page}"


def _with_bar(settings: CompareSettings, cluster: ClusterSettings, quiet: bool) -> Comparison:
    with bar("comparing", "images", quiet) as move:
        return compare(settings, cluster, move)


def command_of(settings: CompareSettings) -> str:
    """Return the command that makes a comparison again."""
    parts = ["scenelift compare", f"--each {settings.each}"]
    parts += [f"--seed {settings.seed}"] if settings.seed else []
    if settings.cases != CASES:
        parts += [f"--cases {','.join(case.name for case in settings.cases)}"]
    parts += [f"--data {settings.data.name}"] if settings.data else []
    parts += [f"--model {','.join(settings.networks)}"] if settings.networks is not None else []
    return " ".join(parts)


def print_tables(found: Comparison) -> None:
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
