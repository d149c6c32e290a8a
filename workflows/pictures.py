"""Pictures for people: crops side by side, all with the same stretch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.files import check_writable
from scenelift.pipeline.jobs.summary import STAGES, WORK
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.pipeline.tiles import TileGrid, Window

CROP = 96
"""Side of a crop, pixels of the 10 m scene."""


def before_after(coarse: Path, enhanced: Path, reference: Path, fine: Path, picture: Path) -> None:
    """Draw two rows: 20 m, enhanced to 10 m, real 10 m; and 10 m beside enhanced to 5 m.

    The crop is where the 10 m scene has most detail. All panels of a row share one stretch.

    Parameters
    ----------
    coarse, enhanced, reference, fine : Path
        Rasters of 20 m, 10 m, 10 m and 5 m of one place.
    picture : Path
        PNG to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    scenes = [open_scene(SceneSource((str(p),))) for p in (coarse, enhanced, reference, fine)]
    window = _busiest(scenes[2])
    coarse_view = _view(scenes[0], window.coarsened(2))
    views = [coarse_view, _view(scenes[1], window), _view(scenes[2], window), _view(scenes[3], window.scaled(2))]
    low, high = np.percentile(views[2], (1, 99))
    titles = ["input: degraded to 20 m", "enhanced to 10 m", "reference: Sentinel-2, 10 m"]
    figure, axes = plt.subplots(2, 3, figsize=(12, 8.4), layout="constrained")
    titles += ["input: Sentinel-2, 10 m", "enhanced to 5 m"]
    panels = zip(titles, [*views[:3], views[2], views[3]], strict=True)
    for axis, (title, view) in zip(axes.flat, panels, strict=False):
        axis.imshow(np.clip((view - low) / (high - low), 0, 1), interpolation="nearest")
        axis.set_title(title)
    for axis in axes.flat:
        axis.axis("off")
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def check_picture(picture: Path) -> None:
    """Check that a picture can be written there.

    Raises
    ------
    UsageError
        If it does not end in .png, or its folder is not there or lets no file be made.
    """
    if picture.suffix.lower() != ".png":
        raise UsageError(f"the picture {picture} must end in .png")
    if not picture.parent.is_dir():
        raise UsageError(f"no such folder for the picture: {picture.parent}; make it first")
    check_writable(picture.parent)


def stages(facts: dict[str, Any], picture: Path) -> None:
    """Draw where the seconds of `run_bench`'s job go: its stages one after the other, and the workers in the blocks.

    Parameters
    ----------
    facts : dict
        As `scenelift.workflows.bench.engine.run_bench` returns them.
    picture : Path
        PNG to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 2.6), layout="constrained")
    for row, names in enumerate((STAGES, WORK)):
        seconds = [facts["stages_s"][name] for name in names]
        left = 0.0
        for name, length in zip(names, seconds, strict=True):
            share = length / max(sum(seconds), 1e-9)
            axis.barh(row, 100 * share, left=left, height=0.6, label=f"{name}, {length:.1f} s")
            if share > 0.12:
                axis.text(left + 50 * share, row, f"{name}\n{length:.1f} s", ha="center", va="center", fontsize=9)
            left += 100 * share
    axis.set_yticks((0, 1), ("the command", "workers in the blocks"))
    axis.invert_yaxis()
    axis.set_xlabel("% of the time")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False)
    axis.set_title(f"{facts['model']}, {facts['input_megapixels']:.1f} Mpx over all bands, {facts['workers']} workers")
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def _view(scene: Scene, window: Window) -> NDArray[np.float32]:
    """Read red, green, blue (bands 3, 2, 1 of B02, B03, B04, …), or the first band in grey; (H, W, 3)."""
    values = scene.read(window).values
    return np.moveaxis(values[[2, 1, 0]] if len(values) >= 3 else values[[0, 0, 0]], 0, -1)


def _busiest(scene: Scene) -> Window:
    """Return the whole cell of the scene with the largest local gradients."""
    cells = [c for c in TileGrid(scene.grid.shape, (CROP, CROP)) if c.shape == (CROP, CROP)]
    if not cells:
        height, width = (n // 2 * 2 for n in scene.grid.shape)
        return Window(0, 0, height, width)
    band = scene.read(Window(0, 0, *scene.grid.shape)).values[min(2, len(scene.bands) - 1)]
    detail = np.abs(np.diff(band, axis=0))[:, :-1] + np.abs(np.diff(band, axis=1))[:-1]
    detail = np.minimum(detail, np.percentile(detail, 99.5))  # a few glittering roofs must not decide
    return max(cells, key=lambda c: float(detail[c.slices()].mean()))
