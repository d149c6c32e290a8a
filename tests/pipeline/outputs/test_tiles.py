"""Cloud-Optimized GeoTIFFs of tiles that blocks compressed: the bytes that GDAL's COG driver writes."""

from __future__ import annotations

import os
import zlib
from dataclasses import replace
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import rasterio
import rasterio.shutil
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rio_cogeo.cogeo import cog_validate
from support.builders import UTM, noise_image

from scenelift.pipeline.errors import SinkError
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.outputs import cogs
from scenelift.pipeline.outputs.categories import categories_of
from scenelift.pipeline.outputs.cogs import write_cog
from scenelift.pipeline.outputs.compression import COG, one_tile
from scenelift.pipeline.outputs.halving import coarsen
from scenelift.pipeline.outputs.outputs import Output
from scenelift.pipeline.outputs.sinks import Blocks, ZarrSink, level_of
from scenelift.pipeline.outputs.tiffs import laying
from scenelift.pipeline.outputs.tiffs.directories import directories
from scenelift.pipeline.outputs.tiffs.tiles import BY_BLOCKS, TiffTile, checked
from scenelift.pipeline.scenes.scenes import Band
from scenelift.pipeline.tiles import TileGrid, Window

RGB = tuple(Band(name, 1e-4, -0.1, True, name) for name in ("red", "green", "blue"))
ALPHA = Band("alpha", 1.0, 0.0, False, "alpha")
KINDS = {
    "nodata": {"nodata": 0},
    "plain": {},
    "mask": {"mask": True},
    "float": {"nodata": float("nan"), "dtype": "float32"},
    "alpha": {"bands": (*RGB, ALPHA)},
    "int16": {"nodata": -9, "dtype": "int16"},
    "zstd": {"nodata": 0, "compress": "zstd"},
    "lerc": {"dtype": "float32", "compress": "lerc"},
    "lerc-alpha": {"bands": (*RGB, ALPHA), "compress": "lerc"},
    "jpeg": {"dtype": "uint8", "compress": "jpeg"},
    "jpeg-mask": {"dtype": "uint8", "compress": "jpeg", "mask": True},
    "one-jpeg": {"dtype": "uint8", "compress": "jpeg", "bands": RGB[:1]},
}


def described(kind: str, height: int, width: int, block: tuple[int, int]) -> Output:
    grid = GeoGrid(CRS.from_epsg(32633), UTM, height, width)
    return replace(Output(grid, "uint16", RGB, None, False, block), **KINDS[kind])  # type: ignore[arg-type]


