"""`scenelift score` on real files: one result for every way of cutting and running it, and clear refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import rasterio
import sewar
import skimage.metrics
from affine import Affine
from rio_cogeo.cogeo import cog_validate
from scipy import ndimage
from support.builders import UTM, write_raster
from support.jobs import scenelift

from scenelift.pipeline.cluster import ClusterSettings, attempts
from scenelift.pipeline.errors import SceneError, UsageError
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.pipeline.scores.opensr import measures
from scenelift.pipeline.scores.scores import Convention, block_statistics, scores
from scenelift.workflows.cli.tables import print_scores
from scenelift.workflows.evidence.score import ScoreReport, ScoreSettings, score


def land(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), (0, 3, 3))
    return np.clip(1500 + 4000 * smooth + 40 * rng.standard_normal(shape), 1, 60000).astype("uint16")


def source(path: Path) -> SceneSource:
    return SceneSource((str(path),))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two scenes of 3 bands, 300 x 260 pixels, the second noisier; nodata holes at different places."""
    x = land((3, 300, 260))
    y = np.clip(x + 60 * np.random.default_rng(1).standard_normal(x.shape), 1, 65535).astype("uint16")
    x[:, 20:40, 50:90] = 0
    y[1, 200:210] = 0
    names = ["B02", "B03", "B04"]
    return (
        write_raster(tmp_path / "x.tif", x, nodata=0, descriptions=names),
        write_raster(tmp_path / "y.tif", y, nodata=0, descriptions=names),
    )


def arrays(paths: tuple[Path, Path]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = (rasterio.open(p).read() for p in paths)
    scale = np.float32(1e-4)
    return x.astype("f4") * scale, y.astype("f4") * scale, (x != 0) & (y != 0)


def check(report: ScoreReport, paths: tuple[Path, Path], border: int = 0) -> None:
    x, y, valid = arrays(paths)
    if border:
        valid[:, :border] = valid[:, -border:] = valid[:, :, :border] = valid[:, :, -border:] = False
    convention = Convention(0.3)
    whole = scores(block_statistics(x, y, valid, convention=convention), convention)
    assert report.values == pytest.approx({"pixels": whole.pixels, **whole.values}, rel=1e-9)
    assert report.by_band["ssim"] == pytest.approx(whole.bands["ssim"], rel=1e-9)


@pytest.mark.parametrize("block", [64, 100, 1024])
def test_blocks_of_any_size_give_the_whole_images_scores(pair, block):
    check(score(source(pair[0]), source(pair[1]), ScoreSettings(block=block)), pair)


def test_workers_change_no_bit(pair):
    settings = ScoreSettings(block=100)
    alone = score(source(pair[0]), source(pair[1]), settings)
    many = score(source(pair[0]), source(pair[1]), settings, ClusterSettings(3))
    assert many.values == alone.values
    assert many.by_band == alone.by_band


def test_scores_are_chosen_by_name_and_an_error_in_a_thread_is_one_of_the_caller(pair, tmp_path, monkeypatch):
    every = score(source(pair[0]), source(pair[1]), ScoreSettings(block=64)).values
    chosen = score(source(pair[0]), source(pair[1]), ScoreSettings(block=64, names=("psnr", "ssim"))).values
    assert chosen == {name: every[name] for name in ("pixels", "psnr", "ssim")}
    with pytest.raises(UsageError, match="unknown score 'psnrr'"):
        score(source(pair[0]), source(pair[1]), ScoreSettings(names=("psnrr",)))
    cut = tmp_path / "cut.tif"
    cut.write_bytes(pair[1].read_bytes()[:-2000])
    monkeypatch.setattr(attempts, "PAUSES", ())
    with pytest.raises(SceneError, match=r"cut\.tif"):
        score(source(pair[0]), source(cut), ScoreSettings(block=64))


def test_the_border_is_that_of_the_scene_not_of_blocks(pair):
    check(score(source(pair[0]), source(pair[1]), ScoreSettings(border=8, block=64)), pair, border=8)


def test_the_map_holds_the_mean_absolute_error(pair, tmp_path):
    out = tmp_path / "error.tif"
    report = score(source(pair[0]), source(pair[1]), ScoreSettings(block=128), error_map=out)
    x, y, valid = arrays(pair)
    error = np.where(valid, np.abs(y.astype("f8") - x), np.nan)
    with np.errstate(invalid="ignore"):
        expected = np.nansum(error, axis=0) / np.where(valid.any(axis=0), valid.sum(axis=0), np.nan)
    with rasterio.open(out) as made, rasterio.open(pair[0]) as first:
        np.testing.assert_allclose(made.read(1), expected, rtol=1e-6, atol=1e-9)
        assert (made.crs, made.transform) == (first.crs, first.transform)
        assert math.isnan(made.nodata)
    assert cog_validate(out)[0]
    assert report.map == str(out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["error.tif", "x.tif", "y.tif"]


def test_a_finer_scene_is_compared_by_its_means(tmp_path):
    x = land((1, 64, 80)) + np.uint16(100)
    fine = x.repeat(2, axis=1).repeat(2, axis=2)
    fine[:, ::2] += 30
    fine[:, 1::2] -= 30  # cancels in the mean of two rows
    coarse = write_raster(tmp_path / "x.tif", x)
    sharper = write_raster(tmp_path / "y.tif", fine, UTM @ Affine.scale(0.5))
    report = score(source(coarse), source(sharper))
    assert report.factor == 2
    assert report.values["rmse"] == pytest.approx(0, abs=1e-7)
    with pytest.raises(UsageError, match="2 times coarser"):
        score(source(sharper), source(coarse))


def test_a_scene_by_itself_tells_its_noise(tmp_path):
    noise = np.random.default_rng(0).standard_normal((2, 300, 300)) * [[[20]], [[50]]]
    path = write_raster(tmp_path / "x.tif", (2000 + noise).round().astype("uint16"))
    report = score(source(path), settings=ScoreSettings(block=100))
    assert report.by_band["noise"] == pytest.approx((0.0020, 0.0050), rel=0.03)
    paired = score(SceneSource((str(path),)), SceneSource((str(path),)), ScoreSettings(data_range=0.5))
    assert paired.by_band["noise"] == pytest.approx(report.by_band["noise"], rel=0.02)  # whatever the full scale
    assert report.by_band["snr"] == pytest.approx((100, 40), rel=0.03)
    assert report.by_band["enl"] == pytest.approx((10000, 1600), rel=0.06)


def test_other_data_types_and_scales_are_compared_as_reflectance(tmp_path):
    x = land((1, 64, 64))
    first = write_raster(tmp_path / "x.tif", x)
    second = write_raster(tmp_path / "y.tif", (x * 1e-4).astype("float32"))
    assert score(source(first), source(second)).values["rmse"] < 1e-7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crs": "EPSG:32634"}, "EPSG:32633 and EPSG:32634"),
        ({"transform": UTM @ Affine.translation(1, 0)}, "do not lie on one grid"),
        ({"transform": UTM @ Affine.scale(1.5)}, "do not lie on one grid"),
        ({"values": land((1, 64, 60))}, "do not lie on one grid: 64 x 64 px .* against 60 x 64"),
        ({"values": land((2, 64, 64))}, "1 and 2 bands"),
    ],
)
def test_scenes_that_do_not_match_are_refused(tmp_path, change, message):
    values = land((1, 64, 64))
    first = write_raster(tmp_path / "x.tif", values)
    second = write_raster(tmp_path / "y.tif", **({"values": values} | change))
    with pytest.raises(UsageError, match=message):
        score(source(first), source(second))


