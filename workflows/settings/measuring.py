"""How outputs are scored, and what an ablation may cost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.settings import option
from scenelift.workflows.settings.parsing import INPUT, WHERE


@dataclass(frozen=True)
class ScoreSettings:
    """How to score."""

    data_range: float | None = option(None, "Full scale in reflectance; default 0.3, or 1 for 8-bit images.")
    ratio: float = option(1.0, "Coarse over fine pixel size, for ERGAS.")
    border: int = option(0, "Pixels left out along the edge.")
    windows: bool = option(
        True, "Measure SSIM, MS-SSIM, VIF and sharpness too; without them it is faster.", "--windows/--pixels-only"
    )
    block: int = option(1024, "Pixels a side of a task; changes memory, never a score.", panel=WHERE)
    names: tuple[str, ...] | None = None
    """Scores that are measured; None: all that the scenes and `windows` allow."""

    def __post_init__(self) -> None:
        if not 16 <= self.block <= 65536:
            raise UsageError(f"--block must be from 16 to 65536, got {self.block}")
        if self.border < 0:
            raise UsageError(f"--border must be from 0 up, got {self.border}")


@dataclass(frozen=True)
class AblateSettings:
    """The budget of an ablation study, the same for every variant."""

    steps: int = option(300, "Training steps of every variant.")
    batch: int = option(16, "Patches a step.")
    channels: int = option(32, "Channels of the network.")
    blocks: int = option(4, "Residual blocks of the network.")
    seeds: int = option(3, "Trainings of every variant.")
    each: int = option(4, "Test images of every class.")
    data: Path | None = option(None, "Folder with the images; default: SCENELIFT_DATA.", panel=INPUT)

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "seeds", "each"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} must be at least 1, got {getattr(self, name)}")
