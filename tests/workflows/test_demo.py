"""The demo takes scenes of every data type, and hands on what they say of their numbers."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio
from support.builders import write_raster

from scenelift.workflows.demo import METHODS, run_demo


@pytest.mark.parametrize(("dtype", "scale"), [("float32", 1.0), ("uint16", 5e-5)])
def test_a_scene_of_any_data_type_can_be_named(tmp_path, dtype, scale):
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((3, 128, 128)), (0, 3, 3))
    values = (np.clip(0.2 + smooth, 0.01, 0.9) / scale).astype(dtype)
    path = write_raster(tmp_path / "in.tif", values, scales=[scale] * 3)
    result = run_demo(tmp_path / "demo", [str(path)], workers=0)
    truth = values[:, 8:-8, 8:-8] * scale
    for row in result["table"]:
        with rasterio.open(tmp_path / f"demo/{row['method']}-10m.tif") as made:
            found = made.read()[:, 8:-8, 8:-8] * scale
        assert row["psnr"] == pytest.approx(peak_signal_noise_ratio(truth, found, data_range=0.3), abs=0.01)
    assert [row["method"] for row in result["table"]] == list(METHODS)
    with rasterio.open(tmp_path / "demo/degraded-20m.tif") as coarse, rasterio.open(path) as fine:
        assert coarse.dtypes[0] == dtype
        assert coarse.scales == fine.scales
        assert coarse.read().mean() == pytest.approx(values.mean(), rel=0.02)
