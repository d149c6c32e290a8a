"""Inputs that lie, ask for too much or are merely odd: refused in one line, or enhanced as they should be."""

from __future__ import annotations

import json
import os
import pickle
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import rasterio
from safetensors.numpy import save
from support import storage
from support.builders import noise_image, write_raster
from support.processes import call

IMAGE = noise_image(1, (2, 40, 40))


def whole(path: Path) -> None:
    write_raster(path, IMAGE, nodata=0)


def vrt(path: Path) -> None:
    """A VRT under a TIFF's name that would hand over another file's bytes."""
    whole(path.with_name("secret.tif"))
    source = "<SimpleSource><SourceFilename>secret.tif</SourceFilename></SimpleSource>"
    band = f'<VRTRasterBand dataType="UInt16" band="1">{source}</VRTRasterBand>'
    path.write_text(f'<VRTDataset rasterXSize="40" rasterYSize="40">{band}</VRTDataset>')


def fetching(path: Path, url: str) -> None:
    """Write a VRT that asks a server for its pixels as soon as it is opened."""
    source = f"<GDALWarpOptions><SourceDataset>/vsicurl/{url}/secret.tif</SourceDataset></GDALWarpOptions>"
    band = '<VRTRasterBand dataType="Byte" band="1" subClass="VRTWarpedRasterBand"/>'
    form = 'rasterXSize="40" rasterYSize="40" subClass="VRTWarpedDataset"'
    path.write_text(f"<VRTDataset {form}>{band}{source}</VRTDataset>")


def masked_by_vrt(path: Path) -> None:
    whole(path)
    fetching(path.with_name("in.tif.msk"), "http://127.0.0.1:9")


def masked_by_pipe(path: Path) -> None:
    whole(path)
    os.mkfifo(path.with_name("in.tif.msk"))


def vast_mask(path: Path) -> None:
    """A raster in small tiles whose mask is one tile of four megabytes."""
    sparse(path, 2000, tiled=True)
    sparse(path.with_name("mask.tif"), 2000, tiled=True, blockxsize=2048, blockysize=2048, dtype="uint8")
    path.with_name("mask.tif").rename(path.with_name("in.tif.msk"))


def sparse(path: Path, side: int, **profile: object) -> None:
    """A file of some kilobytes that declares side x side pixels."""
    form = {"driver": "GTiff", "width": side, "height": side, "count": 1, "dtype": "uint16", "SPARSE_OK": True}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)}
    with rasterio.open(path, "w", **(form | place | profile)):
        pass
    assert path.stat().st_size < 1 << 20


def typed(dtype: str) -> Callable[[Path], object]:
    return lambda path: write_raster(path, np.ones((1, 40, 40), dtype))


def without_width(path: Path) -> None:
    """A TIFF whose width is zero."""
    whole(path)
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from("<H", content, entry)[0] == 256:
            struct.pack_into("<I", content, entry + 8, 0)
    path.write_bytes(content)


