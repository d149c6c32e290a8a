"""`scenelift quicklook`: a scene before and after as one picture, beside plain interpolation, under one stretch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from scenelift.models.classical.classical import classical
from scenelift.pipeline.enhance import context, enhance_region
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.files import write_durably
from scenelift.pipeline.jobs.checks import check_image
from scenelift.pipeline.outputs.outputs import pictures
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.quicklooks import Stretch, channels, png
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.tiles import Window
from scenelift.workflows.pictures import check_picture
from scenelift.workflows.settings import Crop

PANELS = ("nearest", "bicubic", "after")
"""What may stand side by side: the scene before in its own pixels, interpolated, and after."""
SIDE = 192
"""Side of the window that is shown by default, pixels of the scene before."""
PANEL = 560
"""Side up to which panels are shown larger, each pixel of the picture repeated, picture pixels."""
MOST = 4096
"""Longest side of a window, pixels of the scene after."""
LOOKED_AT = 12
"""Places along each axis of which the one with most detail is shown."""
GAP, LINE = 8, 16
"""Pixels between panels, and of a line of text."""
OFF = 1e-3
"""Part of a pixel by which two grids may lie off: programs round differently."""


@dataclass(frozen=True)
class Look:
    """What a picture shows."""

    crop: Crop = field(default_factory=Crop)
    panels: tuple[str, ...] = ("bicubic", "after")
    percentiles: tuple[float, float] = (2.0, 98.0)
    """Of the scene before, in the window: shown as black and white in every panel."""

    def __post_init__(self) -> None:
        if not self.panels or not {*self.panels} <= {*PANELS}:
            raise UsageError(f"--panels must be some of {', '.join(PANELS)}, got {','.join(self.panels)!r}")
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise UsageError(f"--percentiles must be two from 0 to 100, such as 2,98, got {self.percentiles}")


@dataclass(frozen=True)
class Shown:
    """What was drawn."""

    picture: str
    window: list[int]
    """First column and row, width and height, pixels of the scene before."""
    scale: int
    bands: list[str]
    """Shown as red, green and blue."""
    low: list[float]
    """Reflectance shown as black, of each of them."""
    high: list[float]
    panels: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def describe(self) -> str:
        """Return one line for people."""
        col, row, width, height = self.window
        seen = ", ".join(
            f"{name} {low:.3g} to {high:.3g}" for name, low, high in zip(self.bands, self.low, self.high, strict=True)
        )
        where = f"columns {col} to {col + width}, rows {row} to {row + height}"
        return f"{self.picture}: {' | '.join(self.panels)}; {where}; {seen}"


def quicklook(before: SceneSource, after: SceneSource, picture: Path, look: Look | None = None) -> Shown:
    """Draw a window of a scene before and after side by side.

    All panels have one stretch, from percentiles of the scene before: a panel that looks brighter is brighter.

    Parameters
    ----------
    before : SceneSource
        Bands that it names are shown as red, green and blue; three, or one in grey.
    after : SceneSource
        What was made of it, whole or a part: the same place on a grid a whole number of times as fine.
    picture : Path
        PNG to write.
    look : Look, optional
        By default the window of 192 pixels with most detail, interpolated bicubically beside the scene after.

    Raises
    ------
    UsageError
        If the grids do not fit, the bands cannot be told, or the window lies outside.
    SceneError
        If a scene cannot be read.
    """
    look = look or Look()
    check_picture(picture)
    one = _shown(open_scene(before), before.bands)
    names = [band.description or f"band {number}" for number, band in zip(one.numbers, one.bands, strict=True)]
    other = _like(one, after)
    scale, covered = _fit(one, other)
    window = look.crop.on(one.grid)
    if window is None:
        window = most_detailed(one, covered) if look.crop == Crop() else covered
    elif window.intersect(covered) != window:
        raise UsageError(f"{other.name} covers {_told(covered)} of {one.name} only: choose a --window inside")
    if max(window.shape) * scale > MOST:
        raise UsageError(f"a picture of {_told(window)} would be larger than {MOST} pixels: choose a smaller --window")
    plain = one.read(window).with_nan()
    flat = plain.reshape(len(plain), -1)
    if np.isnan(flat).all(axis=1).any():
        raise UsageError(f"{one.name} has no data in {_told(window)}: choose another --window")
    low, high = np.nanpercentile(flat, look.percentiles, axis=1)
    origin = _origin(one, other, scale)
    views = {
        "nearest": lambda: plain.repeat(scale, 1).repeat(scale, 2),
        "bicubic": lambda: _bicubic(one, window, scale),
        "after": lambda: other.read(window.scaled(scale).moved(-origin[0], -origin[1])).with_nan(),
    }
    stretch, shape = Stretch(*(np.broadcast_to(end, 3) for end in (low, high))), (3, *window.scaled(scale).shape)
    panels = {title: stretch(np.broadcast_to(views[name](), shape)) for name, title in _titles(look, scale)}
    shown = Shown(
        str(picture),
        [window.col, window.row, window.width, window.height],
        scale,
        names,
        [float(v) for v in low],
        [float(v) for v in high],
        list(panels),
    )
    write_durably(picture, png(_side_by_side(panels, shown)))
    return shown


def _titles(look: Look, scale: int) -> list[tuple[str, str]]:
    """Return the panels and their titles; where nothing is enlarged, there is nothing to interpolate."""
    before = {"nearest": "before", "bicubic": "before, bicubic" if scale > 1 else "before", "after": "after"}
    return list({title: (name, title) for name in look.panels for title in [before[name]]}.values())


def _told(window: Window) -> str:
    return f"columns {window.col} to {window.stop_col} and rows {window.row} to {window.stop_row}"


def _shown(scene: Scene, given: Sequence[int | str] | None) -> Scene:
    """Return the scene with the bands alone that are shown: one or three."""
    check_image(scene)
    if given is not None and len(given) not in (1, 3):
        raise UsageError(f"--bands must name three bands (red, green, blue) or one, got {len(given)}")
    chosen = list(range(len(given))) if given is not None else list(dict.fromkeys(channels(scene)))
    return open_scene(replace(scene.source, bands=tuple(scene.numbers[i] for i in chosen)))


def _like(one: Scene, source: SceneSource) -> Scene:
    """Open the other scene with the same bands: those of the same names, else those at the same places."""
    scene = open_scene(replace(source, bands=None))
    check_image(scene)
    names = [band.description for band in scene.bands]
    wanted = [band.description for band in one.bands]
    if all(name and names.count(name) == 1 for name in wanted):
        at = [names.index(name) for name in wanted]
    else:
        plain, every = pictures(scene.bands), open_scene(replace(one.source, bands=None))
        if len(plain) == len(one.bands):
            at = plain
        elif len(plain) == len(every.bands):
            at = [plain[every.numbers.index(number)] for number in one.numbers if number in every.numbers]
        else:
            raise UsageError(
                f"{scene.name} has no bands named {', '.join(str(name) for name in wanted)}, and another number of "
                f"bands than {one.name}: choose bands that both have with --bands"
            )
    return open_scene(replace(source, bands=tuple(scene.numbers[i] for i in at)))


def _fit(one: Scene, other: Scene) -> tuple[int, Window]:
    """Return how many times finer the other grid is, and the window of the first that it covers."""
    lies = ~one.grid.transform @ other.grid.transform
    scale = round(1 / lies.a) if lies.a > 0 else 0
    problem = None
    if one.grid.crs != other.grid.crs:
        problem = "their coordinate reference systems differ"
    elif scale < 1 or max(abs(lies.a * scale - 1), abs(lies.e * scale - 1), abs(lies.b), abs(lies.d)) > OFF:
        problem = "the pixels of the second must be a whole number of times as small, along the same directions"
    elif max(abs(at * scale - round(at * scale)) for at in (lies.c, lies.f)) > OFF * 10:
        problem = "the second lies aside by a part of a pixel: warp the first onto the grid of the second first"
    if problem:
        raise UsageError(f"{one.name} and {other.name} do not fit: {problem}")
    row, col = _origin(one, other, scale)
    stop = (row + other.grid.height) // scale, (col + other.grid.width) // scale
    covered = Window.from_bounds(-(-row // scale), -(-col // scale), *stop).clip(one.grid.shape)
    if not covered.size:
        raise UsageError(f"{one.name} and {other.name} have no ground in common")
    return scale, covered


def _origin(one: Scene, other: Scene, scale: int) -> tuple[int, int]:
    """Return row and column of the other scene's first pixel on its grid if that began where the first scene's does."""
    lies = ~one.grid.transform @ other.grid.transform
    return round(lies.f * scale), round(lies.c * scale)


def most_detailed(scene: Scene, inside: Window, side: int = SIDE) -> Window:
    """Return the window of a scene with the largest local gradients, of places spread evenly; always the same.

    Parameters
    ----------
    scene : Scene
    inside : Window
        Where to look.
    side : int
        Of the window, pixels; less where there is less to look in.
    """
    shape = min(side, inside.height), min(side, inside.width)
    rows, cols = (
        sorted({round(p) for p in np.linspace(0, n - size, min(LOOKED_AT, -(-n // size)))})
        for n, size in zip(inside.shape, shape, strict=True)
    )
    places = [Window(inside.row + row, inside.col + col, *shape) for row in rows for col in cols]
    return max(places, key=lambda place: _detail(scene, place))


def _detail(scene: Scene, window: Window) -> float:
    """Return the mean of the local gradients, those of a few glittering roofs cut; missing pixels have none."""
    found = []
    for band in scene.read(window).with_nan():
        steps = [np.abs(np.diff(band, axis=axis)) for axis in (0, 1)]
        every = np.nan_to_num(np.concatenate([step.ravel() for step in steps]))
        found.append(float(np.minimum(every, np.percentile(every, 99.5)).mean()) if every.size else 0.0)
    return sum(found)


def _bicubic(scene: Scene, window: Window, scale: int) -> NDArray[np.float32]:
    """Interpolate a window, with the pixels around it."""
    if scale == 1:
        return scene.read(window).with_nan()
    method, shape = classical("bicubic", scale), scene.grid.shape
    wide = context(shape, window, [method.spec], scene.masked)[0]
    return enhance_region(scene.read(wide), window, shape, [method], masked=scene.masked).with_nan()


def _side_by_side(panels: dict[str, NDArray[np.uint8]], shown: Shown) -> NDArray[np.uint8]:
    """Return panels beside each other with their titles above, and what they show below."""
    height, width = next(iter(panels.values())).shape[:2]
    zoom = max(1, PANEL // max(height, width))
    height, width = height * zoom, width * zoom
    text = shown.describe().partition("; ")[2]
    whole = max(len(panels) * (width + GAP) + GAP, 360)
    canvas = Image.new("RGB", (whole, height + 2 * (GAP + LINE)), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=12)
    for number, (title, picture) in enumerate(panels.items()):
        left = GAP + number * (width + GAP)
        draw.text((left, GAP // 2), title, "black", font)
        canvas.paste(Image.fromarray(picture.repeat(zoom, 0).repeat(zoom, 1)), (left, GAP + LINE))
    draw.text((GAP, GAP + LINE + height + GAP // 2), text, "black", font)
    return np.asarray(canvas)
