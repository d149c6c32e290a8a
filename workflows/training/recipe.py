"""Training recipes: TOML files read into frozen settings; an unknown key is an error."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.nn import Module

from scenelift.models.errors import ModelError
from scenelift.models.networks.architectures import build
from scenelift.models.networks.classifier import STAGES
from scenelift.models.spec import ModelSpec
from scenelift.models.training.adversarial import AdversarialSettings
from scenelift.models.training.haze import Dehazing
from scenelift.models.training.known import KnownDenoising, KnownSuperResolution
from scenelift.models.training.labelled import Augment
from scenelift.models.training.losses import pixel_loss
from scenelift.models.training.schedule import Schedule
from scenelift.models.training.tasks import BlindSuperResolution, Denoising, SuperResolution, Task
from scenelift.pipeline.settings import read_table

RECIPES = Path(__file__).parent / "recipes"
RESTORING = "super-resolution", "denoise", "dehaze"
"""Tasks of networks that restore images."""


@dataclass(frozen=True)
class Source:
    """Where clean patches come from."""

    path: str
    """A zip of images, a folder, a raster, a Zarr store, an npz; or a glob; relative to the data folder."""
    weight: float = 1.0
    """How often it is drawn from, relative to the others."""
    bands: tuple[int, ...] | None = None
    """1-based bands to use; None: all."""

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ModelError(f"the weight of the source {self.path} must be above 0, got {self.weight:g}")
        if self.bands is not None and (not self.bands or min(self.bands) < 1):
            raise ModelError(f"the bands of the source {self.path} must be numbers from 1 up, got {list(self.bands)}")
        if self.bands is not None and len(set(self.bands)) < len(self.bands):
            raise ModelError(f"the bands of the source {self.path} must differ, got {list(self.bands)}: name each once")


@dataclass(frozen=True)
class Data:
    """What is trained and validated on."""

    train: tuple[Source, ...]
    validation: tuple[Source, ...] = ()
    """Other sites. Without any, a tenth of the training sites is kept aside."""
    side: int = 64
    """Side of training patches, pixels of the clean image."""
    gains: tuple[float, float] = (1.0, 1.0)
    """Range of the random factor on reflectance."""
    gammas: tuple[float, float] = (1.0, 1.0)
    """Range of the random exponent on reflectance, about a middle grey."""
    validation_count: int = 100

    def __post_init__(self) -> None:
        if not 8 <= self.side <= 4096:
            raise ModelError(f"data.side must be from 8 to 4096 pixels, got {self.side}")
        for name in ("gains", "gammas"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ModelError(f"data.{name} must be two numbers above 0, the smaller first, got {[low, high]}")
        if self.validation_count < 1:
            raise ModelError(f"data.validation_count must be at least 1, got {self.validation_count}")
        if not self.train:
            raise ModelError("data.train must name at least one source, got none")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run."""

    name: str
    task: str
    """"super-resolution", "denoise" or "dehaze"."""
    arch: dict[str, Any]
    data: Data
    plan: Schedule
    degradation: dict[str, Any] = field(default_factory=dict)
    """Arguments of the task's degradation, see `scenelift.models.training.tasks`; with "known" (super-resolution) or
    "noise" (denoising), which an adaptation finds in scenes, see `scenelift.models.training.known`."""
    start: str | None = None
    """Shipped model or checkpoint whose weights to start from; tensors of another shape start fresh."""
    patch: int = 128
    """Side of the patches the engine will hand the network."""
    adversarial: AdversarialSettings | None = None
    note: str = ""
    """For the model card: what this model is for, and where it should not be trusted."""

    def __post_init__(self) -> None:
        if self.task not in RESTORING:
            raise ModelError(f"recipe {self.name!r}: task must be one of {', '.join(RESTORING)}, got {self.task!r}")
        if (self.task == "dehaze") != (self.arch.get("kind") == "dehazer"):
            raise ModelError(f"recipe {self.name!r}: the task dehaze wants arch.kind dehazer, and nothing else does")
        # what cannot be trained, or cannot be stored at the end, is an error before any data is read
        make_spec(self, build(self.arch), {})
        make_task(self)
        for phase in self.plan.phases:
            pixel_loss(phase.loss)


@dataclass(frozen=True)
class Labelled:
    """What is trained and validated on, relative to the data folder."""

    train: str
    """A zip or folder of labelled images, or a glob of npz patches, or a raster."""
    validation: str = ""
    """The same from other sites; without one, a part of the training sites is kept aside."""
    labels: str = ""
    """For a raster: the raster of its labels, on the same grid."""
    each: int = 150
    """Validation images of each class looked at during training; all are at its end."""
    side: int = 64
    """Side of the patches that rasters and arrays are cut into."""

    def __post_init__(self) -> None:
        if not 8 <= self.side <= 4096:
            raise ModelError(f"data.side must be from 8 to 4096 pixels, got {self.side}")
        if self.each < 1:
            raise ModelError(f"data.each must be at least 1, got {self.each}")


