"""A model over a block of a scene: mirror at the scene's edge, fill nodata, run patches, put the cores together.

Two things make the result independent of how the work was cut:

- every pixel is computed from the one patch of a lattice fixed to the scene (`tiles.TileGrid`), and all patches of a
  run have one shape, so no library picks another kernel, another order of additions, for another tile or batch;
- the patch carries the model's whole halo, so for a halo of at least the receptive radius the lattice leaves no seam.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.nodata import fill_nodata
from scenelift.pipeline.regions import Region
from scenelift.pipeline.tiles import TileGrid, Window, patch_shape, reflect


class Spec(Protocol):
    """What the engine asks of a model; `scenelift.models.spec.ModelSpec` is one."""

    @property
    def name(self) -> str: ...
    @property
    def scale(self) -> int: ...
    @property
    def halo(self) -> int: ...
    @property
    def bands(self) -> int | None: ...
    @property
    def out_bands(self) -> int | None: ...
    @property
    def out_per_band(self) -> int: ...
    @property
    def multiple_of(self) -> int: ...
    @property
    def patch(self) -> int: ...


@runtime_checkable
class Enhancer(Protocol):
    """Anything that turns patches with a halo into enhanced cores."""

    @property
    def spec(self) -> Spec:
        """Scale, halo, bands and patch size."""
        ...

    def __call__(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Enhance a batch.

        Parameters
        ----------
        patches : ndarray of float32, shape (N, C, P + 2 * halo, P + 2 * halo)
            Reflectance. P differs from `spec.patch` only for scenes smaller than that. If the spec has a true
            `positioned`, the first pixel of each core in the scene, (N, 2) rows and columns, is a second argument.

        Returns
        -------
        ndarray of float32, shape (N, C', scale * P, scale * P)
            The cores. A sample's values must not depend on N or on its neighbours in the batch.
        """
        ...


def context(shape: tuple[int, int], target: Window, specs: Sequence[Spec], masked: bool) -> list[Window]:
    """Return what each stage must be given so that the last one yields `target`.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the scene before the first stage.
    target : Window
        Wanted window on the grid before the last stage's scaling is applied, i.e. of the *input* scene.
    specs : sequence of Spec
        The models, in the order they run.
    masked : bool
        Whether the scene can have nodata, which needs context of its own to be filled from.

    Returns
    -------
    list of Window
        For stage i, the window to be given to it, on its own input grid, inside the scene. The first is what must be
        read from the scene.
    """
    scales = np.cumprod([1, *(spec.scale for spec in specs)])
    wanted = target.scaled(int(scales[-2])) if specs else target
    windows: list[Window] = []
    for spec, scale in zip(reversed(specs), reversed(scales[:-1]), strict=True):
        here = shape[0] * int(scale), shape[1] * int(scale)
        lattice = TileGrid(here, patch_shape(here, spec.patch, spec.multiple_of))
        margin = spec.halo * (2 if masked else 1)
        need = lattice.cover(wanted).expand(margin).clip(here)
        windows.append(need)
        index = len(specs) - len(windows)
        if index:
            wanted = need.coarsened(specs[index - 1].scale)
    return windows[::-1]


def enhance_region(
    region: Region,
    target: Window,
    shape: tuple[int, int],
    enhancers: Sequence[Enhancer],
    *,
    masked: bool = True,
    batch: int = 1,
) -> Region:
    """Run a chain of models over one block.

    Parameters
    ----------
    region : Region
        The input pixels, at least the first window of :func:`context`.
    target : Window
        The block, on the input grid.
    shape : (int, int)
        Height and width of the whole input scene.
    enhancers : sequence of Enhancer
        Run one after the other; between two of them values stay float32 and masks are carried along.
    masked : bool
        As given to :func:`context`.
    batch : int
        Patches given to a model at once.

    Returns
    -------
    Region
        The block on the output grid. Where the input had no data, `valid` is False and the values are 0.
    """
    scale = math.prod(e.spec.scale for e in enhancers)
    window, out = target.scaled(scale), None
    for piece in enhance_pieces(region, target, shape, enhancers, masked=masked, batch=batch):
        if out is None:
            values = np.zeros((len(piece.values), *window.shape), np.float32)
            out = Region(window, values, np.zeros(values.shape, bool))
        rows, cols = piece.window.slices(window)
        out.values[:, rows, cols], out.valid[:, rows, cols] = piece.values, piece.valid
    if out is None:  # a block without any data, or no block at all
        bands = bands_of(len(region.values), [e.spec for e in enhancers])
        values = np.zeros((bands, *window.shape), np.float32)
        out = Region(window, values, np.zeros(values.shape, bool))
    return out


