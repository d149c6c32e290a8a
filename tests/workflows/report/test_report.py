"""The report: its numbers, and the page itself in a real browser."""

from __future__ import annotations

import csv
import html
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from scipy import ndimage
from support.browser import CHROMIUM, DRIVER, browser
from support.builders import UTM, write_raster

from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.outputs.readback import provenance_of
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.places import Place, place_of
from scenelift.pipeline.scenes.quicklooks import stretch_of, view_of
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.pipeline.scores.bootstrap import ratio_interval
from scenelift.pipeline.scores.scores import Convention, block_statistics, scores
from scenelift.pipeline.tiles import Window
from scenelift.workflows.enhance import EnhanceSettings, enhance
from scenelift.workflows.evidence.cases import Degradation
from scenelift.workflows.report.charts import Line, line_chart
from scenelift.workflows.report.curves import spectra
from scenelift.workflows.report.evidence import busiest, consistency, open_triple
from scenelift.workflows.report.page import ReportSources, sources_of, write_report

NAMES = ["B02", "B03", "B04"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a truth of 300 x 280 pixels, what a coarser sensor saw of it, and that enhanced by two."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.standard_normal((3, 300, 280)), (0, 2, 2))
    truth = np.clip(1500 + 5000 * smooth, 1, 60000).round().astype("uint16")
    coarse = Degradation(2).apply(truth[None], NAMES)[0][0].round().astype("uint16")
    coarse[:, 100:110, 20:50] = 0
    fine = UTM @ Affine.scale(0.5)
    write_raster(folder / "scene-10m.tif", truth, fine, nodata=0, descriptions=NAMES)
    write_raster(folder / "degraded-20m.tif", coarse, nodata=0, descriptions=NAMES)
    settings = EnhanceSettings(block=64, blur="sentinel-2")
    summary = enhance(
        str(folder / "degraded-20m.tif"), folder / "sr-x2-10m.tif", "ibp-x2", settings, ClusterSettings(0)
    )
    (folder / "summary.json").write_text(json.dumps(summary.to_dict()))
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Path:
    sources = sources_of(run, None, None)
    full = ReportSources(sources.before, sources.after, sources.truth, None, run / "summary.json")
    return write_report(full, run / "report.html", run / "files")


def cell(text: str, table: str, row: str, column: int) -> str:
    body = re.search(rf'<table id="{table}">(.*?)</table>', text, re.S)[1]
    line = re.search(rf'<th scope="row">{row}</th>(.*?)</tr>', body, re.S)[1]
    return re.findall(r"<td [^>]*>([^<]*)", line)[column]


def test_the_numbers_are_those_of_the_whole_scenes(page, run):
    text = page.read_text()
    opened = [open_scene(SceneSource((str(run / n),))) for n in ("scene-10m.tif", "sr-x2-10m.tif")]
    truth, after = (s.read(Window(0, 0, *s.grid.shape)) for s in opened)
    convention = Convention(0.3, ratio=2)
    valid = truth.valid & after.valid
    found = scores(block_statistics(truth.values, after.values, valid, convention=convention), convention)
    assert cell(text, "against-the-truth", "after", 0) == f"{found['psnr']:.2f}"
    assert cell(text, "against-the-truth", "after", 3) == f"{found['ssim']:.4f}"
    assert cell(text, "against-the-truth", "after", 2) == f"{found['sam']:.3f}"
    better = float(cell(text, "against-the-truth", "after", 0))
    assert better > float(cell(text, "against-the-truth", "bicubic of the scene before", 0))


def test_the_page_is_whole_and_needs_nothing_else(page):
    text = page.read_text()
    assert "$" not in text.replace("${", "")
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "https://" not in text and "http://" not in text
    assert "ibp-x2" in text and "EPSG:32633" in text
    assert 'id="timing"' in text
    assert json.loads(html.unescape(re.search(r'<pre id="provenance">(.*?)</pre>', text, re.S)[1]))["models"]


def test_the_page_says_what_gain_was_expected(page, run):
    gain = json.loads((run / "summary.json").read_text())["expected"]["gain_db"]["lanczos"]
    assert f"{gain['mean']:+.1f} dB [{gain['low']:.1f}, {gain['high']:.1f}] over lanczos" in page.read_text()


def test_pictures_and_tables_are_exported(page, run):
    assert page.exists()
    names = {p.name for p in (run / "files").iterdir()}
    assert {"before.png", "after.png", "truth.png", "map-of-the-error-against-the-truth.png", "scores.csv"} <= names
    with (run / "files" / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    row = next(r for r in rows if r["scene"] == "after" and r["score"] == "PSNR, dB")
    assert float(row["low"]) < float(row["value"]) < float(row["high"])


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (Debian: chromium-driver)")
@pytest.mark.parametrize("width", [390, 1440])
def test_the_swipe_moves_by_mouse_and_keys_in_a_browser(page, tmp_path, width):
    with browser(tmp_path / "profile") as tab:
        tab.open(page, width)
        assert tab.run("return document.documentElement.scrollWidth") <= width
        assert tab.run("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")
        tab.run("document.getElementById('swipe').scrollIntoView({block: 'start'})")
        box = tab.run("return document.getElementById('swipe').getBoundingClientRect().toJSON()")
        middle = round(box["left"] + box["width"] / 2), round(box["top"] + 60)
        tab.drag(middle, (round(box["left"] + box["width"] * 0.8), middle[1]))
        at = int(tab.run("return document.getElementById('swipe-at').value"))
        assert at == pytest.approx(80, abs=4)
        shown = "return getComputedStyle(document.querySelector('#swipe .over')).clipPath"
        assert tab.run(shown) == f"inset(0px 0px 0px {at}%)"
        tab.press("#swipe-at", "\ue012\ue012")  # the left arrow, twice
        assert tab.run("return document.getElementById('swipe-at').value") == str(at - 2)
        assert tab.run("return document.activeElement.id") == "swipe-at"
        sizes = tab.run("return [...document.querySelectorAll('#swipe img')].map(i => [i.clientWidth, i.clientHeight])")
        assert sizes[0] == sizes[1]
        number = tab.run("return document.querySelector('#against-the-truth tr.best td').firstChild.data")
        assert number == cell(page.read_text(), "against-the-truth", "after", 0)
        wide = "return [...document.querySelectorAll('.scroll, pre')].map(e => e.scrollWidth - e.clientWidth)"
        assert set(tab.run(wide)) == {0}, "nothing scrolls sideways"
        assert tab.console() == []


def test_a_scene_of_one_scale_without_truth_has_a_report_too(tmp_path):
    noisy = 2000 + 100 * np.random.default_rng(0).standard_normal((1, 200, 200))
    scene = write_raster(tmp_path / "noisy.tif", noisy.round().astype("uint16"))
    enhance(str(scene), tmp_path / "clean.tif", "median", EnhanceSettings(), ClusterSettings(0))
    made = write_report(sources_of(tmp_path / "clean.tif", scene, None), tmp_path / "report.html")
    text = made.read_text()
    assert "against-the-truth" not in text
    assert float(cell(text, "noise", "after", 0)) < float(cell(text, "noise", "before", 0))
    assert "Timing was not recorded" in text


def test_the_scene_before_is_found_by_the_name_in_the_tags(run):
    found = sources_of(run / "sr-x2-10m.tif", None, None)
    assert found.before.paths == (str(run / "degraded-20m.tif"),)
    with pytest.raises(UsageError, match="before"):
        sources_of(run / "scene-10m.tif", None, None)


def test_a_zarr_store_tells_its_making_too(run, tmp_path):
    scene = run / "degraded-20m.tif"
    enhance(str(scene), tmp_path / "fine.zarr", "lanczos-x2", EnhanceSettings(), ClusterSettings(0))
    made = provenance_of(open_scene(SceneSource((str(tmp_path / "fine.zarr"),))))
    assert [model["name"] for model in made["models"]] == ["lanczos-x2"]
    assert made["input"]["files"] == ["degraded-20m.tif"]


def test_wrong_runs_are_refused(run, tmp_path):
    with pytest.raises(UsageError, match="not a folder that"):
        sources_of(tmp_path, None, None)
    coarse, fine = (SceneSource((str(run / n),)) for n in ("degraded-20m.tif", "sr-x2-10m.tif"))
    with pytest.raises(UsageError, match="must lie on the grid"):
        open_triple(coarse, fine, coarse)
    enhance(coarse, tmp_path / "one.tif", "nearest-x2", EnhanceSettings(), ClusterSettings(0))
    one = SceneSource((str(tmp_path / "one.tif"),), (1,))
    with pytest.raises(UsageError, match=r"one\.tif has 1 bands .* that has 3; name an enhanced scene"):
        open_triple(coarse, one, None)
    with pytest.raises(UsageError, match="must be what"):
        write_report(ReportSources(coarse, fine, None, None, run / "degraded-20m.tif"), tmp_path / "r.html")
    with pytest.raises(UsageError, match="cannot write"):
        write_report(ReportSources(coarse, fine), tmp_path / "none" / "r.html")


def test_the_power_spectrum_finds_a_wave(tmp_path):
    wave = 1000 * np.sin(2 * np.pi * 16 / 128 * np.arange(128))  # an eighth of a cycle a pixel
    image = (3000 + np.broadcast_to(wave, (1, 128, 128))).round().astype("uint16")
    path = write_raster(tmp_path / "wave.tif", image)
    line = spectra(open_triple(SceneSource((str(path),)), SceneSource((str(path),)), None))[0]
    assert line.x[np.argmax(line.y)] == pytest.approx(1 / 8)


def test_the_busiest_window_is_where_the_scenes_differ(tmp_path):
    image = np.full((1, 256, 256), 2000, "uint16")
    other = image.copy()
    other[0, 70:100, 140:170] += 500
    first, second = write_raster(tmp_path / "a.tif", image), write_raster(tmp_path / "b.tif", other)
    window = busiest(open_triple(SceneSource((str(first),)), SceneSource((str(second),)), None))[0]
    assert (window.row, window.col) == (64, 128)


def test_views_are_means_of_valid_pixels(tmp_path):
    values = np.arange(1, 17, dtype="uint16").reshape(1, 4, 4) * 100
    values[0, :2, :2] = 0
    values[0, 0, 2] = 0
    scene = open_scene(SceneSource((str(write_raster(tmp_path / "x.tif", values, nodata=0)),)))
    view = view_of(scene, 2, (2, 2))
    assert np.isnan(view[0, 0, 0])
    assert view[0, 0, 1] == pytest.approx((400 + 700 + 800) / 3 * 1e-4)
    picture = stretch_of(view)(view)
    assert picture.shape == (2, 2, 3)
    assert picture[0, 0].tolist() == [128, 128, 128]


def test_ratios_of_sums_have_intervals():
    tops, bottoms = np.array([[1.0], [2.0], [3.0], [4.0]]), np.full((4, 1), 2.0)
    found = ratio_interval(tops, bottoms)
    assert found.mean == pytest.approx(1.25)
    assert found.low < 1.25 < found.high
    assert math.isnan(ratio_interval(tops, np.zeros((4, 1))).mean)


def test_the_scene_before_is_read_as_it_was_when_it_was_enhanced(tmp_path):
    path = write_raster(tmp_path / "in.tif", np.full((4, 64, 64), 3000, "uint16"), crs=None)
    given = SceneSource((str(path),), bands=(3, 1), offset=-1000, nodata=7, crs="EPSG:32633")
    enhance(given, tmp_path / "out.tif", "nearest-x2", EnhanceSettings(), ClusterSettings(0))
    for before in (None, path):
        sources = sources_of(tmp_path / "out.tif", before, None)
        assert sources.before == given
        triple = open_triple(sources.before, sources.after, None)
        assert [value.mean for _, value in consistency(triple)] == pytest.approx([0, 0], abs=1e-7)
    other = write_raster(tmp_path / "other.tif", np.full((2, 64, 64), 2000, "uint16"))
    assert sources_of(tmp_path / "out.tif", other, None).before == SceneSource((str(other),))


def test_places_lie_where_they_should(run):
    place = place_of(open_scene(SceneSource((str(run / "scene-10m.tif"),))).grid)
    longitude, latitude = place.centre
    assert longitude == pytest.approx(15.0, abs=0.05)
    assert latitude == pytest.approx(45.1, abs=0.1)
    assert Place(179, -1, -179, 1).centre == (-180, 0)


def test_charts_without_data_say_so():
    nothing = Line("before", "before", np.zeros(0), np.zeros(0))
    drawn = Line("after", "after", np.arange(3.0), np.arange(3.0))
    unknown = Line("before", "before", np.arange(3.0), np.full(3, np.nan))
    for lines in ([nothing], [unknown], []):
        chart = line_chart("Histogram", "reflectance", lines)
        assert "No data" in chart and "Histogram" in chart
        assert "polyline" not in chart and "nan" not in chart
    chart = line_chart("Histogram", "reflectance", [nothing, drawn])
    assert "No data" not in chart and chart.count("<polyline") == 1 and "nan" not in chart
