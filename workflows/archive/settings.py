"""What is to be done with every scene of an archive, and where things lie in the archive's folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scenelift.models.catalog import find, load_spec, with_realism
from scenelift.models.enhancer import pick_device
from scenelift.pipeline.addresses import without_secrets
from scenelift.pipeline.errors import UsageError
from scenelift.workflows.archive.filters import Filters
from scenelift.workflows.archive.sources import Access
from scenelift.workflows.archive.transfer import check_target
from scenelift.workflows.settings import EnhanceSettings

FORMATS = ("tif", "zarr")
SCORES = ("none", "quality", "full")


@dataclass(frozen=True)
class Reading:
    """How the numbers of every scene are read; see `SceneSource`."""

    bands: str | None = None
    """Numbers or names with commas, e.g. "4,3,2" or "B04,B03,B02"."""
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    crs: str | None = None


@dataclass(frozen=True)
class ArchiveSettings:
    """What is done with every scene."""

    model: str = "sr-x2"
    format: str = "tif"
    enhance: EnhanceSettings = field(default_factory=EnhanceSettings)
    reading: Reading = field(default_factory=Reading)
    filters: Filters = field(default_factory=Filters)
    access: Access = field(default_factory=Access)
    scores: str = "quality"
    """"quality": noise, contrast and sharpness of each output; "full": closeness to its input too; "none"."""
    share: bool = False
    """Whether other processes work on the same archive at the same time."""
    publish: str | None = None
    """Address that finished scenes are copied to, e.g. "s3://bucket/archive"."""

    def __post_init__(self) -> None:
        for name, value, known in (("format", self.format, FORMATS), ("scores", self.scores, SCORES)):
            if value not in known:
                raise UsageError(f"--{name} must be one of {', '.join(known)}, got {value!r}")

    @property
    def models(self) -> list[str]:
        """Names of the models, in the order they run."""
        return self.model.split(",")

    def check(self) -> None:
        """Look at models and target now, so that a misspelt name is one error and not one a scene.

        Raises
        ------
        ModelError
            If there is no such model, or none with a realistic twin where one is asked for.
        UsageError
            If the place to publish in cannot be reached.
        """
        for name in self.models:
            load_spec(find(name))
        self._twin()
        if self.publish is not None:
            check_target(self.publish)

    def key(self) -> str:
        """Return a digest of everything but the scene that decides the bytes of an output."""
        device = pick_device(self.enhance.device, elsewhere=True)
        never = ("tile", "batch", "overwrite")
        settings = {name: value for name, value in asdict(self.enhance).items() if name not in never}
        facts = {
            "software": [version("scenelift"), version("torch")],
            "models": [(name, find(name).digest) for name in self.models],
            "twin": self._twin(),
            "format": self.format,
            # "auto" precision stays "auto": nodes of one archive may have processors of several kinds
            "enhance": settings | {"device": device},
            "reading": asdict(self.reading),
            "scores": self.scores,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _twin(self) -> str | None:
        return with_realism(find(self.models[-1]), self.enhance.realism).twin


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


def as_plain(settings: ArchiveSettings) -> dict[str, Any]:
    """Return settings as plain values for the run record."""
    filters = asdict(settings.filters)
    if settings.filters.dates:
        filters["dates"] = [moment.isoformat() for moment in settings.filters.dates]
    published = settings.publish and without_secrets(settings.publish)
    return asdict(settings) | {"filters": filters, "publish": published}
