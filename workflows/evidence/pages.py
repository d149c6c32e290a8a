"""The comparison and the ablation study as pages: the paper's figures beside ours, and what reproduces."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from scenelift.pipeline.files import folder_for_results
from scenelift.pipeline.scores.bootstrap import Interval
from scenelift.pipeline.scores.registry import columns
from scenelift.workflows.evidence.ablate import CASE, AblateSettings, Outcome, ablate, usable_variants
from scenelift.workflows.evidence.cases import INPUT, REFERENCE, Degradation
from scenelift.workflows.evidence.compare import BASELINES, Comparison, table_rows
from scenelift.workflows.evidence.metrics import PERCEPTUAL
from scenelift.workflows.evidence.paper import PAPER, draw_figure, paper_method


def write_page(found: Comparison, folder: Path) -> Path:
    """Write ``comparison.md`` and its figure into a folder; return the page's path."""
    draw_figure(found, folder / "comparison.png")
    page = folder / "comparison.md"
    page.write_text(page_text(found), encoding="utf-8")
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
            ours = f"{name}, {case.name} | {psnr} | {ssim.text('.3f')}"
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
        lines.append(f"- {text}{mine[1]} gains {gap.text('+.2f')} dB here. {_verdict(gap, claimed)}")
        best = found.best_classical(mine[0])
        if best != theirs[1]:
            over = found.difference(mine[0], mine[1], best, "psnr")
            lines[-1] += f" Over the best classical method ({best}) it is {over.text('+.2f')} dB."
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
        "Intervals: 10,000 bootstrap draws of images; differences are paired, image by image. The reference is the "
        "image itself (Wald's protocol), not a finer sensor's picture, and the images were JPEG files. Tenengrad, "
        "high-frequency energy and contrast are ratios to the reference's: 1 is as sharp, more is "
        "noise or invention. MS-SSIM uses the scales that fit the image. ERGAS is 100 / scale times the root mean "
        'square relative error. "features" is the distance of EfficientNet-Lite0 features, in the form of LPIPS but '
        "not LPIPS. Consistency, synthesis, improvement, omission and hallucination are opensr-test's "
        "(docs/evidence.md)."
    )


def _case_table(found: Comparison, case: Degradation) -> str:
    known = {score.name: (score.title, score.text) for score in columns("compare") if score.name != "psnr"}
    known |= {name: (label, f"{{:.{digits}f}}".format) for name, (label, digits) in PERCEPTUAL.items()}
    shown = {name: how for name, how in known.items() if name in found.scores(case)}
    baseline, best = BASELINES[case.task], found.best_classical(case)
    heads = ["method", "PSNR, dB [95 %]", *(title for title, _ in shown.values())]
    heads += [f"over {name}, dB" for name in (baseline, best)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in table_rows(found, case):
        psnr = "identical" if row["method"] == REFERENCE else str(row["psnr"])
        cells = [_label(found, row["method"]), psnr, *(text(row[name].mean) for name, (_, text) in shown.items())]
        cells += ["" if row[key] is None else row[key].text("+.2f") for key in ("over_baseline", "over_best")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _label(found: Comparison, method: str) -> str:
    if method in found.networks:
        return f"**{method}**"
    return f"*{method}*" if method in (REFERENCE, INPUT) else method


def run_ablation(settings: AblateSettings, output: Path, quiet: bool = False) -> Path:
    """Run the study with a line a training, write ``ablation.md`` and ``ablation.json``; return the page's path.

    Raises
    ------
    UsageError
        If the folder cannot be written.
    """
    total = len(usable_variants()) * settings.seeds

    def say(what: str, done: int) -> None:
        if not quiet:
            print(f"{done + 1} of {total}: {what}", file=sys.stderr, flush=True)

    with folder_for_results(output):
        outcomes = ablate(settings, output / "runs", say)
    page = output / "ablation.md"
    page.write_text(ablation_text(outcomes, settings, _ablation_command(settings)), encoding="utf-8")
    facts = {o.variant.name: {"psnr": o.psnr.tolist(), "ssim": o.ssim.tolist()} for o in outcomes}
    (output / "ablation.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
    return page


def _ablation_command(settings: AblateSettings) -> str:
    """Return the command that makes a study again."""
    usual = AblateSettings()
    changed = [n for n in ("steps", "batch", "channels", "blocks", "seeds", "each") if _differs(settings, usual, n)]
    return " ".join(["scenelift ablate", *(f"--{name} {getattr(settings, name)}" for name in changed)])


def _differs(one: AblateSettings, other: AblateSettings, name: str) -> bool:
    return bool(getattr(one, name) != getattr(other, name))


def ablation_text(outcomes: list[Outcome], settings: AblateSettings, command: str) -> str:
    """Return the study as Markdown: differences to the baseline beside the paper's."""
    baseline = outcomes[0]
    lines = [
        "# Ablation",
        "",
        f"Written by `{command}`: a denoiser of {settings.blocks} residual blocks, {settings.channels} channels, "
        f"{settings.steps} steps of {settings.batch} patches (EuroSAT's training split), {settings.seeds} seeds "
        f"each; scored on {baseline.psnr.shape[1]} images of its validation split with white noise of "
        f"{CASE.noise:g} levels. Intervals: 95 %, bootstrap over images of the paired differences (means over "
        "seeds). The budget is small: it ranks how fast variants learn, not where they end.",
        "",
        "| variant | PSNR, dB | SSIM | difference, dB [95 %] | over seeds (sd), dB | the paper, dB |",
        "|---|---|---|---|---|---|",
    ]
    for outcome in outcomes:
        gap, spread = "", ""
        if outcome is not baseline:
            found = outcome.gain(baseline)
            gap = found.text("+.2f")
            spread = f"{outcome.spread(baseline):.2f}"
        paper = "" if outcome.variant.paper is None else f"{outcome.variant.paper:+.1f}"
        means = f"{outcome.psnr.mean():.2f} | {outcome.ssim.mean():.3f}"
        lines.append(f"| {outcome.variant.name} | {means} | {gap} | {spread} | {paper} |")
    return "\n".join([*lines, "", *_signs(outcomes), ""])


def _signs(outcomes: list[Outcome]) -> list[str]:
    """Say of each of the paper's differences whether its sign reproduces."""
    lines = []
    for outcome in outcomes[1:]:
        claimed = outcome.variant.paper
        if claimed is None:
            continue
        found = outcome.gain(outcomes[0])
        if found.low <= 0 <= found.high:
            verdict = "no difference can be told from zero"
        else:
            verdict = "the sign reproduces" if found.mean * claimed > 0 else "the sign is the opposite"
        lines.append(f"- {outcome.variant.name}: {verdict}.")
    return lines