def filled(folder: Path, output: Output, blocks: Blocks = Blocks.TILES, shards: bool = True) -> ZarrSink:
    """A store of smooth pixels with noise, without data in a corner: a block there is not written at all."""
    rows, cols = np.indices(output.grid.shape)
    values = (noise_image(1, output.shape, "uint16", high=40) + (rows + cols) // 20 + 1).astype(output.dtype)
    values[:, :600, :700] = output.missing
    mask = np.where((rows < 600) & (cols < 700), np.uint8(0), np.uint8(255)) if output.mask else None
    sink = ZarrSink.create(folder, output, shards=shards, blocks=blocks)
    for window in TileGrid(output.grid.shape, output.block):
        part = values[(slice(None), *window.slices())]
        if window.stop_row > 600 or window.stop_col > 700:
            sink.write(window, part, None if mask is None else mask[window.slices()])
    return sink


def by_gdal(store: ZarrSink, output: Output, path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the COG driver itself makes of the same pixels, with the same coarser levels."""
    files: list[Path] = []

    def full(template: bytes, folder: Path, levels, made: Path, threads: int) -> None:  # type: ignore[no-untyped-def]
        sources = [made.with_name("out.tif.plain.tif" + ".ovr" * number) for number in range(len(levels))]
        for number, (source, level) in enumerate(zip(sources, levels, strict=True)):
            if level.tiles and level.tiles.compress not in BY_BLOCKS:  # what its tiles were made of
                level = level_of(store.group[f"scratch/{2**number}"], level.shape) if number else store.whole
            rows, cols = level.shape
            with rasterio.open(source, "r+") as file:
                file.write(level.data[:, :rows, :cols])
                if level.mask is not None:
                    file.write_mask(level.mask[:rows, :cols])
        overviews = "FORCE_USE_EXISTING" if len(sources) > 1 else "NONE"
        options = COG[output.compress or "deflate"]
        rasterio.shutil.copy(
            sources[0], made, driver="COG", BLOCKSIZE=512, BIGTIFF="IF_SAFER", OVERVIEWS=overviews, **options
        )
        files.append(made)

    monkeypatch.setattr(cogs, "lay", full)
    path.parent.mkdir()
    write_cog(store, output, path)
    monkeypatch.undo()
    assert files
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_what_gdals_cog_driver_writes(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its header, the order of its tiles, what each holds with its filling; only compressors may differ in version."""
    output = described(kind, 1100, 2600, (1024, 1024))
    store = filled(tmp_path / "a.zarr", output)
    assert (output.compress or "deflate") not in BY_BLOCKS or (store.whole.tiles and list(store.coarser) == [2])
    theirs = by_gdal(store, output, tmp_path / "gdal" / "out.tif", monkeypatch).read_bytes()
    write_cog(store, output, tmp_path / "out.tif")
    mine = (tmp_path / "out.tif").read_bytes()
    assert taken_apart(mine, output) == taken_apart(theirs, output)


def taken_apart(file: bytes, output: Output) -> tuple[bytes, list[tuple[int, int]], list[bytes]]:
    """The header without numbers of places, which tile comes after which, and what is in each."""
    header, places, contents = bytearray(file), [], []
    for number, image in enumerate(directories(file)):
        starts, counts = image.offsets.read(file), image.counts.read(file)
        for at, (start, count) in enumerate(zip(starts, counts, strict=True)):
            tile = file[start : start + count]
            assert int.from_bytes(file[start - 4 : start], "little") == count
            assert file[start + count : start + count + 4] == tile[-4:]
            places.append((start, number, at))
            if image.mask or (output.compress or "deflate") == "deflate":
                tile = zlib.decompress(tile)
            contents.append(numcodecs.Zstd().decode(tile) if output.compress == "zstd" and not image.mask else tile)
        image.offsets.write(header, [0] * len(starts))
        image.counts.write(header, [0] * len(counts))
    return bytes(header[: min(places)[0] - 4]), [place[1:] for place in sorted(places)], contents


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1300, 1100), (511, 2049), (300, 200)])
def test_the_bytes_depend_neither_on_blocks_nor_on_shards_nor_on_who_compressed(
    tmp_path: Path, kind: str, shape: tuple[int, int]
) -> None:
    whole = described(kind, *shape, block=(2048, 2048))
    wanted = None
    ways = [(2048, "TILES", True), (512, "TILES", False), (1024, "SCRATCH", True), (640, "TILES", True)]
    for number, (block, blocks, shards) in enumerate(ways):
        output = replace(whole, block=(block, block))
        store = filled(tmp_path / f"{number}.zarr", output, Blocks[blocks], shards)
        write_cog(store, output, tmp_path / f"{number}.tif", shards)
        made = (tmp_path / f"{number}.tif").read_bytes()
        wanted = wanted or made
        assert made == wanted
    assert cog_validate(tmp_path / "0.tif", strict=True) == (True, [], [])
    scratch = ZarrSink.open(tmp_path / "2.zarr", replace(whole, block=(1024, 1024)))
    values, mask = scratch.read(Window(0, 0, *shape)), scratch.read_mask(Window(0, 0, *shape)) if whole.mask else None
    with rasterio.open(tmp_path / "0.tif") as made_file:
        counts = made_file.overviews(1)
    for level in range(len(counts) + 1):
        with rasterio.open(tmp_path / "0.tif", **({"overview_level": level - 1} if level else {})) as file:
            if whole.compress != "jpeg":
                assert np.array_equal(file.read(), values, equal_nan=whole.dtype == "float32")
            if mask is not None:
                assert np.array_equal(file.read_masks(1), mask)
        values, mask = coarsen(whole, values.__getitem__, mask)


