"""A part of a scene: it equals that part of the whole output bit for bit, lies where it should, and can be resumed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform_bounds
from support.builders import SOUTH_UP, UTM, noise_image, write_raster
from support.jobs import holed_scene, pixels, run, scenelift
from support.products import write_safe

import scenelift as package
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.pipeline.tiles import Window
from scenelift.workflows.settings import Crop

CHAINS = "denoise-fast,sr-x2", "bicubic-x3"
"""What the networks are told, blur and noise, is estimated in the scene."""


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[SceneSource, NDArray[np.generic]]]:
    """Scenes and what is made of them, by the chain."""
    folder = tmp_path_factory.mktemp("whole")
    scene = SceneSource((str(holed_scene(folder / "scene.tif", 100)),), bands=(3,))
    found = {}
    for chain in CHAINS:
        run(scene, folder / "out.tif", chain, overwrite=True)
        found[chain] = scene, pixels(folder / "out.tif")
    product = SceneSource((str(write_safe(folder / "S2.SAFE", side=96)[0]),))
    run(product, folder / "out.tif", "sharpen-closed", overwrite=True)
    return found | {"sharpen-closed": (product, pixels(folder / "out.tif"))}


@settings(max_examples=8)
@given(data=st.data(), chain=st.sampled_from([*CHAINS, "sharpen-closed"]), block=st.sampled_from([17, 64, 1024]))
def test_a_part_equals_that_part_of_the_whole(
    wholes: dict[str, tuple[SceneSource, NDArray[np.generic]]],
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
    chain: str,
    block: int,
) -> None:
    scene, whole = wholes[chain]
    source = SceneSource(scene.paths, scene.bands, extent="common" if chain == "sharpen-closed" else None)
    grid = open_scene(source).grid
    scale = whole.shape[1] // grid.height
    row, col = (data.draw(st.integers(0, n - 1)) for n in grid.shape)
    height, width = (data.draw(st.integers(1, min(40, n - at))) for n, at in zip(grid.shape, (row, col), strict=True))
    out = tmp_path_factory.mktemp("part") / "part.tif"
    crop = Crop((col, row, width, height))
    run(scene, out, chain, block=block, crop=crop)
    fine = Window(row, col, height, width).scaled(scale)
    rows, cols = fine.slices()
    assert np.array_equal(pixels(out), whole[:, rows, cols], equal_nan=True)
    with rasterio.open(out) as made:
        wanted = grid.scaled(scale).window(fine)
        assert made.transform.almost_equals(wanted.transform, 1e-9) and made.crs == wanted.crs


def test_a_box_is_the_pixels_that_it_touches() -> None:
    for transform in (UTM, SOUTH_UP):
        grid = GeoGrid(CRS.from_epsg(32633), transform, 40, 30)
        x, y = transform @ (3, 5)
        x1, y1 = transform @ (8, 7)
        south, north = sorted((y, y1))
        edges = Crop(bbox=(x, south, x1, north))
        assert edges.on(grid) == Window(5, 3, 2, 5)  # pixels that end where it begins are not touched
        assert Crop(bbox=(x - 1, south, x1, north)).on(grid) == Window(5, 2, 2, 6)
        degrees = transform_bounds(grid.crs, "EPSG:4326", x + 2, south + 2, x1 - 2, north - 2)
        found = Crop(bbox=degrees, bbox_crs="EPSG:4326").on(grid)
        assert found == Window(5, 3, 2, 5)
        assert Crop(bbox=(-1e7, -1e7, 1e7, 1e7)).on(grid) is None  # all of it
        assert Crop((0, 0, 30, 40)).on(grid) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--window 1,2,3", "--window must be COL,ROW,WIDTH,HEIGHT"),
        ("--window 0,0,51,4", "--window 0,0,51,4 reaches beyond the scene, which has 50 columns and 40 rows"),
        ("--window 0,0,0,4", "must begin at column and row 0 or later and have at least one pixel, got 0,0,0,4"),
        ("--window 0,0,4,4 --bbox 0,0,1,1", "--window and --bbox name one part each"),
        ("--bbox 0,0,1,1", "--bbox 0,0,1,1 does not meet the scene, whose bounds in its CRS are 500000,4999600,500500"),
        ("--bbox 1,0,0,1", "--bbox must be W,S,E,N with W below E"),
        ("--bbox a,0,0,1", "--bbox must be W,S,E,N, four numbers"),
        ("--bbox-crs EPSG:4326", "--bbox-crs says what --bbox or --geometry is in"),
        ("--bbox 0,0,1,1 --bbox-crs EPSG:0", "--bbox-crs must be a CRS such as EPSG:4326, got 'EPSG:0'"),
        (
            "--bbox 500000,4999700,500300,4999950 --bbox-crs EPSG:4326",
            "bounds in EPSG:4326 have no place in the scene's CRS: is that what they are in?",
        ),
    ],
)
def test_a_part_that_there_is_not_is_one_line(tmp_path: Path, words: str, message: str) -> None:
    write_raster(tmp_path / "scene.tif", noise_image(1, (1, 40, 50)))
    done = scenelift("enhance", "scene.tif", "-o", "a.tif", "-m", "nearest-x2", *words.split(), cwd=tmp_path, ok=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_a_part_is_another_job_than_the_whole_and_is_resumed_as_it_was(tmp_path: Path) -> None:
    write_raster(tmp_path / "scene.tif", noise_image(1, (1, 40, 50)))
    command = "enhance", "scene.tif", "-o", "a.tif", "-m", "nearest-x2", "--json"
    done = scenelift(*command, "--bbox", "500100,4999700,500300,4999950", cwd=tmp_path)
    assert (json.loads(done.stdout)["width"], json.loads(done.stdout)["height"]) == (40, 50)
    with rasterio.open(tmp_path / "a.tif") as made:
        assert made.transform == UTM @ Affine.translation(10, 5) @ Affine.scale(0.5)
        assert json.loads(made.tags()["SCENELIFT"])["settings"]["window"] == [10, 5, 20, 25]
    again = scenelift(*command, "--window", "10,5,20,25", cwd=tmp_path)
    assert json.loads(again.stdout)["resumed"] == 1  # the same part
    other = scenelift(*command, cwd=tmp_path, ok=False)
    assert other.returncode == 2 and "output shape was" in other.stderr
    before = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(before[:-40] + bytes(40))
    assert "repaired" in scenelift("verify", "a.tif", "--repair", cwd=tmp_path).stdout
    assert (tmp_path / "a.tif").read_bytes() == before
    package.enhance(tmp_path / "scene.tif", tmp_path / "b.tif", "nearest-x2", window=(10, 5, 20, 25))
    assert (tmp_path / "b.tif").read_bytes() == before
    with pytest.raises(UsageError, match="a part of the array"):
        package.apply(np.zeros((1, 8, 8), "float32"), "nearest-x2", package.Settings(crop=Crop((0, 0, 2, 2))))


def test_a_dry_run_says_what_would_be_done_as_it_would_end_and_writes_nothing(tmp_path: Path) -> None:
    write_raster(tmp_path / "scene.tif", noise_image(1, (1, 300, 320), high=3000))
    command = "enhance", "scene.tif", "-o", "a.tif", "-m", "ibp-x2", "--block", 100, "--workers", 0

    def names() -> list[str]:
        return sorted(path.name for path in tmp_path.iterdir())

    told = json.loads(scenelift(*command, "--dry-run", "--json", cwd=tmp_path).stdout)
    assert names() == ["scene.tif"]
    assert (told["width"], told["height"], told["blocks"], told["kept"], told["window"]) == (640, 600, 12, 0, None)
    assert any("expected gain" in note.lower() or "LANCZOS" in note for note in told["notes"])
    assert told["expected"]["gain_db"]["lanczos"]
    said = " ".join(scenelift(*command, "--dry-run", "--window", "7,9,30,20", cwd=tmp_path).stdout.split())
    assert "nothing was written" in said and "columns 7 to 37, rows 9 to 29" in said
    unfit = scenelift(*command, "--dry-run", "--require-gain", 50, cwd=tmp_path, ok=False)
    assert unfit.returncode == 4 and names() == ["scene.tif"]
    scenelift(*command, cwd=tmp_path)
    before = (tmp_path / "a.tif").stat().st_mtime_ns
    assert json.loads(scenelift(*command, "--dry-run", "--json", cwd=tmp_path).stdout)["kept"] == 12
    other = scenelift(*command, "--dry-run", "--dtype", "float32", cwd=tmp_path, ok=False)
    assert other.returncode == 2 and "add --overwrite" in other.stderr
    assert (tmp_path / "a.tif").stat().st_mtime_ns == before
