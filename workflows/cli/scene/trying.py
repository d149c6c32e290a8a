"""Trying a job on a part of a scene, or without doing it: options of the commands that enhance one scene."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from scenelift.pipeline.settings import option
from scenelift.workflows.settings import OUTPUT, Crop, EnhanceSettings


@dataclass(frozen=True)
class Try:
    """What of a job is done."""

    crop: Crop = field(default_factory=Crop)
    dry_run: bool = option(False, "Check everything, say what would be done; write nothing.", panel=OUTPUT)

    def of(self, settings: EnhanceSettings) -> EnhanceSettings:
        """Return settings for the part of the scene that is wanted."""
        return settings if self.crop == Crop() else replace(settings, crop=self.crop)


def preparing(names: str, settings: EnhanceSettings) -> str:
    """Return a line that says what is done before the first block.

    Parameters
    ----------
    names : str
        Of the models, with commas between.
    settings : EnhanceSettings
    """
    from scenelift.models.catalog import interpolates, is_fitted, is_sharpener

    models = names.split(",")
    fitted = [name for name in models if is_sharpener(name) or is_fitted(name)]
    steps = ["looking at the scene"]
    steps += [f"fitting {', '.join(fitted)} to it"] if fitted else []
    tried = settings.expect and not fitted and not all(map(interpolates, models))
    steps += ["trying the models on it one level coarser"] if tried else []
    return ", ".join(steps)


def print_rehearsal(facts: dict[str, Any]) -> None:
    """Print what a job would do."""
    from scenelift.workflows.cli.console import table

    col, row, width, height = facts["window"] or (0, 0, 0, 0)
    part = [["of the scene", f"columns {col} to {col + width}, rows {row} to {row + height}"]] if width else []
    rows = [
        ["output", facts["output"]],
        ["models", " then ".join(facts["models"])],
        ["size", f"{facts['width']} x {facts['height']} px, {facts['bands']} bands, x{facts['scale']}"],
        *part,
        ["stored as", f"{facts['dtype']}, {facts['bytes'] / 1e6:.1f} MB before compression"],
        ["disk", f"{facts['free_bytes'] / 1e9:.1f} GB free"],
        ["blocks", f"{facts['blocks']}, {facts['kept']} kept from before"],
        ["would run on", f"{facts['device']}, {facts['precision']}, {facts['processes']}"],
        *(["note", note] for note in facts["notes"]),
    ]
    table("nothing was written; this would be done", ["", ""], rows)
