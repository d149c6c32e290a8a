"""Recipes of land-cover networks: TOML read into frozen settings, as in `scenelift.workflows.training.recipe`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scenelift.models.errors import ModelError
from scenelift.models.networks.architectures import build
from scenelift.models.training.labelled import Augment
from scenelift.models.training.schedule import Plan
from scenelift.pipeline.settings import read_table
from scenelift.workflows.training.recipe import RECIPES, read_recipe_file

LANDCOVER_RECIPES = RECIPES / "landcover"


@dataclass(frozen=True)
class Labelled:
    """What is trained and validated on, relative to the data folder."""

    train: str
    """A zip or folder of labelled images, or a glob of npz patches, or a raster."""
    validation: str = ""
    """The same from other places; without one, a part of the training places is kept aside."""
    labels: str = ""
    """For a raster: the raster of its labels, on the same grid."""
    each: int = 150
    """Validation images of each class looked at during training; all are at its end."""
    side: int = 64
    """Side of the patches that rasters and arrays are cut into."""


@dataclass(frozen=True)
class LandcoverRecipe:
    """Everything that decides the training of a land-cover network."""

    name: str
    arch: dict[str, Any]
    """Without "classes": those are found in the data, or given in ``classes``."""
    data: Labelled
    plan: Plan
    augment: Augment = field(default_factory=Augment)
    classes: tuple[str, ...] = ()
    start: str = ""
    """"imagenet", a shipped model, a checkpoint, or nothing."""
    patch: int = 128
    """Side of the patches the engine will hand the network."""
    note: str = ""
    licence: str = "that of your data"

    def __post_init__(self) -> None:
        if self.arch.get("kind") not in ("landcover-classifier", "landcover-segmenter"):
            raise ModelError(f"recipe {self.name!r}: {self.arch.get('kind')!r} is no land-cover network")
        if "classes" in self.arch:
            raise ModelError(f"recipe {self.name!r}: name the classes beside [arch], not in it")
        build(self.arch | {"classes": self.classes or ("a", "b")})

    @property
    def segments(self) -> bool:
        """Whether the network names pixels rather than images."""
        return bool(self.arch["kind"] == "landcover-segmenter")


def load_landcover_recipe(name: str | Path) -> LandcoverRecipe:
    """Read a recipe by its path, or by the name of one that ships.

    Raises
    ------
    ModelError
        If there is none, it is not TOML, a key is unknown or missing, or a value is out of range.
    """
    values, where = read_recipe_file(name, LANDCOVER_RECIPES, "land-cover recipe")
    return read_table(LandcoverRecipe, values, where, error=ModelError)
