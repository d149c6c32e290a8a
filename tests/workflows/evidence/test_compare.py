"""Comparison of methods: intervals, tables, page and figure, on images made here."""

from __future__ import annotations

import io
import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats
from support.jobs import scenelift

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.scores.bootstrap import interval
from scenelift.workflows.evidence.cases import INPUT, REFERENCE, Degradation
from scenelift.workflows.evidence.compare import (
    CompareSettings,
    Comparison,
    compare,
    table_rows,
    to_json,
    write_images_csv,
)
from scenelift.workflows.evidence.pages import page_text, write_page
from scenelift.workflows.evidence.paper import PAPER, paper_method

CASES = (Degradation(noise=25), Degradation(2))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip of 3 x 2 colour images of 48 pixels, smooth with edges."""
    path = tmp_path_factory.mktemp("images") / "images.zip"
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as out:
        for label in ("field", "river", "town"):
            for number in range(2):
                smooth = ndimage.gaussian_filter(rng.standard_normal((48, 48, 3)), (3, 3, 0))
                values = 110 + 250 * smooth + 40 * (smooth > 0.05)
                buffer = io.BytesIO()
                Image.fromarray(np.clip(values, 0, 255).astype("uint8")).save(buffer, "PNG")
                out.writestr(f"{label}/{label}_{number}.png", buffer.getvalue())
    return path


@pytest.fixture(scope="module")
def found(archive: Path) -> Comparison:
    return compare(CompareSettings(archive, each=2, cases=CASES, networks=()))


def test_intervals_agree_with_scipys_bootstrap():
    values = np.random.default_rng(1).gamma(2, 3, 80)
    mine = interval(values)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(2))
    assert mine.mean == pytest.approx(values.mean())
    assert (mine.low, mine.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.15)


def test_whole_clusters_are_drawn():
    # Ten copies of five values carry no more than the five values do.
    values = np.random.default_rng(1).normal(0, 1, 5)
    once, copied = interval(values), interval(values.repeat(10), np.arange(5).repeat(10))
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
    apart = interval(values.repeat(10))
    assert apart.high - apart.low < 0.5 * (copied.high - copied.low)


def test_intervals_of_what_has_none():
    assert math.isnan(interval(np.array([np.nan, np.nan])).mean)
    assert interval(np.array([1.0, np.inf])).low == math.inf
    assert interval(np.array([2.0, np.nan, 2.0])).high == 2


def test_every_method_has_a_row_and_the_order_is_the_known_one(found):
    rows = {row["method"]: row for row in table_rows(found, CASES[1])}
    assert list(rows) == ["nearest", "bilinear", "bicubic", "lanczos", "ibp", REFERENCE]
    assert rows["nearest"]["psnr"].mean < rows["bicubic"]["psnr"].mean < rows["ibp"]["psnr"].mean
    assert rows[REFERENCE]["psnr"].mean == math.inf
    assert rows[REFERENCE]["ssim"].mean == pytest.approx(1)
    assert rows["bicubic"]["over_baseline"] is None
    assert rows["ibp"]["over_best"] is None
    gap = rows["ibp"]["over_baseline"]
    assert gap.mean == pytest.approx(rows["ibp"]["psnr"].mean - rows["bicubic"]["psnr"].mean)
    assert 0 < gap.low < gap.mean < gap.high


def test_noise_is_what_was_asked_for(found):
    rows = {row["method"]: row for row in table_rows(found, CASES[0])}
    assert rows[INPUT]["psnr"].mean == pytest.approx(20 * math.log10(255 / 25), abs=0.1)
    assert all(rows[m]["psnr"].mean > rows[INPUT]["psnr"].mean + 3 for m in ("bilateral", "wavelet", "nlm", "tv"))


def test_the_page_shows_the_papers_figures_beside_ours(found, tmp_path):
    page = write_page(found, tmp_path)
    text = page.read_text()
    assert (tmp_path / "comparison.png").stat().st_size > 10_000
    assert "| CNN denoiser | 34.10 | 0.912 | none is shipped" in text
    ours = found.mean(CASES[0], "bilateral", "psnr")
    assert f"| bilateral filter | 28.45 | 0.812 | bilateral, noise25 | {ours}" in text
    assert "not tried here" in text


def test_a_network_is_judged_against_the_papers_margin(found):
    # the wavelet filter stands in for a network: the page must call its margin by what was measured
    values = found.values | {
        (key, "net", score): v for (key, method, score), v in found.values.items() if method == "wavelet"
    }
    methods = found.methods | {"noise25": (*found.methods["noise25"][:-1], "net", REFERENCE)}
    with_net = Comparison(**(vars(found) | {"values": values, "methods": methods, "networks": ("net",)}))
    assert paper_method(with_net, PAPER[2]) == (CASES[0], "net")
    gap = with_net.difference(CASES[0], "net", "bilateral", "psnr")
    text = page_text(with_net)
    assert f"net gains {gap.mean:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}] dB here" in text
    assert "CNN denoiser over wavelet shrinkage**: the paper reports +4.80 dB; net gains +0.00" in text
    assert "The direction is not certain." in text


def test_json_holds_intervals_and_no_infinity(found):
    tables = json.loads(to_json(found), parse_constant=lambda name: pytest.fail(name))["tables"]
    truth = next(row for row in tables["x2"] if row["method"] == REFERENCE)
    assert truth["psnr"] == [None, None, None]
    assert len(tables["noise25"][1]["over_best"]) == 3


def test_the_command_on_two_workers_writes_the_same_figures(archive, found, tmp_path):
    out = tmp_path / "out"
    options = ["--data", archive, "--each", "2", "--levels", "25", "--scales", "2", "--model", "", "--workers", "2"]
    done = scenelift("compare", "-o", out, *options)
    assert "bilateral" in done.stdout
    names = {p.name for p in out.iterdir()}
    assert names == {"comparison.md", "comparison.png", "comparison.json", "comparison-images.csv"}
    write_images_csv(found, tmp_path / "here.csv")
    assert (out / "comparison-images.csv").read_text() == (tmp_path / "here.csv").read_text()
    assert json.loads((out / "comparison.json").read_text())["digest"] == found.digest


def test_wrong_comparisons_are_refused(tmp_path):
    with pytest.raises(UsageError, match="nothing to compare"):
        CompareSettings(cases=())
    with pytest.raises(UsageError, match="scales must be from 2 to 8, got 'x9'"):
        CompareSettings(cases=(Degradation(9),))
    with pytest.raises(UsageError, match="each"):
        CompareSettings(each=0)


@pytest.mark.parametrize(
    ("data", "wrong"),
    [(None, "set SCENELIFT_DATA to the folder with the images"), ("none.zip", "no images at none.zip")],
)
def test_a_comparison_without_its_data_says_so_and_leaves_no_folder(data, wrong, tmp_path, monkeypatch):
    monkeypatch.delenv("SCENELIFT_DATA", raising=False)
    for output in ("out", "above/out"):
        words = ["compare", "-o", output, *(["--data", data] if data else [])]
        done = scenelift(*words, cwd=tmp_path, ok=False)
        assert done.returncode == 2 and wrong in done.stderr
    assert list(tmp_path.iterdir()) == []
