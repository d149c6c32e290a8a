"""What a smaller network loses to the one it was made of, and what it saves: measured on validation images."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scenelift.models.catalog import find, precision_for, with_settings
from scenelift.models.degradations import DEFAULT_MTF, EUROSAT, white_noise
from scenelift.models.onnx import SUFFIX as ONNX
from scenelift.models.precision import pick_precision
from scenelift.models.sensing.blurs import Blur, decimate
from scenelift.models.training.tasks import BlindSuperResolution, Denoising, SuperResolution, Task
from scenelift.models.whole import Images, run_whole
from scenelift.pipeline.errors import UnfitError
from scenelift.workflows.evidence.metrics import measure
from scenelift.workflows.training.restoration import Restoration
from scenelift.workflows.training.validation import VALIDATION_SEED, VALIDATION_SIGMA, blind_cases

ROUNDS = 3
"""Times that each network runs over a patch, the two in turn; the quickest counts."""


@dataclass(frozen=True)
class Told:
    """What a network that shall be a file without further inputs is told for good."""

    blur: tuple[Blur, ...] | None = None
    noise: tuple[float, ...] | None = None
    """Standard deviation in each band, reflectance."""


@dataclass(frozen=True)
class Case:
    """Degraded validation images and what they were."""

    low: Images
    target: Images
    told: Told


@dataclass(frozen=True)
class Figures:
    """What a network does to validation images."""

    psnr_db: float
    ssim: float


@dataclass(frozen=True)
class Comparison:
    """A step of a compression: what was made beside what it was made of."""

    step: str
    parent: Figures
    child: Figures
    parent_cpu_s: float
    """CPU time for one patch as the engine hands it out, in the best precision of this CPU, seconds."""
    cpu_s: float

    @property
    def loss_db(self) -> float:
        """By how much PSNR fell, dB."""
        return self.parent.psnr_db - self.child.psnr_db

    def describe(self) -> str:
        """Return one line for people."""
        a, b = self.parent, self.child
        return (
            f"{self.step}: PSNR {a.psnr_db:.2f} to {b.psnr_db:.2f} dB ({-self.loss_db:+.2f}), "
            f"SSIM {a.ssim:.4f} to {b.ssim:.4f}, CPU {self.parent_cpu_s:.3g} to {self.cpu_s:.3g} s a patch "
            f"({self.parent_cpu_s / self.cpu_s:.1f} times as fast)"
        )

    def facts(self) -> dict[str, Any]:
        """Return what a card tells of it."""
        return {
            "step": self.step,
            "loss_db": round(self.loss_db, 3),
            "psnr_db": [round(self.parent.psnr_db, 3), round(self.child.psnr_db, 3)],
            "ssim": [round(self.parent.ssim, 5), round(self.child.ssim, 5)],
            "cpu_s_a_patch": [round(self.parent_cpu_s, 4), round(self.cpu_s, 4)],
        }

    def check(self, most: float) -> None:
        """Refuse what loses more than ``most`` dB.

        Raises
        ------
        UnfitError
        """
        if not self.loss_db <= most:
            raise UnfitError(
                f"{self.describe()}: more than --max-loss {most:g} dB is lost and nothing was written; "
                "train longer (--steps), compress less, or take it as it is with --force"
            )


def cases(problem: Restoration, told: Told | None) -> list[Case]:
    """Return the validation images of a problem as degraded images.

    Parameters
    ----------
    problem : Restoration
    told : Told, optional
        The one blur and noise that the network will ever see; default: those of the problem's own validation.
    """
    inputs, target = problem.pairs
    bands, clean = target.shape[1], target.numpy()
    if told is not None:
        return [Case(seen(problem.task, target, told, VALIDATION_SEED + 3).numpy(), clean, told)]
    if isinstance(problem.task, BlindSuperResolution):
        each = [Told(case.blur, case.noise) for case in blind_cases(bands)]
        return [Case(low.numpy(), clean, told) for low, told in zip(inputs, each, strict=True)]
    noise = (VALIDATION_SIGMA,) if isinstance(problem.task, Denoising) else None
    return [Case(inputs[0].numpy(), clean, Told(noise=noise))]


def seen(task: Task, clean: Tensor, told: Told, seed: int) -> Tensor:
    """Return clean images (N, C, H, W) as a network sees them that is told one blur and one noise level for good."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(task, BlindSuperResolution) and told.blur and told.noise:
        low = decimate(clean, task.scale, [[blur.kernel(task.scale) for blur in told.blur]] * len(clean))
        return white_noise(low, torch.tensor(told.noise)[:, None, None], generator)
    if isinstance(task, Denoising) and told.noise:
        return white_noise(clean, told.noise[0], generator)
    return task.fixed(clean, DEFAULT_MTF)[0] if isinstance(task, SuperResolution) else task.degrade(clean, generator)[0]


def figures(name: str, validated: list[Case]) -> Figures:
    """Return the mean PSNR (full scale 0.275) and SSIM of a model, by name or file, over all images of all cases."""
    found: list[dict[str, float]] = []
    for case in validated:
        method = running(name, case.told, torch.get_num_threads())
        out = run_whole(method, case.low)
        found += [
            measure(x, y, method.spec.scale, EUROSAT.peak, ("psnr", "ssim"))
            for x, y in zip(case.target, out, strict=True)
        ]
    return Figures(*(float(np.mean([each[name] for each in found])) for name in ("psnr", "ssim")))


def running(name: str, told: Told, threads: int = 1, precision: str = "fp32") -> Any:
    """Return a model as the engine runs it, told blur and noise; an ONNX file is told nothing more, and runs in its own
    best precision."""
    if name.endswith(ONNX):
        best = precision_for(name, "auto", "cpu")
        return with_settings(find(name), threads=threads, precision=best).load()
    ref = with_settings(find(name), threads=threads, precision=precision, noise=told.noise)
    return (ref if told.blur is None else with_settings(ref, blur=told.blur)).load()


def seconds(parent: str, child: str, told: Told) -> tuple[float, float]:
    """Return the CPU seconds that two models take for a patch of the engine's size, measured in turn."""
    precision = pick_precision("auto", "cpu")
    models = [running(name, told, precision=precision) for name in (parent, child)]
    patches = [_patch(model.spec) for model in models]
    best = [float("inf")] * 2
    for _ in range(ROUNDS):
        for i, (model, patch) in enumerate(zip(models, patches, strict=True)):
            started = time.process_time()
            model(patch)
            best[i] = min(best[i], time.process_time() - started)
    return best[0], best[1]


def _patch(spec: Any) -> NDArray[np.float32]:
    side = spec.patch + 2 * spec.halo
    return np.random.default_rng(0).random((1, spec.bands or 1, side, side), np.float32) * np.float32(0.3)
