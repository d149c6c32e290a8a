"""What an output will be, decided before any pixel: numbers that mean what they meant, names, classes, chunks."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rasterio.crs import CRS
from support.builders import UTM

from scenelift.models.spec import ModelSpec
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.grids import GeoGrid
from scenelift.pipeline.outputs.categories import MAX_CLASSES, MISSING
from scenelift.pipeline.outputs.outputs import (
    CHUNK,
    Output,
    as_classes,
    as_shares,
    opaque,
    output_of,
    pictures,
    recoded_alpha,
)
from scenelift.pipeline.scenes.radiometry import ASSUMED_SCALE, DTYPES, has_value
from scenelift.pipeline.scenes.rasters import Reader
from scenelift.pipeline.scenes.scenes import Band, Scene, SceneSource

INTEGERS = ("uint8", "uint16", "int16")
GRID = GeoGrid(CRS.from_epsg(32633), UTM, 40, 60)
SAME = ModelSpec("same", "other")
dtypes = st.sampled_from(DTYPES)
scales = st.sampled_from([1 / 255, 1e-4, 2.75e-5, 2e-4, 0.01, 1.0]) | st.floats(1e-5, 2)
offsets = st.sampled_from([0.0, -0.1, -0.2, 0.5]) | st.floats(-0.5, 0.5)


def scene(
    dtype: str = "uint16", bands: tuple[Band, ...] | None = None, nodata: float | None = None, mask_kind: str = "none"
) -> Scene:
    """Make a scene of which nothing but its description is asked."""
    bands = bands or (Band("B04", 1e-4, 0.0, True), Band(None, 2e-4, -0.1, True))
    return Scene(SceneSource(("a.tif",)), (), (), None, GRID, dtype, bands, nodata, mask_kind, {"SENSOR": "MSI"}, {})


def nodata_of(draw: st.DrawFn, dtype: str) -> float | None:
    if dtype == "float32":
        return draw(st.sampled_from([None, math.nan, -9999.0, 0.0]))
    limits = np.iinfo(dtype)
    return draw(st.none() | st.sampled_from([float(limits.min), float(limits.max), 0.0, 7.0]))


@st.composite
def outputs(draw: st.DrawFn) -> Output:
    """Draw an output of one band with any data type, scale, offset and nodata value."""
    dtype = draw(dtypes)
    band = Band("B", draw(scales), draw(offsets), True)
    return Output(GRID, dtype, (band,), nodata_of(draw, dtype), False, (16, 16))


@given(out=outputs(), seed=st.integers(0, 999), density=st.sampled_from([0.0, 0.3, 1.0]))
def test_what_is_stored_reads_back_within_half_a_step(out: Output, seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    values = rng.uniform(-0.2, 1.5, (1, 9, 11)).astype(np.float32)
    valid = rng.random(values.shape) >= density
    values[~valid] = -9999
    dn = out.encode(values, valid)
    assert dn.dtype == out.dtype and dn.shape == values.shape
    (band,) = out.bands
    read = dn.astype(np.float64) * band.scale + band.offset
    if out.dtype == "float32":
        step = 1e-6 * (1 + abs(band.offset)) + 2e-7 * abs(read)
        inside = valid
    else:
        limits = np.iinfo(out.dtype)
        exact = (values.astype(np.float64) - band.offset) / band.scale
        inside = valid & (exact > limits.min) & (exact < limits.max)
        # half a step; a whole one more where the value of missing pixels had to be left free
        step = 0.5 * band.scale * (1 + 1e-4) + band.scale * (out.nodata is not None) + 1e-5
        assert (dn[valid & (exact < limits.min - 1)] <= limits.min + 1).all()
        assert (dn[valid & (exact > limits.max + 1)] >= limits.max - 1).all()
    gap = np.abs(read - np.where(inside, values, 0))
    assert (gap <= step)[inside].all()


@given(out=outputs(), seed=st.integers(0, 999))
def test_no_pixel_becomes_missing_and_every_missing_one_is_marked(out: Output, seed: int) -> None:
    rng = np.random.default_rng(seed)
    (band,) = out.bands
    missing = np.asarray(out.missing).astype(out.dtype)
    near = np.float32(0) if np.isnan(missing) else missing.astype(np.float32) * np.float32(band.scale) + band.offset
    values = np.full((1, 8, 8), near, np.float32) + rng.uniform(-2, 2, (1, 8, 8)).astype(np.float32) * band.scale
    values[:, :2] = near
    valid = rng.random(values.shape) < 0.7
    dn = out.encode(values, valid)
    assert np.array_equal(dn[~valid], np.full((~valid).sum(), missing), equal_nan=out.dtype == "float32")
    if out.nodata is not None:
        marked = np.isnan(dn) if np.isnan(missing) else dn == missing
        assert np.array_equal(marked, ~valid)


@given(dtype=dtypes, nodata=st.data(), scale=scales, offset=offsets, seed=st.integers(0, 99))
def test_stored_numbers_survive_the_way_to_reflectance_and_back(
    dtype: str, nodata: st.DataObject, scale: float, offset: float, seed: int
) -> None:
    band = Band("B", scale, offset, True)
    marker = nodata.draw(st.composite(lambda draw: nodata_of(draw, dtype))())
    out = output_of(scene(dtype, (band,), marker), [SAME], (16, 16))
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        dn = rng.uniform(0, 1, (1, 5, 7)).astype(np.float32)
    else:
        # what float32 can tell apart beside the offset
        dn = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, (1, 5, 7), endpoint=True).astype(dtype)
        assume(abs(offset) / scale < 1e6)
    valid = np.ones(dn.shape, bool) if marker is None or np.isnan(marker) else dn != np.asarray(marker).astype(dtype)
    reflectance = dn.astype(np.float32) * np.float32(scale) + np.float32(offset)
    again = out.encode(reflectance, valid)
    if dtype == "float32":
        np.testing.assert_allclose(again[valid], dn[valid], rtol=1e-5, atol=1e-6 * (1 + abs(offset)) / scale)
    else:
        assert np.array_equal(again, dn)


@given(was=dtypes, dtype=dtypes, scale=scales, offset=offsets)
def test_reflectance_from_0_to_1_fits_every_other_data_type(was: str, dtype: str, scale: float, offset: float) -> None:
    band = Band("B", scale, offset, False, "red", {"wl": "665"})
    (made,) = output_of(scene(was, (band,)), [SAME], (16, 16), dtype=dtype).bands
    assert (made.description, made.color, made.tags) == (band.description, band.color, band.tags)
    if dtype == was:
        assert made == band
        return
    assert made.declared
    same = (made.scale, made.offset) == (scale, offset)
    assert same or (made.scale, made.offset) == (ASSUMED_SCALE[dtype], 0.0)
    if np.can_cast(was, dtype):
        assert same
    else:
        limits = np.iinfo(dtype)
        low, high = limits.min * made.scale + made.offset, limits.max * made.scale + made.offset
        assert low <= 0 and high >= 1 - 1e-9
        if was == "float32":  # fractions lose at most what is usual for the type
            assert made.scale <= ASSUMED_SCALE[dtype] * (1 + 1e-6)


@pytest.mark.parametrize(
    ("was", "scale", "offset", "dtype", "kept"),
    [
        ("float32", 1e-4, -0.1, "uint16", True),
        ("float32", 1e-4 * (1 + 1e-10), -0.1, "uint16", True),  # a scale that went through float32 is still that scale
        ("float32", 1.1e-4, -0.1, "uint16", False),
        ("float32", 1e-4, 0.1, "uint16", False),  # 0 lies below its lowest number
        ("uint16", 1e-4, 0.0, "uint8", False),
        ("uint16", 0.01, 0.0, "uint8", True),
        ("uint16", 1e-4, 0.0, "int16", True),
        ("uint16", 2e-5, 0.0, "int16", False),
        ("int16", 1e-4, 0.0, "uint16", True),
        ("int16", 1e-4, 0.1, "uint16", False),
        ("uint8", 0.01, 0.3, "int16", True),
    ],
)
def test_a_scale_is_kept_where_the_new_type_holds_0_to_1(
    was: str, scale: float, offset: float, dtype: str, kept: bool
) -> None:
    (made,) = output_of(scene(was, (Band("B", scale, offset, False),)), [SAME], (16, 16), dtype=dtype).bands
    assert (made.scale, made.offset) == ((scale, offset) if kept else (ASSUMED_SCALE[dtype], 0.0))
    assert made.declared


@given(was=dtypes, dtype=dtypes, nodata=st.none() | st.sampled_from([0.0, 255.0, -9999.0, 0.5, 70000.0, math.nan]))
def test_the_nodata_value_exists_in_the_data_type(was: str, dtype: str, nodata: float | None) -> None:
    assume(nodata is None or has_value(was, nodata))
    out = output_of(
        scene(was, nodata=nodata, mask_kind="none" if nodata is None else "nodata"), [SAME], (8, 8), dtype=dtype
    )
    if out.nodata is not None:
        assert has_value(dtype, out.nodata)
    if nodata is not None and has_value(dtype, nodata):
        assert out.nodata == nodata or (math.isnan(nodata) and math.isnan(out.nodata or 0))
    elif dtype != "float32" and (nodata is not None or was == "float32"):
        assert out.nodata == np.iinfo(dtype).min
    else:
        assert out.nodata is None


@pytest.mark.parametrize(("kind", "mask"), [("mask", True), ("alpha", False), ("none", False)])
def test_masks_stay_masks_but_for_what_may_be_missing_in_one_band(kind: str, mask: bool) -> None:
    for was, dtype in (("uint16", "uint8"), ("float32", "float32")):
        out = output_of(scene(was, mask_kind=kind), [SAME], (16, 16), dtype=dtype)
        assert (out.mask, out.nodata) == (mask, None)
    out = output_of(scene("float32", mask_kind=kind), [SAME], (16, 16), dtype="uint8")
    assert (out.mask, out.nodata) == (False, 0.0)  # NaN in one band needs a value


def test_the_value_of_missing_pixels() -> None:
    def missing(dtype: str, nodata: float | None) -> float:
        return dataclasses.replace(output_of(scene(), [SAME], (8, 8)), dtype=dtype, nodata=nodata).missing

    assert [missing("uint8", 7), missing("uint8", None), missing("int16", -9999)] == [7, 0, -9999]
    assert math.isnan(missing("float32", None))


@given(was=dtypes, dtype=dtypes, seed=st.integers(0, 99))
def test_what_can_be_seen_at_all_never_vanishes(was: str, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    most = opaque(was)
    alpha = (rng.uniform(0, most, 30) if was == "float32" else rng.integers(0, most, 30, endpoint=True)).astype(was)
    alpha[:3] = 0, most, alpha[2]
    made = recoded_alpha(alpha, dtype)
    assert made.dtype == dtype
    assert made[0] == 0 and made[1] == opaque(dtype)
    assert np.array_equal(made > 0, alpha > 0)
    order = np.argsort(alpha, kind="stable")
    assert (np.diff(made[order].astype(np.float64)) >= 0).all()
    np.testing.assert_allclose(
        made / opaque(dtype), alpha / most, atol=1 / min(opaque(dtype), 1e9) if dtype != "float32" else 1e-6
    )
    if was == dtype:
        assert made is alpha


def test_alpha_that_is_no_number_cannot_be_seen() -> None:
    alpha = np.array([np.nan, -1.0, 0.5, 2.0], np.float32)
    assert recoded_alpha(alpha, "uint8").tolist() == [0, 0, 128, 255]


UNSURE = ModelSpec("unsure", "other", out_per_band=2)
LABELLED = ModelSpec("labelled", "landcover", bands=2, out_bands=2, labels=("Forest", "River"))
MADE = ModelSpec("made", "other", bands=2, out_bands=3)


def test_a_band_is_followed_by_its_uncertainty_without_an_offset() -> None:
    out = output_of(scene(), [UNSURE], (16, 16))
    assert [b.description for b in out.bands] == ["B04", "B04 uncertainty", None, "band 2 uncertainty"]
    assert [(b.scale, b.offset) for b in out.bands] == [(1e-4, 0.0), (1e-4, 0.0), (2e-4, -0.1), (2e-4, 0.0)]
    assert [b.declared for b in out.bands] == [True] * 4
    assert pictures(out.bands) == [0, 2]
    assert pictures(out.bands[1::2]) == [0, 1], "without others, they are the picture"


def test_bands_that_a_model_makes_are_named_and_scaled_for_their_data_type() -> None:
    assert [b.description for b in output_of(scene(), [MADE], (16, 16)).bands] == ["made 1", "made 2", "made 3"]
    for dtype in DTYPES:
        bands = output_of(scene(dtype), [LABELLED], (16, 16)).bands
        assert [(b.description, b.scale, b.offset, b.declared) for b in bands] == [
            (name, ASSUMED_SCALE[dtype], 0.0, True) for name in ("Forest", "River")
        ]
    through = ModelSpec("through", "other", bands=2, out_bands=2)
    assert output_of(scene(), [through], (16, 16)).bands == scene().bands


def test_chains_multiply_their_scales() -> None:
    twice, thrice = ModelSpec("a", "other", scale=2), ModelSpec("b", "other", scale=3)
    out = output_of(scene(), [twice, thrice], (16, 20), provenance={"models": ["a", "b"]})
    assert out.grid.same_as(GRID.scaled(6)) and out.block == (96, 120)
    assert out.shape == (2, 240, 360) and out.nbytes == 2 * 240 * 360 * 2
    assert out.tags == {"SENSOR": "MSI"} and out.provenance == {"models": ["a", "b"]}


def test_what_cannot_be_made_is_refused() -> None:
    three = ModelSpec("three", "other", bands=3)
    with pytest.raises(UsageError, match=r"three wants 3 bands together, a\.tif gives 2; choose .* such as bands red"):
        output_of(scene(), [three], (16, 16))
    with pytest.raises(UsageError, match=r"wants 3 bands together, a\.tif gives 4"):
        output_of(scene(), [UNSURE, three], (16, 16))
    with pytest.raises(UsageError, match="dtype must be one of uint8, uint16, int16, float32, got 'complex64'"):
        output_of(scene(), [SAME], (16, 16), dtype="complex64")


def test_an_alpha_band_comes_last_and_is_stored_as_it_is() -> None:
    given_scene = dataclasses.replace(scene(), alpha=_alpha(), mask_kind="alpha")
    out = output_of(given_scene, [UNSURE], (16, 16))
    assert out.bands[-1] == Band("alpha", 1.0, 0.0, False, "alpha")
    assert len(out.bands) == 5
    assert [b.color for b in as_shares(out).bands] == ["undefined"] * 4


def _alpha() -> Any:
    return (Reader.__new__(Reader), 3)


def test_a_class_map_is_one_byte_a_pixel_without_a_mask() -> None:
    out = output_of(scene(mask_kind="mask"), [LABELLED], (16, 16))
    assert out.mask
    made = as_classes(out, LABELLED.labels)
    assert (made.dtype, made.nodata, made.mask, made.grid) == ("uint8", MISSING, False, out.grid)
    (band,) = made.bands
    assert (band.description, band.scale, band.offset, band.color) == ("land cover", 1.0, 0.0, "palette")
    assert [c.name for c in made.categories] == ["Forest", "River"]
    assert as_classes(out, ["x"]).categories[0].name == "x"
    assert len(as_classes(out, ["x"] * MAX_CLASSES).categories) == MAX_CLASSES
    for names in ([], ["x"] * (MAX_CLASSES + 1)):
        with pytest.raises(UsageError, match=f"1 to {MAX_CLASSES} named classes, the model has {len(names)}"):
            as_classes(out, names)


def test_shares_are_floats_that_mean_what_they_say() -> None:
    out = output_of(
        scene("int16", (Band("a", 1e-4, -0.1, True), Band("b", 1e-4, 0.2, True)), 7.0, "mask"), [SAME], (8, 8)
    )
    made = as_shares(out)
    assert made.dtype == "float32" and math.isnan(made.nodata or 0) and not made.mask
    assert [(b.description, b.scale, b.offset) for b in made.bands] == [("a", 1.0, 0.0), ("b", 1.0, 0.0)]


@given(block=st.tuples(st.integers(1, 3000), st.integers(1, 3000)))
def test_chunks_are_the_largest_parts_of_a_block_that_are_no_specks(block: tuple[int, int]) -> None:
    out = dataclasses.replace(output_of(scene(), [SAME], (8, 8)), block=block)
    for side, chunk in zip(block, out.chunk, strict=True):
        assert side % chunk == 0
        best = max(d for d in range(1, min(side, CHUNK) + 1) if side % d == 0)
        assert chunk == (best if best >= min(64, side) else side)


@pytest.mark.parametrize("axis", ["LINE", "SAMP"])
def test_polynomials_that_cannot_be_read_are_left_out(axis: str) -> None:
    rpc = {f"{name}_{kind}": "30" for name in ("LINE", "SAMP") for kind in ("OFF", "SCALE")} | {"HEIGHT_OFF": "7"}
    twice = ModelSpec("a", "other", scale=2)

    def domains(rpc: dict[str, str], spec: ModelSpec) -> dict[str, dict[str, str]]:
        given_scene = dataclasses.replace(scene(), tag_domains={"RPC": rpc, "IMAGERY": {"CLOUDCOVER": "3"}})
        return output_of(given_scene, [spec], (8, 8)).tag_domains

    made = domains(rpc, twice)["RPC"]
    # the centre of the old pixel 30 lies between the centres of the new pixels 60 and 61
    assert (made[f"{axis}_OFF"], made[f"{axis}_SCALE"], made["HEIGHT_OFF"]) == ("60.5", "60.0", "7")
    assert domains(rpc, SAME)["RPC"] == rpc
    for wrong in (rpc | {f"{axis}_OFF": "far"}, {k: v for k, v in rpc.items() if k != f"{axis}_SCALE"}):
        assert domains(wrong, twice) == {"IMAGERY": {"CLOUDCOVER": "3"}}
        assert domains(wrong, SAME)["RPC"] == wrong
