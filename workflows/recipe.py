"""Training recipes: TOML files read into frozen settings; a key nobody knows is an error."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scenelift.models.adversarial import Adversarial
from scenelift.models.architectures import build
from scenelift.models.errors import ModelError
from scenelift.models.schedule import Phase, Plan

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Source:
    """Where clean patches come from."""

    path: str
    """A zip of images, a folder, a raster, a Zarr store, an npz; or a glob; relative to the data folder."""
    weight: float = 1.0
    """How often it is drawn from, relative to the others."""
    bands: tuple[int, ...] | None = None
    """1-based bands to use; None: all."""


@dataclass(frozen=True)
class Data:
    """What is trained and validated on."""

    train: tuple[Source, ...]
    validation: tuple[Source, ...] = ()
    """Other places. Without any, a tenth of the training places is kept aside."""
    side: int = 64
    """Side of training patches, pixels of the clean image."""
    gains: tuple[float, float] = (1.0, 1.0)
    """Range of the random factor on reflectance."""
    validation_count: int = 100


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run."""

    name: str
    task: str
    """"super-resolution" or "denoise"."""
    arch: dict[str, Any]
    data: Data
    plan: Plan
    degradation: dict[str, Any] = field(default_factory=dict)
    """Arguments of the task's degradation, see `scenelift.models.tasks`."""
    start: str | None = None
    """Shipped model or checkpoint whose weights to start from; tensors of another shape start fresh."""
    patch: int = 128
    """Side of the patches the engine will hand the network."""
    adversarial: Adversarial | None = None
    note: str = ""
    """For the model card: what this model is for, and where it should not be trusted."""

    def __post_init__(self) -> None:
        if self.task not in ("super-resolution", "denoise"):
            raise ModelError(f"recipe {self.name!r}: task must be super-resolution or denoise, not {self.task!r}")
        build(self.arch)  # a wrong architecture is an error before any data is read


def load_recipe(name: str | Path) -> Recipe:
    """Read a recipe by its path, or by the name of one that ships.

    Raises
    ------
    ModelError
        If there is none, it is not TOML, a key is unknown or missing, or a value is out of range.
    """
    return recipe_from(*read_recipe_file(name, RECIPES, "recipe"))


def read_recipe_file(name: str | Path, shipped: Path, kind: str) -> tuple[dict[str, Any], str]:
    """Return what a recipe's TOML file says, and the file's path for messages.

    Parameters
    ----------
    name : str or path
        A file, or the name of a recipe in ``shipped``.
    shipped : path
    kind : str
        What messages call it.

    Raises
    ------
    ModelError
        If there is none, or it is not TOML.
    """
    path = Path(name)
    if not path.is_file():
        path = shipped / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in shipped.glob("*.toml")))
        raise ModelError(f"no {kind} {str(name)!r}: give a TOML file or one of {known}")
    try:
        return tomllib.loads(path.read_text()), str(path)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not TOML: {error}") from None


def recipe_from(values: dict[str, Any], where: str) -> Recipe:
    """Build a recipe from nested dictionaries, checking every key."""
    recipe: Recipe = fill(Recipe, values, where)
    return recipe


def adaptation(task: str, scenes: Sequence[str], steps: int = 600) -> Recipe:
    """Return a recipe that goes on training a shipped model on the user's own scenes, by Wald's protocol.

    No labels and no other data are needed: the scenes are degraded, and the network learns to undo it.

    Parameters
    ----------
    task : str
        Name of a shipped recipe, e.g. "sr-x2" or "denoise"; its weights are the start.
    scenes : sequence of str
        Rasters, folders of rasters, or zips.
    steps : int
        Training steps.

    Raises
    ------
    ModelError
        If there is no such recipe, or no scene is given.
    """
    base = load_recipe(task)
    if not scenes:
        raise ModelError("--task needs --scenes: the rasters to adapt to")
    sources = tuple(Source(str(Path(scene).absolute())) for scene in scenes)
    phase = Phase(steps, rate=base.plan.phases[-1].rate / 3, loss=base.plan.phases[-1].loss)
    plan = dataclasses.replace(base.plan, phases=(phase,), validate_every=max(1, min(100, steps // 4)), patience=4)
    return dataclasses.replace(
        base,
        name=f"{base.name}-adapted",
        data=dataclasses.replace(base.data, train=sources, validation=()),
        plan=plan,
        start=base.name,
        adversarial=None,
        note=f"{base.name}, adapted to {len(scenes)} scene(s) of the user.",
    )


_NESTED: dict[tuple[type, str], type] = {
    (Recipe, "data"): Data,
    (Recipe, "plan"): Plan,
    (Recipe, "adversarial"): Adversarial,
    (Data, "train"): Source,
    (Data, "validation"): Source,
    (Plan, "phases"): Phase,
}


def fill(kind: type, values: Any, where: str, nested: dict[tuple[type, str], type] | None = None) -> Any:
    """Build a frozen dataclass from a table, checking every key and simple type.

    Parameters
    ----------
    kind : type
    values : dict
        As read from TOML.
    where : str
        Named in errors.
    nested : dict, optional
        (dataclass, field) to the dataclass of that field; default: those of `Recipe`.

    Raises
    ------
    ModelError
        If a key is unknown or missing, or a value is of the wrong type or out of range.
    """
    known = _NESTED if nested is None else nested
    if not isinstance(values, dict):
        raise ModelError(f"{where}: expected a table, got {values!r}")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    if unknown := sorted(set(values) - set(fields)):
        raise ModelError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(fields)}")
    filled = {}
    for name, value in values.items():
        inner = known.get((kind, name))
        if inner is not None and isinstance(value, list):
            value = tuple(fill(inner, v, f"{where}, {name}[{i}]", nested) for i, v in enumerate(value))
        elif inner is not None and value is not None:
            value = fill(inner, value, f"{where}, {name}", nested)
        elif isinstance(value, list):
            value = tuple(value)
        _check_type(fields[name], value, where)
        filled[name] = value
    try:
        return kind(**filled)
    except TypeError as error:
        raise ModelError(f"{where}: {str(error).removeprefix(f'{kind.__name__}.__init__() ')}") from None


_SIMPLE: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "dict[str, Any]": (dict,)}


def _check_type(wanted: dataclasses.Field[Any], value: Any, where: str) -> None:
    kinds = _SIMPLE.get(str(wanted.type))
    if kinds is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
        raise ModelError(f"{where}: {wanted.name} must be {wanted.type}, got {value!r}")