def bands_of(bands: int, specs: Sequence[Spec]) -> int:
    """Return how many bands a chain of models makes of so many."""
    for spec in specs:
        bands = spec.out_bands or bands * spec.out_per_band
    return bands


def enhance_pieces(
    region: Region,
    target: Window,
    shape: tuple[int, int],
    enhancers: Sequence[Enhancer],
    *,
    masked: bool = True,
    batch: int = 1,
) -> Iterator[Region]:
    """Run a chain of models over one block, and yield what the last one makes patch by patch.

    So whoever stores it need not hold a whole block in float32. Patches without any data are left out; the others
    are disjoint. Parameters as for :func:`enhance_region`.
    """
    windows = context(shape, target, [e.spec for e in enhancers], masked)
    scale = 1
    for index, enhancer in enumerate(enhancers[:-1]):
        here = shape[0] * scale, shape[1] * scale
        wanted = windows[index + 1].coarsened(enhancer.spec.scale)
        region = enhance_region(region, wanted, here, [enhancer], masked=masked, batch=batch)
        scale *= enhancer.spec.scale
    yield from _pieces(region, target.scaled(scale), (shape[0] * scale, shape[1] * scale), enhancers[-1], batch)


def _pieces(region: Region, target: Window, shape: tuple[int, int], enhancer: Enhancer, batch: int) -> Iterator[Region]:
    """Run one model over `target` (its own input grid), and yield the parts of it that each patch holds."""
    spec, k = enhancer.spec, enhancer.spec.scale
    out_bands = bands_of(len(region.values), [spec])
    lattice = TileGrid(shape, patch_shape(shape, spec.patch, spec.multiple_of))
    masked = not region.whole
    if masked:
        region = Region(region.window, fill_nodata(region.values, region.valid, spec.halo), region.valid)
    wanted = [p for p in lattice.covering(target) if not masked or _any_valid(region, p.intersect(target))]
    for group in _groups(wanted, batch):
        patches = np.stack([_patch(region, p, spec.halo, shape) for p in group])
        where = [np.array([(p.row, p.col) for p in group])] if getattr(spec, "positioned", False) else []
        cores = cast("Callable[..., NDArray[np.float32]]", enhancer)(patches, *where)
        expected = len(group), out_bands, lattice.cell[0] * k, lattice.cell[1] * k
        if cores.shape != expected:
            raise UsageError(f"model {spec.name} returned an array of shape {cores.shape}, expected {expected}")
        for core, patch in zip(cores, group, strict=True):
            inside = patch.intersect(target)
            window = inside.scaled(k)
            rows, cols = window.slices(patch.scaled(k))
            values = core[:, rows, cols]
            if not masked:
                yield Region(window, values, np.broadcast_to(True, values.shape))
                continue
            valid = _valid_after(region.crop(inside).valid, spec, out_bands)
            valid = valid.repeat(k, axis=1).repeat(k, axis=2) if k > 1 else valid
            yield Region(window, np.where(valid, values, np.float32(0)), valid)


def _valid_after(valid: NDArray[np.bool_], spec: Spec, out_bands: int) -> NDArray[np.bool_]:
    """Return where the bands that a model makes have data, on its input grid."""
    if guides := list(getattr(spec, "guides", ())):  # no other band is made without these, which are not changed
        own, valid = valid[guides], valid & valid[guides].all(axis=0)
        valid[guides] = own
    if spec.out_bands:  # bands were mixed: a pixel counts where every band had data
        return np.broadcast_to(valid.all(axis=0), (out_bands, *valid.shape[1:]))
    return valid.repeat(spec.out_per_band, axis=0) if spec.out_per_band > 1 else valid


def _groups(patches: list[Window], size: int) -> Iterator[list[Window]]:
    for start in range(0, len(patches), max(1, size)):
        yield patches[start : start + max(1, size)]


def _any_valid(region: Region, window: Window) -> bool:
    return bool(region.crop(window).valid.any())


def _patch(region: Region, patch: Window, halo: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return one patch with its halo, mirrored where it reaches beyond the scene."""
    wide = patch.expand(halo)
    if wide.intersect(region.window) == wide:
        return region.crop(wide).values
    rows = reflect(wide.row, wide.stop_row, shape[0], halo) - region.window.row
    cols = reflect(wide.col, wide.stop_col, shape[1], halo) - region.window.col
    return region.values[:, rows[:, None], cols[None, :]]
