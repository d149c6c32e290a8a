"""The paper's Figure 4 on our images: bars with intervals, the paper's own figures as marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scenelift.workflows.evidence.cases import DENOISE, INPUT, SHARPEN, TRUTH, Case
from scenelift.workflows.evidence.compare import Comparison
from scenelift.workflows.evidence.pages import PAPER, paper_case, paper_method

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

    cases = [case for task in (DENOISE, SHARPEN) if (case := paper_case(found, task))]
    figure = Figure(figsize=(5.6 * len(cases), 7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(cases), squeeze=False)
    for column, case in enumerate(cases):
        for row, (score, label) in enumerate((("psnr", "PSNR, dB (cut axis)"), ("ssim", "SSIM (cut axis)"))):
            _bars(axes[row][column], found, case, score)
            axes[row][column].set_ylabel(label)
        axes[0][column].set_title(case.title, fontsize=10)
    figure.savefig(path, dpi=110)


def _bars(axis: Any, found: Comparison, case: Case, score: str) -> None:
    methods = [m for m in found.methods[case.key] if m not in (TRUTH, INPUT)]
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
