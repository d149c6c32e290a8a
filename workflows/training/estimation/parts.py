"""The examples that the estimator learns from, source by source, in parts that processes share out."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scenelift.models.checkpoint import write_atomically
from scenelift.models.training.estimation import Draw, examples
from scenelift.workflows.training.estimation.patches import drawn, of_eurosat, of_place
from scenelift.workflows.training.estimation.places import PACKAGED, place_names, read_place

EUROSAT, DRAWN, EACH, PACKAGED_EACH = 18_000, 6_000, 2_000, 1_500
"""Examples of EuroSAT, of drawn shapes, of each place, and of each packaged one."""
PART = 500
"""Examples made at once by a process."""

Examples = tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float64]]


@functools.lru_cache(maxsize=1)
def source(data: Path, packages: Path | None, name: str) -> Draw:
    """Return what draws patches of a source."""
    if name in ("eurosat", "drawn"):
        return of_eurosat(data) if name == "eurosat" else drawn
    return of_place(read_place(data, packages, name))


@dataclass(frozen=True)
class Part:
    """Examples of one source, made at once by a process."""

    data: Path
    packages: Path | None
    name: str
    count: int
    seed: int
    kept: Path | None
    """Folder with examples that were made before."""

    def make(self) -> Examples:
        """Return features, probabilities and noise, see `examples`."""
        name = f"{self.name.replace('/', '_')}-{self.seed}-{self.count}"
        x, y, sigma = remembered(self.kept, name, self._made)
        return x, y, sigma

    def _made(self) -> Examples:
        torch.set_num_threads(1)
        return examples(source(self.data, self.packages, self.name), self.count, self.seed)


def remembered(folder: Path | None, name: str, make: Callable[[], Sequence[NDArray[Any]]]) -> list[NDArray[Any]]:
    """Return arrays that a folder keeps under a name, made and kept if it does not."""
    path = folder and folder / f"{name}.npz"
    if path and path.exists():
        with np.load(path) as file:
            return list(file.values())
    made = list(make())
    if path:
        content = io.BytesIO()
        np.savez(content, *made)
        write_atomically(path, content.getvalue())
    return made


def parts(data: Path, packages: Path | None, kept: Path | None, share: float, seed: int) -> list[Part]:
    """Return what is learned from, whichever places are left out afterwards."""
    packaged = {place.name for place in PACKAGED}
    counts = {"eurosat": EUROSAT, "drawn": DRAWN}
    counts |= {name: PACKAGED_EACH if name in packaged else EACH for name in place_names(packages)}
    found = []
    for number, (name, count) in enumerate(counts.items()):
        whole = max(1, round(share * count))
        for at in range(0, whole, PART):
            own = (seed * 1000 + number) * 10_000 + at // PART
            found.append(Part(data, packages, name, min(PART, whole - at), own, kept))
    return found
