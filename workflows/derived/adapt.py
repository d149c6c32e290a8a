"""`scenelift adapt`: a network goes on learning on the user's own scenes, and must show that this helped."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scenelift.models.checkpoint import write_atomically
from scenelift.models.errors import ModelError
from scenelift.models.sensing.estimation import cut_tiles, estimate_blur
from scenelift.models.sensing.sensors import parse_blur
from scenelift.models.training.known import Known
from scenelift.models.training.schedule import Phase
from scenelift.pipeline.errors import SceneliftError, UnfitError
from scenelift.pipeline.scenes.opening import open_scene
from scenelift.pipeline.scenes.scenes import Scene, SceneSource
from scenelift.workflows.clouds import with_clouds
from scenelift.workflows.conditions import ASSUMED, image_noise, scene_conditions
from scenelift.workflows.derived.parents import Parent, on, read_parent, sources
from scenelift.workflows.derived.settings import Adaptation
from scenelift.workflows.settings import band_list
from scenelift.workflows.training.recipe import Recipe, Source
from scenelift.workflows.training.sources import find_sources, holds_images, read_source

MOST_SCENES = 16
"""Scenes of an archive in which blur and noise are looked for, from all over its list."""
PATCHES = 256
"""Patches of a set of images in which they are."""
SIDE = 48
"""Side of the patches of an adaptation by two: small archives give enough of them."""
UNLIKE = 3.0
"""Factor between the noise of two scenes from which on they are not adapted to together without a word."""


def adaptation(name: str, settings: Adaptation) -> tuple[Recipe, list[str]]:
    """Return the recipe by which a network goes on learning on scenes, and what was found in them: lines for people.

    A network that enlarges learns to undo the blur and the noise of the scenes themselves, one scale coarser (Wald's
    protocol); a denoiser learns from their noisy pixels alone, see `scenelift.models.training.known.KnownDenoising`.

    Parameters
    ----------
    name : str
        A shipped network or a checkpoint.
    settings : Adaptation

    Raises
    ------
    ModelError
        If there is no such network, no scene, or one that cannot be read or has other bands.
    """
    if not settings.scenes:
        raise ModelError("adapt needs --scenes, got none: name the rasters to adapt to")
    parent = read_parent(name, "adapted")
    base, together = parent.recipe, int(parent.arch.get("bands", 1))
    found = [
        dataclasses.replace(source, path=str(path), bands=_bands(settings.bands, path))
        for path, source in find_sources(sources(settings.scenes))
    ]
    looked = found[:: -(-len(found) // MOST_SCENES)]
    if base.task == "denoise":
        degradation, notes = _noise(looked, together, name)
    else:
        degradation, notes = _blurs(looked, together, settings.blur, parent)
    first, last = base.plan.phases[0], base.plan.phases[-1]
    phase = Phase(settings.steps, rate=first.rate / 3, loss=last.loss, warmup=min(50, max(1, settings.steps // 10)))
    every = max(1, min(100, settings.steps // 4))
    side = SIDE if parent.spec.scale == 2 else base.data.side
    return dataclasses.replace(
        base,
        name=f"{parent.spec.name}-adapted",
        data=on(base, tuple(found), side=side, gains=(1.0, 1.0), gammas=(1.0, 1.0)),
        plan=dataclasses.replace(base.plan, phases=(phase,), validate_every=every, patience=4, keep="best"),
        degradation=degradation,
        start=name,
        adversarial=None,
        note=f"{parent.spec.name}, adapted to {len(found)} scene(s) of the user.",
    ), notes


def publish(made: Path, output: Path, settings: Adaptation) -> str:
    """Copy an adapted network and its card to the user's name for it, if it is better than the one it began as.

    Returns
    -------
    str
        One line for people: by how much.

    Raises
    ------
    UnfitError
        If it is not, on places that neither has seen, and is not forced; nothing is written then.
    """
    card = json.loads(made.with_suffix(".json").read_text(encoding="utf-8"))
    parent, gain = card["parent"]["name"], card["validation"]["psnr_db"] - card["parent"]["psnr_db"]
    wanted = settings.require_gain
    helped = gain > 0 if wanted is None else gain >= wanted
    if not helped and not settings.force:
        least = "" if wanted is None else f", --require-gain asks for {wanted:g}"
        raise UnfitError(
            f"{'did not help' if gain <= 0 else 'too little'}: {gain:+.2f} dB to {parent} on scenes kept aside{least}; "
            f"{output} was not written (--force writes it; it is kept as {made})"
        )
    card["adapted_from"] = card["parent"] | {"gain_db": round(gain, 3), "forced": not helped}
    write_atomically(output, made.read_bytes())
    write_atomically(output.with_suffix(".json"), (json.dumps(card, indent=2) + "\n").encode())
    return f"{gain:+.2f} dB to {parent} on scenes kept aside"


def _bands(text: str | None, path: Path) -> tuple[int, ...] | None:
    """Return the 1-based bands of a file that --bands names by number or, of scenes, by name."""
    if text is None or all(part.strip().isdecimal() for part in text.split(",")):
        return None if text is None else band_list(text)
    if _is_images(path):
        raise ModelError(f"{path} has no names of bands: give --bands as numbers, got {text!r}")
    return _scene(path, tuple(part.strip() for part in text.split(","))).numbers


def _is_images(path: Path) -> bool:
    return holds_images(path) or path.suffix.lower() == ".npz"


def _scene(path: Path, bands: tuple[int | str, ...] | None) -> Scene:
    try:
        return open_scene(with_clouds(SceneSource((str(path),), bands)))
    except SceneliftError as error:
        raise ModelError(f"cannot read {path} as images: {error}") from None


def _blurs(found: Sequence[Source], together: int, blur: str, parent: Parent) -> tuple[dict[str, object], list[str]]:
    """Return the degradation of Wald's protocol with the blur and the noise of scenes, and what they are."""
    known: list[Known] = []
    for source in found:
        each = _known(source, blur)
        if together == 1:  # a network of one band: every band is a scene of its own
            known += [Known((b,), (s,)) for b, s in zip(each.blur, each.noise, strict=True)]
        elif len(each.blur) == together:
            known.append(each)
        else:
            raise ModelError(
                f"{source.path} has {len(each.blur)} bands, {parent.name} wants {together} together: "
                "choose them by --bands"
            )
    different = list(dict.fromkeys(known))
    blurs = list(dict.fromkeys(blur.describe() for each in different for blur in each.blur))
    noise = sorted(sigma for each in different for sigma in each.noise)
    origin = "estimated" if blur == "auto" else "given"
    line = f"blur of the scenes ({origin}): {', '.join(blurs[:6])}{' …' if len(blurs) > 6 else ''}; "
    line += f"noise {noise[0]:.4f} to {noise[-1]:.4f} reflectance"
    values = [dataclasses.asdict(each) for each in different]
    told = parent.spec.needs_blur
    return {"scale": parent.spec.scale, "known": values, "told": told}, [line]


