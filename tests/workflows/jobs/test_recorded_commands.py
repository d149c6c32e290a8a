"""What a journal records of a command makes the same plan again, also where an older version wrote it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("scenes")
    for name, nodata in (("a b.tif", None), ("ü.tif", 7)):
        write_raster(made / name, noise_image(1, (3, 40, 40)), nodata=nodata, descriptions=["B04", "B03", "B02"])
    return made


numbers = st.floats(0.001, 10)


@examples(max_examples=25)
@given(
    name=st.sampled_from(["a b.tif", "ü.tif"]),
    bands=st.none() | st.lists(st.integers(1, 3), min_size=1, max_size=4).map(tuple),
    reading=st.tuples(
        st.none() | numbers, st.none() | st.floats(-2000, 2000), st.none() | st.sampled_from([0.0, 65535.0])
    ),
    models=st.sampled_from(["nearest-x2", "median", "median,bicubic-x2", "lanczos-x3"]),
    settings=st.builds(
        EnhanceSettings,
        block=st.integers(1, 65536),
        batch=st.none() | st.integers(1, 4096),
        dtype=st.none() | st.sampled_from(["uint8", "uint16", "int16", "float32"]),
        noise=st.none() | st.floats(0, 100),
        shards=st.booleans(),
        overwrite=st.booleans(),
        expect=st.booleans(),
        require_gain=st.none() | st.floats(-5, 5),
    ),
    cluster=st.builds(
        ClusterSettings,
        st.integers(0, 8),
        environment=st.dictionaries(st.sampled_from(["GDAL_CACHEMAX", "A B"]), st.text("xü=", max_size=3)),
        resources=st.dictionaries(st.sampled_from(["GPU"]), st.floats(0.1, 1)),
        job=st.builds(JobSettings, st.integers(1, 9), directives=st.lists(st.text("-=g", max_size=4)).map(tuple)),
        tls=st.booleans(),
    ),
)
def test_any_command_makes_its_plan_again_from_the_journal(  # type: ignore[no-untyped-def]
    folder: Path, name: str, bands, reading, models: str, settings: EnhanceSettings, cluster: ClusterSettings
) -> None:
    source = SceneSource((str(folder / name),), bands, *reading)
    plan = make_plan(source, folder / "out.tif", models, settings, cluster)
    again = plan_of(plan.path, json.loads(json.dumps(plan.command)))
    for part in ("path", "blocks", "cluster", "fingerprint", "command", "device", "precision", "shards", "overwrite"):
        assert getattr(again, part) == getattr(plan, part), part
    assert repr(again.job.output) == repr(plan.job.output)  # NaN is NaN here
    assert (again.job.block, again.job.batch, again.job.models) == (plan.job.block, plan.job.batch, plan.job.models)


def test_a_recorded_command_that_is_damaged_is_one_line(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", noise_image(1, (1, 40, 40)))
    plan = make_plan(
        SceneSource((str(path),)), tmp_path / "out.tif", "nearest-x2", EnhanceSettings(), ClusterSettings(0)
    )
    recorded = json.loads(json.dumps(plan.command))
    recorded["settings"]["block"] = "many"
    with pytest.raises(UsageError, match=r"the journal of .*out\.tif: block must be a whole number"):
        plan_of(plan.path, recorded)
