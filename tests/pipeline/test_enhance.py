"""The engine: any cut of the work gives the bits of one whole-image pass; nodata never bleeds."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.builders import integer_net, noise_image, whole_image

from scenelift.models.spec import ModelSpec
from scenelift.pipeline.enhance import context, enhance_region
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.nodata import fill_nodata
from scenelift.pipeline.regions import Region
from scenelift.pipeline.tiles import TileGrid, Window


def run(values, valid, nets, block, batch=3, masked=True):  # type: ignore[no-untyped-def]
    """Enhance an image block by block, each block seeing only the context it asked for."""
    bands, height, width = values.shape
    for net in nets:
        bands = net.spec.out_bands or bands * net.spec.out_per_band
    k = int(np.prod([n.spec.scale for n in nets]))
    out = np.full((bands, height * k, width * k), np.nan, np.float32)
    mask = np.zeros(out.shape, bool)
    for target in TileGrid((height, width), block):
        wide = context((height, width), target, [n.spec for n in nets], masked)[0]
        rows, cols = wide.slices()
        region = Region(wide, values[:, rows, cols].copy(), valid[:, rows, cols].copy())
        result = enhance_region(region, target, (height, width), nets, masked=masked, batch=batch)
        assert result.window == target.scaled(k)
        out[(slice(None), *result.window.slices())] = result.values
        mask[(slice(None), *result.window.slices())] = result.valid
    return out, mask


odd = st.integers(1, 75)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(odd, odd),
    block=st.tuples(odd, odd),
    scale=st.integers(1, 4),
    radius=st.integers(0, 5),
    extra=st.integers(0, 3),
    patch=st.sampled_from([32, 64]),
    batch=st.integers(1, 7),
)
def test_any_cut_equals_one_whole_image_pass(shape, block, scale, radius, extra, patch, batch) -> None:  # type: ignore[no-untyped-def]
    values = noise_image(1, (2, *shape)).astype(np.float32)
    net = integer_net(scale, radius, patch, radius + extra)
    got, mask = run(values, np.ones(values.shape, bool), [net], block, batch, masked=False)
    assert np.array_equal(got, whole_image(net, values))
    assert mask.all()


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(odd, odd),
    block=st.tuples(odd, odd),
    scales=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    radii=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    holes=st.booleans(),
)
def test_a_chain_equals_its_models_one_after_the_other(shape, block, scales, radii, holes) -> None:  # type: ignore[no-untyped-def]
    values = noise_image(2, (1, *shape), high=50).astype(np.float32)
    valid = np.random.default_rng(3).random(values.shape) > (0.3 if holes else 0)
    nets = [integer_net(k, r, 32) for k, r in zip(scales, radii, strict=True)]
    got, mask = run(values, valid, nets, block)
    first, first_mask = run(values, valid, nets[:1], shape)
    second, second_mask = run(first, first_mask, nets[1:], first.shape[1:])
    assert np.array_equal(mask, second_mask)
    if not holes:
        assert np.array_equal(got, second)
    np.testing.assert_allclose(got, second, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(odd, odd),
    block=st.tuples(odd, odd),
    scale=st.integers(1, 3),
    radius=st.integers(0, 5),
    density=st.sampled_from([0.02, 0.3, 0.9, 0.995]),
    seed=st.integers(0, 10_000),
)
def test_holes_do_not_depend_on_the_cut_either(shape, block, scale, radius, density, seed) -> None:  # type: ignore[no-untyped-def]
    values = noise_image(seed, (2, *shape), high=200).astype(np.float32)
    valid = np.random.default_rng(seed).random(values.shape) > density
    garbage = values.copy()
    garbage[~valid] = np.nan  # whatever lies under the mask must not matter
    net = integer_net(scale, radius, 32)
    got, mask = run(garbage, valid, [net], block)
    whole, _ = run(values, valid, [net], shape)
    assert np.array_equal(got, whole)
    assert np.array_equal(mask, valid.repeat(scale, 1).repeat(scale, 2))
    assert (got[~mask] == 0).all()


def test_a_valid_pixel_beside_a_hole_sees_its_own_surroundings_continued() -> None:
    values = np.full((1, 20, 40), 7.0, np.float32)
    valid = np.ones(values.shape, bool)
    valid[:, :, 20:] = False
    values[~valid] = -9999
    net = integer_net(1, 3, 32)
    got, mask = run(values, valid, [net], (20, 40))
    total = sum(1 + (3 * dy + 5 * dx) % 7 for dy in range(-3, 4) for dx in range(-3, 4))
    assert (got[mask] == 7 * total).all()


def test_fill_reaches_so_many_rings_and_no_farther() -> None:
    values = np.zeros((1, 11, 11), np.float32)
    valid = np.zeros(values.shape, bool)
    values[0, 5, 5], valid[0, 5, 5] = 3, True
    filled = fill_nodata(values, valid, 2)
    assert (filled[0, 3:8, 3:8] == 3).all()
    filled[0, 3:8, 3:8] = 0
    assert (filled == 0).all()


def test_blocks_read_no_more_than_halo_and_lattice_ask_for() -> None:
    spec = integer_net(2, 10, 256).spec
    target = Window(1024, 1024, 1024, 1024)
    assert context((10_000, 10_000), target, [spec], masked=False)[0] == target.expand(10)
    assert context((10_000, 10_000), target, [spec], masked=True)[0] == target.expand(20)
    assert context((10_000, 10_000), Window(0, 0, 1024, 1024), [spec], masked=False)[0] == Window(0, 0, 1034, 1034)


@dataclass(frozen=True)
class Beside:
    """Each band, then its negative: two bands for one."""

    spec: ModelSpec = field(default_factory=lambda: ModelSpec("beside", "other", patch=32, out_per_band=2))

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        return np.stack([patches, -patches], axis=2).reshape(len(patches), -1, *patches.shape[2:])


@dataclass(frozen=True)
class Mixed:
    """Three multiples of the sum of all bands."""

    spec: ModelSpec = field(default_factory=lambda: ModelSpec("mixed", "other", patch=32, out_bands=3))

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        total = patches.sum(axis=1, keepdims=True)
        return np.concatenate([total, 2 * total, 3 * total], axis=1)


@settings(max_examples=15)
@given(shape=st.tuples(odd, odd), block=st.tuples(odd, odd), seed=st.integers(0, 99), density=st.sampled_from([0, 0.3]))
def test_holes_of_models_that_make_other_bands(shape, block, seed, density) -> None:  # type: ignore[no-untyped-def]
    values = noise_image(seed, (2, *shape), high=200).astype(np.float32)
    valid = np.random.default_rng(seed).random(values.shape) >= density
    got, mask = run(values, valid, [Beside()], block)
    assert np.array_equal(mask, valid.repeat(2, 0)), "a band's companion is known where the band is"
    assert np.array_equal(got, np.where(mask, np.stack([values, -values], 1).reshape(4, *shape), 0))
    got, mask = run(values, valid, [Mixed()], block)
    both = valid.all(axis=0)
    assert np.array_equal(mask, np.broadcast_to(both, (3, *shape))), "bands that were mixed need every band"
    total = values.sum(axis=0)
    assert np.array_equal(got, np.where(both, np.stack([total, 2 * total, 3 * total]), 0))


@dataclass
class Counting:
    """Counts what it is given."""

    net: object
    batches: list[int] = field(default_factory=list)

    @property
    def spec(self) -> ModelSpec:
        return self.net.spec  # type: ignore[attr-defined,no-any-return]

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        self.batches.append(len(patches))
        return self.net(patches)  # type: ignore[operator,no-any-return]


@pytest.mark.parametrize(("batch", "sizes"), [(0, [1] * 6), (1, [1] * 6), (4, [4, 2]), (6, [6]), (9, [6])])
def test_every_patch_goes_through_once_and_no_more_than_a_batch_at_once(batch: int, sizes: list[int]) -> None:
    values = noise_image(1, (1, 64, 96)).astype(np.float32)
    net = Counting(integer_net(2, 1, 32))
    run(values, np.ones(values.shape, bool), [net], (64, 96), batch)
    assert net.batches == sizes


def test_patches_without_any_data_are_left_out() -> None:
    values = noise_image(1, (2, 64, 96)).astype(np.float32)
    valid = np.ones(values.shape, bool)
    valid[:, :32] = False
    valid[0, 40, :64] = False
    net = Counting(integer_net(1, 1, 32))
    run(values, valid, [net], (64, 96), 1)
    assert net.batches == [1] * 3
    valid[:] = False
    got, mask = run(values, valid, [net], (64, 96), 1)
    assert net.batches == [1] * 3 and not mask.any() and (got == 0).all()


@dataclass(frozen=True)
class Broken:
    """Answers with another shape than it promises."""

    spec: ModelSpec
    cut: tuple[int, ...]

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        side = patches.shape[2] * self.spec.scale
        return np.zeros((len(patches), patches.shape[1], side, side), np.float32)[tuple(map(slice, self.cut))]


@pytest.mark.parametrize("cut", [(1, 2, 64, 64), (2, 1, 64, 64), (2, 2, 63, 64), (2, 2, 64, 63)])
def test_a_model_that_answers_with_another_shape_is_named(cut: tuple[int, ...]) -> None:
    net = Broken(ModelSpec("broken", "other", scale=2, patch=32), cut)
    values = noise_image(1, (2, 32, 64)).astype(np.float32)
    with pytest.raises(UsageError, match=r"model broken returned an array of shape .*, expected \(2, 2, 64, 64\)"):
        run(values, np.ones(values.shape, bool), [net], (32, 64), 2)


def test_context_grows_back_through_a_chain() -> None:
    first, second = (integer_net(k, r, 32).spec for k, r in ((2, 3), (3, 5)))
    shape, target = (2000, 2000), Window(960, 960, 64, 64)
    read, between = context(shape, target, [first, second], masked=False)
    # the second model wants five pixels around its cells of 32, on the grid that the first has refined
    assert between == Window(1920, 1920, 128, 128).expand(5)
    assert read == Window(928, 928, 128, 128).expand(3)
    assert context(shape, target, [replace(first, patch=64), second], masked=False)[0] == Window(
        896, 896, 192, 192
    ).expand(3)
    masked = context(shape, target, [first, second], masked=True)
    assert masked[1] == Window(1920, 1920, 128, 128).expand(10)
