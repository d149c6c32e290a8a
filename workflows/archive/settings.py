"""What is to be done with every scene of an archive, and where things lie in the archive's folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from scenelift.pipeline.addresses import without_secrets
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.settings import option
from scenelift.workflows.archive.filters import Filters
from scenelift.workflows.settings import (
    DEFAULT_MODEL,
    INPUT,
    MODEL,
    MODELS,
    OUTPUT,
    WHERE,
    EnhanceSettings,
    Reading,
    split_names,
)


@dataclass(frozen=True)
class Access:
    """What a list of scenes may point at."""

    remote: bool = option(
        False, "Fetch scenes from https:// or s3://, when their turn comes.", "--allow-remote", panel=INPUT
    )
    outside: bool = option(False, "Let lists name files outside their own folder.", "--allow-outside", panel=INPUT)
    assets: tuple[str, ...] = option(
        (),
        "STAC assets that make a scene, e.g. red,green,blue,nir; default: those with the role data.",
        panel=INPUT,
        parse=split_names,
    )
    stac_api: str | None = option(
        None, "Address of a STAC API to search, with --collection, --bbox and --datetime.", panel=INPUT
    )
    collection: tuple[str, ...] = option((), "Its collections, e.g. sentinel-2-l2a.", panel=INPUT, parse=split_names)
    datetime: str | None = option(None, "Its times, e.g. 2024-05-01/2024-05-31.", panel=INPUT)
    max_items: int = option(1000, "Most items that it may return.", panel=INPUT)

    def __post_init__(self) -> None:
        if self.stac_api is None and (self.collection or self.datetime):
            raise UsageError("--collection and --datetime are for a STAC API: give --stac-api URL too")
        if self.stac_api is not None and not self.collection:
            raise UsageError("--stac-api needs --collection, e.g. sentinel-2-l2a")
        if self.max_items < 1:
            raise UsageError(f"--max-items must be at least 1, got {self.max_items}")


@dataclass(frozen=True)
class ArchiveSettings:
    """What is done with every scene."""

    model: str = option(DEFAULT_MODEL, MODELS, "--model", "-m", panel=MODEL)
    format: Literal["tif", "zarr"] = option("tif", "Format of the outputs.", panel=OUTPUT)
    enhance: EnhanceSettings = field(default_factory=EnhanceSettings)
    reading: Reading = field(default_factory=Reading)
    filters: Filters = field(default_factory=Filters)
    access: Access = field(default_factory=Access)
    scores: Literal["none", "quality", "full"] = option(
        "quality", "Measure the output (quality), or its closeness to the input too (full).", panel=OUTPUT
    )
    share: bool = option(False, "Work on the archive together with other processes.", panel=WHERE)
    publish: str | None = option(None, "Copy finished scenes there too, e.g. s3://bucket/name.", panel=OUTPUT)

    @property
    def models(self) -> list[str]:
        """Names of the models, in the order they run."""
        return self.model.split(",")

    def check(self) -> None:
        """Look at models and target now, so that a misspelt name is one error and not one a scene.

        Raises
        ------
        ModelError
            If there is no such model, or an extra does not fit it.
        UsageError
            If the place to publish in cannot be reached.
        """
        from scenelift.models.catalog import find, load_spec
        from scenelift.workflows.archive.transfer import check_target

        for name in self.models:
            load_spec(find(name))
        self._files_of_extras()
        if self.publish is not None:
            check_target(self.publish)

    def key(self) -> str:
        """Return a digest of everything but the scene that decides the bytes of an output."""
        from scenelift.models.catalog import find
        from scenelift.models.enhancer import pick_device

        device = pick_device(self.enhance.device, elsewhere=True)
        never_given = "extra", "interval", "keep_classes", "crop", "compress"
        unused = [name for name in never_given if not getattr(self.enhance, name)]
        never = ("batch", "overwrite", *unused)
        settings = {name: value for name, value in asdict(self.enhance).items() if name not in never}
        reading = asdict(self.reading)
        if reading["extent"] is None:  # as keys were before scenes could have several grids
            del reading["extent"]
        if reading["mask"] is None:  # as keys were before there were masks
            del reading["mask"], reading["mask_classes"]
        if reading["time"] is None:
            del reading["time"]
        facts = {
            "software": [version("scenelift"), version("torch")],
            "models": [(name, find(name).digest) for name in self.models],
            "twin": None,
            **self._files_of_extras(),
            "format": self.format,
            # "auto" precision stays "auto": nodes of one archive may have processors of several kinds
            "enhance": settings | {"device": device},
            "reading": reading,
            "scores": self.scores,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _files_of_extras(self) -> dict[str, str]:
        """Return the digests of the files that extras of the last model need, by what provenance calls them."""
        bound = [extra.bound(self.models[-1]) for extra in self.enhance.extras()]
        facts = {key: value for extra in bound for key, value in extra.provenance().items()}
        return {key.removesuffix("_sha256"): value for key, value in facts.items() if key.endswith("_sha256")}


@dataclass(frozen=True)
class Folder:
    """An archive's folder and the names in it.

    ``scenes/ID/ID.tif`` (or ``.zarr``) with ``ID.json`` (its STAC item) and ``ID.png`` (a small picture) beside it;
    ``collection.json``, ``models/``, ``run.json``, ``run.parquet`` and ``index.html`` for all; ``.scenelift/`` for
    what only the program reads.
    """

    root: Path

    def make(self) -> None:
        """Make the folders that all scenes share.

        Raises
        ------
        UsageError
            If that is not permitted.
        """
        try:
            self.records.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot write in {self.root}: {error.strerror}") from None

    @property
    def records(self) -> Path:
        """One small file for each scene, and the claims on scenes."""
        return self.root / ".scenelift" / "scenes"

    def scene(self, name: str) -> Path:
        """Return the folder of a scene's output."""
        return self.root / "scenes" / name

    def output(self, name: str, suffix: str) -> Path:
        """Return the path of a scene's output."""
        return self.scene(name) / f"{name}.{suffix}"

    def item(self, name: str) -> Path:
        """Return the path of a scene's STAC item."""
        return self.scene(name) / f"{name}.json"

    def preview(self, name: str) -> Path:
        """Return the path of a scene's small picture."""
        return self.scene(name) / f"{name}.png"


