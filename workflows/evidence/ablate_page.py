"""The ablation study as a page, and what `scenelift ablate` does around it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from scenelift.pipeline.files import make_folder
from scenelift.workflows.evidence.ablate import CASE, AblateSettings, Outcome, ablate, usable_variants


def run_ablation(settings: AblateSettings, output: Path, quiet: bool = False) -> Path:
    """Run the study with a line a training, write ``ablation.md`` and ``ablation.json``; return the page's path.

    Raises
    ------
    UsageError
        If the folder cannot be written.
    """
    make_folder(output)
    total = len(usable_variants()) * settings.seeds

    def say(what: str, done: int) -> None:
        if not quiet:
            print(f"{done + 1} of {total}: {what}", file=sys.stderr, flush=True)

    outcomes = ablate(settings, output / "runs", say)
    page = output / "ablation.md"
    page.write_text(page_text(outcomes, settings, command_of(settings)), encoding="utf-8")
    facts = {o.variant.name: {"psnr": o.psnr.tolist(), "ssim": o.ssim.tolist()} for o in outcomes}
    (output / "ablation.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
    return page


def command_of(settings: AblateSettings) -> str:
    """Return the command that makes a study again."""
    usual = AblateSettings()
    changed = [n for n in ("steps", "batch", "channels", "blocks", "seeds", "each") if _differs(settings, usual, n)]
    return " ".join(["scenelift ablate", *(f"--{name} {getattr(settings, name)}" for name in changed)])


def _differs(one: AblateSettings, other: AblateSettings, name: str) -> bool:
    return bool(getattr(one, name) != getattr(other, name))


def page_text(outcomes: list[Outcome], settings: AblateSettings, command: str) -> str:
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
    return "\n".join([*lines, "", *_verdicts(outcomes), ""])


def _verdicts(outcomes: list[Outcome]) -> list[str]:
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
