"""Outputs: Zarr and COG that other software opens at the right place, with every number and name intact."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rio_cogeo.cogeo import cog_validate
from support.builders import ROTATED, SOUTH_UP, UTM, noise_image

from scenelift.pipeline.errors import SceneError, SinkError, UsageError
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.outputs import sinks
from scenelift.pipeline.outputs.cogs import write_cog
from scenelift.pipeline.outputs.halving import halve
from scenelift.pipeline.outputs.outputs import Output
from scenelift.pipeline.outputs.pyramids import Pyramid
from scenelift.pipeline.outputs.sinks import ZarrSink
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import Band, SceneSource
from scenelift.pipeline.tiles import TileGrid, Window

BANDS = tuple(Band(name, 1e-4, -0.1, True, color, {"wl": name}) for name, color in (("B4", "red"), ("B8", "undefined")))


def output(
    height: int = 700, width: int = 1100, transform=UTM, dtype: str = "uint16", nodata: float | None = 0, **more
) -> Output:  # type: ignore[no-untyped-def]
    grid = GeoGrid(CRS.from_epsg(32633), transform, height, width)
    facts = {"mask": False, "block": (256, 512), "tags": {"SENSOR": "MSI"}, "provenance": {"software": "test"}}
    return Output(grid, dtype, BANDS, nodata, **(facts | more))


def fill(sink: ZarrSink, out: Output, values) -> None:  # type: ignore[no-untyped-def]
    mask = (values[0] > 6000).astype("uint8") * 255
    for window in TileGrid(out.grid.shape, out.block):
        part = (slice(None), *window.slices())
        sink.write(window, values[part], mask[window.slices()] if out.mask else None)


@pytest.mark.parametrize("transform", [UTM, ROTATED, SOUTH_UP])
@pytest.mark.parametrize("shards", [True, False])
def test_zarr_opens_in_xarray_and_rioxarray_as_it_was_meant(tmp_path: Path, transform, shards: bool) -> None:  # type: ignore[no-untyped-def]
    out = output(transform=transform)
    values = noise_image(1, out.shape)
    sink = ZarrSink.create(tmp_path / "a.zarr", out, shards=shards)
    fill(sink, out, values)
    assert list(Pyramid(sink, out, shards=shards).build()) == [2, 4]
    data = xr.open_zarr(tmp_path / "a.zarr", decode_coords="all", consolidated=False)["data"]
    assert data.dtype == "uint16"
    assert np.array_equal(data.to_numpy(), values)
    assert data.rio.crs == out.grid.crs
    assert data.rio.transform().almost_equals(transform)
    assert data.rio.nodata == 0
    assert data.attrs["long_name"] == ["B4", "B8"]
    if transform is not ROTATED:
        assert float(data.x[0]) == 500_005
    scene = open_scene(SceneSource((str(tmp_path / "a.zarr"),)))
    assert scene.grid.same_as(out.grid)
    assert [b.description for b in scene.bands] == ["B4", "B8"]
    assert (scene.bands[0].scale, scene.bands[0].offset, scene.nodata) == (1e-4, -0.1, 0)
    assert scene.bands[0].color == "red"
    assert np.array_equal(scene.read_dn(Window(100, 200, 50, 60))[0], values[:, 100:150, 200:260])
    coarse = xr.open_zarr(tmp_path / "a.zarr", group="4", consolidated=False)["data"]
    assert coarse.shape == (2, 175, 275)
    store = zarr.open_group(str(tmp_path / "a.zarr"), mode="r")
    assert [level["asset"] for level in store.attrs["multiscales"]["layout"]] == [".", "2", "4"]


@pytest.mark.parametrize("transform", [UTM, ROTATED, SOUTH_UP])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_cog_is_valid_and_keeps_everything(tmp_path: Path, transform, dtype: str) -> None:  # type: ignore[no-untyped-def]
    out = output(transform=transform, dtype=dtype, nodata=float("nan") if dtype == "float32" else 0)
    values = noise_image(1, out.shape, dtype)
    sink = ZarrSink.create(tmp_path / "a.zarr", out)
    fill(sink, out, values)
    path = tmp_path / "out.tif"
    write_cog(sink, out, path)
    assert cog_validate(path, strict=True) == (True, [], [])
    with rasterio.open(path) as made:
        assert np.array_equal(made.read(), values)
        assert made.crs == out.grid.crs and made.transform.almost_equals(transform)
        assert made.dtypes == (dtype, dtype)
        assert made.nodata == 0 or (dtype == "float32" and np.isnan(made.nodata))
        assert made.descriptions == ("B4", "B8")
        assert made.scales == (1e-4, 1e-4) and made.offsets == (-0.1, -0.1)
        assert made.tags()["SENSOR"] == "MSI" and "software" in made.tags()["SCENELIFT"]
        assert made.tags(2)["wl"] == "B8"
        assert made.colorinterp[0].name == "red"
        assert made.overviews(1) == [2, 4]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr", "out.tif"]


@pytest.mark.parametrize(
    "shape", [(1024, 512), (2048, 1024), (2600, 1023), (4096, 2048), (8000, 512), (600, 600), (4096, 1024)]
)
def test_levels_as_wide_as_a_tile_are_tiled_too(tmp_path: Path, shape: tuple[int, int]) -> None:
    out = output(*shape)
    sink = ZarrSink.create(tmp_path / "a.zarr", out)
    write_cog(sink, out, tmp_path / "out.tif")
    assert cog_validate(tmp_path / "out.tif", strict=True) == (True, [], [])


def test_internal_mask_and_empty_blocks(tmp_path: Path) -> None:
    out = output(nodata=None, mask=True)
    values = noise_image(1, out.shape)
    sink = ZarrSink.create(tmp_path / "a.zarr", out)
    window = TileGrid(out.grid.shape, out.block)[0]
    mask = np.zeros(window.shape, np.uint8)
    mask[:100] = 255
    sink.write(window, values[(slice(None), *window.slices())], mask)
    write_cog(sink, out, tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif") as made:
        got = made.dataset_mask()
        assert (got[:100, :512] == 255).all() and (got[100:] == 0).all() and (got[:, 512:] == 0).all()
        assert (made.read()[:, 300:] == 0).all()
    assert open_scene(SceneSource((str(tmp_path / "a.zarr"),))).mask_kind == "mask"


@pytest.mark.parametrize(
    "more",
    [
        {"nodata": 0},
        {"nodata": None},
        {"nodata": None, "mask": True},
        {"nodata": float("nan"), "dtype": "float32"},
        {"nodata": None, "bands": (*BANDS, Band("alpha", 1.0, 0.0, False, "alpha"))},
    ],
    ids=["nodata", "plain", "mask", "float", "alpha"],
)
def test_overviews_of_a_cog_are_the_levels_of_a_zarr(tmp_path: Path, more) -> None:  # type: ignore[no-untyped-def]
    made = output(701, 1103, **({"dtype": "uint16"} | {k: v for k, v in more.items() if k != "bands"}))
    out = replace(made, bands=more.get("bands", made.bands))
    values = noise_image(1, out.shape, out.dtype)
    values[:, 40:333, 100:777] = 0 if out.nodata is None or out.nodata == 0 else out.nodata
    sink = ZarrSink.create(tmp_path / "a.zarr", out)
    fill(sink, out, values)
    write_cog(sink, out, tmp_path / "out.tif")
    assert list(Pyramid(sink, out, shards=True).build()) == [2, 4]
    for level, factor in enumerate((2, 4)):
        with rasterio.open(tmp_path / "out.tif", overview_level=level) as made:
            assert np.array_equal(made.read(), sink.group[f"{factor}/data"][:], equal_nan=out.dtype == "float32")
            if out.mask:
                assert np.array_equal(made.read_masks(1), sink.group[f"{factor}/mask"][:])


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["uint8", "int8", "uint16", "int16"]),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(0, 2**32 - 1),
)
def test_means_of_integers_are_those_of_exact_arithmetic(dtype: str, shape: tuple[int, int], seed: int) -> None:
    limits = np.iinfo(dtype)
    values = np.random.default_rng(seed).integers(limits.min, limits.max, shape, dtype, endpoint=True)
    got = halve(values[None], None)[0]
    for row, col in np.ndindex(got.shape):
        rows, cols = ([min(2 * i + d, n - 1) for d in (0, 1)] for i, n in ((row, shape[0]), (col, shape[1])))
        total = sum(int(values[r, c]) for r in rows for c in cols)
        assert got[row, col] == round(Fraction(total, 4))  # to even


def test_the_same_pixels_give_the_same_bytes(tmp_path: Path) -> None:
    out = output()
    values = noise_image(1, out.shape)
    for name in ("a", "b"):
        sink = ZarrSink.create(tmp_path / f"{name}.zarr", out)
        fill(sink, out, values)
        fill(sink, out, values)  # a task may run twice
        write_cog(sink, out, tmp_path / f"{name}.tif")
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    files = [p.relative_to(tmp_path / "a.zarr") for p in sorted((tmp_path / "a.zarr").rglob("*")) if p.is_file()]
    assert len(files) > 9
    for file in files:
        assert (tmp_path / "a.zarr" / file).read_bytes() == (tmp_path / "b.zarr" / file).read_bytes()


def test_writes_that_share_a_chunk_are_refused(tmp_path: Path) -> None:
    out = output()
    sink = ZarrSink.create(tmp_path / "a.zarr", out)
    for window in (Window(128, 0, 256, 512), Window(0, 0, 200, 512), Window(512, 512, 300, 588)):
        with pytest.raises(UsageError, match="whole"):
            sink.write(window, np.zeros((2, *window.shape), "uint16"), None)


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    block=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    corner=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    shards=st.booleans(),
    mask=st.booleans(),
)
def test_a_block_owns_the_files_that_its_writing_makes(  # type: ignore[no-untyped-def]
    tmp_path_factory, shape, block, corner, shards: bool, mask: bool
) -> None:
    out = output(*shape, block=block, mask=mask, dtype="uint8", nodata=None)
    grid = TileGrid(shape, block)
    window = grid[(corner[0] % grid.counts[0]) * grid.counts[1] + corner[1] % grid.counts[1]]
    sink = ZarrSink.create(tmp_path_factory.mktemp("sink") / "a.zarr", out, shards=shards)
    before = {p for p in sink.path.rglob("*") if p.is_file()}
    values = np.random.default_rng(0).integers(1, 9, (2, *window.shape), np.uint8)
    sink.write(window, values, np.full(window.shape, 255, np.uint8) if mask else None)
    made = {p.relative_to(sink.path).as_posix() for p in sink.path.rglob("*") if p.is_file()} - {
        p.relative_to(sink.path).as_posix() for p in before
    }
    assert made == set(sink.files(window)) and len(sink.files(window)) == len(made)
    others = [sink.files(other) for other in grid if other != window]
    assert not made & {name for names in others for name in names}, "no two blocks share a file"
    again = ZarrSink.open(sink.path, out)
    assert np.array_equal(again.read(window), values)
    if mask:
        assert (again.read_mask(window) == 255).all()
    else:
        with pytest.raises(UsageError, match="has no mask"):
            again.read_mask(window)
    if shards:
        assert len(made) == 1 + mask, "a shard a block, and one of its mask"


@settings(max_examples=150)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 13), st.integers(1, 13))
def test_only_whole_blocks_are_written(sink_of_blocks, row: int, col: int, height: int, width: int) -> None:  # type: ignore[no-untyped-def]
    window = Window(row, col, height, width)
    ends = window.stop_row in (4, 8, 10), window.stop_col in (3, 6, 9, 11)
    if row % 4 == 0 and col % 3 == 0 and all(ends):
        sink_of_blocks.write(window, np.ones((2, height, width), "uint16"), None)
        assert (sink_of_blocks.read(window) == 1).all()
    else:
        with pytest.raises(UsageError, match=r"is not made of whole \(4, 3\) blocks of a 10 x 11 array"):
            sink_of_blocks.write(window, np.ones((2, height, width), "uint16"), None)


@pytest.fixture(scope="module")
def sink_of_blocks(tmp_path_factory: pytest.TempPathFactory) -> ZarrSink:
    out = output(10, 11, block=(4, 3))
    return ZarrSink.create(tmp_path_factory.mktemp("blocks") / "a.zarr", out)


@pytest.mark.parametrize("durable", [True, False, None])
def test_a_block_is_on_the_disk_before_it_counts(tmp_path: Path, monkeypatch, durable: bool | None) -> None:  # type: ignore[no-untyped-def]
    flushed: list[Path] = []
    monkeypatch.setattr(sinks, "sync", flushed.append)
    out = output(block=(256, 512), mask=True)
    sink = ZarrSink.create(tmp_path / "a.zarr", out)
    window = Window(0, 512, 256, 512)
    how = {} if durable is None else {"durable": durable}
    sink.write(window, np.ones((2, 256, 512), "uint16"), np.full((256, 512), 255, np.uint8), **how)
    assert flushed == ([] if durable is False else [sink.path / name for name in sink.files(window)])
    assert sink.files(window) == ["data/c/0/0/1", "mask/c/0/1"]
    with pytest.raises(UsageError, match="came without one"):
        sink.write(window, np.ones((2, 256, 512), "uint16"), None)


@pytest.mark.parametrize(
    ("dtype", "nodata", "missing"), [("uint8", 9, 9), ("int16", -1, -1), ("float32", None, np.nan)]
)
def test_a_new_store_is_all_missing(tmp_path: Path, dtype: str, nodata: float | None, missing: float) -> None:
    sink = ZarrSink.create(tmp_path / "a.zarr", output(90, 70, dtype=dtype, nodata=nodata, mask=True, block=(64, 64)))
    whole = Window(0, 0, 90, 70)
    assert np.array_equal(sink.read(whole), np.full((2, 90, 70), missing, dtype), equal_nan=True)
    assert not sink.read_mask(whole).any()
    for name, shape in (("data", (2, 64, 64)), ("mask", (64, 64))):
        array = sink.group[name]
        assert array.shards == shape
        assert array.chunks == (64, 64)[: len(shape)] if name == "mask" else (1, 64, 64)
        (codec,) = array.compressors
        # what a store that was begun by another version holds already
        assert (codec.to_dict()["configuration"]) == {"level": 1, "checksum": True}


def test_what_is_no_store_is_a_clear_error(tmp_path: Path) -> None:
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    group.create_group("data")
    with pytest.raises(SinkError, match="holds no array named data"):
        ZarrSink(tmp_path / "a.zarr", group, output())


def test_a_flipped_bit_is_an_error_and_never_a_pixel(tmp_path: Path) -> None:
    out = output()
    sink = ZarrSink.create(tmp_path / "a.zarr", out)
    fill(sink, out, noise_image(1, out.shape))
    shard = next(p for p in (tmp_path / "a.zarr" / "data").rglob("*") if p.is_file() and p.name != "zarr.json")
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 1
    shard.write_bytes(content)
    scene = open_scene(SceneSource((str(tmp_path / "a.zarr"),)))
    with pytest.raises(SceneError, match="damaged"):
        scene.read_dn(Window(0, 0, *out.grid.shape))


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="cannot write"):
        ZarrSink.create(tmp_path / "file" / "a.zarr", output())


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    density=st.sampled_from([0.0, 0.4, 1.0]),
    dtype=st.sampled_from(["uint16", "float32", "int16"]),
    seed=st.integers(0, 99),
)
def test_halving_averages_what_is_known(shape, density, dtype, seed) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 60, shape).astype(dtype)
    missing = np.asarray(np.nan if dtype == "float32" else 7, dtype)
    values[rng.random(shape) < density] = missing
    got = halve(values, missing)
    for band in range(shape[0]):
        for row in range(0, shape[1], 2):
            for col in range(0, shape[2], 2):
                quad = values[band, row : row + 2, col : col + 2].astype(float)
                known = quad[~np.isnan(quad)] if dtype == "float32" else quad[quad != 7]
                value = got[band, row // 2, col // 2]
                if not known.size:
                    assert np.isnan(value) if dtype == "float32" else value == 7
                elif dtype == "float32":
                    assert value == pytest.approx(known.mean())
                else:
                    assert abs(value - known.mean()) <= 0.5 or (value == 8 and round(known.mean()) == 7)
                    assert value != 7


def test_chunks_divide_blocks() -> None:
    for block in ((1024, 2048), (300, 300), (999, 1536), (31, 7), (1021, 600)):
        out = output(block=block)
        assert all(b % c == 0 and c <= max(512, b) for b, c in zip(block, out.chunk, strict=True))
    assert output(block=(3072, 3072)).chunk == (512, 512)


def test_what_a_killed_worker_half_wrote_is_no_part_of_an_output(tmp_path: Path) -> None:
    sink = ZarrSink.create(tmp_path / "s.zarr", output(40, 40))
    files = sorted(sink.path.rglob("*"))
    (sink.path / "data" / "c.0123.partial").write_bytes(b"half")
    sink.tidy()
    assert sorted(sink.path.rglob("*")) == files


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("uint16", 0), ("uint8", None), ("float32", float("nan")), ("int16", -9)]
)
@pytest.mark.parametrize("shards", [True, False])
def test_chunks_of_nothing_but_fill_value_leave_no_file_and_others_do(
    tmp_path: Path, dtype: str, nodata: float | None, shards: bool
) -> None:
    """Where no chunk begins with the fill value nothing is compared: the files are those of Zarr's own comparison."""
    out = output(512, 1024, dtype=dtype, nodata=nodata, block=(256, 256), mask=nodata is None)
    values = (noise_image(3, out.shape) % 100 + 1).astype(dtype)
    values[0, :256, :256] = values[1, 256:, 512:] = out.missing  # whole chunks
    values[1, 0, 256] = values[0, 300, 700] = out.missing  # a first pixel, and one within
    mine, theirs = (ZarrSink.create(tmp_path / name, out, shards=shards) for name in ("mine.zarr", "theirs.zarr"))
    for window in TileGrid(out.grid.shape, out.block):
        part = values[(slice(None), *window.slices())]
        mask = np.where(part[0] == 7, 255, 0).astype("uint8") if out.mask else None
        mine.write(window, part, mask)
        theirs.data[(slice(None), *window.slices())] = part
        if theirs.whole.mask is not None:
            theirs.whole.mask[window.slices()] = mask
    found, wanted = (
        {
            str(path.relative_to(root)): path.read_bytes()
            for path in (*root.glob("data/c/**/*"), *root.glob("mask/c/**/*"))
            if path.is_file()
        }
        for root in (mine.path, theirs.path)
    )
    assert found == wanted and len(found) == (8 if shards else 13) + 7 * out.mask
