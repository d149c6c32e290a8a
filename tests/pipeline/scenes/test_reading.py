"""Reading what lies beside a raster, and bands that differ in how they are stored."""

from __future__ import annotations

import os
import threading
import warnings
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401
import xarray as xr
from affine import Affine
from support.builders import UTM, integer_net, noise_image, write_raster
from support.storage import Handler

from scenelift.pipeline.errors import SceneError, UnreachableError, UsageError
from scenelift.pipeline.outputs.outputs import output_of
from scenelift.pipeline.scenes import rasters, scenes
from scenelift.pipeline.scenes.inputs import input_digest, input_stamps
from scenelift.pipeline.scenes.limits import Limits
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import STRIP, TILES, Scene, SceneSource, Strips
from scenelift.pipeline.tiles import TileGrid, Window

WHOLE = Window(0, 0, 20, 30)
WORLD = "10\n0\n0\n-10\n500005\n4999995\n"
"""A world file of `UTM`: it names the centre of the first pixel."""


def source_of(*paths: Path, **options) -> SceneSource:  # type: ignore[no-untyped-def]
    return SceneSource(tuple(str(p) for p in paths), **options)


def scene_of(*paths: Path, **options) -> Scene:  # type: ignore[no-untyped-def]
    return open_scene(source_of(*paths, **options))


