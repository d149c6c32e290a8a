"""Scenes: every kind of mask, radiometry and file layout is read right, and only what was asked for."""

import hashlib
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from support.builders import ROTATED, SOUTH_UP, UTM, integer_net, noise_image, write_raster

from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.errors import SceneError, UsageError
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.outputs.outputs import output_of
from scenelift.pipeline.scenes import scenes
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.products.safe import CHECKSUMS, check_manifest
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.pipeline.tiles import Window
from scenelift.workflows.planning import make_plan
from scenelift.workflows.settings import EnhanceSettings


def scene_of(*paths: Path, **options):  # type: ignore[no-untyped-def]
    return open_scene(SceneSource(tuple(str(p) for p in paths), **options))


def encode(scene, values, valid):  # type: ignore[no-untyped-def]
    return output_of(scene, [integer_net().spec], scene.grid.shape).encode(values, valid)


@pytest.mark.parametrize(("at_once", "expected"), [(scenes.AT_ONCE, scenes.READERS), (1, 1)])
def test_windows_read_ahead_come_in_order_from_few_threads(tmp_path, monkeypatch, at_once, expected):  # type: ignore[no-untyped-def]
    values, threads, together = noise_image(1, (2, 200, 300)), set(), threading.Barrier(expected)
    scene = scene_of(write_raster(tmp_path / "a.tif", values))
    windows = [Window(row, col, 50, 50) for row in range(0, 200, 50) for col in range(0, 300, 50)]
    honest = type(scene).read

    def read(self, window: Window):  # type: ignore[no-untyped-def]
        if threading.get_ident() not in threads:
            threads.add(threading.get_ident())
            together.wait(30)  # for as many readers as there are to be
        return honest(self, window)

    monkeypatch.setattr(scenes, "AT_ONCE", at_once)
    monkeypatch.setattr(type(scene), "read", read)
    regions = list(scenes.read_ahead(scene, windows))
    assert [region.window for region in regions] == windows
    for window, region in zip(windows, regions, strict=True):
        assert np.array_equal(region.values, honest(scene, window).values)
    assert len(threads) == expected


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_window_reads_equal_rasterio(tmp_path: Path, dtype: str) -> None:
    values = noise_image(1, (3, 90, 110), dtype)
    scene = scene_of(write_raster(tmp_path / "a b ü.tif", values))
    got, valid = scene.read_dn(Window(11, 70, 40, 40))
    assert got.dtype == dtype
    assert np.array_equal(got, values[:, 11:51, 70:110])
    assert valid.all()


def test_bands_are_chosen_in_the_order_wanted(tmp_path: Path) -> None:
    values = noise_image(1, (4, 20, 20))
    scene = scene_of(write_raster(tmp_path / "a.tif", values, descriptions=["B", "G", "R", "N"]), bands=(4, 1))
    assert [b.description for b in scene.bands] == ["N", "B"]
    assert np.array_equal(scene.read_dn(Window(0, 0, 20, 20))[0], values[[3, 0]])
    with pytest.raises(UsageError, match="band 5 does not exist"):
        scene_of(tmp_path / "a.tif", bands=(5,))


def test_nodata_is_masked_band_by_band(tmp_path: Path) -> None:
    values = noise_image(1, (2, 20, 20))
    values[0, 3, 4] = 0
    scene = scene_of(write_raster(tmp_path / "a.tif", values, nodata=0))
    valid = scene.read_dn(Window(0, 0, 20, 20))[1]
    assert not valid[0, 3, 4] and valid[1, 3, 4] and valid.sum() == 799
    assert scene.masked and scene.mask_kind == "nodata"


