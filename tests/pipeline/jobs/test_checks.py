"""What people are told of values that are hard to believe: true where it is so, and nothing where it is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.builders import noise_image, write_raster

from scenelift.pipeline.jobs.checks import doubts
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import Scene, SceneSource


def scene_of(path: Path, **reading: object) -> Scene:
    return open_scene(SceneSource((str(path),), **reading))  # type: ignore[arg-type]


def textured(bands: int, height: int, width: int, dtype: str) -> np.ndarray:
    """An image of few equal neighbours, the rarest values in its corners alone."""
    rng = np.random.default_rng(5)
    return rng.integers(20, 200, (bands, height, width)).astype(dtype)


@pytest.mark.parametrize(("dtype", "value"), [("uint8", 255), ("uint8", 0), ("uint16", 65535), ("uint16", 0)])
def test_a_value_that_fills_a_part_of_the_scene_is_told(tmp_path: Path, dtype: str, value: int) -> None:
    image = textured(3, 200, 250, dtype)
    image[:, :, 175:] = value
    path = write_raster(tmp_path / "a.tif", image)
    wanted = f"30 % of the pixels are {value} in every band: if they are missing, say --nodata {value}"
    assert [line for line in doubts(scene_of(path, scale=1e-5), network=True) if "--nodata" in line] == [wanted]
    assert not any("--nodata" in line for line in doubts(scene_of(path, scale=1e-5), network=False))
    assert doubts(scene_of(path, nodata=value, scale=1e-5), network=True) == []
    image[0, ::2, 175:] = 100  # in one band half of it is something
    assert doubts(scene_of(write_raster(tmp_path / "b.tif", image), scale=1e-5), network=True) == []


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("shift", [0, 1])
def test_an_image_enlarged_by_nearest_neighbour_is_told(tmp_path: Path, factor: int, shift: int) -> None:
    image = textured(2, 90, 120, "uint16").repeat(factor, 1).repeat(factor, 2)[:, shift:, shift:]
    (line,) = doubts(scene_of(write_raster(tmp_path / "a.tif", image)), network=True)
    share = {2: "50", 3: "33.33", 4: "25"}[factor]
    assert line == (
        f"pixels come in equal squares of {factor} x {factor}, as of an image enlarged by nearest neighbour: "
        f"shrink it first (gdal_translate -r nearest -outsize {share}% 0)"
    )


def test_bands_that_hold_errors_are_told_from_images(tmp_path: Path) -> None:
    names = ["B02", "B02 uncertainty", "B02 lower bound", "B02 upper bound", "B03", "B03 uncertainty"]
    path = write_raster(tmp_path / "a.tif", textured(6, 60, 60, "uint8"), descriptions=names)
    assert doubts(scene_of(path), network=True) == ["4 bands hold uncertainties or bounds: --bands 1,5 leaves them out"]
    assert doubts(scene_of(path, bands=(1, 5)), network=True) == []
    assert doubts(scene_of(path, bands=(2, 6)), network=True) == []  # they are wanted


@pytest.mark.parametrize("kind", ["noise", "smooth", "flat", "rows"])
def test_other_images_are_not_doubted(tmp_path: Path, kind: str) -> None:
    image = {
        "noise": noise_image(1, (1, 200, 200)),
        "smooth": np.add.outer(np.arange(200) // 7, np.arange(200) // 5)[None].astype("uint8"),  # many equal neighbours
        "flat": np.full((1, 200, 200), 40, "uint8"),
        "rows": textured(1, 100, 200, "uint8").repeat(2, 1),  # stretched one way alone
    }[kind]
    assert doubts(scene_of(write_raster(tmp_path / "a.tif", image)), network=True) == []


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (40, 1)])
def test_a_row_a_column_and_a_pixel_are_scenes(tmp_path: Path, height: int, width: int) -> None:
    path = write_raster(tmp_path / "a.tif", textured(3, height, width, "uint8"))
    assert doubts(scene_of(path), network=True) == []
