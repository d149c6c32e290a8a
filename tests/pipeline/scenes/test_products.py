"""Products of agencies: each is found by what it is, and read as its metadata mean it."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.builders import write_raster
from support.eopf import write_eopf
from support.jobs import scenelift
from support.landsat import MS, PAN, SUN, packed, write_landsat
from support.products import write_safe, zipped

from scenelift.pipeline.errors import SceneError, UsageError
from scenelift.pipeline.jobs.checks import doubts
from scenelift.pipeline.scenes.inputs import input_digest
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.tiles import Window

TEN = ["B02", "B03", "B04", "B08"]
ALL = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]


def scene_of(path: Path, **how) -> Scene:  # type: ignore[no-untyped-def]
    return open_scene(SceneSource((str(path),), **how))


def whole(scene: Scene) -> Window:
    return Window(0, 0, *scene.grid.shape)


def names(scene: Scene) -> list[str | None]:
    return [band.description for band in scene.bands]


@pytest.mark.parametrize("level", ["L1C", "L2A"])
def test_a_zipped_product_reads_as_its_folder(tmp_path: Path, level: str) -> None:
    folder, _ = write_safe(tmp_path / "S2A_MSIL2A_20220105T101411.SAFE", level)
    path = zipped(folder)
    for extent in (None, "common"):
        plain, scene = scene_of(folder, extent=extent), scene_of(path, extent=extent)
        assert names(scene) == (TEN if extent is None else ALL) and scene.grid == plain.grid
        assert scene.product == f"Sentinel-2 Level-{level[1:]} (.SAFE, zipped)" and scene.tags == plain.tags
        one, other = (s.read(whole(s)) for s in (plain, scene))
        assert np.array_equal(one.values, other.values) and np.array_equal(one.valid, other.valid)
    before = input_digest(SceneSource((str(path),)))
    path.write_bytes(path.read_bytes() + b"\0")
    assert input_digest(SceneSource((str(path),))) != before


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("how", ["folder", "tar"])
def test_landsat_scenes_have_their_own_scale_and_offset(tmp_path: Path, level: int, how: str) -> None:
    folder, planes = write_landsat(tmp_path / "LC08", level)
    path = packed(folder) if how == "tar" else folder
    scene = scene_of(path)
    assert names(scene) == [f"B{n}" for n in range(1, 8)] and tuple(scene.grid.transform) == tuple(MS)
    expected = [(planes[f"B{n}"] * 2.75e-5 - 0.2) for n in range(1, 8)]
    if level == 1:
        expected = [(planes[f"B{n}"] * 2e-5 - 0.1) / math.sin(math.radians(SUN)) for n in range(1, 8)]
    np.testing.assert_allclose(scene.read(whole(scene)).values, expected, atol=2e-6)
    assert scene.product.startswith(f"Landsat 8 Collection 2 Level-{level}") and scene.nodata == 0
    assert scene.bands[3].tags["common_name"] == "red" and scene.bands[3].tags["center_wavelength"] == "0.655"
    assert scene.tags["ACQUISITIONDATETIME"] == "2020-01-13T16:02:11.123Z"
    if level == 1:
        assert any(note.startswith("not read: B9, B10, B11") for note in scene.notes)
        fine = scene_of(path, extent="common")
        assert names(fine)[7] == "B8" and fine.guides == (7,) and fine.coarse == {2: tuple(range(7))}
        assert fine.grid.resolution == (15, 15) and (fine.grid.transform.c - PAN.c) % 15 == 0
    else:
        with pytest.raises(UsageError, match=r"has no band 'ST_B10'.*ST_B10 is not read"):
            scene_of(path, bands=("ST_B10",))


@pytest.mark.parametrize("level", ["L1C", "L2A"])
def test_eopf_stores_give_all_their_bands_or_those_of_10_m(tmp_path: Path, level: str) -> None:
    path, planes = write_eopf(tmp_path / "S2A.zarr", level)
    plain, scene = scene_of(path), scene_of(path, extent="common")
    assert names(plain) == TEN and names(scene) == ALL and scene.coarse == {2: (4, 5, 6, 8, 10, 11), 6: (0, 9)}
    assert scene.product == f"Sentinel-2 Level-{level[1:]} (EOPF Zarr)" and scene.grid.crs.to_epsg() == 32632
    assert tuple(scene.grid.transform)[:6] == (10, 0, 699_960, 0, -10, 4_700_040) and scene.nodata == 0
    region = scene.read(whole(scene))
    for name, values in zip(ALL, region.values, strict=True):
        side = 60 // len(planes[name])
        expected = planes[name].repeat(side, 0).repeat(side, 1) * 1e-4 - 0.1
        np.testing.assert_allclose(values, expected, atol=1e-6)
    assert scene.tags["CLOUD_COVERAGE_ASSESSMENT"] == "7.5"


def test_bands_go_by_name_common_name_or_number(tmp_path: Path) -> None:
    safe, _ = write_safe(tmp_path / "S2A.SAFE", "L2A")
    landsat, _ = write_landsat(tmp_path / "LC08")
    for path, bands, expected in (
        (safe, ("B04", "B03", "B02"), ["B04", "B03", "B02"]),
        (safe, ("red", "green", "blue", "nir"), ["B04", "B03", "B02", "B08"]),
        (safe, ("RED", 1), ["B04", "B02"]),
        (landsat, ("red", "green", "blue", "nir"), ["B4", "B3", "B2", "B5"]),
    ):
        assert names(scene_of(path, bands=bands)) == expected
    assert names(scene_of(safe, bands=("swir16", "b8a"), extent="common")) == ["B11", "B8A"]
    for bands, how, why in (
        (("B11",), {}, r"has no band 'B11', but B02 \(blue\).*B11 is of another resolution: begin with a sharpener"),
        (("rededge",), {"extent": "common"}, r"'rededge' names several bands of .*B05 \(rededge071\)"),
        (("yellow",), {}, "has no band 'yellow'"),
    ):
        with pytest.raises(UsageError, match=why):
            scene_of(safe, bands=bands, **how)


def test_what_is_no_product_is_refused_with_what_was_found(tmp_path: Path) -> None:
    folder, _ = write_landsat(tmp_path / "LC08", 2)
    (metadata,) = folder.glob("*_MTL.txt")
    text = metadata.read_text()
    metadata.write_text(text.replace("COLLECTION_NUMBER = 02", "COLLECTION_NUMBER = 01"))
    with pytest.raises(SceneError, match=r"not of Landsat Collection 2 .COLLECTION_NUMBER 01.: fetch"):
        scene_of(folder)
    metadata.write_text(text)
    next(folder.glob("*SR_B3.TIF")).unlink()
    with pytest.raises(SceneError, match=r"names .*_SR_B3.TIF, which is not there"):
        scene_of(folder)
    metadata.unlink()
    with pytest.raises(UsageError, match=r"is a folder that holds 8 files of .tif, and is not a Sentinel-2 .SAFE"):
        scene_of(folder)
    other = shutil.make_archive(str(tmp_path / "other"), "zip", folder)
    with pytest.raises(SceneError, match=r"other.zip holds 8 files of .tif, and is not .*unpack it"):
        scene_of(Path(other))
    (tmp_path / "broken.SAFE.zip").write_bytes(b"PK\3\4 no zip")
    with pytest.raises(SceneError, match=r"cannot read .*broken.SAFE.zip as a zip"):
        scene_of(tmp_path / "broken.SAFE.zip")
    store, _ = write_eopf(tmp_path / "S2.zarr")
    shutil.rmtree(store / "measurements" / "reflectance" / "r10m")
    with pytest.raises(UsageError, match=r"group of groups; name the one that holds the bands: .*l2a_classification"):
        scene_of(store)


def test_info_says_what_was_recognized(tmp_path: Path) -> None:
    folder, _ = write_landsat(tmp_path / "LC08")
    told = json.loads(scenelift("info", folder, "--json", cwd=tmp_path).stdout)
    assert told["product"] == "Landsat 8 Collection 2 Level-1" and told["hidden"] is None


@pytest.mark.parametrize(("applied", "given", "words"), [(True, None, 1), (False, None, 0), (True, 0.0, 0)])
def test_an_offset_that_the_pixels_contradict_is_told(
    tmp_path: Path, applied: bool, given: float | None, words: int
) -> None:
    """As of items whose catalogue says that the offset is still to be taken off, when it is not."""
    dark = np.random.default_rng(0).integers(100, 2000, (2, 64, 64)).astype("uint16")
    path = write_raster(tmp_path / "a.tif", dark + (0 if applied else 1000), tiled=False)
    scene = scene_of(path, told=((1e-4, -0.1, 0.0),) * 2, offset=given)
    found = [line for line in doubts(scene, network=True) if "taken off already; --offset 0" in line]
    assert len(found) == words