@pytest.mark.parametrize("run", [1, 5_000, 1 << 23])
def test_the_bytes_depend_on_no_number_of_threads_nor_on_what_is_moved_at_once(
    tmp_path: Path, run: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = described("mask", 1300, 1100, (512, 512))
    write_cog(filled(tmp_path / "a.zarr", output), output, tmp_path / "one.tif")
    monkeypatch.setattr(laying, "RUN", run)
    write_cog(ZarrSink.open(tmp_path / "a.zarr", output, threads=3), output, tmp_path / "three.tif")
    assert (tmp_path / "three.tif").read_bytes() == (tmp_path / "one.tif").read_bytes()


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    bands=st.integers(1, 5),
    compress=st.sampled_from(["deflate", "zstd", "lerc"]),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "float32"]),
    big=st.booleans(),
    tile=st.sampled_from([16, 32]),
)
def test_tiles_are_found_where_gdal_finds_them(tmp_path_factory, shape, bands, compress, dtype, big, tile) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("tiff") / "a.tif"
    profile = {"height": shape[0], "width": shape[1], "count": bands, "dtype": dtype, "compress": compress}
    profile |= {"tiled": True, "blockxsize": tile, "blockysize": tile, "interleave": "pixel", "transform": UTM}
    with rasterio.open(path, "w", driver="GTiff", BIGTIFF="YES" if big else "NO", **profile) as file:
        file.write(noise_image(1, (bands, *shape), dtype))
    (found,) = directories(path.read_bytes())
    assert found.shape == shape and not found.mask and not found.coarser
    starts, counts = (field.read(path.read_bytes()) for field in (found.offsets, found.counts))
    across = -(-shape[1] // tile)
    with rasterio.open(path) as file:
        for number, (start, count) in enumerate(zip(starts, counts, strict=True)):
            place = f"{number % across}_{number // across}"
            assert start == int(file.get_tag_item(f"BLOCK_OFFSET_{place}", "TIFF", bidx=1))
            assert count == int(file.get_tag_item(f"BLOCK_SIZE_{place}", "TIFF", bidx=1))


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["uint8", "uint16", "int16", "float32"]),
    st.integers(1, 5),
    st.sampled_from(["deflate", "zstd"]),
    st.integers(0, 99),
)
def test_a_tile_holds_what_gdal_reads_of_its_bytes(dtype: str, bands: int, compress: str, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 256, (bands, 32, 32 * np.dtype(dtype).itemsize), np.uint8)
    values = values.view(dtype)  # any bits at all, NaN of every kind
    codec = TiffTile(compress)
    chunk = codec.pack(values)
    assert codec.unpack(chunk, values.shape, values.dtype).tobytes() == values.tobytes()
    file = bytearray(one_tile(values, compress))
    (only,) = directories(file)
    only.offsets.write(file, [len(file)])
    only.counts.write(file, [len(chunk) - 4])
    with rasterio.MemoryFile(bytes(file) + checked(chunk)) as memory, memory.open() as opened:
        assert np.array_equal(opened.read(), values, equal_nan=dtype == "float32")
    mask = (values[0, :, :32] != 0).astype(np.uint8) * np.uint8(255)
    assert np.array_equal(codec.unpack(codec.pack(mask), mask.shape, mask.dtype), mask)
    with pytest.raises(SinkError, match="damaged"):
        checked(chunk[:60] + bytes([chunk[60] ^ 1]) + chunk[61:])


def test_a_flipped_bit_of_the_store_or_of_the_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = described("mask", 1024, 1024, (1024, 1024))
    store = filled(tmp_path / "a.zarr", output)
    honest = laying._reads_back

    def flipped(file: int, *more) -> bool:  # type: ignore[no-untyped-def]
        middle = os.fstat(file).st_size // 2
        os.pwrite(file, bytes([os.pread(file, 1, middle)[0] ^ 1]), middle)
        return honest(file, *more)

    monkeypatch.setattr(laying, "_reads_back", flipped)
    with pytest.raises(SinkError, match=r"out.tif.cog.tif reads back wrong"):
        write_cog(store, output, tmp_path / "out.tif")
    monkeypatch.undo()
    for name in store.files(Window(0, 0, 1024, 1024)):
        before = (store.path / name).read_bytes()
        (store.path / name).write_bytes(before[:90] + bytes([before[90] ^ 16]) + before[91:])
        with pytest.raises(SinkError, match="a tile is damaged"):
            write_cog(store, output, tmp_path / "out.tif")
        (store.path / name).write_bytes(before[:30])
        with pytest.raises(SinkError, match="is cut off"):
            write_cog(store, output, tmp_path / "out.tif")
        (store.path / name).write_bytes(before)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
    write_cog(store, output, tmp_path / "out.tif")


def test_a_tile_that_does_not_read_back_is_never_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = TiffTile._squeezed
    monkeypatch.setattr(TiffTile, "_squeezed", lambda self, plain, mask: honest(self, plain[:-1] + b"?", mask))
    with pytest.raises(SinkError, match="a tile compressed by deflate reads back wrong"):
        filled(tmp_path / "a.zarr", described("nodata", 1024, 1024, (1024, 1024)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=5), st.integers(0, 9))
def test_a_class_of_an_overview_is_the_most_frequent(rows, _) -> None:  # type: ignore[no-untyped-def]
    width = max(map(len, rows))
    values = np.array([[*row, *[3] * (width - len(row))] for row in rows], np.uint8)
    values[values == 3] = 255
    grid = GeoGrid(CRS.from_epsg(32633), UTM, *values.shape)
    output = Output(
        grid,
        "uint8",
        (Band("land cover", 1.0, 0.0, False),),
        255,
        False,
        (8, 8),
        categories=categories_of(["a", "b", "c"]),
    )
    found, _ = coarsen(output, values[None].__getitem__, None)
    for row, col in np.ndindex(found.shape[1:]):
        cells = [
            values[min(2 * row + i, values.shape[0] - 1), min(2 * col + j, values.shape[1] - 1)]
            for i in (0, 1)
            for j in (0, 1)
        ]
        known = [cell for cell in cells if cell != 255]
        wanted = max(known, key=lambda cell: (known.count(cell), -known.index(cell))) if known else 255
        assert found[0, row, col] == wanted
