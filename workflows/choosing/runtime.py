"""Where models run, and how precisely."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scenelift.models.catalog import ModelRef, is_classical, precision_for
from scenelift.models.spec import PRECISIONS
from scenelift.pipeline.addresses import work_folder
from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.enhance import Enhancer
from scenelift.pipeline.jobs.journal import read_fingerprint
from scenelift.workflows.settings import EnhanceSettings

SMALL = 2_000_000
"""Pixels of a scene up to which one process with all its threads is sooner done than workers that must start."""


@dataclass(frozen=True)
class Runtime:
    """Where models run, and how precisely."""

    device: str
    """Where the blocks are done: "cpu" or "cuda"."""
    here: str
    """Where this process can run a model: the workers may have what this machine has not."""
    precision: str
    """As it was asked for."""
    threads: int
    begun: Mapping[str, Any]
    """What an unfinished or finished job of the same output says about its models, by number."""

    @classmethod
    def choose(
        cls, settings: EnhanceSettings, cluster: ClusterSettings, path: Path | None, names: Sequence[str | Enhancer]
    ) -> Runtime:
        """Choose the device for "auto"."""
        begun = (path and read_fingerprint(work_folder(path))) or {}
        models = begun.get("models", {})
        usual = settings.device in ("auto", "cpu") and settings.precision in ("auto", *PRECISIONS)
        if usual and all(isinstance(name, str) and is_classical(name) for name in names):
            return cls("cpu", "cpu", settings.precision, cluster.threads, models)  # without a second's import of torch
        from scenelift.models.enhancer import gpu_count, pick_device
        from scenelift.models.precision import pick_precision

        device = pick_device(settings.device, cluster.elsewhere)
        pick_precision(settings.precision, device)  # refuses an unknown one, whatever the models are
        here = device if gpu_count() else "cpu"
        return cls(device, here, settings.precision, cluster.threads, models)

    def precision_of(self, ref: ModelRef, number: int) -> str:
        """Return "fp32" or "bf16"; "auto" stays what it was for a job begun on a machine with another processor."""
        before = self.begun.get(str(number), {})
        if self.precision == "auto" and before.get("sha256") == ref.digest and before.get("precision") in PRECISIONS:
            return str(before["precision"])
        return precision_for(ref.name, self.precision, self.device)


def here_if_small(shape: tuple[int, int], cluster: ClusterSettings) -> ClusterSettings:
    """Return the cluster, or this process with all its threads: starting workers would take longer than the work."""
    asked = cluster != ClusterSettings()
    return cluster if asked or math.prod(shape) > SMALL else replace(cluster, workers=0)
