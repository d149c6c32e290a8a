"""`scenelift evaluate`: what its tables hold, and that the shipped weights earn their place in them."""

import numpy as np
import pytest
import torch
from refresh_tables import refresh
from support.builders import write_raster
from support.trainings import images, settings, textured

from scenelift.models.errors import ModelError
from scenelift.models.extras import Consistency, Uncertainty
from scenelift.models.shipped import checkpoint_path
from scenelift.models.training.tasks import SuperResolution
from scenelift.models.whole import load_method, run_whole
from scenelift.workflows.conditions import image_noise
from scenelift.workflows.evidence.cases import Degradation
from scenelift.workflows.evidence.evaluate import evaluate
from scenelift.workflows.evidence.metrics import measure, row_of, to_markdown
from scenelift.workflows.evidence.samples import read_sample
from scenelift.workflows.training.train import train

torch.set_num_threads(1)


@pytest.fixture
def scene(tmp_path):
    return write_raster(tmp_path / "scene.tif", textured(side=512))


def test_tables_hold_baselines_the_truth_and_what_was_asked_for(tmp_path, scene):
    sample = read_sample(images(tmp_path / "images.zip"), each=4)
    assert sample.images.shape == (8, 3, 32, 32) and sample.bands == ("B04", "B03", "B02")
    turned = read_sample(tmp_path / "images.zip", each=4, bands=(3, 1))
    assert turned.bands == ("B02", "B04")
    np.testing.assert_array_equal(turned.images, sample.images[:, [2, 0]])
    with pytest.raises(ModelError, match="has bands 1 to 3, there is no band 4"):
        read_sample(tmp_path / "images.zip", each=4, bands=(3, 4))
    weights = train(settings(scene), tmp_path / "run")
    rows = evaluate(sample, [str(weights)], Degradation(2), extras=(Consistency(2), Uncertainty()))
    assert [r.method for r in rows] == [
        "nearest",
        "bicubic",
        "lanczos",
        "ibp",
        f"{weights} alone",
        str(weights),
        "reference",
    ]
    by_name = {r.method: r for r in rows}
    assert by_name["reference"].psnr == np.inf and by_name["reference"].ssim == pytest.approx(1)
    assert by_name["nearest"].psnr < by_name["bicubic"].psnr < by_name["ibp"].psnr
    assert by_name["ibp"].against is None and by_name["bicubic"].against.mean < 0
    assert by_name["ibp"].consistency < by_name["bicubic"].consistency
    assert by_name[str(weights)].consistency < by_name[f"{weights} alone"].consistency
    best = max(by_name["ibp"].psnr, by_name[f"{weights} alone"].psnr)
    assert by_name[str(weights)].beyond.mean == pytest.approx(by_name[str(weights)].psnr - best)
    assert -1 <= by_name[str(weights)].spearman <= 1 and by_name["ibp"].spearman is None
    assert to_markdown(rows, "ibp").count("\n") == len(rows) + 1
    with pytest.raises(ModelError, match="does not enlarge by 4: its scale is 2"):
        evaluate(sample, [str(weights)], Degradation(4))
    same = evaluate(sample, [str(weights), f"{weights}~{weights}@0.5"], Degradation(2))
    assert same[-3].psnr == pytest.approx(same[-2].psnr)
    with pytest.raises(ModelError, match="FIRST~SECOND@SHARE"):
        evaluate(sample, [f"{weights}~{weights}@half"], Degradation(2))
    with pytest.raises(ModelError, match="unknown model 'nobody'"):
        evaluate(sample, ["nobody"], Degradation(2))


def test_denoising_tables(tmp_path):
    sample = read_sample(images(tmp_path / "images.zip"), each=2)
    rows = {r.method: r for r in evaluate(sample, [], Degradation(noise=25))}
    assert rows["noisy"].psnr == pytest.approx(20 * np.log10(255 / 25), abs=0.2)
    assert rows["wavelet"].against.low > 0
    weak = {r.method: r for r in evaluate(sample, [], Degradation(sensor=2))}
    assert weak["noisy"].psnr > rows["noisy"].psnr


