"""What detectors are worth, as Markdown, JSON and the points of their ROC curves."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from scenelift.pipeline.files import make_folder
from scenelift.pipeline.scores.bootstrap import Interval
from scenelift.workflows.evidence.detection.rates import RATES, Rates, roc
from scenelift.workflows.evidence.detection.scenes import Detected


def to_markdown(found: Detected, rates: dict[str, Rates], title: str) -> str:
    """Return a table: one row a detector."""
    first = next(iter(rates))
    lines = [
        f"{title}: {found.samples} samples of {found.places} places; detected above {found.threshold:.4g}. "
        f"Intervals: 95 %, over places; differences are paired, to {first}.",
        "",
        "| | AUC | difference | sensitivity | difference | specificity | difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, own in rates.items():
        cells = [name]
        for rate in RATES:
            cells += [getattr(own, rate).text(".3f"), own.gains[rate].text("+.3f") if own.gains else ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def to_json(found: Detected, rates: dict[str, Rates], title: str) -> str:
    """Return the same as one JSON object; what cannot be measured is null."""
    arms = {
        name: {rate: _plain(getattr(own, rate)) for rate in RATES}
        | {"differences": {rate: _plain(gain) for rate, gain in own.gains.items()}}
        for name, own in rates.items()
    }
    facts = {"title": title, "samples": found.samples, "places": found.places, "threshold": found.threshold}
    return json.dumps(facts | {"detectors": arms})


def write_folder(found: Detected, rates: dict[str, Rates], title: str, folder: Path) -> None:
    """Write ``detection.md``, ``detection.json`` and ``roc.csv`` into a folder.

    Raises
    ------
    UsageError
        If the folder cannot be written.
    """
    make_folder(folder)
    (folder / "detection.md").write_text(to_markdown(found, rates, title) + "\n", encoding="utf-8")
    (folder / "detection.json").write_text(to_json(found, rates, title) + "\n", encoding="utf-8")
    with (folder / "roc.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["detector", "false positive rate", "true positive rate"])
        for name, own in found.arms.items():
            writer.writerows([name, f"{x:.6g}", f"{y:.6g}"] for x, y in roc(own))


def _plain(value: Interval) -> list[float | None]:
    return [x if x == x else None for x in (value.mean, value.low, value.high)]
