"""Reasons not to enhance a scene, found before any work is done, and what a person should know of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.outputs.outputs import pictures
from scenelift.pipeline.scenes.scenes import Scene
from scenelift.pipeline.tiles import sample_windows

BELIEVABLE = 5.0
"""Reflectance above which nothing on Earth lies but a mirror turned to the sun."""
BELOW, OFTEN = -0.02, 0.05
"""Reflectance below which atmospheric correction rarely ends, and the share of pixels there that cannot be chance."""
COMMON = 0.2, 0.98
"""Shares of all pixels between which one value in every band, the least or the largest, is probably no image."""
FACTORS = (2, 3, 4)
"""Enlargements that are looked for."""
ALIKE, UNLIKE = 0.99, 0.5
"""Share of equal neighbours within squares of an enlarged image, at least, and between them, at most."""
FEW = 16
"""Values that an alpha band drawn by hand or by a program may have; one that is data has more."""


def no_image(scene: Scene) -> str | None:
    """Return why a scene must not be averaged (it holds classes or quality flags), None for an image."""
    for number, band in zip(scene.numbers, scene.bands, strict=True):
        if band.flags:
            return f"band {number} is no image: {band.flags}"
    return None


def check_image(scene: Scene) -> None:
    """Refuse classes, palettes and quality flags.

    Raises
    ------
    UsageError
    """
    if reason := no_image(scene):
        raise UsageError(
            f"{scene.name}: {reason}. Averages of such numbers mean nothing: leave it out with --bands, or turn a "
            "palette into colours first (rio or gdal_translate -expand rgb)"
        )


def doubts(scene: Scene, network: bool) -> list[str]:
    """Return lines for people about values that are hard to believe.

    Parameters
    ----------
    scene : Scene
    network : bool
        Whether a trained network is to see the values: what is no reflectance it turns into noise.

    Raises
    ------
    UsageError
        If a network would be given values that cannot be reflectance, and the user has not said how to read them.
    """
    found = [] if scene.alpha is None else _alpha_of_data(scene)
    found += _twice_offset(scene)
    if network:
        found += _undeclared(scene) + _enlarged(scene) + _of_errors(scene)
    certain = scene.source.scale is not None or (scene.dtype != "float32" and not scene.bands[0].declared)
    if certain:
        return found
    every = np.concatenate([np.abs(region.values[region.valid]) for region in scene.sample])
    high = float(np.percentile(every, 95)) if every.size else 0.0
    if high <= BELIEVABLE:
        return found
    declared = "as the file's scale and offset say" if scene.bands[0].declared else "no scale is declared"
    problem = (
        f"{scene.name}: values such as {high:.4g} cannot be reflectance ({scene.dtype}, {declared}); say how to read "
        "them: --scale 0.0001 for numbers up to 10000, --scale 0.01 for percent, --scale 1 to take them as they are"
    )
    if network:
        raise UsageError(problem)
    return [*found, problem]


def _of_errors(scene: Scene) -> list[str]:
    """Tell of bands of our own outputs that hold uncertainties and bounds: they are sharpened as images are."""
    images = pictures(scene.bands)
    others = len(scene.bands) - len(images)
    if not others:
        return []
    listed = ",".join(str(scene.numbers[index]) for index in images)
    return [f"{others} bands hold uncertainties or bounds: --bands {listed} leaves them out"]


def _undeclared(scene: Scene) -> list[str]:
    """Tell of a value so common that it probably marks missing pixels, where nothing says which are missing."""
    if scene.mask_kind != "none" or scene.source.nodata is not None:
        return []
    values = np.concatenate([region.values.reshape(len(scene.bands), -1) for region in scene.sample], 1)
    values = values[:, np.isfinite(values).all(0)]
    scales, offsets = (np.array([getattr(band, name) for band in scene.bands]) for name in ("scale", "offset"))
    for extreme in (np.min, np.max):
        if not values.size:
            break
        value = extreme(values, axis=1)
        share = float((values == value[:, None]).all(0).mean())
        numbers = np.round((value - offsets) / scales, 4)  # as they are stored
        if COMMON[0] <= share <= COMMON[1] and (numbers == numbers[0]).all():
            missing = f"{numbers[0]:.6g}"
            much = f"{100 * share:.0f} % of the pixels are {missing} in every band"
            return [f"{much}: if they are missing, say --nodata {missing}"]
    return []


def _enlarged(scene: Scene) -> list[str]:
    """Tell of an image that was enlarged by nearest neighbour: its pixels come in equal squares."""
    bands = list(scene.guides)
    windows = [region.values[bands] for region in scene.sample if np.ptp(region.values[bands]) > 0]
    for factor in FACTORS:
        if windows and np.mean([_in_squares(values, factor) for values in windows]) > 0.5:
            shrink = f"gdal_translate -r nearest -outsize {100 / factor:.4g}% 0"
            found = f"pixels come in equal squares of {factor} x {factor}"
            return [f"{found}, as of an image enlarged by nearest neighbour: shrink it first ({shrink})"]
    return []


def _in_squares(values: NDArray[np.float32], factor: int) -> bool:
    """Whether neighbours (C, H, W) are equal but at every so many rows and columns."""
    for axis in (1, 2):
        same = np.moveaxis(np.diff(values, axis=axis) == 0, axis, 0)
        if not same.size:  # one row or column has no neighbours
            return False
        shares = same.reshape(len(same), -1).mean(1)
        places = np.arange(len(same)) % factor
        if not any(
            shares[places == edge].mean() < UNLIKE and shares[places != edge].mean() > ALIKE
            for edge in range(factor)
            if (places == edge).any() and (places != edge).any()
        ):
            return False
    return True


def _twice_offset(scene: Scene) -> list[str]:
    """Tell of a catalogue's offset that the pixels contradict: it was taken off already (some catalogues err there)."""
    if not any(offset for _, offset, _ in scene.source.told) or scene.source.offset is not None:
        return []
    values = np.concatenate([region.values[region.valid] for region in scene.sample])
    below = float((values < BELOW).mean()) if values.size else 0.0
    if below < OFTEN:
        return []
    return [
        f"{100 * below:.0f} % of the values are below reflectance {BELOW:g} by the catalogue's offset: it was probably "
        "taken off already; --offset 0 leaves it out"
    ]


def _alpha_of_data(scene: Scene) -> list[str]:
    """Tell of an alpha band that looks like data, as the near infrared of aerial photographs does."""
    if scene.alpha is None:
        return []
    reader, index = scene.alpha
    planes = [reader.read([index], window)[0].ravel() for window in sample_windows(scene.grid.shape)]
    values = np.concatenate(planes)
    between = (values != 0) & (values != values.max())
    if between.mean() < 0.5 or len(np.unique(values)) <= FEW:
        return []
    every = ",".join(str(n) for n in sorted((*scene.numbers, *scene.hidden)))
    return [f"band {index} is marked as alpha but looks like data: to enhance it too, add --bands {every}"]