def plain_image(path: Path, values: np.ndarray, **profile: object) -> Path:
    """Write an image that does not know where it is."""
    form = {"driver": "GTiff", "count": len(values), "height": values.shape[1], "width": values.shape[2]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", dtype=values.dtype, **(form | profile)) as out:
            out.write(values)
    return path


def masked_image(path: Path, values: np.ndarray, mask: np.ndarray) -> Path:
    """Write a GeoTIFF with its mask in a file beside it."""
    write_raster(path, values)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as out:
        out.write_mask(mask)
    assert path.with_name(path.name + ".msk").is_file()
    return path


@pytest.mark.parametrize(
    ("name", "world", "driver"),
    [("w.tif", "w.tfw", "GTiff"), ("W.TIF", "W.TFW", "GTiff"), ("w.tiff", "w.wld", "GTiff"), ("p.png", "p.pgw", "PNG")],
)
def test_a_world_file_says_where_a_raster_is(tmp_path: Path, name: str, world: str, driver: str) -> None:
    path = plain_image(tmp_path / name, noise_image(1, (1, 20, 30), "uint8"), driver=driver)
    (tmp_path / world).write_text(WORLD)
    assert scene_of(path, crs="EPSG:32633").grid.transform.almost_equals(UTM)


def test_a_mask_beside_a_raster_masks_it(tmp_path: Path) -> None:
    mask = np.full((20, 30), 255, np.uint8)
    mask[3:7, 5:11] = 0
    scene = scene_of(masked_image(tmp_path / "ms.tif", noise_image(1, (2, 20, 30)), mask))
    assert scene.mask_kind == "mask"
    assert np.array_equal(scene.read(WHOLE).valid, np.broadcast_to(mask != 0, (2, 20, 30)))


def test_a_raster_with_its_header_beside_it(tmp_path: Path) -> None:
    values = noise_image(1, (2, 20, 30))
    scene = scene_of(write_raster(tmp_path / "e.img", values, driver="ENVI"))
    assert scene.grid.transform.almost_equals(UTM)
    assert np.array_equal(scene.read_dn(WHOLE)[0], values)


def test_what_decides_pixels_or_place_is_part_of_the_input(tmp_path: Path) -> None:
    mask = np.full((20, 30), 255, np.uint8)
    path = masked_image(tmp_path / "ms.tif", noise_image(1, (1, 20, 30)), mask)
    seen = [input_digest(source_of(path))]
    stamps = input_stamps(source_of(path))
    mask[0] = 0
    masked_image(path, noise_image(1, (1, 20, 30)), mask)
    assert input_stamps(source_of(path)) != stamps
    for change in (lambda: path.with_suffix(".tfw").write_text(WORLD), lambda: Path(f"{path}.msk").unlink()):
        seen.append(input_digest(source_of(path)))
        change()
    (tmp_path / "ms.tif.aux.xml").write_text("<PAMDataset/>")  # decides nothing
    seen.append(input_digest(source_of(path)))
    (tmp_path / "ms.tif.aux.xml").unlink()
    assert len(set(seen)) == 4 and input_digest(source_of(path)) == seen[-1]


def test_masks_are_believed_only_if_they_are_masks(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "ms.tif", noise_image(1, (1, 20, 30)))
    mask = tmp_path / "ms.tif.msk"
    write_raster(mask, np.ones((1, 9, 9), "uint8"), driver="GTiff")
    with pytest.raises(SceneError, match=r"ms\.tif\.msk is \(9, 9\) pixels"):
        scene_of(path)
    mask.unlink()
    os.mkfifo(mask)  # opening it would wait for ever
    with pytest.raises(SceneError, match=r"ms\.tif\.msk.* not a regular file"):
        scene_of(path)
    mask.unlink()
    mask.mkdir()
    assert scene_of(path).mask_kind == "none"


def test_a_name_too_long_to_have_anything_beside_it(tmp_path: Path) -> None:
    assert scene_of(write_raster(tmp_path / f"{'n' * 250}.tif", noise_image(1, (1, 20, 30)))).mask_kind == "none"


def two_files(folder: Path) -> tuple[Scene, np.ndarray]:
    """Two bands in two files: one marks missing pixels by 0, one by 65535."""
    values = noise_image(1, (2, 20, 30))
    values[0, 2, 3], values[0, 4, 4], values[1, 5, 6], values[1, 7, 7] = 0, 65535, 65535, 0
    first = write_raster(folder / "C02.tif", values[:1], nodata=0)
    return scene_of(first, write_raster(folder / "C03.tif", values[1:], nodata=65535)), values


def test_every_band_has_its_own_nodata(tmp_path: Path) -> None:
    scene, values = two_files(tmp_path)
    region = scene.read(WHOLE)
    assert np.argwhere(~region.valid).tolist() == [[0, 2, 3], [1, 5, 6]]
    assert (scene.nodata, [band.nodata for band in scene.bands]) == (0, [0, 65535])
    out = output_of(scene, [integer_net().spec], scene.grid.shape)
    stored = out.encode(region.values, region.valid)
    assert out.nodata == 0 and np.array_equal(stored != 0, region.valid)
    expected = values.copy()
    expected[1, 5, 6], expected[1, 7, 7] = 0, 1  # missing as the output says it; a true 0 moves off that
    assert np.array_equal(stored, expected)
    assert np.array_equal(scene.read_dn(WHOLE)[0], expected)
    given = scene_of(tmp_path / "C02.tif", tmp_path / "C03.tif", nodata=7)
    assert [band.nodata for band in given.bands] == [7, 7] and given.read(WHOLE).valid[1, 5, 6]


def test_nan_and_a_number_as_nodata_of_two_bands(tmp_path: Path) -> None:
    values = noise_image(1, (2, 20, 30)).astype("float32")
    values[0, 1, 1], values[1, 2, 2] = np.nan, -9999
    paths = [tmp_path / "a.tif", tmp_path / "b.tif"]
    for path, band, nodata in zip(paths, values, (np.nan, -9999), strict=True):
        write_raster(path, band[None], nodata=nodata)
    for order in (paths, paths[::-1]):
        scene = scene_of(*order)
        made, valid = scene.read_dn(WHOLE)
        assert (~valid).sum() == 2
        missing = made[~valid]
        assert np.isnan(missing).all() if order is paths else (missing == -9999).all()


def cube(folder: Path, names: tuple[str, str], scales: tuple[float, float]) -> Path:
    """A Zarr store that xarray wrote, of two variables that say for themselves how they are stored."""
    y, x = 5_000_000 - 5 - 10.0 * np.arange(20), 500_005 + 10.0 * np.arange(30)
    values = noise_image(1, (2, 20, 30))
    values[0, 1, 1], values[1, 2, 2] = 0, 65535
    bands = {
        key: xr.DataArray(
            plane,
            dims=("y", "x"),
            coords={"y": y, "x": x},
            attrs={"long_name": name, "scale_factor": scale, "add_offset": offset, "_FillValue": np.uint16(missing)},
        )
        for key, plane, name, scale, offset, missing in zip(
            ("red", "nir"), values, names, scales, (0.0, -0.1), (0, 65535), strict=True
        )
    }
    xr.Dataset(bands).rio.write_crs("EPSG:32633").to_zarr(folder / "cube.zarr", zarr_format=3)
    return folder / "cube.zarr"


def test_every_variable_of_a_store_speaks_for_itself(tmp_path: Path) -> None:
    scene = scene_of(cube(tmp_path, ("red light", "infrared"), (1e-4, 5e-4)))
    told = [(b.description, b.scale, b.offset, b.nodata, b.declared) for b in scene.bands]
    assert told == [("infrared", 5e-4, -0.1, 65535, True), ("red light", 1e-4, 0, 0, True)], (
        "in the order of their names"
    )
    assert np.argwhere(~scene.read(WHOLE).valid).tolist() == [[0, 2, 2], [1, 1, 1]]


def test_variables_of_one_long_name_are_told_apart(tmp_path: Path) -> None:
    scene = scene_of(cube(tmp_path, ("reflectance", "reflectance"), (1e-4, 1e-4)))
    assert [b.description for b in scene.bands] == ["nir", "red"]


@pytest.mark.parametrize("nodata", [np.nan, np.inf, -1, 0.5, 1e300])
def test_nodata_that_whole_numbers_lack_is_one_clear_error(tmp_path: Path, nodata: float) -> None:
    path = write_raster(tmp_path / "a.tif", noise_image(1, (1, 20, 30)))
    with pytest.raises(UsageError, match="nodata must be a value of uint16, got "):
        scene_of(path, nodata=nodata)


def test_an_offset_must_be_a_number(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", noise_image(1, (1, 20, 30)))
    with pytest.raises(UsageError, match="offset must be a finite number"):
        scene_of(path, offset=np.nan)


def test_pixel_coordinates_still_need_a_word(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", noise_image(1, (1, 20, 30)), transform=Affine.identity())
    with pytest.raises(UsageError, match="give crs"):
        scene_of(path)


def test_a_storage_that_stops_responding_is_no_broken_file(tmp_path: Path) -> None:
    handler = type("Folder", (Handler,), {"folder": tmp_path})
    write_raster(tmp_path / "a.tif", noise_image(1, (1, 640, 640)))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{http.server_port}/a.tif"
        scene = open_scene(SceneSource((address,), limits=Limits(remote=True)))
        scene.read(Window(0, 0, 64, 64))
        write_raster(tmp_path / "a.tif", noise_image(1, (1, 640, 640)))
        os.truncate(tmp_path / "a.tif", 300_000)  # a server that responds, and a file that ends too early
        with pytest.raises(SceneError, match="truncated or damaged"):
            scene.read(Window(576, 0, 64, 64))
        http.shutdown()
    with pytest.raises(UnreachableError, match="does not respond; what is done is kept") as caught:
        scene.read(Window(320, 0, 64, 64))
    assert caught.value.exit_code == 75


@pytest.fixture
def tiled(tmp_path: Path) -> Path:
    """Two bands of JPEG 2000 in tiles, those at the edges not whole."""
    path = tmp_path / "scene.jp2"
    facts = {"driver": "JP2OpenJPEG", "count": 2, "height": 700, "width": 610, "dtype": "uint16", "transform": UTM}
    with rasterio.open(
        path, "w", crs="EPSG:32633", blockxsize=128, blockysize=128, quality=100, reversible=True, **facts
    ) as out:
        out.write(noise_image(4, (2, 700, 610)))
    return path


def test_tiles_that_are_kept_are_the_pixels_of_the_file(tiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with rasterio.open(tiled) as opened:
        whole = opened.read()
        assert opened.block_shapes[0] < (700, 610)  # or one tile would be all
    random = np.random.default_rng(1)
    for most in (0, 128 * 128 * 2 + 1, 1 << 22):  # none, one, all of them
        tiles = rasters._Tiles()
        monkeypatch.setattr(rasters, "_tiles", tiles)
        tiles.most = most
        file = rasters.open_raster(str(tiled))
        for _ in range(40):
            (row, stop_row), (col, stop_col) = (sorted(random.choice(n + 1, 2, replace=False)) for n in (700, 610))
            index = int(random.integers(1, 3))
            window = Window.from_bounds(int(row), int(col), int(stop_row), int(stop_col))
            values, valid = file.read([index], window)
            assert np.array_equal(values[0], whole[(index - 1, *window.slices())]) and valid.all()
            assert tiles._bytes <= most and tiles._bytes == sum(each.nbytes for each in tiles._kept.values())


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """File, band, row and column of each tile that is decoded from now on; as yet none is kept."""
    found: list[tuple[int, ...]] = []

    class Counting(rasters._Tiles):
        def get(self, key, decode):  # type: ignore[no-untyped-def]
            return super().get(key, lambda: (found.append(key), decode())[1])

    monkeypatch.setattr(rasters, "_tiles", Counting())
    return found


def test_a_tile_is_decoded_once_for_all_blocks_around_it(tiled: Path, decoded: list[tuple[int, ...]]) -> None:
    scene = scene_of(tiled)
    strips = scene.strips((128, 128))
    assert strips == Strips(STRIP, 128 * (3 * 610 + 2 * 128) * 4)
    rasters.keep_tiles(strips.kept)
    lattice = TileGrid(scene.grid.shape, (128, 128))
    for block in lattice:
        scene.read(block.expand(20).clip(scene.grid.shape))
    assert len(decoded) == len(set(decoded)) == 2 * len(lattice)
    another = scene_of(tiled)  # the file may be another by now
    another.read(Window(0, 0, 10, 10))
    assert len(decoded) == 2 * len(lattice) + 2


def test_a_damaged_tile_is_one_line(tiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rasters, "_tiles", rasters._Tiles())
    rasters.keep_tiles(1 << 20)
    scene, content = scene_of(tiled), bytearray(tiled.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    tiled.write_bytes(content)
    with pytest.raises(SceneError, match=r"scene.jp2.*may be truncated or damaged"):
        scene.read(Window(0, 0, 700, 610))


def files_of_bands(folder: Path, values: np.ndarray) -> dict[str, Path]:
    """Store the same five bands as files do."""
    paths = {}
    for interleave in ("pixel", "band"):
        paths[interleave] = folder / f"{interleave}.tif"
        write_raster(paths[interleave], values, interleave=interleave, tiled=True, blockxsize=64, blockysize=64)
    rows, cols = (UTM.f - 10 * (np.arange(100) + 0.5)), (UTM.c + 10 * (np.arange(90) + 0.5))
    at, crs = {"y": rows, "x": cols}, {"crs": "EPSG:32633"}
    one = xr.DataArray(values, {"band": np.arange(5), **at}, ("band", "y", "x"), "image", crs)
    several = xr.Dataset({f"b{i}": (("y", "x"), plane, crs) for i, plane in enumerate(values)}, at)
    last = xr.DataArray(np.moveaxis(values, 0, 2), at, ("y", "x", "band"), "image", crs)
    mixed = several.astype("float32").assign(b2=several.b2.astype("float64"))
    kinds = {"one": one.to_dataset(), "last": last.to_dataset(), "several": several, "mixed": mixed}
    for name, data in kinds.items():
        paths[name] = folder / f"{name}.zarr"
        chunks = {v: {"chunks": (*data[v].shape[:-2], 64, 64)} for v in data.data_vars if name != "last"}
        data.to_zarr(paths[name], encoding=chunks)
    return paths


def test_bands_that_are_read_together_are_those_read_alone(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(1, 60_000, (5, 100, 90)).astype(np.uint16)
    window = Window(11, 7, 70, 60)
    for name, path in files_of_bands(tmp_path, values).items():
        for bands in ((1, 2, 3, 4, 5), (4, 2), (3,), (1, 3, 5), (2, 3)):
            scene = scene_of(path, bands=bands)
            found, valid = scene.read_dn(window)
            assert np.array_equal(found, values[(np.array(bands) - 1, *window.slices())]), (name, bands)
            assert valid.all()
            assert len(scene._together) == (2 if name == "mixed" and 3 in bands and len(bands) > 1 else 1)


def product_of(folder: Path, sides: dict[int, int]) -> Scene:
    """Bands of JPEG 2000 whose tiles are 64 pixels a side, on grids so many times as coarse."""
    paths = []
    for number, (name, ratio) in enumerate(sides.items()):
        side = 960 // ratio
        facts = {"count": 1, "height": side, "width": side, "dtype": "uint16", "transform": UTM * Affine.scale(ratio)}
        paths.append(folder / f"{name}.jp2")
        with rasterio.open(
            paths[-1], "w", driver="JP2OpenJPEG", crs="EPSG:32633", blockxsize=64, blockysize=64, **facts
        ) as out:
            out.write(noise_image(number, (1, side, side)))
    return scene_of(*paths, extent="union")


@pytest.mark.parametrize("sides", [{1: 1, 2: 1}, {1: 1, 2: 2, 3: 3}])
def test_in_the_order_of_strips_tiles_are_decoded_once_but_at_their_sides(
    tmp_path: Path, decoded: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch, sides: dict[int, int]
) -> None:
    monkeypatch.setattr(scenes, "STRIP", 320)
    scene = product_of(tmp_path, sides)
    blocks = TileGrid(scene.grid.shape, (64, 64))
    strips = scene.strips((64, 64))
    assert strips is not None and strips.width == 320 and strips.kept < TILES
    rasters.keep_tiles(strips.kept)
    for number in strips.order(blocks, range(len(blocks))):
        scene.read(blocks[number].expand(20).clip(scene.grid.shape))
    assert sorted(strips.order(blocks, range(len(blocks)))) == list(range(len(blocks)))
    assert len(set(decoded)) == sum((-(-960 // ratio // 64)) ** 2 for ratio in sides.values())
    # fifteen columns in three strips, between which two columns are decoded twice; of coarser grids more of the few
    assert len(decoded) <= len(set(decoded)) * (19 / 15 if set(sides.values()) == {1} else 1.6)
    monkeypatch.setattr(scenes, "STRIP", 1 << 20)
    wide = scene.strips((64, 64))
    assert wide is not None and wide.kept > 1.25 * strips.kept, "row by row needs more memory for the same"


def test_strips_are_as_narrow_as_the_memory_for_tiles_asks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scene = product_of(tmp_path, {1: 1, 2: 1})
    monkeypatch.setattr(scenes, "TILES", 64 * 4 * (3 * (200 + 128) + 128))
    assert scene.strips((64, 64)) == Strips(192, 64 * 4 * (3 * (192 + 128) + 128))
    monkeypatch.setattr(scenes, "TILES", 1000)
    assert scene.strips((64, 64)) == Strips(128, 1000)
    assert scene_of(write_raster(tmp_path / "plain.tif", noise_image(1, (1, 64, 64)))).strips((64, 64)) is None