def test_internal_mask_alpha_and_nan(tmp_path: Path) -> None:
    values = noise_image(1, (2, 20, 20))
    mask = np.full((20, 20), 255, np.uint8)
    mask[5:9] = 0
    scene = scene_of(write_raster(tmp_path / "m.tif", values, mask=mask))
    assert scene.mask_kind == "mask"
    assert np.array_equal(scene.read_dn(Window(0, 0, 20, 20))[1], np.broadcast_to(mask != 0, (2, 20, 20)))

    with_alpha = np.concatenate([values, mask[None].astype("uint16")])
    colors = [ColorInterp.gray, ColorInterp.undefined, ColorInterp.alpha]
    scene = scene_of(write_raster(tmp_path / "a.tif", with_alpha, colorinterp=colors))
    assert scene.mask_kind == "alpha" and len(scene.bands) == 2
    assert np.array_equal(scene.read_dn(Window(0, 0, 20, 20))[1][0], mask != 0)

    real = values.astype("float32")
    real[0, 1, 1], real[1, 2, 2] = np.nan, np.inf
    scene = scene_of(write_raster(tmp_path / "f.tif", real))
    assert (~scene.read_dn(Window(0, 0, 20, 20))[1]).sum() == 2


def test_radiometry_from_the_file_the_user_or_the_data_type(tmp_path: Path) -> None:
    values = noise_image(1, (2, 9, 9))
    whole = Window(0, 0, 9, 9)
    path = write_raster(tmp_path / "a.tif", values, scales=[2e-4, 1e-4], offsets=[-0.1, 0.0])
    read = scene_of(path).read(whole).values
    np.testing.assert_allclose(read[0], values[0] * 2e-4 - 0.1, rtol=1e-5, atol=1e-6)
    read = scene_of(path, scale=1e-3, offset=-1000).read(whole).values
    np.testing.assert_allclose(read[1], (values[1].astype(float) - 1000) * 1e-3, rtol=1e-5, atol=1e-6)
    plain = scene_of(write_raster(tmp_path / "b.tif", values))
    assert not plain.bands[0].declared and plain.bands[0].scale == 1e-4


@settings(deadline=None)
@given(
    dn=st.lists(st.integers(1, 65535), min_size=1, max_size=30),
    scale=st.sampled_from([1e-4, 2.75e-5, 1.0, 0.5]),
    offset=st.sampled_from([0.0, -0.1, -0.2, 3.0]),
)
def test_dn_survive_the_way_to_reflectance_and_back(tmp_path_factory, dn, scale, offset) -> None:  # type: ignore[no-untyped-def]
    values = np.array(dn, "uint16")[None, None]
    path = write_raster(tmp_path_factory.mktemp("x") / "a.tif", values, scales=[scale], offsets=[offset], tiled=False)
    scene = scene_of(path)
    region = scene.read(Window(0, 0, 1, len(dn)))
    assert np.array_equal(encode(scene, region.values, region.valid), values)


def test_rounding_clipping_and_staying_off_nodata(tmp_path: Path) -> None:
    scene = scene_of(write_raster(tmp_path / "a.tif", noise_image(1, (1, 1, 6)), nodata=5, tiled=False))
    values = np.array([[[1.2, 1.5001, 4.9, 7e4, -3.0, 9.0]]], np.float32) * np.float32(1e-4)
    valid = np.array([[[True, True, True, True, True, False]]])
    assert encode(scene, values, valid).tolist() == [[[1, 2, 6, 65535, 0, 5]]]
    scene = scene_of(write_raster(tmp_path / "b.tif", noise_image(1, (1, 1, 2)), nodata=65535, tiled=False))
    full = np.full((1, 1, 2), 8.0, np.float32)
    assert encode(scene, full, np.array([[[True, False]]])).tolist() == [[[65534, 65535]]]


def test_several_single_band_files_make_one_scene(tmp_path: Path) -> None:
    values = noise_image(1, (3, 30, 30))
    paths = [write_raster(tmp_path / f"T32_B0{i}.tif", values[i : i + 1]) for i in range(3)]
    scene = scene_of(*paths)
    assert [b.description for b in scene.bands] == ["T32_B00", "T32_B01", "T32_B02"]
    assert np.array_equal(scene.read_dn(Window(0, 0, 30, 30))[0], values)
    odd = write_raster(tmp_path / "odd.tif", values[:1, :20])
    with pytest.raises(SceneError, match="not on the grid"):
        scene_of(paths[0], odd)