FREE = ["allow_holes", "batch", "classes", "device", "expect", "keep_classes", "memory", "overwrite", "precision"]
FREE += ["require_gain"]
"""Fields of `EnhanceSettings` that decide no pixel, or (precision, device) are looked at with each scene's journal."""


def refuse_other_settings(root: Path, settings: ArchiveSettings) -> None:
    """Refuse an archive whose scenes were made otherwise, once, where each of its scenes would.

    Raises
    ------
    UsageError
        If the run record there tells of other models or settings, and nothing may be overwritten.
    """
    if settings.enhance.overwrite:
        return
    try:
        found = json.loads((root / "run.json").read_text(encoding="utf-8"))
        before, done = _deciding(found["settings"]), found["counts"]["done"]
    except (OSError, ValueError, KeyError, TypeError):  # no record, or one of another release: each scene tells
        return
    now = _deciding(as_plain(settings))
    other = [flag for flag in now if flag in before and before[flag] != now[flag]] if done else []
    if other:
        made, wanted = (", ".join(f"{flag} {told[flag]}" for flag in other) for told in (before, now))
        raise UsageError(
            f"{root} holds {done} scenes made with {made}, now it is {wanted}: "
            "choose another --output, or --overwrite to make them again"
        )


def _deciding(plain: dict[str, Any]) -> dict[str, str]:
    """Return what decides the pixels of every scene, as flags and texts, of settings as plain values."""
    told = {"model": plain["model"], "format": plain["format"], **plain["reading"]}
    told |= {name: value for name, value in plain["enhance"].items() if name not in FREE}
    if plain["format"] != "zarr":
        told.pop("shards", None)
    return {f"--{name.replace('_', '-')}": _shown(value) for name, value in told.items()}


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    return "(default)" if value is None or value is False or value == "" else str(value)


def as_plain(settings: ArchiveSettings) -> dict[str, Any]:
    """Return settings as plain values for the run record."""
    filters = asdict(settings.filters)
    if settings.filters.dates:
        filters["dates"] = [moment.isoformat() for moment in settings.filters.dates]
    published = settings.publish and without_secrets(settings.publish)
    access = asdict(settings.access) | {
        "stac_api": settings.access.stac_api and without_secrets(settings.access.stac_api)
    }
    return asdict(settings) | {"filters": filters, "publish": published, "access": access}
