"""Scores as a table for people and as Parquet for machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scenelift.pipeline.errors import UsageError
from scenelift.workflows.console import table
from scenelift.workflows.evidence.score import ScoreReport

LABELS = {
    "psnr": "PSNR, dB",
    "psnr_mean": "PSNR, mean of bands, dB",
    "mae": "MAE, reflectance",
    "rmse": "RMSE, reflectance",
    "bias": "bias, reflectance",
    "sam": "spectral angle, degrees",
    "ergas": "ERGAS",
    "coarse_rmse": "RMSE of 2 x 2 means, reflectance",
    "ssim": "SSIM",
    "ms_ssim": "MS-SSIM",
    "vif": "VIF",
    "tenengrad": "Tenengrad",
    "high_frequency": "high-frequency energy",
    "rms_contrast": "RMS contrast",
    "visible_contrast": "visible contrast",
    "noise": "noise estimate, reflectance",
    "mean": "mean, reflectance",
    "snr": "signal to noise",
    "enl": "equivalent looks",
}
"""What each score is called, in the order shown."""

RATIOS = ("tenengrad", "high_frequency", "rms_contrast", "visible_contrast")


def print_scores(report: ScoreReport) -> None:
    """Print a report: one row a score, one column for all bands and one for each."""
    title = f"{report.test} against {report.reference}" if report.test else f"{report.reference} by itself"
    if report.factor > 1:
        title += f" (means of {report.factor} x {report.factor} pixels)"
    rows = []
    for name, label in LABELS.items():
        if name not in report.values and name not in report.by_band:
            continue
        suffix = " (test / reference)" if report.test and name in RATIOS else ""
        each = report.by_band.get(name, ("",) * len(report.bands))
        rows.append([label + suffix, number(report.values.get(name, "")), *map(number, each)])
    table(f"{title}\ndata range {report.data_range:g}", ["", "all bands", *report.bands], rows)
    if report.map:
        print(f"error map: {report.map}")


def number(value: Any) -> str:
    """Return a score as text: five significant digits, "infinite" for infinity, "-" for what cannot be measured."""
    if not isinstance(value, int | float):
        return str(value)
    if value == float("inf"):
        return "infinite"
    return "-" if value != value else f"{value:.5g}"


def write_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    """Write rows as a Parquet table; NaN and infinity stay what they are.

    Raises
    ------
    UsageError
        If the folder is missing or cannot be written.
    """
    import pyarrow
    import pyarrow.parquet

    columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(k for row in rows for k in row)}
    try:
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error}") from None