@pytest.mark.parametrize("transform", [UTM, ROTATED, SOUTH_UP])
def test_grids_scale_about_the_upper_left_corner(tmp_path: Path, transform) -> None:  # type: ignore[no-untyped-def]
    scene = scene_of(write_raster(tmp_path / "a.tif", noise_image(1, (1, 30, 41)), transform=transform))
    fine = scene.grid.scaled(3)
    assert fine.shape == (90, 123)
    for name, corner in scene.grid.corners.items():
        assert fine.corners[name] == pytest.approx(corner)
    assert scene.grid.window(Window(2, 3, 5, 5)).corners["upper left"] == pytest.approx(transform @ (3, 2))
    assert fine.same_as(GeoGrid(fine.crs, fine.transform, *fine.shape))
    assert not fine.same_as(scene.grid)


SAFE_XML = """<?xml version="1.0"?>
<n1:Level-2A_User_Product xmlns:n1="https://psd.eo.esa.int/PSD/User_Product_Level-2A.xsd">
<PRODUCT_START_TIME>2022-03-01T10:10:31.024Z</PRODUCT_START_TIME><PROCESSING_BASELINE>04.00</PROCESSING_BASELINE>
<SPACECRAFT_NAME>Sentinel-2A</SPACECRAFT_NAME><BOA_QUANTIFICATION_VALUE>10000</BOA_QUANTIFICATION_VALUE>
<BOA_ADD_OFFSET_VALUES_LIST>{offsets}</BOA_ADD_OFFSET_VALUES_LIST></n1:Level-2A_User_Product>"""


def write_safe(folder: Path, offsets: list[int]) -> Path:
    data = folder / "GRANULE" / "L2A_X" / "IMG_DATA" / "R10m"
    data.mkdir(parents=True)
    lines = "".join(f'<BOA_ADD_OFFSET band_id="{i}">{o}</BOA_ADD_OFFSET>' for i, o in enumerate(offsets))
    (folder / "MTD_MSIL2A.xml").write_text(SAFE_XML.format(offsets=lines))
    for i, band in enumerate(["B02", "B03", "B04", "B08"]):
        write_raster(
            data / f"T32TPS_20220301_{band}_10m.jp2",
            np.full((1, 64, 64), 1500 + i, "uint16"),
            driver="JP2OpenJPEG",
            REVERSIBLE="YES",
            QUALITY="100",
        )
    return folder


def test_safe_folder_gives_the_10_m_bands_and_the_offset(tmp_path: Path) -> None:
    scene = scene_of(write_safe(tmp_path / "S2A.SAFE", [-1000] * 13))
    assert len(scene.bands) == 4 and scene.nodata == 0
    assert scene.tags["PROCESSING_BASELINE"] == "04.00"
    np.testing.assert_allclose(scene.read(Window(0, 0, 64, 64)).values[3], 0.0503, atol=1e-6)
    with pytest.raises(SceneError, match="different offsets"):
        scene_of(write_safe(tmp_path / "S2B.SAFE", [-1000, 0]))


@pytest.mark.parametrize("kind", ["MD5", "SHA3-256"])
def test_a_damaged_file_of_a_product_is_told_from_its_manifest(tmp_path: Path, kind: str) -> None:
    folder = write_safe(tmp_path / "S2A.SAFE", [0])
    bands = sorted(folder.rglob("*.jp2"))
    assert check_manifest(folder, bands) == []
    objects = "".join(
        f'<dataObject><byteStream><fileLocation href="./{band.relative_to(folder)}"/>'
        f'<checksum checksumName="{kind}">{hashlib.new(CHECKSUMS[kind], band.read_bytes()).hexdigest()}</checksum>'
        "</byteStream></dataObject>"
        for band in bands
    )
    (folder / "manifest.safe").write_text(f"<XFDU><dataObjectSection>{objects}</dataObjectSection></XFDU>")
    assert check_manifest(folder, bands) == bands
    content = bytearray(bands[2].read_bytes())
    content[-40] ^= 1
    bands[2].write_bytes(content)
    with pytest.raises(SceneError, match=r"B04_10m.jp2 is damaged"):
        make_plan(
            SceneSource((str(folder),)), tmp_path / "o.tif", "nearest-x2", EnhanceSettings(), ClusterSettings(workers=0)
        )


