"""How the gain of a scene follows from its gain one level coarser: in tests/, ``python -m tools.gains ROWS.csv ...``.

The rows are what ``python -m tools.sensing`` prints, best of places that the estimator of blur had not seen
(``--estimator``). For every place the rule is fitted on the others and measured on it; the one fitted on all is what
`scenelift.workflows.expect.RULE` holds.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

Array = NDArray[np.float64]
STEPS = 60
LEAST_RESIDUAL = 0.15
"""Residuals (dB) below which rows weigh alike."""


def read(paths: Sequence[Path]) -> tuple[list[str], Array, Array, Array]:
    """Return of each row the place, the gains one level coarser and of the scene, dB, and the transfer that was told."""
    places, values = [], []
    for path in paths:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.count(",") >= 8]
        for row in csv.DictReader(lines):
            if row["coarser"]:
                places.append(row["scene"].split()[0].rsplit("_", 1)[0].split("-")[0])
                values.append([float(row[key]) for key in ("coarser", "gain", "told")])
    coarser, gain, told = np.array(values).T
    return places, coarser, gain, told


def fit(coarser: Array, gain: Array, told: Array) -> Array:
    """Return (a, b) of gain = (a + b told) coarser, by least absolute deviations (reweighted least squares)."""
    x, weights = np.stack([coarser, told * coarser], 1), np.ones(len(gain))
    found = np.zeros(2)
    for _ in range(STEPS):
        root = np.sqrt(weights)
        found = np.linalg.lstsq(x * root[:, None], gain * root, rcond=None)[0]
        weights = 1 / np.maximum(np.abs(gain - x @ found), LEAST_RESIDUAL)
    return found


def main(
    rows: Annotated[list[Path], typer.Argument(help="What tools.sensing printed.")],
    without: Annotated[list[str] | None, typer.Option(help="Places to measure on, but not to fit on.")] = None,
) -> None:
    """Print the rule, and how near it comes on places it was not fitted on."""
    names, coarser, gain, told = read(rows)
    place, left_out = np.array(names), np.isin(names, without or [])
    expected = np.zeros(len(gain))
    for name in dict.fromkeys(names):
        here, others = place == name, (place != name) & ~left_out
        a, b = fit(coarser[others], gain[others], told[others])
        expected[here] = (a + b * told[here]) * coarser[here]
    off = np.abs(gain - expected)
    a, b = fit(coarser[~left_out], gain[~left_out], told[~left_out])
    print(f"gain = ({a:.2f} + {b:.2f} told) coarser; {len(gain)} scenes of {len(set(names))} places, each left out in turn:")
    print(f"within 0.3 dB {np.mean(off <= 0.3):.0%}, within 0.5 dB {np.mean(off <= 0.5):.0%}, ", end="")
    print(f"mean difference {np.mean(gain - expected):+.2f} dB")


if __name__ == "__main__":
    typer.run(main)