def _known(source: Source, blur: str) -> Known:
    path = Path(source.path)
    if not _is_images(path):
        found = scene_conditions(_scene(path, source.bands), blur)
        return Known(found.blur, found.noise)
    images = read_source(path, SIDE, source.bands, most=PATCHES)
    values = images.reflectance(slice(PATCHES)).numpy()
    tiles = [np.concatenate([cut_tiles(image[band]) for image in values]) for band in range(values.shape[1])]
    each = estimate_blur(tiles)
    given = parse_blur(blur, list(images.bands) or [""] * values.shape[1])
    blurs = given or tuple(one.blur if one else ASSUMED for one in each)
    return Known(blurs, tuple(one.sigma if one else 0.0 for one in each))


def _noise(found: Sequence[Source], together: int, name: str) -> tuple[dict[str, object], list[str]]:
    """Return the degradation that learns from noisy scenes, with their noise, and what it is."""
    rows = [_levels(source) for source in found]
    if together > 1:
        for source, row in zip(found, rows, strict=True):
            if len(row) != together:
                raise ModelError(
                    f"{source.path} has {len(row)} bands, {name} wants {together} together: choose them by --bands"
                )
        levels = np.median(np.array(rows), 0)
    else:
        levels = np.array([np.median(np.concatenate(rows))])
    every = np.concatenate(rows)
    lines = [f"noise of the scenes (estimated): {', '.join(f'{level:.4f}' for level in levels)} reflectance"]
    if every.max() > UNLIKE * max(every.min(), 1e-4):
        unlike = f"{every.min():.4f} to {every.max():.4f}"
        lines.append(f"the noise differs from scene to scene ({unlike}): adapt to those of one sensor at a time")
    return {"noise": [round(float(level), 6) for level in levels]}, lines


def _levels(source: Source) -> np.ndarray:
    """Return the noise of each band of a scene or of images: the median over windows."""
    path = Path(source.path)
    if _is_images(path):
        values = read_source(path, SIDE, source.bands, most=PATCHES).reflectance(slice(32)).numpy()
        return np.median([[image_noise(band) for band in image] for image in values], 0)
    return np.array(scene_conditions(_scene(path, source.bands)).noise)