def test_netcdf_variables_are_named(tmp_path: Path) -> None:
    y, x = 5_000_000 - 5 - 10.0 * np.arange(12), 500_005 + 10.0 * np.arange(13)
    values = noise_image(1, (12, 13), "int16")
    band = xr.DataArray(values, dims=("y", "x"), coords={"y": y, "x": x})
    one, two = tmp_path / "one.nc", tmp_path / "two.nc"
    for path, variables in ((one, {"red": band}), (two, {"red": band, "nir": band + 1})):
        data = xr.Dataset(variables).rio.write_crs("EPSG:32633")
        data.rio.write_transform().rio.write_coordinate_system().to_netcdf(path, engine="scipy")
    assert np.array_equal(scene_of(one).read_dn(Window(0, 0, 12, 13))[0][0], values)
    with pytest.raises(UsageError, match=r"two\.nc:red, .*two\.nc:nir"):
        scene_of(two)
    scene = scene_of(f"{two}:nir")  # type: ignore[arg-type]
    assert scene.grid.transform.almost_equals(UTM)
    assert np.array_equal(scene.read_dn(Window(0, 0, 12, 13))[0][0], values + 1)


def test_zarr_written_by_xarray_opens(tmp_path: Path) -> None:
    values = noise_image(1, (2, 20, 30))
    y, x = 5_000_000 - 5 - 10.0 * np.arange(20), 500_005 + 10.0 * np.arange(30)
    data = xr.DataArray(values, dims=("band", "y", "x"), coords={"y": y, "x": x}, name="refl")
    data.rio.write_crs("EPSG:32633").to_zarr(tmp_path / "a.zarr", zarr_format=3)
    scene = scene_of(tmp_path / "a.zarr")
    assert scene.grid.transform.almost_equals(UTM)
    assert np.array_equal(scene.read_dn(Window(3, 4, 5, 6))[0], values[:, 3:8, 4:10])


def test_what_a_user_can_get_wrong_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        scene_of(tmp_path / "none.tif")
    (tmp_path / "text.tif").write_text("hello")
    with pytest.raises(SceneError, match="cannot open"):
        scene_of(tmp_path / "text.tif")
    (tmp_path / "vrt.tif").write_text('<VRTDataset rasterXSize="2" rasterYSize="2"></VRTDataset>')
    with pytest.raises(SceneError, match="cannot open"):
        scene_of(tmp_path / "vrt.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        path = write_raster(tmp_path / "nocrs.tif", noise_image(1, (1, 9, 9)), crs=None)
    with pytest.raises(UsageError, match="crs"):
        scene_of(path)
    with pytest.raises(UsageError, match="no affine transform"):
        scene_of(write_raster(tmp_path / "nowhere.tif", noise_image(1, (1, 9, 9)), transform=Affine.identity()))
    assert scene_of(path, crs="EPSG:4326").grid.crs.to_epsg() == 4326
    with pytest.raises(UsageError, match="crs must be a coordinate reference system"):
        scene_of(path, crs="EPSG:nonsense")
    big = write_raster(tmp_path / "i64.tif", np.zeros((1, 9, 9), "int64"))
    with pytest.raises(SceneError, match="holds int64; supported is one of"):
        scene_of(big)
    path = write_raster(tmp_path / "cut.tif", noise_image(1, (1, 400, 400)))
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(SceneError, match="truncated or damaged"):
        scene_of(path).read_dn(Window(300, 300, 100, 100))


def test_memory_of_a_window_read_is_the_window(tmp_path: Path) -> None:
    scene = scene_of(write_raster(tmp_path / "a.tif", noise_image(1, (1, 64, 64)), nodata=0))
    region = scene.read(Window(10, 10, 4, 5))
    assert region.values.shape == region.valid.shape == (1, 4, 5)
