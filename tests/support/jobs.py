"""Enhancing in tests: the command line as a process, the job from Python, and a scene with everything."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import ColorInterp

from scenelift.pipeline.cluster import ClusterSettings
from scenelift.workflows.enhance import EnhanceSettings, enhance
from support import processes
from support.builders import noise_image, write_raster

Run = Callable[..., tuple[int, str, str]]
"""Takes the words of a command; returns exit code, standard output and standard error."""
COMMAND = [sys.executable, "-m", "scenelift"]
"""The command line in a process that begins with nothing, as users start it; takes seconds to import torch."""


WAITING = "looking at the scene"


def scenelift(*args: object, cwd: Path | None = None, ok: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process forked from one that has imported it; must exit with 0 if `ok`.

    What a slow machine prints before the first block is left out of its stderr.
    """
    done = processes.run(*args, cwd=cwd)
    if isinstance(done.stderr, str):
        done.stderr = "".join(line for line in done.stderr.splitlines(True) if not line.startswith(WAITING))
    if ok:
        done.check_returncode()
    return done


def holed_scene(path: Path, side: int = 270) -> Path:
    """A scene with nodata holes, DN above 10000, per-band scales and offsets, names and tags."""
    rows, cols = np.mgrid[:side, : side + 19]
    base = 6000 + 5000 * np.sin(rows / 9)[None] * np.cos(cols / 7)[None]
    values = np.stack([base[0] * (1 + 0.1 * b) + noise_image(b, rows.shape, high=300) for b in range(4)])
    values = np.clip(values, 1, 65000).astype("uint16")
    values[:, 40:90, 100:130] = 0
    values[2, 200:203, 5:260] = 0
    values[:, 256:, :100] = 0
    return write_raster(
        path,
        values,
        nodata=0,
        scales=[1e-4, 1e-4, 2e-4, 1e-4],
        offsets=[0.0, -0.1, 0.0, 0.0],
        descriptions=["B02", "B03", "B04", "B08"],
        tags={"TIFFTAG_DATETIME": "2020:01:13 10:50:31", "PROCESSING_BASELINE": "04.00"},
        colorinterp=[ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined],
    )


def run(source, out: Path, model, workers: int = 0, **options):  # type: ignore[no-untyped-def]
    """Enhance without trying it on the scene one level coarser first, unless the options say so."""
    options = {"expect": False} | options
    return enhance(source, out, model, EnhanceSettings(**options), ClusterSettings(workers))


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as made:
        return made.read()
