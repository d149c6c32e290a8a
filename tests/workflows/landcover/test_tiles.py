"""Tiles hold the scene's own pixels, know their place, and feed other people's classifiers (the docs' examples run)."""

import csv
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import zarr
from rasterio.enums import ColorInterp
from support.builders import ROTATED, noise_image, write_raster

from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.workflows.enhance import EnhanceSettings, enhance
from scenelift.workflows.landcover.tiles import TileSettings, cut_tiles
from scenelift.workflows.landcover.windows import SceneWindows

DOCS = Path(__file__).parents[3] / "docs/landcover.md"
SHAPE = (100, 140)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A scene of two kinds of ground with a hole, its labels, and labels of another grid."""
    folder = tmp_path_factory.mktemp("tiles")
    rng = np.random.default_rng(0)
    kind = (np.arange(SHAPE[1]) // 70 + np.zeros(SHAPE, int)).astype("uint8") + 1
    values = (rng.integers(500, 900, (3, *SHAPE)) + 2500 * (kind - 1).astype(int)).astype("uint16")
    values[:, :10, :10] = 0
    profile = {"driver": "GTiff", "height": SHAPE[0], "width": SHAPE[1], "crs": "EPSG:32633"}
    with rasterio.open(
        folder / "scene.tif", "w", count=3, dtype="uint16", nodata=0, transform=ROTATED, **profile
    ) as out:
        out.write(values)
        out.scales = (0.0002,) * 3
    for name, shift in (("labels.tif", 0), ("elsewhere.tif", 500)):
        moved = ROTATED @ ROTATED.translation(shift, 0)
        with rasterio.open(folder / name, "w", count=1, dtype="uint8", nodata=0, transform=moved, **profile) as out:
            out.write(kind[None])
    return folder, values, kind


def source(path):
    return SceneSource((str(path),))


@pytest.mark.parametrize("kind", ["tif", "npy", "webdataset", "zarr"])
def test_tiles_are_the_scenes_pixels_at_their_place(files, tmp_path, kind):
    folder, values, truth = files
    out = tmp_path / "tiles"
    settings = TileSettings(32, kind=kind)
    facts = cut_tiles(source(folder / "scene.tif"), out, settings, source(folder / "labels.tif"))
    table = pq.read_table(out / "index.parquet")
    rows = table.drop_columns("geometry").to_pylist()
    assert facts["tiles"] == len(rows) == 3 * 4 - 1  # the tile with the hole is left out
    for index, row in enumerate(rows):
        part = slice(row["row"], row["row"] + 32), slice(row["col"], row["col"] + 32)
        pixels, labels = read_tile(out, kind, index, row["name"])
        assert np.array_equal(pixels, values[:, *part])
        assert np.array_equal(labels, truth[part])
        assert row["label"] == np.bincount(truth[part].ravel()).argmax()


def read_tile(out, kind, index, name):
    if kind == "tif":
        with rasterio.open(out / name) as image, rasterio.open(out / name.replace(".tif", "_labels.tif")) as labels:
            assert image.nodata == 0
            assert image.scales == (0.0002,) * 3
            return image.read(), labels.read(1)
    if kind == "npy":
        return np.load(out / name), np.load(out / name.replace(".npy", "_labels.npy"))
    if kind == "zarr":
        group = zarr.open_group(str(out / "tiles.zarr"), mode="r")
        return group["data"][index], group["labels"][index]
    with tarfile.open(out / "tiles-00000.tar") as tar:
        assert tar.extractfile(f"{name}.cls").read().isdigit()
        arrays = [tar.extractfile(f"{name}.{suffix}") for suffix in ("npy", "labels.npy")]
        loaded = []
        for array in arrays:
            (Path(out) / "x.npy").write_bytes(array.read())
            loaded.append(np.load(Path(out) / "x.npy"))
        return tuple(loaded)


def test_footprints_are_polygons_on_the_ground(files, tmp_path):
    folder, *_ = files
    cut_tiles(source(folder / "scene.tif"), tmp_path / "t", TileSettings(50, stride=25, least=0.5))
    table = pq.read_table(tmp_path / "t/index.parquet")
    geo = json.loads(table.schema.metadata[b"geo"])
    assert geo["columns"]["geometry"]["crs"]["id"] == {"authority": "EPSG", "code": 32633}
    first = table.to_pylist()[1]
    ring = np.frombuffer(first["geometry"], "<f8", offset=13).reshape(-1, 2)
    corners = [(25, 0), (75, 0), (75, 50), (25, 50), (25, 0)]
    assert np.allclose(ring, [ROTATED @ corner for corner in corners])
    with (tmp_path / "t/index.csv").open(newline="") as file:
        row = list(csv.DictReader(file))[1]
    numbers = [float(v) for v in re.findall(r"[-\d.]+", row["footprint"])]
    assert np.allclose(numbers, ring.ravel())
    with rasterio.open(tmp_path / "t/tile_000001.tif") as tile:
        assert np.allclose(tile.transform @ (0, 0), ring[0])


def test_reflectance_tiles_have_no_scale_left(files, tmp_path):
    folder, values, _ = files
    cut_tiles(source(folder / "scene.tif"), tmp_path / "t", TileSettings(32, kind="npy", least=0, reflectance=True))
    tile = np.load(tmp_path / "t/tile_000000.npy")
    assert tile.dtype == np.float32
    assert np.isnan(tile[:, :10, :10]).all()
    assert np.allclose(tile[:, 10:], values[:, 10:32, :32] * 0.0002)


def test_wrong_requests_leave_nothing(files, tmp_path):
    folder, *_ = files
    scene = source(folder / "scene.tif")
    for words, settings, labels in [
        ("do not lie on the grid", TileSettings(32), source(folder / "elsewhere.tif")),
        ("one of whole numbers", TileSettings(32), scene),
        ("enough data", TileSettings(512), None),
        ("format", TileSettings(32, kind="png"), None),
    ]:
        with pytest.raises(UsageError, match=words):
            cut_tiles(scene, tmp_path / "t", settings, labels)
        assert not (tmp_path / "t").exists()
    cut_tiles(scene, tmp_path / "t", TileSettings(32))
    with pytest.raises(UsageError, match="exists"):
        cut_tiles(scene, tmp_path / "t", TileSettings(32))


@pytest.mark.parametrize("kind", ["mask", "alpha"])
def test_tiles_of_a_masked_scene_have_masks(tmp_path, kind):
    mask = np.full((64, 64), 255, "uint8")
    mask[:20, :30] = 0
    values = noise_image(0, (2, 64, 64), "uint8")
    if kind == "mask":
        path = write_raster(tmp_path / "in.tif", values, mask=mask)
    else:
        colors = [ColorInterp.gray, ColorInterp.undefined, ColorInterp.alpha]
        path = write_raster(tmp_path / "in.tif", np.concatenate([values, mask[None]]), colorinterp=colors)
    cut_tiles(source(path), tmp_path / "t", TileSettings(32, least=0.1))
    with rasterio.open(tmp_path / "t/tile_000000.tif") as tile:
        assert np.array_equal(tile.dataset_mask(), mask[:32, :32])
        assert np.array_equal(tile.read(), values[:, :32, :32])
    assert sorted(p.suffix for p in (tmp_path / "t").iterdir()) == sorted([".csv", ".json", ".parquet", *[".tif"] * 4])


@pytest.mark.parametrize("length", [250, 300])
def test_a_folder_that_cannot_be_made_is_a_clear_error(files, tmp_path, length):
    with pytest.raises(UsageError, match="cannot make the folder"):  # names too long stand for folders not to write in
        cut_tiles(source(files[0] / "scene.tif"), tmp_path / ("t" * length), TileSettings(32))


def test_windows_of_an_enhanced_zarr_are_read_lazily_by_loader_workers(files, tmp_path):
    from torch.utils.data import DataLoader

    folder, *_ = files
    enhance(str(folder / "scene.tif"), tmp_path / "better.zarr", "nearest-x2", EnhanceSettings(), ClusterSettings(0))
    windows = SceneWindows(tmp_path / "better.zarr", side=64, stride=60)
    whole = zarr.open_group(str(tmp_path / "better.zarr"), mode="r")["data"][:]
    seen = np.zeros(whole.shape[1:], bool)
    loader = DataLoader(windows, batch_size=4, num_workers=1, multiprocessing_context="forkserver")
    for batch in loader:
        for image, valid, (row, col) in zip(batch["image"], batch["valid"], batch["at"].tolist(), strict=True):
            part = slice(row, row + 64), slice(col, col + 64)
            assert np.allclose(image.numpy(), whole[:, *part] * 0.0002, atol=1e-6)
            assert np.array_equal(valid.numpy(), (whole[:, *part] != 0).all(0))
            seen[part] = True
    assert seen.all()
    with pytest.raises(UsageError, match="no window of 500 fits"):
        SceneWindows(tmp_path / "better.zarr", side=500)


@pytest.mark.parametrize("library", ["sklearn", "torch"])
def test_the_examples_in_the_docs_run(files, tmp_path, monkeypatch, library, capsys):
    folder, *_ = files
    monkeypatch.chdir(tmp_path)
    enhance(str(folder / "scene.tif"), tmp_path / "better.zarr", "nearest-x2", EnhanceSettings(), ClusterSettings(0))
    settings = TileSettings(16, kind="npy", reflectance=True)
    cut_tiles(source(folder / "scene.tif"), tmp_path / "tiles", settings, source(folder / "labels.tif"))
    blocks = [b for b in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL) if library in b]
    assert len(blocks) == 1
    exec(compile(blocks[0], str(DOCS), "exec"), {})
    assert capsys.readouterr().out
