"""Confusion matrices: counts that add up over blocks, and every score that follows from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenelift.models.errors import ModelError


@dataclass(frozen=True)
class Confusion:
    """Counts of (true class, named class); blocks' counts add up to the whole image's."""

    counts: NDArray[np.int64]
    """(K, K), rows are the truth."""
    classes: tuple[str, ...]

    @classmethod
    def empty(cls, classes: tuple[str, ...]) -> Confusion:
        """Return counts of nothing."""
        return cls(np.zeros((len(classes), len(classes)), np.int64), classes)

    @classmethod
    def of(cls, truth: NDArray[np.integer], named: NDArray[np.integer], classes: tuple[str, ...]) -> Confusion:
        """Count labels of any shape; negative labels, in either, are left out.

        Raises
        ------
        ModelError
            If the shapes differ or a label is not below the number of classes.
        """
        if truth.shape != named.shape:
            raise ModelError(f"labels must have the predictions' shape {named.shape}, got {truth.shape}")
        k = len(classes)
        seen = (truth >= 0) & (named >= 0)
        a, b = truth[seen].astype(np.int64), named[seen].astype(np.int64)
        if a.size and max(a.max(), b.max()) >= k:
            raise ModelError(f"labels must be from 0 to {k - 1}, got {max(a.max(), b.max())}")
        return cls(np.bincount(a * k + b, minlength=k * k).reshape(k, k), classes)

    def __add__(self, other: Confusion) -> Confusion:
        if self.classes != other.classes:
            raise ModelError(f"confusions must have the same classes to add up, got {self.classes} and {other.classes}")
        return Confusion(self.counts + other.counts, self.classes)

    def scores(self) -> dict[str, float]:
        """Return accuracy, balanced accuracy, macro F1, Cohen's kappa and mean IoU.

        Means are over the classes that occur (for IoU and F1: in labels or predictions); NaN where nothing was counted.
        """
        c = self.counts.astype(np.float64)
        total, hit = c.sum(), np.diag(c)
        if total == 0:
            return dict.fromkeys(("accuracy", "balanced_accuracy", "f1", "kappa", "miou"), float("nan"))
        true, named = c.sum(1), c.sum(0)
        occurs, either = true > 0, true + named > 0
        chance = float((true * named).sum() / total**2)
        accuracy = float(hit.sum() / total)
        return {
            "accuracy": accuracy,
            "balanced_accuracy": float((hit[occurs] / true[occurs]).mean()),
            "f1": float((2 * hit[either] / (true + named)[either]).mean()),
            "kappa": (accuracy - chance) / (1 - chance) if chance < 1 else 1.0,
            "miou": float((hit[either] / (true + named - hit)[either]).mean()),
        }

    def per_class(self) -> dict[str, dict[str, float]]:
        """Return sensitivity, specificity, F1 and IoU of each class; NaN where a class does not occur."""
        c = self.counts.astype(np.float64)
        hit, true, named, total = np.diag(c), c.sum(1), c.sum(0), c.sum()
        with np.errstate(invalid="ignore", divide="ignore"):
            columns = {
                "sensitivity": hit / true,
                "specificity": (total - true - named + hit) / (total - true),
                "f1": 2 * hit / (true + named),
                "iou": hit / (true + named - hit),
            }
        return {name: {key: float(v[i]) for key, v in columns.items()} for i, name in enumerate(self.classes)}
