"""The network that another one is made of: its file, its contract, and the recipe that it came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenelift.models.catalog import find
from scenelift.models.checkpoint import checkpoint_digest, read_metadata
from scenelift.models.errors import ModelError
from scenelift.models.onnx import SUFFIX as ONNX
from scenelift.models.shipped import checkpoint_path
from scenelift.models.spec import ModelSpec
from scenelift.models.training.schedule import Phase, Schedule
from scenelift.workflows.training.recipe import RECIPES, Data, Recipe, Source, load_recipe

TASKS = ("super-resolution", "denoise")
"""Of the networks that can be derived from: others are told more than patches."""
ANYWHERE = Data((Source("."),))


@dataclass(frozen=True)
class Parent:
    """A trained network."""

    name: str
    """As it was given: a shipped name or a path."""
    path: Path
    digest: str
    spec: ModelSpec
    arch: dict[str, Any]
    recipe: Recipe
    """What it was trained by; of a network of one's own, what it would be trained by, with the defaults."""

    def facts(self) -> dict[str, Any]:
        """Return what a card tells of it."""
        return {"name": self.spec.name, "sha256": self.digest}


def read_parent(name: str, doing: str) -> Parent:
    """Return a network that super-resolves or denoises, by its name or its checkpoint.

    Parameters
    ----------
    name : str
    doing : str
        What shall be done with it, for messages: "compressed".

    Raises
    ------
    ModelError
        If there is no such model, or it is no network of this program that could be trained on.
    """
    if name.endswith(ONNX):
        raise ModelError(f"{name} is an ONNX file and cannot be {doing}: give the checkpoint that it was written from")
    path = checkpoint_path(name)
    if path is None:
        find(name)  # says which name was meant
        kind = "a model of another program" if ":" in name else "a method without weights"
        raise ModelError(f"{name} is {kind} and cannot be {doing}: give a shipped network or a .safetensors checkpoint")
    spec, arch = read_metadata(path)
    if spec.task not in TASKS:
        raise ModelError(
            f"{name} is a network for {spec.task} and cannot be {doing}; those for {' and '.join(TASKS)} can"
        )
    return Parent(name, path, checkpoint_digest(path), spec, arch, _recipe(spec, arch))


def _recipe(spec: ModelSpec, arch: dict[str, Any]) -> Recipe:
    told = str(spec.record.get("recipe", spec.name))
    if told in {path.stem for path in RECIPES.glob("*.toml")}:
        found = load_recipe(told)
        if isinstance(found, Recipe) and found.arch == arch:
            return found
    return Recipe(
        name=spec.name,
        task=spec.task,
        arch=arch,
        data=ANYWHERE,
        plan=Schedule((Phase(1000),), batch=16, optimizer="muon", precision="bf16", ema=0.998),
        degradation={"scale": spec.scale} if spec.scale > 1 else {},
        patch=spec.patch,
    )


def sources(paths: Sequence[Path | str], bands: tuple[int, ...] | None = None) -> tuple[Source, ...]:
    """Return sources of training patches that lie where the user says, not below a data folder."""
    return tuple(Source(str(Path(path).absolute()), bands=bands) for path in paths)


def on(recipe: Recipe, learned: tuple[Source, ...], held_out: tuple[Source, ...] = (), **changes: Any) -> Data:
    """Return a recipe's data with other sources."""
    return dataclasses.replace(recipe.data, train=learned, validation=held_out, **changes)
