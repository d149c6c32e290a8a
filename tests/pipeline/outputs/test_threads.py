"""Publishing in several threads: the bytes of one thread, in order, a few windows at a time."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from support.builders import UTM, noise_image

from scenelift.pipeline.errors import SinkError
from scenelift.pipeline.files import file_checksum, tree_files
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.ordered import in_order
from scenelift.pipeline.outputs import cogs
from scenelift.pipeline.outputs.formats import format_of
from scenelift.pipeline.outputs.outputs import Output
from scenelift.pipeline.outputs.pyramids import Pyramid
from scenelift.pipeline.outputs.sinks import ZarrSink
from scenelift.pipeline.scenes.scenes import Band
from scenelift.pipeline.tiles import TileGrid

COLORS = "red", "green", "blue"
BANDS = tuple(Band(name, 1e-4, -0.1, True, name) for name in COLORS)
KINDS = {
    "nodata": {"nodata": 0},
    "mask": {"nodata": None, "mask": True},
    "float": {"nodata": float("nan"), "dtype": "float32"},
    "alpha": {"nodata": None, "bands": (*BANDS, Band("alpha", 1.0, 0.0, False, "alpha"))},
    "zstd": {"nodata": None, "compress": "zstd"},
    "picture": {"nodata": None, "dtype": "uint8", "compress": "jpeg"},
}


def described(kind: str, height: int = 1100, width: int = 1300) -> Output:
    grid = GeoGrid(CRS.from_epsg(32633), UTM, height, width)
    return replace(Output(grid, "uint16", BANDS, None, False, (256, 512)), **KINDS[kind])  # type: ignore[arg-type]


def store_of(folder: Path, output: Output) -> Path:
    """Write a store of smooth pixels with noise, and without data in a corner."""
    rows, cols = np.indices(output.grid.shape)
    values = noise_image(1, output.shape, output.dtype, high=40) + (rows + cols) // 20
    missing = 0 if output.nodata is None else output.nodata
    values[:, :600, :700] = missing
    sink = ZarrSink.create(folder / "store.zarr", output)
    for window in TileGrid(output.grid.shape, output.block):
        part = values[(slice(None), *window.slices())].astype(output.dtype)
        mask = np.where(part[0] != 0, np.uint8(255), np.uint8(0)) if output.mask else None
        sink.write(window, part, mask)
    return sink.path


def made(store: Path, output: Output, path: Path, threads: int) -> dict[str, str | None]:
    """Make an output of a store with so many threads; return the checksums of its files."""
    sink = ZarrSink.open(store, output, threads)
    path = format_of(path).make(sink, output, path, True)
    names = tree_files(path) if path.is_dir() else [""]
    return {name: file_checksum(path / name) for name in names}


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_of_a_cog_do_not_depend_on_threads(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = described(kind)
    store = store_of(tmp_path, output)
    found = [made(store, output, tmp_path / "one.tif", 1)]
    monkeypatch.setattr(cogs, "STEP", 1)  # a window a tile
    found += [made(store, output, tmp_path / f"{threads}.tif", threads) for threads in (1, 2, 5)]
    assert all(each == found[0] for each in found)


@pytest.mark.parametrize("kind", ["nodata", "mask", "float", "alpha"])
def test_the_bytes_of_a_zarr_do_not_depend_on_threads(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = described(kind)
    monkeypatch.setattr(Pyramid, "step", lambda self, grid: (512, 512))
    found = []
    for threads in (1, 2, 5):
        folder = tmp_path / str(threads)
        folder.mkdir()
        found.append(made(store_of(folder, output), output, folder / "out.zarr", threads))
    assert found[0] == found[1] == found[2] and len(found[0]) > 9


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 30), st.integers(1, 6), st.randoms(use_true_random=False))
def test_results_come_in_order_and_few_are_held(items: int, threads: int, random) -> None:  # type: ignore[no-untyped-def]
    pauses = [random.choice((0, 0, 0.001)) for _ in range(items)]
    begun, taken, most = 0, 0, 0
    lock = threading.Lock()

    def task(item: int) -> int:
        nonlocal begun, most
        with lock:
            begun += 1
            most = max(most, begun - taken)
        time.sleep(pauses[item])
        return item * item

    found = []
    for each in in_order(task, range(items), threads):
        found.append(each)
        time.sleep(random.choice((0, 0.001)))
        taken += 1
    assert found == [item * item for item in range(items)]
    assert most <= threads + 1


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_what_a_thread_raises_is_raised_and_no_thread_is_left(threads: int) -> None:
    def task(item: int) -> int:
        if item == 7:
            raise SinkError("the disk is full")
        return item

    found = []
    with pytest.raises(SinkError, match="disk is full"):
        found.extend(in_order(task, range(1000), threads))
    for item in in_order(task, range(5), threads):  # left before its end
        if item == 2:
            break
    assert not [each for each in threading.enumerate() if each.name.startswith("scenelift-publishing")]
