"""Detectors: rates against scikit-learn, intervals against plain resampling, the command on real files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from affine import Affine
from sklearn import metrics
from support.builders import UTM, write_raster
from support.jobs import scenelift

from scenelift.pipeline.errors import UsageError
from scenelift.workflows.evidence.detection.rates import STEPS, best_threshold, count, edges_of, rate, roc


def samples(n: int = 400, places: int = 20, seed: int = 0, digits: int = 2):
    rng = np.random.default_rng(seed)
    at = rng.integers(0, places, n)
    truth = rng.random(n) < 0.2 + 0.6 * (at % 2)
    return np.round(truth * 0.7 + rng.normal(0, 1, n), digits), truth, at


def test_four_samples_by_hand():
    scores, truth = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    found = count(scores, truth, np.arange(4), edges_of(scores, 0.3), 4)
    rates = rate({"a": found}, 0.3)["a"]
    assert rates.auc.mean == 0.75  # 3 of 4 pairs
    assert rates.sensitivity.mean == 1.0
    assert rates.specificity.mean == 0.5
    assert best_threshold(scores, truth) == 0.1
    assert roc(found).tolist()[0] == [0, 0]
    assert roc(found).tolist()[-1] == [1, 1]


@pytest.mark.parametrize("digits", [1, 2])
def test_rates_agree_with_scikit_learn(digits: int):
    scores, truth, at = samples(digits=digits)
    found = count(scores, truth, at, edges_of(scores, 0.25), 20)
    rates = rate({"a": found}, 0.25)["a"]
    assert rates.auc.mean == pytest.approx(metrics.roc_auc_score(truth, scores), abs=1e-12)
    assert rates.sensitivity.mean == pytest.approx(metrics.recall_score(truth, scores > 0.25))
    assert rates.specificity.mean == pytest.approx(metrics.recall_score(~truth, scores <= 0.25))
    x, y, _ = metrics.roc_curve(truth, scores, drop_intermediate=False)
    mine = {tuple(np.round(point, 12)) for point in roc(found)}
    assert mine == {tuple(np.round(point, 12)) for point in zip(x, y, strict=True)}
    best = best_threshold(scores, truth)
    assert np.isclose((y - x).max(), np.mean(scores[truth] > best) - np.mean(scores[~truth] > best))


def test_many_different_scores_are_put_together_by_quantiles():
    scores, truth, at = samples(20_000, digits=9)
    found = count(scores, truth, at, edges_of(scores, 0.1), 20)
    assert len(found.edges) <= STEPS + 1
    assert rate({"a": found}, 0.1)["a"].auc.mean == pytest.approx(metrics.roc_auc_score(truth, scores), abs=1e-4)


def test_intervals_are_over_places_and_differences_paired():
    scores, truth, at = samples()
    better = scores + 0.5 * truth
    arms = {name: count(s, truth, at, edges_of(s, 0.3), 20) for name, s in (("before", scores), ("after", better))}
    rates = rate(arms, 0.3)
    rng, drawn = np.random.default_rng(1), []
    for _ in range(250):
        chosen = np.concatenate([np.flatnonzero(at == place) for place in rng.integers(0, 20, 20)])
        drawn.append([metrics.roc_auc_score(truth[chosen], s[chosen]) for s in (scores, better)])
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    assert rates["before"].auc.low == pytest.approx(low[0], abs=0.03)
    assert rates["after"].auc.high == pytest.approx(high[1], abs=0.03)
    gains = np.subtract(*np.transpose(drawn)[::-1])
    gain = rates["after"].gains["auc"]
    assert (gain.low, gain.high) == pytest.approx(tuple(np.percentile(gains, [2.5, 97.5])), abs=0.015)
    assert rates["before"].gains == {}


def test_labels_of_one_kind_are_refused():
    with pytest.raises(UsageError, match=r"call nothing positive \(0 positive, 3 negative samples\)"):
        best_threshold(np.arange(3.0), np.zeros(3, bool))


@pytest.fixture
def water(tmp_path):
    """Two bands of a scene, another half as coarse, and where water is; nodata at different places."""
    rng = np.random.default_rng(0)
    truth = (np.hypot(*np.mgrid[-32:32, -40:40]) < 20) | (rng.random((64, 80)) < 0.05)
    green, infrared = 800 + 0 * truth, np.where(truth, 300, 1500)
    fine = np.stack([green, infrared]) + rng.normal(0, 250, (2, 64, 80))
    coarse = fine.reshape(2, 32, 2, 40, 2).mean(axis=(2, 4))
    fine, coarse = (np.clip(a, 1, None).astype("uint16") for a in (fine, coarse))
    fine[:, :5, :7], coarse[:, 30:, 30:] = 0, 0
    paths = [
        write_raster(tmp_path / "before.tif", coarse, transform=UTM @ Affine.scale(2), nodata=0),
        write_raster(tmp_path / "after.tif", fine, nodata=0),
        write_raster(tmp_path / "water.tif", np.where(truth, 3, 1)[None].astype("uint8")),
    ]
    return paths, truth, fine, coarse


def test_the_command_on_scenes_of_two_grids(tmp_path, water):
    (before, after, labels), truth, fine, coarse = water
    command = ["evaluate", "detection", before, after, "--labels", labels, "--positive", "3", "--difference", "1,2"]
    found = json.loads(scenelift(*command, "--place", "10", "-o", tmp_path / "out", "--json").stdout)
    images = [coarse.repeat(2, axis=1).repeat(2, axis=2).astype(float), fine.astype(float)]
    known = (images[0] > 0).all(axis=0) & (images[1] > 0).all(axis=0)
    assert (found["samples"], found["places"]) == (known.sum(), 7 * 8 - 2)  # of two places nothing is known
    for name, image in zip(("before.tif", "after.tif"), images, strict=True):
        index = ((image[0] - image[1]) / (image[0] + image[1]))[known]
        own = found["detectors"][name]
        assert own["auc"][0] == pytest.approx(metrics.roc_auc_score(truth[known], index), abs=2e-4)
        assert own["sensitivity"][0] == pytest.approx(np.mean(index[truth[known]] > found["threshold"]), abs=2e-3)
        assert own["auc"][1] <= own["auc"][0] <= own["auc"][2]
    assert set(found["detectors"]["after.tif"]["differences"]) == {"auc", "sensitivity", "specificity"}
    assert (tmp_path / "out" / "roc.csv").read_text().startswith("detector,false positive rate,true positive rate\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["before.tif"], "scenes and --labels go together"),
        (["--positive", "Woods"], "landcover-eurosat knows no class 'Woods'; it knows AnnualCrop"),
        ([], "name what is looked for by --positive"),
        (["before.tif", "--labels", "water.tif", "--difference", "1"], "--difference must be two bands such as 2,4"),
        (["before.tif", "--labels", "water.tif", "--band", "3"], "has 2 bands, there is no band 3"),
        (["before.tif", "--labels", "water.tif", "--positive", "7"], "call nothing positive"),
        (["before.tif", "--labels", "before.tif"], "labels are one of whole numbers"),
        (["before.tif", "--labels", "small.tif"], "do not lie on the grid of before.tif"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, water, words, message):
    write_raster(tmp_path / "small.tif", np.ones((1, 5, 5), "uint8"))
    paths = [str(tmp_path / word) if word.endswith(".tif") else word for word in words]
    done = scenelift("evaluate", "detection", *paths, ok=False)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