def test_wrong_settings_are_refused(pair, tmp_path):
    truth, test = map(source, pair)
    for call, message in (
        (lambda: ScoreSettings(block=3), "block"),
        (lambda: ScoreSettings(border=-1), "border"),
        (lambda: score(truth, test, ScoreSettings(data_range=-1)), "data range"),
        (lambda: score(truth, test, ScoreSettings(data_range=0)), "data range"),
        (lambda: score(truth, error_map=tmp_path / "m.tif"), "two scenes"),
        (lambda: score(truth, test, error_map=tmp_path / "m.png"), "must end in .tif"),
        (lambda: score(truth, test, error_map=tmp_path / "no" / "m.tif"), "no such folder"),
        (lambda: score(truth, test, error_map=pair[1]), "one of the inputs"),
    ):
        with pytest.raises(UsageError, match=message):
            call()
    with pytest.raises(UsageError, match="no such file"):
        score(truth, source(tmp_path / "missing.tif"))


def test_degenerate_scenes_have_clear_results(tmp_path):
    x = land((1, 64, 64))
    same = write_raster(tmp_path / "x.tif", x)
    flat = write_raster(tmp_path / "flat.tif", np.full((1, 64, 64), 2000, "uint16"))
    empty = write_raster(tmp_path / "empty.tif", np.zeros((1, 64, 64), "uint16"), nodata=0)
    holes = (x * 1e-4).astype("float32")
    holes[0, :32] = np.nan
    torn = write_raster(tmp_path / "torn.tif", holes)

    identical = score(source(same), source(same))
    assert identical.values["psnr"] == math.inf
    assert identical.to_dict()["scores"]["psnr"] == "infinity"
    assert score(source(flat), source(flat)).to_dict()["scores"]["vif"] is None
    nothing = score(source(same), source(empty)).to_dict()["scores"]
    assert nothing.pop("pixels") == 0
    assert set(nothing.values()) == {None}
    assert score(source(same), source(torn)).values["pixels"] == 32 * 64


