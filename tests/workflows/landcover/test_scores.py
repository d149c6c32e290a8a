"""Scores of classes: every one against scikit-learn or scipy, intervals over scenes."""

import numpy as np
import pytest
from sklearn import metrics

from scenelift.models.training.confusion import Confusion
from scenelift.workflows.evidence.statistics import balanced_interval, class_weights, macro_auc, mcnemar, recovery


def labels(n=400, k=5, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.choice(k, n, p=[0.5, 0.2, 0.15, 0.1, 0.05])
    shares = rng.dirichlet(np.ones(k), n) + 0.7 * np.eye(k)[truth] * rng.random((n, 1))
    return truth, shares / shares.sum(1, keepdims=True)


def test_scores_are_those_of_scikit_learn():
    truth, shares = labels()
    named = shares.argmax(1)
    confusion = Confusion.of(truth, named, tuple("abcde"))
    assert np.array_equal(confusion.counts, metrics.confusion_matrix(truth, named))
    scores = confusion.scores()
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(truth, named))
    assert scores["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(truth, named))
    assert scores["f1"] == pytest.approx(metrics.f1_score(truth, named, average="macro"))
    assert scores["kappa"] == pytest.approx(metrics.cohen_kappa_score(truth, named))
    assert scores["miou"] == pytest.approx(metrics.jaccard_score(truth, named, average="macro"))
    assert macro_auc(truth, shares) == pytest.approx(metrics.roc_auc_score(truth, shares, multi_class="ovr"))
    sensitivity = metrics.recall_score(truth, named, average=None)
    for k, (name, row) in enumerate(confusion.per_class().items()):
        assert row["sensitivity"] == pytest.approx(sensitivity[k]), name
        specificity = metrics.recall_score(truth != k, named != k)
        assert row["specificity"] == pytest.approx(specificity)


def test_confusions_of_blocks_add_up_to_the_whole_image():
    rng = np.random.default_rng(3)
    truth, named = rng.integers(-1, 4, (2, 67, 45))
    whole = Confusion.of(truth, named, tuple("abcd"))
    total = Confusion.empty(tuple("abcd"))
    for row in range(0, 67, 16):
        for col in range(0, 45, 20):
            block = slice(row, row + 16), slice(col, col + 20)
            total += Confusion.of(truth[block], named[block], tuple("abcd"))
    assert np.array_equal(total.counts, whole.counts)
    assert total.counts.sum() == ((truth >= 0) & (named >= 0)).sum()


def test_mcnemar_is_the_binomial_test():
    from scipy.stats import binomtest

    first = np.array([True] * 12 + [False] * 3 + [True] * 40)
    second = np.array([False] * 12 + [True] * 3 + [True] * 40)
    test = mcnemar(first, second)
    assert (test.b, test.c) == (12, 3)
    assert test.p == pytest.approx(binomtest(3, 15).pvalue)
    assert mcnemar(first, first).p == 1.0


def test_recovery_is_a_ratio_of_balanced_accuracies():
    truth, _ = labels()
    rng = np.random.default_rng(1)
    best = rng.random(400) < 0.95
    worst, mended = best & (rng.random(400) < 0.4), best & (rng.random(400) < 0.8)
    balanced = [float(class_weights(truth) @ right) for right in (best, worst, mended)]
    assert balanced[0] == pytest.approx(metrics.balanced_accuracy_score(truth, np.where(best, truth, (truth + 1) % 5)))
    found = recovery(truth, best, worst, mended)
    assert found.mean == pytest.approx((balanced[2] - balanced[1]) / (balanced[0] - balanced[1]))
    assert found.low < found.mean < found.high
    scenes = np.arange(400) // 10
    assert recovery(truth, best, worst, mended, scenes).mean == pytest.approx(found.mean)
    hardly = best & (rng.random(400) < 0.999)
    assert np.isnan(recovery(truth, best, hardly, mended).mean)  # nothing was surely lost, so no share of it


def test_intervals_of_balanced_accuracy_are_over_scenes():
    truth, _ = labels()
    rng = np.random.default_rng(2)
    scenes = np.arange(400) // 20
    right = rng.random(400) < rng.uniform(0.2, 0.9, 20)[scenes]  # whole scenes are easy or hard
    alone, together = balanced_interval(truth, right), balanced_interval(truth, right, scenes)
    named = np.where(right, truth, (truth + 1) % 5)
    assert alone.mean == pytest.approx(metrics.balanced_accuracy_score(truth, named))
    assert together.mean == pytest.approx(alone.mean)
    assert together.high - together.low > 1.5 * (alone.high - alone.low)
    better = right | (rng.random(400) < 0.3)
    gain = balanced_interval(truth, better.astype(float) - right, scenes)
    assert gain.mean == pytest.approx(balanced_interval(truth, better).mean - alone.mean)
    assert gain.high - gain.low < together.high - together.low