def placeless(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        write_raster(path, IMAGE, crs=None)


def checkpoint(path: Path, content: bytes) -> None:
    whole(path)
    path.with_name("model.safetensors").write_bytes(content)


def vast_checkpoint(path: Path) -> None:
    checkpoint(path, b"")
    with path.with_name("model.safetensors").open("r+b") as file:
        file.truncate(1 << 40)


ARCH = {"kind": "generator", "blocks": 10**9}
HEADED = {"spec": json.dumps({"name": "x", "task": "other"}), "arch": json.dumps(ARCH)}
OWN = ["-m", "model.safetensors"]
REFUSED: dict[str, tuple[Callable[[Path], object], list[str], int, str]] = {
    "vrt": (vrt, [], 2, "in.tif"),
    "a mask that is a VRT": (masked_by_vrt, [], 2, "in.tif.msk"),
    "a mask that is a pipe": (masked_by_pipe, [], 2, "not a regular file"),
    "a mask of one tile": (vast_mask, ["--limit", "chunk-mb=1"], 2, "tiles or strips of 4 MB"),
    "nodata of no number": (whole, ["--nodata", "nan"], 2, "--nodata must be a value of uint16, got nan"),
    "nodata without end": (whole, ["--nodata", "inf"], 2, "--nodata must be a value of uint16, got inf"),
    "two terabytes": (lambda p: sparse(p, 10**6, tiled=True, blockxsize=8192, blockysize=8192), [], 2, "pixels=10"),
    "one strip": (lambda p: sparse(p, 20_000, blockysize=20_000, compress="deflate"), [], 2, "chunk-mb="),
    "bands": (whole, ["--limit", "bands=1"], 2, "--limit bands=2"),
    "unknown limit": (whole, ["--limit", "bytes=1"], 2, "pixels, bands, chunk-mb"),
    "complex": (typed("complex64"), [], 2, "complex64"),
    "int64": (typed("int64"), [], 2, "int64"),
    "no place": (placeless, [], 2, "--crs"),
    "zero size": (without_width, [], 2, "in.tif"),
    "a folder": (Path.mkdir, [], 2, "in.tif is a folder"),
    "a device": (lambda p: p.symlink_to("/dev/zero"), [], 2, "not a regular file"),
    "pickle": (lambda p: checkpoint(p, pickle.dumps({"weight": [1]})), OWN, 2, "model.safetensors"),
    "long header": (lambda p: checkpoint(p, b"\xff" * 7 + b"\x7f" + b"{}"), OWN, 2, "model.safetensors"),
    "no spec": (lambda p: checkpoint(p, save({"a": np.zeros(1)})), OWN, 2, "lacks spec"),
    "absurd model": (lambda p: checkpoint(p, save({"a": np.zeros(1)}, HEADED)), OWN, 2, "from 1 to 64"),
    "vast checkpoint": (vast_checkpoint, OWN, 2, "a checkpoint must have at most"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_right_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    build, options, code, words = REFUSED[case]
    build(tmp_path / "in.tif")
    before = sorted(tmp_path.iterdir())
    text = call(tmp_path, "enhance", "in.tif", "-o", "out.tif", "-m", "nearest-x2", "--workers", 0, *options, code=code)
    assert words in one_line(text)
    assert [p for p in sorted(tmp_path.iterdir()) if not p.name.startswith("log-")] == before


@pytest.mark.parametrize(
    "path", ["https://example.org/scene.tif", "/vsicurl/https://example.org/scene.tif", "s3://b/k"]
)
def test_the_network_is_not_touched_without_leave(tmp_path: Path, path: str) -> None:
    text = call(tmp_path, "enhance", path, "-o", "out.tif", "--workers", 0, code=2)
    assert "--allow-remote" in one_line(text) and path in text
    assert [p.name for p in tmp_path.iterdir()] == ["log-0"]


@pytest.mark.parametrize("form", ["{}/scene.tif", "/vsicurl/{}/scene.tif", "zarr+{}/scene.zarr"])
def test_no_server_hears_of_a_scene_without_leave(tmp_path: Path, server: str, form: str) -> None:
    call(tmp_path, "enhance", form.format(server), "-o", "out.tif", "-m", "nearest-x2", "--workers", 0, code=2)
    assert not (tmp_path / "asked").exists() and not list(tmp_path.glob("*out.tif*"))


def test_a_settings_file_with_unknown_keys_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('name = "x"\ntask = "denoise"\nspeed = 9\n')
    said = one_line(call(tmp_path, "train", "recipe.toml", code=2))
    assert said.startswith("scenelift: recipe.toml: unknown key speed; ")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log-0", "recipe.toml"], "nothing was begun"


def one_line(text: str) -> str:
    """Return the only line of what a command said."""
    (line,) = [line for line in text.splitlines() if line.strip()]
    assert line.startswith("scenelift: ")
    return line


def enhanced(folder: Path, source: str, output: str = "out.tif", *options: object) -> np.ndarray:
    call(folder, "enhance", source, "-o", output, "-m", "nearest-x2", "--workers", 0, "--no-expect", *options)
    with rasterio.open(folder / output) as made:
        return made.read()


def test_a_scene_without_any_data(tmp_path: Path) -> None:
    write_raster(tmp_path / "in.tif", np.zeros((2, 40, 40), "uint16"), nodata=0)
    made = enhanced(tmp_path, "in.tif")
    assert made.shape == (2, 80, 80) and (made == 0).all()
    with rasterio.open(tmp_path / "out.tif") as out:
        assert out.nodata == 0 and not out.dataset_mask().any()


def test_nan_and_infinity_stay_where_they_are(tmp_path: Path) -> None:
    values = noise_image(2, (1, 40, 40)).astype("float32") / 10_000
    values[0, 3, 4], values[0, 7, 8], values[0, 9, 9] = np.nan, np.inf, -np.inf
    write_raster(tmp_path / "in.tif", values)
    made = enhanced(tmp_path, "in.tif")
    assert (np.isnan(made) == ~np.isfinite(values).repeat(2, 1).repeat(2, 2)).all()


def test_bands_of_one_name_both_come_through(tmp_path: Path) -> None:
    write_raster(tmp_path / "in.tif", IMAGE, descriptions=["B04", "B04"])
    made = enhanced(tmp_path, "in.tif")
    assert (made == IMAGE.repeat(2, 1).repeat(2, 2)).all()
    call(tmp_path, "enhance", "in.tif", "-o", "out.zarr", "-m", "nearest-x2", "--workers", 0)
    assert (enhanced(tmp_path, "out.zarr", "again.tif")[:, ::2, ::2] == made).all()


def test_an_emptied_shard_is_damage_and_not_zeros(tmp_path: Path) -> None:
    whole(tmp_path / "in.tif")
    call(tmp_path, "enhance", "in.tif", "-o", "in.zarr", "-m", "nearest-x2", "--workers", 0)
    (tmp_path / "in.zarr" / "data" / "c" / "0" / "0" / "0").write_bytes(b"")
    text = call(tmp_path, "enhance", "in.zarr", "-o", "out.tif", "-m", "nearest-x2", "--workers", 0, code=4)
    assert "damaged" in one_line(text) and not (tmp_path / "out.tif").exists()


def test_a_single_pixel(tmp_path: Path) -> None:
    write_raster(tmp_path / "in.tif", np.full((1, 1, 1), 7, "uint16"))
    assert (enhanced(tmp_path, "in.tif") == 7).all()


def test_paths_with_spaces_dots_and_other_scripts(tmp_path: Path) -> None:
    odd = tmp_path / "a b" / "ünï 場'\"$(x)"
    odd.mkdir(parents=True)
    whole(odd / "in put.tif")
    output = odd / ".." / "öut.tif"
    call(tmp_path, "enhance", odd / ".." / odd.name / "in put.tif", "-o", output, "-m", "nearest-x2", "--workers", 0)
    assert {p.name for p in (tmp_path / "a b").iterdir()} == {".öut.tif.scenelift", odd.name, "öut.tif"}
    call(tmp_path, "verify", output)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serve a folder over http, with ranges, as object stores do."""

    class Recording(storage.Handler):
        folder = tmp_path / "served"

        def answer(self, body: bool) -> None:
            with (tmp_path / "asked").open("a") as asked_for:
                asked_for.write(self.path)
            super().answer(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Recording) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_a_scene_on_the_network_is_read_with_leave(tmp_path: Path, server: str) -> None:
    (tmp_path / "served").mkdir()
    whole(tmp_path / "served" / "scene.tif")
    made = enhanced(tmp_path, f"{server}/scene.tif", "out.tif", "--allow-remote")
    assert (made == IMAGE.repeat(2, 1).repeat(2, 2)).all()
    assert "nothing to do" in call(tmp_path, "resume", "out.tif")
    write_raster(tmp_path / "served" / "scene.tif", noise_image(9, (2, 40, 40)), nodata=0)
    again = ["enhance", f"{server}/scene.tif", "-o", "out.tif", "-m", "nearest-x2", "--workers", 0, "--allow-remote"]
    assert "input sha256" in call(tmp_path, *again, code=2)
    missing = call(tmp_path, "enhance", f"{server}/none.tif", "-o", "x.tif", "--allow-remote", code=2)
    assert "none.tif" in one_line(missing)


def test_what_lies_beside_a_raster_reaches_no_server(tmp_path: Path, server: str) -> None:
    path = tmp_path / "in.tif"
    values = IMAGE[:1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", width=40, height=40, count=1, dtype="uint16") as out:
            out.write(values)
    path.with_suffix(".tfw").write_text("10\n0\n0\n-10\n500005\n4999995\n")  # so GDAL may look for other files
    for ending in (".ovr", ".aux", ".vrt"):
        fetching(path.with_name("in.tif" + ending), server)
    overviews = f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">/vsicurl/{server}/o.tif</MDI></Metadata>'
    place = "<SRS>EPSG:4326</SRS><GeoTransform>0,1,0,0,0,-1</GeoTransform>"
    path.with_name("in.tif.aux.xml").write_text(f"<PAMDataset>{place}{overviews}</PAMDataset>")
    assert (enhanced(tmp_path, "in.tif", "out.tif", "--crs", "EPSG:32633")[:, ::2, ::2] == values).all()
    assert not (tmp_path / "asked").exists()
    with rasterio.open(tmp_path / "out.tif") as made:
        assert made.transform == rasterio.Affine(0.5, 0, 0, 0, -0.5, 0)  # GDAL asks the .aux.xml before the .tfw
        assert made.crs.to_epsg() == 32633
    with pytest.raises(rasterio.errors.RasterioIOError):
        rasterio.open(path.with_name("in.tif.vrt"))
    assert (tmp_path / "asked").exists()  # these would have asked
    (tmp_path / "asked").unlink()
    fetching(path.with_name("in.tif.msk"), server)
    text = call(tmp_path, "info", "in.tif", "--crs", "EPSG:32633", code=2)
    assert "in.tif.msk" in one_line(text) and not (tmp_path / "asked").exists()


def test_a_mask_that_changes_is_another_input(tmp_path: Path) -> None:
    whole(tmp_path / "in.tif")
    mask = np.full((40, 40), 255, np.uint8)
    for row in (3, 5):
        mask[row] = 0
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(tmp_path / "in.tif", "r+") as out:
            out.write_mask(mask)
        if row == 3:
            made = enhanced(tmp_path, "in.tif")
            assert (made[:, 6:8] == 0).all() and (made[:, 8:] > 0).all()
    again = call(tmp_path, "enhance", "in.tif", "-o", "out.tif", "-m", "nearest-x2", "--workers", 0, code=2)
    assert "input sha256" in one_line(again)


def test_nan_as_nodata_is_the_same_every_time(tmp_path: Path) -> None:
    write_raster(tmp_path / "in.tif", IMAGE.astype("float32") / 10_000)
    command = ["enhance", "in.tif", "-o", "out.tif", "-m", "nearest-x2", "--workers", 0, "--nodata", "nan"]
    call(tmp_path, *command)
    assert "nothing to do" in call(tmp_path, *command) and "nothing to do" in call(tmp_path, "resume", "out.tif")
    text = call(tmp_path, "info", "in.tif", "--nodata", "nan", "--json")
    facts = json.loads(text, parse_constant=pytest.fail)
    assert facts["nodata"] == facts["bands"][0]["nodata"] == "nan"
    assert "nodata nan" in call(tmp_path, "info", "out.tif")


def test_an_output_in_pixel_coordinates_is_intact(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        write_raster(tmp_path / "in.tif", IMAGE, transform=rasterio.Affine.identity(), crs=None)
    command = ["-m", "denoise", "--workers", 0, "--crs", "EPSG:32633"]
    call(tmp_path, "enhance", "in.tif", "-o", "out.tif", *command)
    assert "out.tif: intact" in call(tmp_path, "verify", "out.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(tmp_path / "out.tif") as made:
            assert (made.transform, made.crs.to_epsg()) == (rasterio.Affine.identity(), 32633)
            found = made.read()
    write_raster(tmp_path / "placed.tif", IMAGE)
    call(tmp_path, "enhance", "placed.tif", "-o", "placed-out.tif", *command)
    with rasterio.open(tmp_path / "placed-out.tif") as made:
        assert np.array_equal(made.read(), found), "where a scene is does not change its pixels"
