"""Many writers of one store, and copies in an object store."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pystac
import pytest
import s3fs
import xarray as xr
from moto.server import ThreadedMotoServer
from rasterio.crs import CRS
from support.archives import scene, table
from support.builders import UTM
from support.processes import call

from scenelift.pipeline.files import file_checksum, tree_files
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.outputs.outputs import Output
from scenelift.pipeline.outputs.sinks import ZarrSink
from scenelift.pipeline.scenes.scenes import Band
from scenelift.pipeline.tiles import TileGrid
from scenelift.workflows.archive.transfer import PART, upload

SHAPE, BLOCK, WRITERS = (200, 330), (64, 64), 4
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


def described() -> Output:
    band = Band("B02", 1e-4, 0.0, True)
    grid = GeoGrid(CRS.from_epsg(32633), UTM, *SHAPE)
    return Output(grid, "uint16", (band, band), 0, False, BLOCK)


def make(path: Path) -> ZarrSink:
    return ZarrSink.create(path, described())


def write_share(path: Path, share: int, barrier: object) -> None:
    """Write every fourth block, with values that only depend on where it lies."""
    sink = ZarrSink.open(path, described())
    if barrier is not None:
        barrier.wait()
    for number, window in enumerate(TileGrid(SHAPE, BLOCK)):
        if number % WRITERS == share or barrier is None:
            values = np.random.default_rng(number).integers(1, 60000, (2, *window.shape)).astype("uint16")
            sink.write(window, values, None)


def test_processes_write_one_store_at_the_same_time_and_the_bytes_are_those_of_one_writer(tmp_path):
    make(tmp_path / "alone.zarr")
    write_share(tmp_path / "alone.zarr", 0, None)
    make(tmp_path / "together.zarr")
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(WRITERS)
    writers = [
        context.Process(target=write_share, args=(tmp_path / "together.zarr", n, barrier)) for n in range(WRITERS)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    one, other = (
        {name: file_checksum(store / name) for name in tree_files(store)}
        for store in (tmp_path / "alone.zarr", tmp_path / "together.zarr")
    )
    assert one == other and sum(name.startswith("data/c/") for name in one) == len(TileGrid(SHAPE, BLOCK))


@pytest.fixture(scope="module")
def store() -> Iterator[dict[str, str]]:
    """The environment of a local object store with a bucket."""
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    env = {**KEYS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    system(env).mkdir("bucket")
    yield env
    server.stop()


def system(env: dict[str, str]) -> s3fs.S3FileSystem:
    how = {"key": "test", "secret": "test", "endpoint_url": env["AWS_ENDPOINT_URL"]}
    return s3fs.S3FileSystem(**how, skip_instance_cache=True)


@pytest.mark.parametrize("kind", ["tif", "zarr"])
def test_an_archive_is_copied_to_an_object_store(tmp_path, store, kind):
    scene(tmp_path / "in" / "a.tif", 1)
    place = f"s3://bucket/{kind}"
    args = ("archive", "in", "-o", "out", "-m", "nearest-x2", "--workers", 0, "--scores", "none", "--format", kind)
    call(tmp_path, *args)
    facts = json.loads(call(tmp_path, *args, "--publish", place, "--json", **store))
    assert (facts["done"], facts["failed"]) == (1, 0), "done before, but not there yet"
    s3 = system(store)
    names = {name.removeprefix(f"bucket/{kind}/") for name in s3.find(f"bucket/{kind}")}
    hidden = {".scenelift", ".a.tif.scenelift", ".a.zarr.scenelift"}
    paths = [p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert names == {p.as_posix() for p in paths if not hidden & set(p.parts)}
    for name in names:
        assert s3.cat(f"bucket/{kind}/{name}") == (tmp_path / "out" / name).read_bytes()
    item = pystac.Item.from_dict(json.loads(s3.cat(f"bucket/{kind}/scenes/a/a.json")))
    assert f"scenes/a/{item.assets['data'].href.removeprefix('./')}" == table(tmp_path / "out")["a"]["output"]
    if kind == "zarr":
        opened = xr.open_zarr(s3.get_mapper(f"bucket/{kind}/scenes/a/a.zarr"), consolidated=False)
        assert opened["data"].shape == (3, 80, 80)
    facts = json.loads(call(tmp_path, *args, "--publish", place, "--json", **store))
    assert (facts["done"], facts["before"]) == (0, 1)


def test_large_objects_go_up_in_parts_and_a_missing_bucket_is_said_at_once(tmp_path, store, monkeypatch):
    for name, value in store.items():
        monkeypatch.setenv(name, value)
    content = np.random.default_rng(0).bytes(3 * PART)
    (tmp_path / "large.bin").write_bytes(content)
    upload([tmp_path / "large.bin"], tmp_path, "s3://bucket/parts")
    s3 = system(store)
    assert s3.info("bucket/parts/large.bin")["ETag"].strip('"').endswith("-3"), "three parts"
    assert s3.cat("bucket/parts/large.bin") == content
    scene(tmp_path / "in" / "a.tif")
    where = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    text = call(tmp_path, "archive", "in", "-o", "out", "--publish", "s3://x/y", code=2, **(store | where))
    assert "cannot reach" in text
    assert "address" in call(tmp_path, "archive", "in", "-o", "out", "--publish", "elsewhere", code=2)
