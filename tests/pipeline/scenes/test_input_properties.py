"""Properties of reading: whatever kind of input, pixels, gaps and place are what its writer meant, or it is refused."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support.builders import Repeat
from support.inputs import EXAMPLES, MASK_KINDS, ORDERS, Case, Cube, cases, cubes

from scenelift.pipeline.jobs.blocks import process_block
from scenelift.pipeline.jobs.plan import EnhanceJob
from scenelift.pipeline.outputs.formats import format_of
from scenelift.pipeline.outputs.outputs import output_of
from scenelift.pipeline.outputs.sinks import ZarrSink
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.tiles import TileGrid, Window


def scene_of(*paths: object, **how: object) -> Scene:
    return open_scene(SceneSource(tuple(map(str, paths)), **how))  # type: ignore[arg-type]


def whole(scene: Scene) -> Window:
    return Window(0, 0, *scene.grid.shape)


@settings(max_examples=6 * EXAMPLES, deadline=None)
@given(case=cases(), data=st.data())
def test_pixels_gaps_and_place_of_any_raster(case: Case, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = case.write(Path(folder) / "in")
        scene = scene_of(*paths)
        assert scene.grid.transform.almost_equals(case.transform) and scene.grid.shape == case.shape
        assert scene.grid.crs.to_epsg() == 32633
        region, valid, wanted = scene.read(whole(scene)), case.valid, case.reflectance
        assert np.array_equal(region.valid, valid)
        assert np.allclose(region.values[valid], wanted[valid], rtol=1e-6, atol=1e-6)
        row, col = (data.draw(st.integers(0, side - 1)) for side in case.shape)
        at = slice(None), slice(row, case.shape[0]), slice(col, col + 1)
        part = scene.read(Window(row, col, case.shape[0] - row, 1))
        assert np.array_equal(part.valid, valid[at])
        assert np.array_equal(part.values, region.values[at], equal_nan=True)
        if case.mask != "alpha":
            order = data.draw(st.permutations(range(case.bands)))
            picked = scene_of(*paths, bands=tuple(i + 1 for i in order)).read(whole(scene))
            assert np.array_equal(picked.valid, valid[order])
            assert np.allclose(picked.values[picked.valid], wanted[order][valid[order]], rtol=1e-6, atol=1e-6)


def output_made(scene: Scene, folder: Path, suffix: str, scale: int, block: int, dtype: str | None) -> Scene:
    """Take a scene through everything that writes an output, with a model that repeats pixels, and open that."""
    model, sides = Repeat(scale), (block, block)
    output = output_of(scene, [model.spec], sides, dtype=dtype)
    sink = ZarrSink.create(folder / "store.zarr", output, shards=block != 4)
    job = EnhanceJob(str(folder), scene.source, (model,), sink.path, output, sides, batch=2)  # type: ignore[arg-type]
    for index in range(len(TileGrid(scene.grid.shape, sides))):
        process_block(job, index)
    path = folder / f"out{suffix}"
    return scene_of(format_of(path).make(sink, output, path, block != 4))


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    case=cases(),
    suffix=st.sampled_from([".tif", ".zarr"]),
    scale=st.sampled_from([1, 2]),
    block=st.sampled_from([3, 4, 16]),
    dtype=st.sampled_from([None, "uint8", "uint16", "int16", "float32"]),
)
def test_an_output_of_repeated_pixels_is_its_input(
    case: Case, suffix: str, scale: int, block: int, dtype: str | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scene = scene_of(*case.write(Path(folder) / "in"))
        made = output_made(scene, Path(folder), suffix, scale, block, dtype)
        assert made.dtype == (dtype or case.read_as) and made.grid.crs == scene.grid.crs
        assert made.grid.transform.almost_equals(scene.grid.scaled(scale).transform)
        fine = [plane.repeat(scale, axis=1).repeat(scale, axis=2) for plane in (case.valid, case.reflectance)]
        valid, wanted = fine[0], fine[1].astype(np.float64)
        assert made.grid.shape == valid.shape[1:]
        region, stored = made.read(whole(made)), made.read_dn(whole(made))[0]
        assert np.array_equal(region.valid, valid)
        for i, (before, band) in enumerate(zip(scene.bands, made.bands, strict=True)):
            # as fine as it was, or as is usual for the data type
            usual = {"uint8": 1 / 255, "uint16": 1e-4, "int16": 1e-4, "float32": 1.0}[made.dtype]
            assert made.dtype == "float32" or band.scale <= max(usual, before.scale) * (1 + 1e-6)
            off = np.abs(region.values[i] - wanted[i])[valid[i]]
            if made.dtype == "float32":
                assert (off <= 1e-5 * (1 + np.abs(wanted[i][valid[i]]) / band.scale)).all()
                continue
            limits = np.iinfo(made.dtype)
            steps = (wanted[i] - band.offset) / band.scale
            exact = np.clip(steps, limits.min, limits.max)[valid[i]]
            if 0 <= band.offset + band.scale * limits.max < 1 and dtype not in (None, case.dtype):
                continue  # where scale and offset of the input leave no room for bright pixels, they are clipped
            taken = np.zeros(exact.shape, bool)
            if made.nodata is not None:  # whose pixels move one step
                taken = np.abs(exact - made.nodata) <= 0.5 + 1e-3
            far = np.abs(stored[i][valid[i]] - exact)
            same = 0.0 if dtype in (None, case.dtype) else 0.5
            assert (far <= same + 1e-5 * np.abs(exact) / 10 + 1e-2 + taken).all()


@settings(max_examples=EXAMPLES, deadline=None)
@given(cube=cubes(), suffix=st.sampled_from([".zarr", ".nc"]))
def test_dimensions_go_by_name_and_coordinates_win(cube: Cube, suffix: str) -> None:
    if cube.place == "conventions" or cube.values.dtype.kind == "u":  # which the old netCDF format lacks
        suffix = ".zarr"
    with tempfile.TemporaryDirectory() as folder:
        path = cube.write(Path(folder) / f"a{suffix}")
        scene = scene_of(path)
        assert scene.grid.transform.almost_equals(cube.transform, 1e-6)
        assert scene.grid.crs.to_epsg() == 32633
        assert np.array_equal(scene.read_dn(whole(scene))[0], cube.values)
        region = scene.read(whole(scene))
        assert np.array_equal(region.valid, cube.valid)
        assert np.allclose(region.values, cube.reflectance, rtol=1e-6, atol=1e-6)
        assert (cube.place == "stale") == any("coordinates count" in note for note in scene.notes)
        part = Window(0, cube.values.shape[2] // 2, cube.values.shape[1], 1)
        assert np.array_equal(scene.read_dn(part)[0], cube.values[:, :, part.col : part.col + 1])


def test_the_properties_reach_every_kind() -> None:
    assert len(ORDERS) == 2 + 6 + 6 + 24 and set(MASK_KINDS) > {"each file", "alpha"}
