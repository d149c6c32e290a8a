"""Before and after as a picture: the place, the pixels, the stretch, and what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rasterio.enums import ColorInterp
from support.builders import UTM, noise_image, write_raster
from support.jobs import run, scenelift

from scenelift.models.classical.resampling import upsample
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.pipeline.tiles import Window
from scenelift.workflows.looking.quicklook import GAP, LINE, Look, most_detailed, quicklook
from scenelift.workflows.settings import Crop

NAMES, COLOURS = ["B02", "B03", "B04"], [ColorInterp.blue, ColorInterp.green, ColorInterp.red]


def scene(folder: Path, shape: tuple[int, int] = (60, 80)) -> Path:
    values = noise_image(3, (3, *shape), high=3000)
    return write_raster(folder / "a.tif", values, descriptions=NAMES, colorinterp=COLOURS)


def source(path: Path, *bands: int | str) -> SceneSource:
    return SceneSource((str(path),), bands or None)


def test_panels_are_the_pixels_under_the_stretch_of_the_scene_before(tmp_path: Path) -> None:
    path = scene(tmp_path)
    window = Crop((10, 5, 40, 30))
    for name, crop in (("whole.tif", None), ("part.zarr", Crop((6, 4, 60, 50)))):
        run(source(path), tmp_path / name, "nearest-x2", crop=crop)
        look = Look(window, ("nearest", "bicubic", "after"), (1, 99))
        shown = quicklook(source(path), source(tmp_path / name), tmp_path / "look.png", look)
        dn = open_scene(source(path)).read(Window(5, 10, 30, 40)).values[::-1]  # red, green, blue
        low, high = np.percentile(dn.reshape(3, -1), (1, 99), axis=1)
        assert shown.low == pytest.approx(low) and shown.high == pytest.approx(high)
        assert (shown.scale, shown.window, shown.bands) == (2, [10, 5, 40, 30], NAMES[::-1])
        picture = np.asarray(Image.open(tmp_path / "look.png"))
        zoom = 560 // 80
        panels = [
            picture[GAP + LINE :, GAP + n * (80 * zoom + GAP) :][: 60 * zoom : zoom, : 80 * zoom : zoom]
            for n in range(3)
        ]
        wide = open_scene(source(path)).read(Window(0, 0, 60, 80)).values[::-1]
        smooth = upsample(np.pad(wide, ((0, 0), (8, 8), (8, 8)), mode="reflect")[None], 2, "bicubic")[0]
        top, left = (n - m for n, m in zip(smooth.shape[1:], (120, 160), strict=True))
        smooth = smooth[:, top // 2 :, left // 2 :][:, 10:70, 20:100]
        for panel, wanted in zip(
            panels, (dn.repeat(2, 1).repeat(2, 2), smooth, dn.repeat(2, 1).repeat(2, 2)), strict=True
        ):
            grey = 255 * np.clip((wanted - low[:, None, None]) / (high - low)[:, None, None], 0, 1)
            assert np.abs(np.moveaxis(grey, 0, -1) - panel).max() <= 1  # rounded


def test_the_most_detailed_place_is_shown_by_default_and_bands_are_found_by_name(tmp_path: Path) -> None:
    values = np.full((3, 400, 500), 1000, "uint16")
    values[:, 208:400, 0:192] += noise_image(1, (192, 192), high=900)
    path = write_raster(tmp_path / "a.tif", values, descriptions=NAMES)
    assert most_detailed(open_scene(source(path)), Window(0, 0, 400, 500)) == Window(208, 0, 192, 192)
    run(source(path, 2), tmp_path / "b.tif", "median")
    done = scenelift("quicklook", "a.tif", "b.tif", "-o", "o.png", "--bands", "B03", "--json", cwd=tmp_path)
    facts = json.loads(done.stdout)
    assert facts["window"] == [0, 208, 192, 192] and facts["bands"] == ["B03"] and facts["scale"] == 1
    assert facts["panels"] == ["before", "after"]
    again = (tmp_path / "o.png").read_bytes()
    scenelift("quicklook", "a.tif", "b.tif", "-o", "o.png", "--bands", "2", cwd=tmp_path)
    assert (tmp_path / "o.png").read_bytes() == again


def test_what_cannot_be_shown_is_one_line(tmp_path: Path) -> None:
    path = scene(tmp_path)
    run(source(path), tmp_path / "b.tif", "nearest-x2")
    write_raster(tmp_path / "aside.tif", noise_image(1, (3, 60, 80)), UTM @ UTM.translation(0.5, 0), descriptions=NAMES)
    write_raster(tmp_path / "far.tif", noise_image(1, (3, 60, 80)), UTM @ UTM.translation(99, 0), descriptions=NAMES)
    write_raster(tmp_path / "two.tif", noise_image(1, (2, 60, 80)))
    for words, message in {
        "a.tif b.tif -o o.jpg": "the picture o.jpg must end in .png",
        "a.tif b.tif -o no/o.png": "no such folder",
        "a.tif b.tif -o o.png --bands 1,2": "--bands must name three bands",
        "a.tif b.tif -o o.png --panels lanczos": "--panels must be some of nearest, bicubic, after, got 'lanczos'",
        "a.tif b.tif -o o.png --percentiles 2": "--percentiles must be two numbers such as 2,98, got '2'",
        "a.tif b.tif -o o.png --window 70,0,20,20": "reaches beyond the scene",
        "a.tif aside.tif -o o.png": "the second lies aside by a part of a pixel: warp the first onto the grid",
        "a.tif far.tif -o o.png": "no ground in common",
        "b.tif a.tif -o o.png": "a whole number of times as small",
        "a.tif two.tif -o o.png": "two.tif has no bands named B04, B03, B02",
        "a.tif gone.tif -o o.png": "no such file: gone.tif",
    }.items():
        done = scenelift("quicklook", *words.split(), cwd=tmp_path, ok=False)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), (words, done.stderr)
        assert message in done.stderr
    assert not list(tmp_path.glob("*.png"))
    with pytest.raises(UsageError, match="larger than 4096"):
        wide = write_raster(tmp_path / "wide.tif", np.ones((1, 2, 5000), "uint16"))
        quicklook(source(wide), source(wide), tmp_path / "o.png", Look(Crop((0, 0, 4200, 2))))
