"""What the engine is told: a job for the workers, the plan of a run for its driver, models by a handle that travels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from scenelift.pipeline.addresses import work_folder
from scenelift.pipeline.cluster import ClusterSettings
from scenelift.pipeline.enhance import Enhancer
from scenelift.pipeline.outlines import Outline
from scenelift.pipeline.outputs.outputs import Output
from scenelift.pipeline.scenes.products.kinds import ClassLayer
from scenelift.pipeline.scenes.scenes import SceneSource, Strips
from scenelift.pipeline.tiles import TileGrid, Window


class ModelHandle(Protocol):
    """A model that travels to workers: small and picklable, loaded once in each process."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    def load(self, worker: int = 0) -> Enhancer:
        """Return the model ready to run; later calls in the same process return the same object.

        Parameters
        ----------
        worker : int
            Number of this process among those of its machine: with several GPUs, the one to take.
        """
        ...

    def provenance(self) -> dict[str, Any]:
        """Return what the output says about the model (weights, settings), as plain JSON values."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return everything that decides what the model makes of a scene, as plain JSON values."""
        ...


@dataclass(frozen=True)
class EnhanceJob:
    """Everything a worker must know; small and picklable, the weights stay behind."""

    token: str
    """Unique to this run: workers keep files open for a few jobs at a time."""
    source: SceneSource
    models: tuple[ModelHandle, ...]
    store: Path
    output: Output
    block: tuple[int, int]
    """Height and width of a block, input pixels."""
    batch: int
    """Patches given to a model at once."""
    window: Window | None = None
    """The part of the scene that is made; None: all of it. Patches lie as they do in the whole scene."""
    outline: Outline | None = None
    """What of that is made, where it is no rectangle: other pixels are missing in the output."""
    checked: bool = True
    """Whether blocks are pushed to the disk and checksummed; without it only to measure what that costs."""

    @property
    def scale(self) -> int:
        """Output pixels per input pixel along each axis."""
        return self.output.block[0] // self.block[0]

    def part(self, shape: tuple[int, int]) -> Window:
        """Return the window that is made of a scene of that height and width."""
        return self.window or Window(0, 0, *shape)


@dataclass(frozen=True)
class Plan:
    """A job that can start, resume or be verified."""

    path: Path
    """Where the output goes, absolute."""
    job: EnhanceJob
    blocks: TileGrid
    """Blocks on the input grid, counted from the corner of the part that is made."""
    strips: Strips | None
    """In which strips blocks are done; None: row by row."""
    cluster: ClusterSettings
    fingerprint: dict[str, Any]
    """Everything that decides the bytes of the output."""
    command: dict[str, Any]
    """The arguments, as plain values, for `scenelift resume`; empty if a model was given as an object."""
    stamps: tuple[str, ...]
    """State of the input's files when they were read for the fingerprint."""
    device: str
    precision: str
    notes: tuple[str, ...] = ()
    """What was assumed of the input or left out: lines for people."""
    expected: dict[str, Any] | None = None
    """What the job may be expected to gain, as it was tried; None where that was not done."""
    classes: tuple[ClassLayer, ...] = ()
    """Layers of classes that are copied beside the output."""
    shards: bool = True
    """Whether the chunks of a block lie in one file of the store."""
    overwrite: bool = False
    """Whether an existing output may be replaced."""
    allow_holes: bool = False
    """Whether to publish an output although some blocks failed, with no data there."""

    def order(self) -> Sequence[int]:
        """Return the numbers of all blocks in the order in which they are done."""
        numbers = range(len(self.blocks))
        return self.strips.order(self.blocks, numbers) if self.strips else numbers

    @property
    def work(self) -> Path:
        """Folder beside the output that holds the journal, and everything else until the output is complete."""
        return work_folder(self.path)
