"""Archives of products: found by what they are, filtered by what a mask measures, described with their bands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import rasterio
from support.landsat import packed, write_landsat
from support.processes import call
from support.products import write_safe, zipped

from scenelift.workflows.archive.settings import Access
from scenelift.workflows.archive.sources import find_scenes


def test_products_are_found_in_folders(tmp_path: Path) -> None:
    zipped(write_safe(tmp_path / "x" / "S2A_MSIL2A_20220105T101411.SAFE", "L2A")[0]).rename(tmp_path / "S2.SAFE.zip")
    folder, _ = write_landsat(tmp_path / "LC08_L1TP_016039_20200113_20200823_02_T1")
    packed(folder).rename(tmp_path / "LC08_L1TP_016039_20200214_20200823_02_T1.tar")
    found = find_scenes([str(tmp_path)], tmp_path / "out", Access())
    assert [entry.id for entry in found] == [
        "LC08_L1TP_016039_20200113_20200823_02_T1",
        "LC08_L1TP_016039_20200214_20200823_02_T1",
        "S2",
        "x__S2A_MSIL2A_20220105T101411",
    ]


def test_clouds_are_measured_and_bands_described(tmp_path: Path) -> None:
    scl = np.full((30, 30), 4, "uint8")
    scl[:3] = 0  # no data is no cloud
    write_safe(tmp_path / "in" / "clear_20220105T101411.SAFE", "L2A", scl=scl)
    scl[3:20] = 9
    write_safe(tmp_path / "in" / "cloudy_20220105T101411.SAFE", "L2A", scl=scl)
    how = (
        "-m",
        "ibp-x2",
        "--workers",
        0,
        "--mask",
        "scl",
        "--cloud-cover",
        50,
        "--bands",
        "red,green,B02",
        "--keep-classes",
    )
    call(tmp_path, "archive", "in", "-o", "out", *how)
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    by_id = {row["id"]: row for row in run["scenes"]}
    assert by_id["cloudy_20220105T101411"]["reason"].endswith("% clouds")
    assert by_id["cloudy_20220105T101411"]["status"] == "skipped"
    done = by_id["clear_20220105T101411"]
    assert done["status"] == "done" and done["cloud_cover"] == 0
    folder = tmp_path / "out" / "scenes" / "clear_20220105T101411"
    with rasterio.open(folder / "clear_20220105T101411.tif") as made:
        assert made.descriptions == ("B04", "B03", "B02") and (made.read(1)[:12] == 0).all()
    item = json.loads((folder / "clear_20220105T101411.json").read_text())
    assert (item["properties"]["platform"], item["properties"]["instruments"]) == ("sentinel-2a", ["msi"])
    assert item["properties"]["renders"]["visual"]["bidx"] == [1, 2, 3]
    with rasterio.open(folder / item["assets"]["scl"]["href"]) as copy:
        assert np.array_equal(copy.read(1), (np.arange(120) >= 12).repeat(120).reshape(120, 120) * 4)
    bands = item["assets"]["data"]["bands"]
    assert [(b["name"], b["eo:common_name"], b["eo:center_wavelength"]) for b in bands] == [
        ("B04", "red", 0.665), ("B03", "green", 0.56), ("B02", "blue", 0.49),
    ]  # fmt: skip
    assert any("/eo/" in name for name in item["stac_extensions"])
