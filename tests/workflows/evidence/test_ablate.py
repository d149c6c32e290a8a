"""The ablation study: one change a variant, same budget, nothing trained twice."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from scenelift.pipeline.errors import UsageError
from scenelift.workflows.evidence.ablate import VARIANTS, AblateSettings, Outcome, ablate, recipe_of
from scenelift.workflows.evidence.pages import ablation_text


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small archives of the names the study reads."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name, count in (("eurosat_rgb_train.zip", 80), ("eurosat_rgb_val.zip", 8)):
        with zipfile.ZipFile(folder / name, "w") as out:
            for number in range(count):
                values = 120 + 400 * ndimage.gaussian_filter(rng.standard_normal((64, 64, 3)), (4, 4, 0))
                buffer = io.BytesIO()
                Image.fromarray(np.clip(values, 0, 255).astype("uint8")).save(buffer, "PNG")
                out.writestr(f"class{number % 2}/image_{number}.png", buffer.getvalue())
    return folder


def test_variants_differ_from_the_baseline_in_one_thing():
    settings = AblateSettings()
    base = recipe_of(VARIANTS[0], settings, 0)
    assert (base.arch["norm"], base.plan.phases[0].loss, base.plan.optimizer) == ("batch", "mse", "adam")
    for variant in VARIANTS[1:]:
        other = recipe_of(variant, settings, 0)
        changed = {k for k in base.arch | other.arch if base.arch.get(k) != other.arch.get(k)}
        changed |= {"loss"} if other.plan != base.plan else set()
        changed |= {"perceptual"} if variant.perceptual else set()
        assert len(changed) == 1, variant.name


def test_a_tiny_study_trains_scores_and_is_not_repeated(data, tmp_path):
    settings = AblateSettings(steps=3, batch=2, channels=4, blocks=1, seeds=2, each=2, data=data)
    chosen = [v for v in VARIANTS if v.name in ("baseline", "sigmoid", "SSIM loss")]
    outcomes = ablate(settings, tmp_path, variants=chosen)
    assert [o.variant for o in outcomes] == chosen
    assert all(o.psnr.shape == (2, 4) and np.isfinite(o.psnr).all() for o in outcomes)
    checkpoints = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("ablation.safetensors")}
    assert len(checkpoints) == 2 * len(outcomes)
    again = ablate(settings, tmp_path, variants=chosen)
    assert {p: p.stat().st_mtime_ns for p in checkpoints} == checkpoints
    assert all(np.array_equal(a.psnr, b.psnr) for a, b in zip(outcomes, again, strict=True))


def outcome(name: str, *rows: list[float]) -> Outcome:
    variant = next(v for v in VARIANTS if v.name == name)
    return Outcome(variant, np.array(rows), np.full((len(rows), len(rows[0])), 0.9))


def test_the_page_puts_differences_beside_the_papers():
    base = outcome("baseline", [30.0, 32.0], [31.0, 33.0])
    worse = outcome("sigmoid", [28.0, 30.0], [29.5, 31.5])
    better = outcome("without normalisation", [30.5, 32.5], [31.5, 33.5])
    same = outcome("leaky ReLU", [29.0, 33.0], [30.0, 34.0])
    text = ablation_text([base, better, same, worse], AblateSettings(seeds=2), "scenelift ablate")
    assert "| sigmoid | 29.75 | 0.900 | -1.75 [-1.75, -1.75] | 0.35 | -1.8 |" in text
    assert "- sigmoid: the sign reproduces." in text
    assert "- without normalisation: the sign is the opposite." in text
    assert "- leaky ReLU: no difference can be told from zero." in text


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(UsageError, match="steps"):
        AblateSettings(steps=0)
