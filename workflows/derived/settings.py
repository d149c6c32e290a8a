"""What users may choose of networks that are made of others; see `scenelift.workflows.settings`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.settings import option
from scenelift.workflows.settings import INPUT, MODEL, OUTPUT, WHERE, Device, band_list


@dataclass(frozen=True)
class Adaptation:
    """Going on with a network on scenes of one's own."""

    scenes: tuple[str, ...] = option((), "Rasters, folders or zips to adapt to; repeatable.", panel=INPUT)
    bands: str | None = option(
        None,
        "Bands in the order wanted: numbers from 1 up (4,3,2) or names in all scenes (B4,B3,B2).",
        panel=INPUT,
    )
    blur: str = option("auto", "Blur of the scenes, as for `enhance`; default: estimated in each.", panel=INPUT)
    steps: int = option(600, "Most steps; it ends sooner where nothing gets better.", panel=MODEL)
    require_gain: float | None = option(
        None, "Write the network only if it is so many dB better on scenes kept aside; default: any.", panel=MODEL
    )
    force: bool = option(False, "Write it even if it is not.", panel=MODEL)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"--steps must be at least 1, got {self.steps}")
        if self.require_gain is not None and not math.isfinite(self.require_gain):
            raise UsageError(f"--require-gain must be a number of dB, got {self.require_gain}")


@dataclass(frozen=True)
class CompressSettings:
    """How a network is made smaller, on which images, and what it may lose."""

    data: tuple[Path, ...] = option(
        (), "Images or scenes to train on, and to measure the loss on those kept aside; repeatable.", panel=INPUT
    )
    validation: tuple[Path, ...] = option(
        (), "Others to measure the loss on; default: a tenth of the places in --data.", panel=INPUT
    )
    bands: tuple[int, ...] | None = option(
        None, "1-based bands in the order wanted, e.g. 4,3,2.", panel=INPUT, parse=band_list
    )
    prune: float | None = option(None, "Share of the channels to take away, e.g. 0.5.", panel=MODEL)
    student: str | None = option(
        None,
        "A smaller network that is there already, to take instead of pruning: a shipped name, a checkpoint.",
        panel=MODEL,
    )
    quantize: Literal["int8"] | None = option(None, "Compute in 8-bit integers (an ONNX file).", panel=MODEL)
    to: Literal["safetensors", "onnx"] | None = option(None, "Format; default: the output's ending.", panel=OUTPUT)
    runtime: Literal["onnxruntime", "openvino"] = option(
        "onnxruntime", "What computes an ONNX file; OpenVINO does so in bfloat16 where the CPU has it.", panel=OUTPUT
    )
    steps: int = option(2000, "Training steps after pruning.", panel=MODEL)
    max_loss: float = option(0.1, "Largest loss of PSNR on the validation images, dB.", panel=MODEL)
    force: bool = option(False, "Write the network even if it loses more.", panel=MODEL)
    blur: str | None = option(
        None, "What an ONNX file is told for good: 0.27, area, bicubic, lanczos; see `export`.", panel=MODEL
    )
    noise: float | None = option(
        None, "What an ONNX file is told for good: standard deviation, reflectance.", panel=MODEL
    )
    run: Path | None = option(None, "Folder of the run; default: runs/MODEL-N-channels.", panel=OUTPUT)
    resume: bool = option(True, "Go on from the state in the run's folder.")
    threads: int | None = option(None, "CPU threads.", panel=WHERE)
    device: Device = option("auto", "Where the network is trained.", panel=WHERE)

    def __post_init__(self) -> None:
        if self.prune is not None and not 0 < self.prune < 1:
            raise UsageError(f"--prune must be a share of the channels above 0 and below 1, got {self.prune:g}")
        if self.prune is not None and self.student is not None:
            raise UsageError("--student takes the place of --prune: give one of them")
        if self.steps < 1:
            raise UsageError(f"--steps must be at least 1, got {self.steps}")
        if not self.max_loss >= 0:
            raise UsageError(f"--max-loss must be at least 0 dB, got {self.max_loss:g}")
        if self.noise is not None and not 0 <= self.noise < math.inf:
            raise UsageError(f"--noise must be a standard deviation, got {self.noise:g}")
