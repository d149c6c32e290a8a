"""`scenelift classify`: a scene in, a map of classes out, through the same engine as every enhancement."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from scenelift.models.catalog import find, load_spec
from scenelift.models.errors import ModelError
from scenelift.models.shipped import joint_of
from scenelift.models.spec import ModelSpec
from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.jobs.running import Announce, Progress
from scenelift.pipeline.jobs.summary import EnhanceSummary
from scenelift.pipeline.outputs.outputs import output_of
from scenelift.pipeline.scenes.scenes import SceneSource
from scenelift.workflows.choosing.prepared import opened
from scenelift.workflows.conditions import colour_bands, scene_conditions
from scenelift.workflows.enhance import enhance
from scenelift.workflows.landcover.chains import Choice, Seen, choose, read_chains, unmeasured
from scenelift.workflows.landcover.settings import AUTO, split_chain
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
    force: bool = False,
) -> EnhanceSummary:
    """Classify a scene, or resume a classification that was interrupted.

    Parameters
    ----------
    source, output, settings, cluster, progress, announce
        As for `scenelift.workflows.enhance.enhance`.
    models : str
        One model for land cover, or a chain that ends with one ("denoise-rgb,landcover-eurosat"): what the first ones
        make is never written. "auto,landcover-eurosat": what helps that classifier most at the scene's noise and blur,
        by what was measured on its validation images.
    probabilities : bool
        Store the probability of every class (float32) instead of the most probable class (palette, names).
    force : bool
        Go on although the chain lowers the classifier's accuracy at the scene's noise and blur.

    Raises
    ------
    ModelError
        If the last model does not name classes.
    UnfitError
        If the chain surely lowers its accuracy, by what was measured, and `force` is not given.
    Others
        As for `enhance`.
    """
    before, last = split_chain(models)
    spec = load_spec(find(last))
    if spec.task != "landcover":
        raise ModelError(f"{last} names no classes: the last model must be one for land cover (landcover-eurosat, …)")
    choice = _choose(source, before, last, spec, settings, force)
    settings = replace(settings, classes=not probabilities, choice=choice.note)
    return enhance(source, output, ",".join((*choice.names, last)), settings, cluster, progress, announce)


def _choose(
    source: SceneSource, before: tuple[str, ...], last: str, spec: ModelSpec, settings: EnhanceSettings, force: bool
) -> Choice:
    """Choose what goes before a classifier; the scene is looked at only if something was measured of that."""
    chains = read_chains(last)
    if chains is None:
        return unmeasured(before, last)
    _, scene = opened(source, (last,) if before == (AUTO,) else (*before, last))
    output_of(scene, [spec], scene.grid.shape)  # refuses bands that do not fit, before anything else is said
    coloured = colour_bands(scene) is not None
    joint = tuple((coloured and joint_of(name)) or name for name in before)

    def look() -> Seen:
        found = scene_conditions(scene, noise=settings.noise, published=False)  # as the measured images were seen
        return Seen.of(found, scene.grid.metres / chains.pixel, windows=True)

    return choose(before, last, chains, look, joint, force)
