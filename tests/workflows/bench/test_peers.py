"""Whole commands beside their peers: what they make is the same, and what is counted is the whole tree of processes."""

import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from support.builders import noise_image, write_raster

from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.errors import SceneliftError
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.workflows.bench.peers import CNN, measure, run_peers
from scenelift.workflows.bench.plain import HALO, SCALE, enhance_plainly
from scenelift.workflows.enhance import EnhanceSettings, enhance


def test_plain_dask_makes_the_same_pixels_away_from_the_edges(tmp_path: Path) -> None:
    path = tmp_path / "in.tif"
    write_raster(path, noise_image(1, (2, 300, 520)), nodata=None)
    enhance_plainly(str(path), str(tmp_path / "plain.tif"))
    settings = EnhanceSettings(precision="fp32", expect=False)
    source = SceneSource((str(path),), scale=1e-4, offset=0)
    enhance(source, tmp_path / "ours.tif", CNN, settings, ClusterSettings(0))
    with rasterio.open(tmp_path / "plain.tif") as plain, rasterio.open(tmp_path / "ours.tif") as ours:
        assert plain.shape == ours.shape == (1200, 2080)
        assert plain.transform.almost_equals(ours.transform)
        inner = (slice(None), *(slice(SCALE * HALO, -SCALE * HALO),) * 2)
        apart = np.abs(plain.read()[inner].astype(int) - ours.read()[inner])
    assert apart.max() <= 1 and (apart > 0).mean() < 0.01


@pytest.mark.parametrize("how", ["run", "Popen"])
def test_processes_of_processes_are_counted_also_if_nobody_waits_for_them(how: str) -> None:
    burn = "import time\nwhile time.process_time() < 0.6: pass"
    start = f"import subprocess, sys; subprocess.{how}([sys.executable, '-c', {burn!r}])"
    cpu, wall, memory = measure([sys.executable, "-c", start])
    assert cpu > 0.6 and wall > (0.5 if how == "run" else 0) and 0.001 < memory < 0.1


def test_a_command_that_fails_is_no_measurement() -> None:
    with pytest.raises(SceneliftError, match="failed: no such thing"):
        measure([sys.executable, "-c", "import sys; print('no such thing'); sys.exit(3)"])


def test_every_command_runs(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "in.tif", noise_image(1, (1, 64, 64)), nodata=None)
    found = run_peers(Path(source), runs=1, workers=0, quiet=True)
    assert {"scenelift nearest-x4", "plain Dask small CNN", "scenelift small CNN"} <= set(found["rows"])
    assert all(row["cpu_s"] > 0 for row in found["rows"].values()) and found["ratios"]
