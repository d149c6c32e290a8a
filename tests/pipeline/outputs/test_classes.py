"""Layers of classes and flags: copied beside the output by nearest neighbour on request, else left out and told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from support.builders import UTM, Repeat, noise_image, write_raster
from support.eopf import write_eopf
from support.jobs import run, scenelift
from support.landsat import write_landsat
from support.products import write_safe

from scenelift.pipeline.errors import GridsError, UsageError
from scenelift.pipeline.jobs.checks import check_image
from scenelift.pipeline.outputs.classes import lay_classes
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import SceneSource


def copied(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


def test_layers_of_products_are_copied_by_nearest_neighbour(tmp_path: Path) -> None:
    scl = np.random.default_rng(0).integers(0, 12, (30, 30)).astype("uint8")
    quality = np.random.default_rng(1).integers(0, 9999, (40, 40)).astype("uint16")
    safe, _ = write_safe(tmp_path / "S2A.SAFE", "L2A", scl=scl)
    store, _ = write_eopf(tmp_path / "S2.zarr", scl=scl)
    landsat, _ = write_landsat(tmp_path / "LC08", quality=quality)
    for path, name, truth, ratio in ((safe, "scl", scl, 4), (store, "scl", scl, 4), (landsat, "qa_pixel", quality, 2)):
        source, out = SceneSource((str(path),)), tmp_path / path.stem
        plain = run(source, out.with_suffix(".tif"), Repeat(2))
        assert f"classes left out: {name}; --keep-classes copies them beside the output" in plain.notes
        copy = out.with_name(f"{out.stem}_{name}.tif")
        assert not copy.exists()
        kept = run(source, out.with_suffix(".tif"), Repeat(2), keep_classes=True)  # is finished, and lacks the copy
        assert kept.resumed == kept.blocks
        assert f"classes copied beside the output by nearest neighbour: {name}" in kept.notes
        assert np.array_equal(copied(copy), truth.repeat(ratio, 0).repeat(ratio, 1))
        with rasterio.open(copy) as file, rasterio.open(out.with_suffix(".tif")) as made:
            assert file.transform == made.transform and file.crs == made.crs and file.shape == made.shape
            assert file.dtypes[0] == truth.dtype
        with pytest.raises(UsageError, match=r"names quality flags or classes"):
            check_image(open_scene(SceneSource((str(copy),))))
        assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(f".{copy.name}")]


def test_class_maps_among_inputs_are_left_out_or_copied_with_their_palette(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "image.tif", noise_image(0, (2, 24, 24)))
    numbers = np.random.default_rng(2).integers(0, 5, (1, 6, 8)).astype("uint8")
    at = UTM @ Affine.translation(-4, 0) @ Affine.scale(4)  # begins left of the image
    classes = write_raster(tmp_path / "land cover.tif", numbers, at, nodata=255)
    with rasterio.open(classes, "r+") as file:
        file.write_colormap(1, {i: (10 * i, 0, 9, 255) for i in range(5)})
    source = SceneSource((str(image), str(classes)))
    assert [band.flags for band in open_scene(source).bands] == [None, None]
    done = scenelift("enhance", image, classes, "-o", "o.zarr", "-m", "nearest-x2", "--json", cwd=tmp_path)
    assert (
        "classes left out: land_cover; --keep-classes copies them beside the output" in json.loads(done.stdout)["notes"]
    )
    scenelift("enhance", image, classes, "-o", "p.zarr", "-m", "nearest-x2", "--keep-classes", cwd=tmp_path)
    copy = tmp_path / "p_land_cover.tif"
    assert np.array_equal(copied(copy), numbers[0, :, 1:7].repeat(8, 0).repeat(8, 1))
    with rasterio.open(copy) as file:
        assert file.colormap(1)[3] == (30, 0, 9, 255) and file.nodata == 255
    shown = json.loads(scenelift("info", image, classes, "--json", cwd=tmp_path).stdout)
    assert shown["classes"] == ["land_cover"] and len(shown["bands"]) == 2
    with pytest.raises(GridsError, match=r"land cover.tif is not on the grid of .*image.tif"):
        open_scene(SceneSource(source.paths, bands=(1, 3)))
    with pytest.raises(UsageError, match="band 1 is no image"):
        check_image(open_scene(SceneSource((str(classes),))))


def test_what_cannot_be_copied_is_refused_before_any_work(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "a.tif", noise_image(0, (1, 24, 24)))
    with pytest.raises(UsageError, match=r"a.tif has no layer of classes \(SCL of Level-2A"):
        run(SceneSource((str(image),)), tmp_path / "o.tif", Repeat(1), keep_classes=True)
    fine = write_raster(tmp_path / "a_scl.tif", np.zeros((1, 48, 48), "uint8"), UTM @ Affine.scale(0.5))
    both = SceneSource((str(image), str(fine)))
    with pytest.raises(GridsError, match=r"the output .* and .*a_scl.tif .* must be 1 to 60 times as large"):
        run(both, tmp_path / "o.tif", Repeat(1), keep_classes=True)
    write_raster(tmp_path / "o_a_scl.tif", np.ones((1, 4, 4), "uint8"))
    with pytest.raises(UsageError, match=r"would replace .*o_a_scl.tif"):
        run(both, tmp_path / "o.tif", Repeat(2), keep_classes=True)
    assert not (tmp_path / "o.tif").exists()
    assert lay_classes(open_scene(both).classes[0], open_scene(both).grid.scaled(2), both.limits).shape == (48, 48)
