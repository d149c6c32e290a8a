"""Is attribution better than chance? `scenelift explain` at many points of several scenes, and what its deletions move.

    cd tests && python -m tools.deletion a.tif b.tif -m sr-x2 --points 60

At each point the pixels with the largest attribution are deleted, and 39 times as many at random. Over the points: the
share at which the attributed ones move the output farther, the geometric mean of how many times as far, its 95 %
interval (bootstrap over points), and Wilcoxon's signed-rank test of the logarithms.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from scenelift.models.catalog import find, load_spec
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.workflows.looking.explain import Point, explain

DRAWS = 10_000
LEAST = 1e-9
"""Reflectance: moves below that are none."""


@dataclass(frozen=True)
class Verdict:
    """What deletions over many points say of attribution."""

    points: int
    farther: float
    """Share of the points at which the attributed pixels move the output farther than the mean of the random ones."""
    ratio: float
    """Geometric mean of how many times as far."""
    low: float
    high: float
    """Its 95 % interval."""
    p: float
    """Of Wilcoxon's signed-rank test, one-sided: no farther than chance."""


def verdict(attributed: NDArray[np.float64], random: NDArray[np.float64], seed: int = 0) -> Verdict:
    """Compare the mean moves (reflectance, one a point) by attributed and by random pixels."""
    gap = np.log(np.maximum(attributed, LEAST) / np.maximum(random, LEAST))
    draws = gap[np.random.default_rng(seed).integers(0, len(gap), (DRAWS, len(gap)))].mean(1)
    low, high = np.exp(np.quantile(draws, (0.025, 0.975)))
    p = float(stats.wilcoxon(gap, alternative="greater").pvalue)
    return Verdict(len(gap), float((gap > 0).mean()), float(np.exp(gap.mean())), float(low), float(high), p)


def moves(paths: list[str], model: str, points: int, seed: int, noise: float | None) -> NDArray[np.float64]:
    """Return (points, 2) mean moves by attributed and by random pixels, at points spread evenly over the scenes."""
    rng, scale, found = np.random.default_rng(seed), load_spec(find(model)).scale, []
    for number, path in enumerate(paths):
        source = SceneSource((path,))
        scene = open_scene(source)
        (height, width), bands = scene.grid.shape, len(scene.bands)
        wanted = len(range(number, points, len(paths)))
        while wanted:
            row, col = int(rng.integers(height * scale)), int(rng.integers(width * scale))
            try:
                made = explain(source, model, Point(col, row, int(rng.integers(bands)) + 1), noise=noise)
            except UsageError:  # no data there
                continue
            wanted -= 1
            found.append((np.mean(made.deletion.attributed), np.mean(made.deletion.random)))
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="+")
    parser.add_argument("-m", "--model", default="sr-x2")
    parser.add_argument("--points", type=int, default=60)
    parser.add_argument("--noise", type=float, help="noise level, in DN; default: estimated")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    made = moves(given.scenes, given.model, given.points, given.seed, given.noise)
    print(json.dumps({"model": given.model, **asdict(verdict(made[:, 0], made[:, 1]))}))


if __name__ == "__main__":
    main()
