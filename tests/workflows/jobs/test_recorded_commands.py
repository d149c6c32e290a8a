"""What a journal records of a command makes the same plan again, also where an older version wrote it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.builders import noise_image, write_raster

from scenelift.pipeline.cluster import ClusterSettings, JobSettings
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scenes.limits import Limits
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.workflows.planning import make_plan, plan_of
from scenelift.workflows.settings import EnhanceSettings


def test_a_recorded_command_makes_the_same_plan(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", noise_image(1, (3, 40, 40)))
    source = SceneSource((str(path),), (3, 1), 2e-4, -0.1, 7.0, None, Limits(bands=5))
    settings = EnhanceSettings(block=20, batch=3, noise=4.0, dtype="float32", overwrite=True)
    cluster = ClusterSettings(0, job=JobSettings(directives=("--gres=gpu:1",)), environment={"A": "1"})
    plan = make_plan(source, tmp_path / "out.tif", "nearest-x2", settings, cluster)
    recorded = json.loads(json.dumps(plan.command))
    recorded["settings"]["tile"] = 512  # an option of version 0.1
    again = plan_of(plan.path, recorded)
    assert (again.command, again.fingerprint, again.overwrite, again.cluster) == (
        *(plan.command, plan.fingerprint, settings.overwrite, cluster),
    )
    assert again.job.source == plan.job.source
    assert (again.job.block, again.job.batch) == (plan.job.block, plan.job.batch) == ((20, 20), 3)
    assert again.command["settings"]["noise"] == 4.0


def test_a_recorded_command_that_is_damaged_is_one_line(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", noise_image(1, (1, 40, 40)))
    plan = make_plan(
        SceneSource((str(path),)), tmp_path / "out.tif", "nearest-x2", EnhanceSettings(), ClusterSettings(0)
    )
    recorded = json.loads(json.dumps(plan.command))
    recorded["settings"]["block"] = "many"
    with pytest.raises(UsageError, match=r"the journal of .*out\.tif: block must be a whole number"):
        plan_of(plan.path, recorded)