def test_the_command_prints_tables_json_and_parquet(pair, tmp_path, capsys):
    done = scenelift("score", *pair, "--json", "--parquet", tmp_path / "scores.parquet", "--map", tmp_path / "map.tif")
    facts = json.loads(done.stdout)
    report = score(source(pair[0]), source(pair[1]))
    assert report.to_dict()["scores"] == facts["scores"]
    rows = pyarrow.parquet.read_table(tmp_path / "scores.parquet").to_pylist()
    assert [row["band"] for row in rows] == ["all", "B02", "B03", "B04"]
    assert rows[0]["psnr"] == facts["scores"]["psnr"]
    assert rows[2]["ssim"] == facts["bands"][1]["ssim"]
    assert (tmp_path / "map.tif").exists()

    print_scores(report)
    assert f"{facts['scores']['psnr']:.5g}" in capsys.readouterr().out
    refused = scenelift("score", pair[0], tmp_path / "missing.tif", ok=False)
    assert refused.returncode == 2 and refused.stdout == ""
    assert "missing.tif" in refused.stderr and refused.stderr.count("\n") == 1


@pytest.mark.soak
def test_a_large_scene_by_blocks_is_the_whole_image_of_other_libraries(tmp_path):
    side, pairs = 4096, {}
    for size in (side // 2, side):
        x = land((1, size, size))
        y = np.clip(x + 60 * np.random.default_rng(1).standard_normal(x.shape), 1, 65535).astype("uint16")
        pairs[size] = [write_raster(tmp_path / f"{n}{size}.tif", v) for n, v in (("x", x), ("y", y))]
    alone = {size: score(source(a), source(b)) for size, (a, b) in pairs.items()}
    assert alone[side].peak_memory_mb < 1.15 * alone[side // 2].peak_memory_mb, "memory is a block's"
    for workers in (1, 4):
        found = score(source(pairs[side][0]), source(pairs[side][1]), cluster=ClusterSettings(workers))
        assert found.values == alone[side].values, workers
    reflectance = [rasterio.open(p).read(1).astype("f4") * np.float32(1e-4) for p in pairs[side]]
    x, y = (a.astype("f8") for a in reflectance)
    psnr = skimage.metrics.peak_signal_noise_ratio(x, y, data_range=0.3)
    ssim = skimage.metrics.structural_similarity(
        x, y, data_range=0.3, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert alone[side].values["psnr"] == pytest.approx(psnr, rel=1e-6)
    assert alone[side].values["vif"] == pytest.approx(sewar.vifp(x / 0.3 * 255, y / 0.3 * 255), rel=1e-6)
    assert alone[side].values["ssim"] == pytest.approx(ssim, rel=1e-6)


def test_the_input_of_a_super_resolution_adds_opensr_tests_measures(tmp_path):
    truth = land((2, 150, 140))
    coarse = truth.reshape(2, 75, 2, 70, 2).mean(axis=(2, 4)).astype("uint16")
    better = (0.5 * truth + 0.5 * coarse.repeat(2, axis=1).repeat(2, axis=2)).astype("uint16")
    files = [write_raster(tmp_path / f"{n}.tif", v) for n, v in (("truth", truth), ("better", better))]
    low = write_raster(tmp_path / "low.tif", coarse, transform=UTM @ Affine.scale(2))
    done = scenelift("score", *files, "--input", low, "--block", "50", "--json")
    found = json.loads(done.stdout)["scores"]
    images = [rasterio.open(path).read().astype("f4") * np.float32(1e-4) for path in (low, files[1], files[0])]
    tiles = [(slice(0, 128), slice(0, 128)), (slice(128, 150), slice(0, 128))]  # 12 columns at the right are too few
    seen, made, true = images
    each = [measures(seen[:, s[0].start // 2 : s[0].stop // 2, :64], made[:, *s], true[:, *s]) for s in tiles]
    expected = np.average([tile["hallucination"] for tile in each], weights=[128 * 128, 22 * 128])
    assert found["hallucination"] == pytest.approx(expected, rel=1e-5)
    assert found["improvement"] + found["omission"] + found["hallucination"] == pytest.approx(1)
    assert found["consistency_reflectance"] < 5e-3


@pytest.mark.parametrize(
    ("scenes", "more", "message"),
    [
        (("truth",), (), "--input needs two scenes"),
        (("truth", "truth"), ("--pixels-only",), "--input needs two scenes, and --windows"),
        (("low", "truth"), (), "is 2 times coarser than truth.tif: give the truth on the grid of truth.tif first"),
        (("low", "low"), (), "the --input low.tif lies on the grid of low.tif: it must be the coarser scene"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(tmp_path, scenes, more, message):
    write_raster(tmp_path / "truth.tif", land((1, 64, 64)))
    low = write_raster(tmp_path / "low.tif", land((1, 32, 32)), transform=UTM @ Affine.scale(2))
    done = scenelift("score", *(str(tmp_path / f"{s}.tif") for s in scenes), "--input", low, *more, ok=False)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
