"""GDAL's own programs, of whatever version the system has, read what is written here."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support.builders import SOUTH_UP, UTM, noise_image, write_raster
from support.jobs import run

pytestmark = pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="needs GDAL's programs (Debian: gdal-bin)")


@pytest.mark.parametrize("transform", [UTM, SOUTH_UP])
def test_gdal_programs_read_an_output(tmp_path: Path, transform) -> None:  # type: ignore[no-untyped-def]
    values = noise_image(1, (2, 50, 70))
    scene = write_raster(tmp_path / "in.tif", values, transform, nodata=0, scales=[1e-4] * 2, offsets=[-0.1] * 2)
    run(scene, tmp_path / "out.tif", "nearest-x2", expect=False)
    said = subprocess.run(["gdalinfo", "-json", tmp_path / "out.tif"], capture_output=True, text=True, check=True)
    facts = json.loads(said.stdout)
    assert facts["size"] == [140, 100] and facts["metadata"]["IMAGE_STRUCTURE"]["LAYOUT"] == "COG"
    assert np.allclose(facts["geoTransform"][1::4], [transform.a / 2, transform.e / 2])
    assert [(b["scale"], b["offset"], b["noDataValue"]) for b in facts["bands"]] == [(1e-4, -0.1, 0)] * 2
    subprocess.run(
        ["gdal_translate", "-q", "-of", "ENVI", "-co", "INTERLEAVE=BSQ", tmp_path / "out.tif", tmp_path / "raw"],
        check=True,
    )
    read = np.fromfile(tmp_path / "raw", "uint16").reshape(2, 100, 140)
    assert np.array_equal(read, values.repeat(2, 1).repeat(2, 2))
