"""`scenelift compress`: fewer channels, fewer bits; every step measured against the network that it began as."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scenelift.models.catalog import find
from scenelift.models.checkpoint import checkpoint_digest, load_checkpoint, write_atomically
from scenelift.models.compression.distillation import distillation_term
from scenelift.models.compression.pruning import importance, prune, width_after
from scenelift.models.enhancer import pick_device
from scenelift.models.networks.layers import mirror
from scenelift.models.onnx import SUFFIX as ONNX
from scenelift.models.onnx.exporting import export_onnx, for_openvino
from scenelift.models.onnx.openvino import NAME as OPENVINO
from scenelift.models.onnx.quantizing import need_packages, quantize_int8
from scenelift.models.precision import pick_precision
from scenelift.models.training.objectives import PixelLoss, Step
from scenelift.models.training.schedule import Phase
from scenelift.pipeline.errors import UsageError
from scenelift.workflows.derived.gate import Case, Comparison, Figures, Told, cases, figures, running, seconds, seen
from scenelift.workflows.derived.parents import Parent, on, read_parent, sources
from scenelift.workflows.derived.settings import CompressSettings
from scenelift.workflows.derived.telling import told_for_good
from scenelift.workflows.training.recipe import Recipe
from scenelift.workflows.training.restoration import Restoration
from scenelift.workflows.training.runs import open_run, run_folder
from scenelift.workflows.training.train import Progress, fit

CHECKPOINT = ".safetensors"
BATCHES, BATCH = 24, 8
"""Batches, and patches of each, on which the importance of channels is measured."""
CALIBRATION = 64
"""Images on which the ranges of activations are found."""


@dataclass(frozen=True)
class Compressed:
    """What was made."""

    path: Path
    steps: tuple[Comparison, ...]
    notes: tuple[str, ...]
    """What was assumed: lines for people."""


def compress(
    name: str,
    output: Path,
    settings: CompressSettings,
    *,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Compressed:
    """Make a smaller network of one, step by step, and measure each step against it on validation images.

    Pruning keeps the most important channels of every layer; what is left is trained on the images, and towards the
    predictions of the whole network. A killed run goes on where it was. Quantising writes an ONNX file whose inner
    convolutions compute in 8-bit integers.

    Parameters
    ----------
    name : str
        A shipped network, or a checkpoint of this program.
    output : Path
        ``*.safetensors`` or ``*.onnx``; a card is written beside it (``.json``). Both appear when all is done.
    settings : CompressSettings
    progress : callable, optional
        Called with (step, steps, loss) during training.
    say : callable, optional
        Given one line after each step.

    Raises
    ------
    UsageError, ModelError
        If the model cannot be compressed, or there are too few images.
    UnfitError
        If a step loses more than ``settings.max_loss`` dB and is not forced.
    """
    job = _Job.of(name, output, settings)
    say = say or (lambda line: None)
    open_run(job.run, settings.threads)
    problem = Restoration.read(job.recipe(), None, job.run)
    validated = cases(problem, job.told if job.is_onnx else None)
    base, done = figures(name, validated), []
    kept = (job.student or job.parent).path
    if job.student is not None:
        done.append(_compared(job, f"{job.student.spec.name} in its place", kept, validated, base))
        say(done[-1].describe())
        if not settings.force:
            done[-1].check(settings.max_loss)
    if settings.prune:
        kept = _prune(job, problem, settings, progress)
        done.append(_compared(job, f"pruned to {job.width} of {job.channels} channels", kept, validated, base))
        say(done[-1].describe())
        if not settings.force:
            done[-1].check(settings.max_loss)
    if job.is_onnx:
        model = running(str(kept), job.told)
        float_file = job.run / f"{job.label}{ONNX}"
        noise = job.told.noise[0] if job.told.noise else None
        export_onnx(model, float_file, noise)
        kept = float_file
    if settings.quantize:
        kept = _quantize(job, problem, kept)
    if settings.runtime == OPENVINO:
        source, kept = kept, kept.with_name(f"{kept.stem}-{OPENVINO}{ONNX}")
        for_openvino(source, kept)
    if settings.quantize or settings.runtime == OPENVINO:
        step = "convolutions in int8" if settings.quantize else "ONNX"
        done.append(_compared(job, f"{step}{', OpenVINO' * (settings.runtime == OPENVINO)}", kept, validated, base))
        say(done[-1].describe())
        if not settings.force:
            done[-1].check(settings.max_loss)
    if not done:
        done.append(_compared(job, "float32", kept, validated, base))
    write_atomically(output, kept.read_bytes())
    _save_card(job, output, settings, done)
    return Compressed(output, tuple(done), tuple(job.notes))


@dataclass(frozen=True)
class _Job:
    """What is to be done, checked before any work is spent."""

    parent: Parent
    student: Parent | None
    """A smaller network that is there already."""
    output: Path
    settings: CompressSettings
    run: Path
    width: int
    """Channels that are kept."""
    told: Told
    notes: tuple[str, ...]

    @classmethod
    def of(cls, name: str, output: Path, settings: CompressSettings) -> _Job:
        is_onnx = _check_output(output, settings)
        parent = read_parent(name, "compressed")
        channels = int(parent.arch.get("channels", 64))
        width = width_after(parent.arch, settings.prune) if settings.prune is not None else channels
        student = None if settings.student is None else _student(settings.student, parent)
        if settings.runtime == OPENVINO and not is_onnx:
            raise UsageError(f"--runtime openvino computes ONNX files: name the output *{ONNX}, got {output}")
        if settings.prune is None and not is_onnx:
            raise UsageError("there is nothing to do: give --prune, or --quantize int8 with an output *.onnx")
        if settings.prune is None and settings.quantize is None and settings.runtime != OPENVINO:
            raise UsageError("there is nothing to compress: give --prune or --quantize; `scenelift export` writes ONNX")
        told, notes = Told(), tuple[str, ...]()
        if is_onnx:
            need_packages(settings.runtime == OPENVINO)
            ref, lines = told_for_good(find(name), settings.blur, settings.noise)
            if parent.spec.needs_noise and not parent.spec.needs_blur and settings.noise is None:
                raise UsageError(f"{name} is told the noise: say which by --noise, standard deviation in reflectance")
            noise = ref.noise or (None if settings.noise is None else (settings.noise,))
            told, notes = Told(ref.blur, noise), tuple(lines)
        elif settings.blur is not None or settings.noise is not None:
            raise UsageError(
                "--blur and --noise are what an ONNX file is told for good; a checkpoint is told them by scene"
            )
        made_of = f"{parent.spec.name}-{width}-channels" if student is None else student.spec.name
        run = settings.run or run_folder(made_of, None)
        return cls(parent, student, output, settings, run, width, told, notes)

    @property
    def is_onnx(self) -> bool:
        return self.output.suffix == ONNX

    @property
    def channels(self) -> int:
        return int(self.parent.arch.get("channels", 64))

    @property
    def label(self) -> str:
        """Name of the network that is made, before it is quantised."""
        made_of = (self.student or self.parent).spec.name
        return f"{made_of}-pruned" if self.settings.prune is not None else made_of

    def recipe(self) -> Recipe:
        """Return the recipe by which what remains is trained: the parent's, on the user's images."""
        base, settings = self.parent.recipe, self.settings
        first = base.plan.phases[0]
        phase = Phase(settings.steps, rate=first.rate, loss=first.loss, warmup=min(50, max(1, settings.steps // 10)))
        every = max(1, min(500, settings.steps // 4))
        digest = self.parent.digest
        return dataclasses.replace(
            base,
            name=self.label,
            arch=self.parent.arch | ({} if settings.prune is None else {"channels": self.width}),
            data=on(base, sources(settings.data, settings.bands), sources(settings.validation, settings.bands)),
            plan=dataclasses.replace(base.plan, phases=(phase,), validate_every=every, patience=0, keep="best"),
            start=None,
            adversarial=None,
            note=f"{self.parent.spec.name} ({digest[:12]}) with {self.width} of {self.channels} channels, its pupil.",
        )


def _student(name: str, parent: Parent) -> Parent:
    """Return the smaller network, which must do what the whole one does.

    Raises
    ------
    ModelError, UsageError
        If it is none, or does something else.
    """
    student = read_parent(name, "taken in place of another")
    for what in ("task", "scale", "bands", "needs_blur"):
        whole, small = getattr(parent.spec, what), getattr(student.spec, what)
        if whole != small:
            raise UsageError(f"--student {name} cannot take the place of {parent.name}: {what} {small}, not {whole}")
    return student


def _check_output(output: Path, settings: CompressSettings) -> bool:
    """Return whether an ONNX file is wanted; refuse what cannot be written."""
    suffix = {"onnx": ONNX, "safetensors": CHECKPOINT}.get(settings.to or "", output.suffix)
    if output.suffix not in (ONNX, CHECKPOINT):
        raise UsageError(f"what is made ends in {CHECKPOINT} or {ONNX}, got {output}")
    if output.suffix != suffix:
        raise UsageError(f"--to {settings.to} writes *{suffix}, got {output}: name another output")
    if settings.quantize and output.suffix != ONNX:
        raise UsageError(f"--quantize {settings.quantize} makes an ONNX file: name the output *{ONNX}, got {output}")
    if not output.absolute().parent.is_dir():
        raise UsageError(f"no such folder for the output: {output.parent}; make it first")
    if not settings.data:
        raise UsageError("compress needs --data: images or scenes to train on, and to validate on what is lost")
    return output.suffix == ONNX


def _prune(job: _Job, problem: Restoration, settings: CompressSettings, progress: Progress | None) -> Path:
    """Prune, train what remains, and return the checkpoint."""
    whole, _ = load_checkpoint(job.parent.path, valid=False)
    scores = importance(whole, job.parent.arch, _losses(whole, problem))
    _, state = prune(whole.state_dict(), job.parent.arch, scores, job.width)
    device = pick_device(settings.device)
    bf16 = problem.recipe.plan.precision == "bf16" and pick_precision("auto", device) == "bf16"
    taught = distillation_term(whole.to(device), problem.task, problem.recipe.plan.phases[0].loss, bf16=bf16)
    taught_problem = dataclasses.replace(problem, began=state, terms=(taught,))
    return fit(taught_problem, job.run, resume=settings.resume, device=settings.device, progress=progress)


def _losses(module: torch.nn.Module, problem: Restoration) -> Iterator[Tensor]:
    """Yield losses of the whole network on batches that depend on nothing but their number."""
    objective, phase = PixelLoss(problem.task, problem.sampler), problem.recipe.plan.phases[0]
    for number in range(BATCHES):
        generator = torch.Generator().manual_seed(number)
        batch = objective.draw(phase, BATCH, generator)
        yield objective(Step(number, phase, batch, module, torch.device("cpu")))


def _quantize(job: _Job, problem: Restoration, source: Path) -> Path:
    generator = torch.Generator().manual_seed(1)
    clean = problem.sampler(CALIBRATION, 1.0, generator)
    images = seen(problem.task, clean, job.told, 2).numpy()
    at = mirror(images.shape[-1], job.parent.spec.halo).numpy()
    made = quantize_int8(source, images[..., at[:, None], at], f"{job.label}-int8")
    path = job.run / f"{job.label}-int8{ONNX}"
    write_atomically(path, made.content)
    return path


def _compared(job: _Job, step: str, made: Path, validated: list[Case], base: Figures) -> Comparison:
    told = validated[0].told
    spent = seconds(job.parent.name, str(made), told)
    return Comparison(step, base, figures(str(made), validated), *spent)


def _save_card(job: _Job, output: Path, settings: CompressSettings, done: list[Comparison]) -> None:
    """Write the card beside what was made."""
    last = done[-1]
    beside = job.run / f"{job.label}.json"
    known: dict[str, Any] = {}
    if settings.prune is not None:
        known = json.loads(beside.read_text(encoding="utf-8"))
    told = {"blur": [b.describe() for b in job.told.blur or ()], "noise": list(job.told.noise or ())}
    card = known | {
        "name": f"{job.label}{'-int8' if settings.quantize else ''}",
        "task": job.parent.spec.task,
        "scale": job.parent.spec.scale,
        "sha256": _digest(output),
        "compressed_from": (job.student or job.parent).facts(),
        **({} if job.student is None else {"in_place_of": job.parent.facts()}),
        "compression": {
            "prune": settings.prune,
            "quantize": settings.quantize,
            "runtime": settings.runtime if job.is_onnx else None,
            "steps": [each.facts() for each in done],
            "figures": "PSNR and SSIM on validation images, CPU seconds in turn: [of the whole network, of this one]",
            "precision_of_networks": pick_precision("auto", "cpu"),
            "max_loss_db": settings.max_loss,
            "forced": bool(settings.force and last.loss_db > settings.max_loss),
            **({"told_for_good": told} if job.is_onnx and any(told.values()) else {}),
        },
    }
    write_atomically(output.with_suffix(".json"), (json.dumps(card, indent=2) + "\n").encode())


def _digest(path: Path) -> str:
    if path.suffix == CHECKPOINT:
        return checkpoint_digest(path)
    digest: str = find(str(path)).digest
    return digest