@dataclass(frozen=True)
class LandcoverRecipe:
    """Everything that decides the training of a land-cover network."""

    name: str
    arch: dict[str, Any]
    """Without "classes": those are found in the data, or given in ``classes``."""
    data: Labelled
    plan: Schedule
    augment: Augment = field(default_factory=Augment)
    classes: tuple[str, ...] = ()
    start: str = ""
    """"imagenet", a shipped model, a checkpoint, or nothing."""
    frozen: int = 0
    """Stages of a classifier, counted from its first convolution on, whose kernels stay as they start."""
    patch: int = 128
    """Side of the patches the engine will hand the network."""
    note: str = ""
    licence: str = "that of your data"

    def __post_init__(self) -> None:
        kinds = ("landcover-classifier", "landcover-segmenter")
        if self.arch.get("kind") not in kinds:
            kind = self.arch.get("kind")
            raise ModelError(f"recipe {self.name!r}: arch.kind must be one of {', '.join(kinds)}, got {kind!r}")
        if "classes" in self.arch:
            raise ModelError(
                f"recipe {self.name!r}: the classes must stand beside [arch], got arch.classes: move them up"
            )
        build(self.arch | {"classes": self.classes or ("a", "b")})
        stages = 0 if self.segments else self.arch.get("stages", STAGES)
        if not 0 <= self.frozen <= stages:
            raise ModelError(
                f"recipe {self.name!r}: frozen must be from 0 to the network's {stages} stages, got {self.frozen}"
            )

    @property
    def segments(self) -> bool:
        """Whether the network names pixels rather than images."""
        return bool(self.arch["kind"] == "landcover-segmenter")


def load_recipe(name: str | Path) -> Recipe | LandcoverRecipe:
    """Read a recipe of any kind by its path, or by the name of one that ships.

    Raises
    ------
    ModelError
        If there is none, it is not TOML, a key is unknown or missing, or a value is out of range.
    """
    shipped = {p.stem: p for p in sorted(RECIPES.rglob("*.toml"))}
    path = Path(name) if Path(name).is_file() else shipped.get(str(name))
    if path is None:
        raise ModelError(f"no recipe {str(name)!r}: give a TOML file or one of {', '.join(shipped)}")
    try:
        return recipe_from(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not TOML: {error}") from None


def recipe_from(values: dict[str, Any], where: str) -> Recipe | LandcoverRecipe:
    """Build a recipe from nested dictionaries, checking keys and types; the architecture says of which kind it is."""
    arch = values.get("arch")
    landcover = isinstance(arch, dict) and str(arch.get("kind")).startswith("landcover-")
    kind: type[Recipe | LandcoverRecipe] = LandcoverRecipe if landcover else Recipe
    return read_table(kind, values, where, error=ModelError)


def make_task(recipe: Recipe) -> Task:
    """Return what the network is to undo."""
    kind: Any = {"super-resolution": SuperResolution, "denoise": Denoising, "dehaze": Dehazing}[recipe.task]
    if recipe.arch.get("kind") == "conditioned-generator":
        kind = BlindSuperResolution
    if kind in (SuperResolution, BlindSuperResolution) and "known" in recipe.degradation:
        kind = KnownSuperResolution
    if kind is Denoising and "noise" in recipe.degradation:
        kind = KnownDenoising
    task: Task = read_table(kind, recipe.degradation, f"recipe {recipe.name!r}", ("degradation",), ModelError)
    if task.scale != recipe.arch.get("scale", 1):
        raise ModelError(
            f"recipe {recipe.name!r}: degradation.scale {task.scale} must be arch.scale {recipe.arch.get('scale', 1)}"
        )
    return task


def make_spec(recipe: Recipe, module: Module, record: dict[str, Any]) -> ModelSpec:
    """Return the contract of the trained network with the engine."""
    bands = int(recipe.arch.get("bands", 1))
    return ModelSpec(
        name=recipe.name,
        task=recipe.task,  # type: ignore[arg-type]
        scale=int(recipe.arch.get("scale", 1)),
        halo=int(module.halo),  # type: ignore[arg-type]
        bands=None if bands == 1 else bands,
        multiple_of=int(getattr(module, "factor", 1)),
        patch=recipe.patch,
        needs_noise=recipe.task == "denoise" or hasattr(module, "fold"),
        needs_blur=hasattr(module, "fold"),
        needs_statistics=recipe.task == "dehaze",
        record=record,
    )
