"""`scenelift classify`: a scene in, a map of classes out, through the same engine as every enhancement."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from scenelift.models.catalog import find, load_spec
from scenelift.models.errors import ModelError
from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.jobs.running import Announce, Progress
from scenelift.pipeline.jobs.summary import EnhanceSummary
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.workflows.enhance import enhance
from scenelift.workflows.settings import EnhanceSettings


def classify(
    source: SceneSource,
    output: Path,
    models: str,
    settings: EnhanceSettings,
    cluster: ClusterSettings,
    progress: Progress | None = None,
    announce: Announce | None = None,
    *,
    probabilities: bool = False,
) -> EnhanceSummary:
    """Classify a scene, or resume a classification that was interrupted.

    Parameters
    ----------
    source, output, settings, cluster, progress, announce
        As for `scenelift.workflows.enhance.enhance`.
    models : str
        One model for land cover, or a chain that ends with one ("denoise-rgb,sr-x2-rgb,landcover-eurosat"): what the
        first ones make is never written.
    probabilities : bool
        Store the probability of every class (float32) instead of the most probable class (palette, names).

    Raises
    ------
    ModelError
        If the last model does not name classes.
    Others
        As for `enhance`.
    """
    last = models.split(",")[-1]
    if load_spec(find(last)).task != "landcover":
        raise ModelError(f"{last} names no classes: the last model must be one for land cover (landcover-eurosat, …)")
    return enhance(source, output, models, replace(settings, classes=not probabilities), cluster, progress, announce)
