"""The comparison as a page: the paper's figures beside ours, every table, and what reproduces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scenelift.models.networks.perception import FEATURES, LPIPS
from scenelift.pipeline.scores.bootstrap import Interval
from scenelift.workflows.evidence.cases import DENOISE, INPUT, SHARPEN, TRUTH, Case
from scenelift.workflows.evidence.compare import BASELINES, Comparison, table_rows


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

COLUMNS = {
    "ssim": ("SSIM", 3),
    "ms_ssim": ("MS-SSIM", 3),
    "vif": ("VIF", 3),
    "rmse": ("RMSE", 5),
    "sam": ("SAM, °", 2),
    "ergas": ("ERGAS", 2),
    "tenengrad": ("Tenengrad", 2),
    "high_frequency": ("high freq.", 2),
    "visible_contrast": ("contrast", 3),
    FEATURES: ("features", 3),
    LPIPS: ("LPIPS", 3),
}
"""Scores of the tables: heading and decimals."""


def paper_case(found: Comparison, task: str) -> Case | None:
    """Return the case whose classical baseline scores nearest to the paper's; cases with a network come first."""
    cases = [case for case in found.cases if case.task == task]
    cases = [case for case in cases if found.best_network(case)] or cases
    reported = next(claim.psnr for claim in PAPER if claim.method == BASELINES[task])
    return min(cases, key=lambda c: abs(found.mean(c, BASELINES[task], "psnr").mean - reported), default=None)


def paper_method(found: Comparison, claim: Claim) -> tuple[Case, str] | None:
    """Return our case and method for a row of the paper: for a GAN the network of that name, if there is one."""
    case = paper_case(found, claim.task)
    if case is None:
        return None
    if claim.method:
        return case, claim.method
    adversarial = [m for m in found.methods[case.key] if m in found.networks and "gan" in m]
    if "GAN" in claim.label and adversarial:
        return case, adversarial[0]
    best = found.best_network(case)
    return (case, best) if best else None


def write_page(found: Comparison, folder: Path) -> Path:
    """Write ``comparison.md`` and its figure into a folder; return the page's path."""
    from scenelift.workflows.evidence.figure import draw_figure

    draw_figure(found, folder / "comparison.png")
    page = folder / "comparison.md"
    page.write_text(page_text(found))
    return page


HELD_OUT = (
    "The shipped networks' checkpoints were chosen, and the classical methods tuned, on EuroSAT's validation split: on "
    "those images the figures below are fair between methods, but no held-out result. Run the command on "
    "images of your own."
)


def page_text(found: Comparison) -> str:
    """Return the page as Markdown."""
    parts = [
        "# Comparison",
        f"Written by `{found.command}` on {found.title} ({found.count} in all; run {found.digest}, "
        f"{found.seconds:.0f} s).",
        HELD_OUT,
        "![PSNR and SSIM of every method, with 95 % intervals and the paper's figures](comparison.png)",
        "## The paper's table",
        _paper_table(found),
        *_verdicts(found),
        "## Every method",
        _conventions(found),
    ]
    for case in found.cases:
        parts += [f"### {case.title}", _case_table(found, case)]
    return "\n\n".join(parts) + "\n"


def _paper_table(found: Comparison) -> str:
    lines = ["| method | paper: PSNR, dB | SSIM | here | PSNR, dB [95 %] | SSIM [95 %] |", "|---|---|---|---|---|---|"]
    for claim in PAPER:
        place = paper_method(found, claim)
        ours = "none is shipped | |"
        if place:
            case, method = place
            psnr, ssim = (found.mean(case, method, score) for score in ("psnr", "ssim"))
            name = f"{method} (not adversarial)" if "GAN" in claim.label and "gan" not in method else method
            ours = f"{name}, {case.key} | {psnr} | {_span(ssim, 3)}"
        lines.append(f"| {claim.label} | {claim.psnr:.2f} | {claim.ssim:.3f} | {ours} |")
    return "\n".join(lines)


def _verdicts(found: Comparison) -> list[str]:
    """Say for each of the paper's claims whether direction and margin reproduce."""
    lines = []
    for network, other in ((2, 0), (2, 1), (4, 3)):
        mine, theirs = paper_method(found, PAPER[network]), paper_method(found, PAPER[other])
        claimed = PAPER[network].psnr - PAPER[other].psnr
        text = f"**{PAPER[network].label} over {PAPER[other].label}**: the paper reports {claimed:+.2f} dB; "
        if mine is None or theirs is None:
            lines.append(f"- {text}not tried here.")
            continue
        gap = found.difference(mine[0], mine[1], theirs[1], "psnr")
        lines.append(f"- {text}{mine[1]} gains {_signed(gap)} dB here. {_verdict(gap, claimed)}")
        best = found.best_classical(mine[0])
        if best != theirs[1]:
            over = found.difference(mine[0], mine[1], best, "psnr")
            lines[-1] += f" Over the best classical method ({best}) it is {_signed(over)} dB."
    intro = (
        "The paper's images, noise level and scale are not published, so its absolute figures cannot be checked. We "
        "take the case whose baseline scores nearest to the paper's, and compare directions and margins:"
    )
    return [intro, "\n".join(lines)]


def _verdict(gap: Interval, claimed: float) -> str:
    if gap.low <= 0:
        return "The direction does not reproduce." if gap.high < 0 else "The direction is not certain."
    if gap.high < claimed:
        return "The direction reproduces, the margin is smaller."
    return "The direction reproduces, the margin is larger." if gap.low > claimed else "Direction and margin reproduce."


def _conventions(found: Comparison) -> str:
    return (
        f"Means over images; PSNR and SSIM relative to {found.peak:.4f} reflectance (the span of the 8-bit images). "
        "Intervals: 10,000 bootstrap draws of images; differences are paired, image by image. The truth is the image "
        "itself (Wald's protocol), not a finer sensor's picture, and the images were JPEG files. RMSE in reflectance. "
        "Tenengrad, high-frequency energy and contrast are ratios to the truth: 1 is as sharp as the truth, more is "
        "noise or invention. MS-SSIM uses the scales that fit the image. ERGAS is 100 / scale times the root mean "
        'square relative error. "features" is the distance of EfficientNet-Lite0 features, in the form of LPIPS but '
        "not LPIPS."
    )


def _case_table(found: Comparison, case: Case) -> str:
    names = [name for name in COLUMNS if name in found.scores(case)]
    baseline, best = BASELINES[case.task], found.best_classical(case)
    heads = ["method", "PSNR, dB [95 %]", *(COLUMNS[n][0] for n in names), f"over {baseline}, dB", f"over {best}, dB"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in table_rows(found, case):
        psnr = "identical" if row["method"] == TRUTH else str(row["psnr"])
        cells = [_label(found, row["method"]), psnr]
        cells += [f"{row[name].mean:.{COLUMNS[name][1]}f}" for name in names]
        cells += ["" if row[key] is None else _signed(row[key]) for key in ("over_baseline", "over_best")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _label(found: Comparison, method: str) -> str:
    if method in found.networks:
        return f"**{method}**"
    return f"*{method}*" if method in (TRUTH, INPUT) else method


def _span(value: Interval, digits: int) -> str:
    return f"{value.mean:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def _signed(value: Interval) -> str:
    return f"{value.mean:+.2f} [{value.low:+.2f}, {value.high:+.2f}]"