def test_a_chain_stands_beside_its_parts(tmp_path):
    sample, case = read_sample(images(tmp_path / "images.zip"), each=3), Degradation(noise=25)
    chain = "bilateral,denoise-fast"
    rows = {r.method: r for r in evaluate(sample, [chain], case, baselines=False)}
    assert list(rows) == ["noisy", "bilateral", "denoise-fast", chain]
    low, sigma = case.apply(sample.images, sample.bands, sample.level)
    smooth = run_whole(load_method("bilateral"), low, sigma)
    left = np.array([[image_noise(band) for band in image] for image in smooth], np.float32)
    out = run_whole(load_method("denoise-fast"), smooth, left)
    assert rows[chain].psnr == row_of("x", out, sample.images, 1, sample.peak, consistency=None, seconds=0).psnr
    best = max(rows["bilateral"].psnr, rows["denoise-fast"].psnr)
    assert rows[chain].beyond.mean == pytest.approx(rows[chain].psnr - best)
    assert rows["bilateral"].beyond is None and "against its best part" in to_markdown(list(rows.values()), "noisy")
    rows = {r.method: r for r in evaluate(sample, ["denoise-fast,sr-x2-fast"], Degradation(2, noise=5))}
    assert "sr-x2-fast" in rows and "denoise-fast" not in rows
    with pytest.raises(ModelError, match="denoise-fast,sr-x2-fast is no denoiser: its scale is 2"):
        evaluate(sample, ["denoise-fast,sr-x2-fast"], case)


def test_figures_of_tables():
    a, b = np.zeros((2, 1, 20, 20), np.float32), np.full((2, 1, 20, 20), 0.1, np.float32)
    b[:, :, :2] = 9  # in the border, which does not count
    b[1] *= 0.1
    assert [measure(x, y, 1, 1.0, ("psnr",))["psnr"] for x, y in zip(a, b, strict=True)] == pytest.approx([20, 40])
    row = row_of("m", b, a, 1, 1.0, baseline=np.array([19.0, 37.0]), consistency=None, seconds=0.0)
    assert (row.psnr, row.pooled) == pytest.approx((30, -10 * np.log10((0.01 + 0.0001) / 2)))
    assert row.against.mean == pytest.approx(2) and 0.999 < row.against.low < 1.999 < 2.001 < row.against.high < 3.001


@pytest.mark.parametrize(
    "name",
    [
        *("sr-x2", "sr-x2-fast", "sr-x2-rgb", "sr-x4", "sr-x4-rgb", "sr-x4-rgb-deep"),
        *("denoise", "denoise-fast", "denoise-rgb", "denoise-rgb-deep"),
    ],
)
def test_shipped_weights_beat_what_needs_no_training(name):
    """A small version of the tables in docs/models.md, on real validation images."""
    import os
    from pathlib import Path

    archive = Path(os.environ.get("SCENELIFT_DATA", "")) / "eurosat_rgb_val.zip"
    if not archive.is_file():
        pytest.skip("SCENELIFT_DATA does not name a folder with eurosat_rgb_val.zip")
    if checkpoint_path(name) is None:
        pytest.skip(f"{name} is not shipped yet")
    sample = read_sample(archive, each=1)
    if name.startswith("sr"):
        scale = int(name.split("-")[1][1])
        rows = {r.method: r.psnr for r in evaluate(sample, [name], Degradation(scale))}
        assert rows[name] > rows["ibp"] + (0.4 if scale == 2 or "sentinel2" in name else 0.1)  # the blur is estimated
    else:
        rows = {r.method: r.psnr for r in evaluate(sample, [name], Degradation(noise=15))}
        assert rows[name] > max(rows["wavelet"], rows["bilateral"], rows["nlm"]) + 0.5


def test_the_tasks_degradation_is_the_evaluations():
    x = torch.rand(1, 2, 16, 16)
    low = SuperResolution(2).fixed(x, 0.25)[0]
    again = SuperResolution(2, mtf=(0.25,)).degrade(x, torch.Generator().manual_seed(0))[0]
    torch.testing.assert_close(low, again)


def test_tables_in_documents_are_made_by_their_commands():
    text = "a\n<!-- scenelift evaluate sr -m x -->\nold\n<!-- end -->\n"
    text += "<!-- scenelift evaluate denoise -->\nkept\n<!-- end -->\n"
    new = refresh(text, "sr", run=lambda command: f"made by {command.split()[2]}")
    assert "made by sr" in new and "old" not in new and "kept" in new
    assert refresh(new, "sr", run=lambda command: f"made by {command.split()[2]}") == new

    def fails(command):
        raise ModelError("no data")

    assert refresh(text, run=fails) == text
