"""What the paper reports beside what was found here: its Table 1 and Figure 4."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenelift.workflows.evidence.cases import DENOISE, INPUT, REFERENCE, SHARPEN, Degradation
from scenelift.workflows.evidence.compare import BASELINES, Comparison


@dataclass(frozen=True)
class Claim:
    """A row of the paper's Table 1."""

    label: str
    task: str
    method: str
    """Our method of that name; "" for the network of that task."""
    psnr: float
    ssim: float


PAPER = (
    Claim("bilateral filter", DENOISE, "bilateral", 28.45, 0.812),
    Claim("wavelet shrinkage", DENOISE, "wavelet", 29.30, 0.828),
    Claim("CNN denoiser", DENOISE, "", 34.10, 0.912),
    Claim("bicubic interpolation", SHARPEN, "bicubic", 27.85, 0.784),
    Claim("GAN super-resolution", SHARPEN, "", 32.75, 0.896),
)
"""What the paper reports; its images, noise level and scale are not published."""


def _paper_case(found: Comparison, task: str) -> Degradation | None:
    """Return the case whose classical baseline scores nearest to the paper's; cases with a network come first."""
    cases = [case for case in found.cases if case.task == task]
    cases = [case for case in cases if found.best_network(case)] or cases
    reported = next(claim.psnr for claim in PAPER if claim.method == BASELINES[task])
    return min(cases, key=lambda c: abs(found.mean(c, BASELINES[task], "psnr").mean - reported), default=None)


def paper_method(found: Comparison, claim: Claim) -> tuple[Degradation, str] | None:
    """Return our case and method for a row of the paper: for a GAN the network of that name, if there is one."""
    case = _paper_case(found, claim.task)
    if case is None:
        return None
    if claim.method:
        return case, claim.method
    adversarial = [m for m in found.methods[case.name] if m in found.networks and "gan" in m]
    if "GAN" in claim.label and adversarial:
        return case, adversarial[0]
    best = found.best_network(case)
    return (case, best) if best else None


CLASSICAL_COLOR, NETWORK_COLOR, MARK_COLOR = "#8fa3b8", "#1f6f54", "#b3382c"


def draw_figure(found: Comparison, path: Path) -> None:
    """Draw PSNR and SSIM of every method for the two cases nearest to the paper's, as a PNG.

    Parameters
    ----------
    found : Comparison
    path : Path
        Replaced if it exists.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cases = [case for task in (DENOISE, SHARPEN) if (case := _paper_case(found, task))]
    figure = Figure(figsize=(5.6 * len(cases), 7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(cases), squeeze=False)
    for column, case in enumerate(cases):
        for row, (score, label) in enumerate((("psnr", "PSNR, dB (cut axis)"), ("ssim", "SSIM (cut axis)"))):
            _bars(axes[row][column], found, case, score)
            axes[row][column].set_ylabel(label)
        axes[0][column].set_title(case.title, fontsize=10)
    figure.savefig(path, dpi=110)


def _bars(axis: Any, found: Comparison, case: Degradation, score: str) -> None:
    methods = [m for m in found.methods[case.name] if m not in (REFERENCE, INPUT)]
    spans = [found.mean(case, method, score) for method in methods]
    colors = [NETWORK_COLOR if m in found.networks else CLASSICAL_COLOR for m in methods]
    errors = [[s.mean - s.low for s in spans], [s.high - s.mean for s in spans]]
    axis.bar(methods, [s.mean for s in spans], yerr=errors, color=colors, capsize=3)
    marks = {}
    for claim in PAPER:
        place = paper_method(found, claim)
        if place and place[0] == case:
            marks[place[1]] = claim.psnr if score == "psnr" else claim.ssim
    axis.plot(list(marks), list(marks.values()), "D", color=MARK_COLOR, label="the paper, on its own images")
    known = [s.low for s in spans] + list(marks.values())
    top = max([s.high for s in spans] + list(marks.values()))
    axis.set_ylim(min(known) - 0.15 * (top - min(known)), top + 0.15 * (top - min(known)))
    for label in axis.get_xticklabels():
        label.set(rotation=40, ha="right", rotation_mode="anchor")
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    axis.legend(fontsize=8, loc="upper left")
