"""The land-cover experiment as tables in Markdown, CSV and figures of confusion matrices."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from scenelift.models.training.confusion import Confusion
from scenelift.pipeline.files import make_folder
from scenelift.pipeline.scores.bootstrap import Interval
from scenelift.workflows.evidence.landcover import Arm, Experiment, Trial


def to_markdown(found: Experiment, budget: str = "") -> str:
    """Return every case's table."""
    parts = [f"{found.title}; {len(found.classes)} classes."]
    for trial in found.trials:
        how = f"`{trial.classifier}`" + (f", tuned on each arm ({budget})" if trial.tuned else "")
        parts += [f"\n**{trial.case.title}**; {how}\n", _table(trial)]
        parts += [f"\n{_verdict(name, trial)}" for name in trial.tests]
    return "\n".join(parts)


def _table(trial: Trial) -> str:
    lines = [
        f"| arm | accuracy % | balanced % [95 %] | over {trial.case.unrestored}, points "
        "| F1 | kappa | macro AUC | recovery R % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm in trial.arms:
        s = arm.confusion.scores()
        cells = [f"{100 * s['accuracy']:.1f}", _percent(arm.balanced, ".1f"), _percent(arm.gain, "+.1f")]
        cells += [f"{s['f1']:.3f}", f"{s['kappa']:.3f}", f"{arm.auc:.4f}", _percent(arm.recovery)]
        lines.append(f"| {arm.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(value: Interval | None, form: str = ".0f") -> str:
    if value is None:
        return ""
    if np.isnan(value.mean):
        return "no sure loss"
    return Interval(100 * value.mean, 100 * value.low, 100 * value.high).text(form)


def _verdict(network: str, trial: Trial) -> str:
    test = trial.tests[network]
    return (
        f"{network} against {trial.best_classical} (the best without learning here): right alone b = {test.b}, "
        f"wrong alone c = {test.c}, exact McNemar p = {test.p:.2g}."
    )


def to_json(found: Experiment) -> str:
    """Return everything but the single images' probabilities as JSON."""
    trials: list[dict[str, Any]] = []
    for trial in found.trials:
        arms = {arm.name: _arm_facts(arm) for arm in trial.arms}
        tests = {name: {"b": t.b, "c": t.c, "p": t.p} for name, t in trial.tests.items()}
        facts = {
            "case": trial.case.name,
            "classifier": trial.classifier,
            "tuned": trial.tuned,
            "best_classical": trial.best_classical,
        }
        trials.append(facts | {"arms": arms, "mcnemar": tests})
    facts = {"images": found.title, "count": found.count, "classes": list(found.classes), "trials": trials}
    return json.dumps(_plain(facts))


def _arm_facts(arm: Arm) -> dict[str, Any]:
    intervals = {"balanced": arm.balanced, "gain": arm.gain, "recovery": arm.recovery}
    return {
        **arm.confusion.scores(),
        "auc": arm.auc,
        **{name: None if found is None else [found.mean, found.low, found.high] for name, found in intervals.items()},
        "per_class": arm.confusion.per_class(),
        "confusion": arm.confusion.counts.tolist(),
    }


def _plain(value: Any) -> Any:
    """Return the value with null for what is no number."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def write_folder(found: Experiment, folder: Path) -> list[Path]:
    """Write per_class.csv, experiment.json and a figure of the confusions of each case; return the files."""
    make_folder(folder)
    files = [folder / "per_class.csv", folder / "experiment.json"]
    with files[0].open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "classifier", "arm", "class", "sensitivity", "specificity", "f1", "iou"])
        for trial in found.trials:
            for arm in trial.arms:
                for name, scores in arm.confusion.per_class().items():
                    who = trial.classifier + (" tuned" if trial.tuned else "")
                    row = [f"{scores[key]:.4f}" for key in ("sensitivity", "specificity", "f1", "iou")]
                    writer.writerow([trial.case.name, who, arm.name, name, *row])
    files[1].write_text(to_json(found) + "\n", encoding="utf-8")
    for trial in found.trials:
        who = Path(trial.classifier).stem + ("-tuned" if trial.tuned else "")
        path = folder / f"confusion-{trial.case.name}-{who}.png".replace(":", "-")
        _draw_confusions({arm.name: arm.confusion for arm in trial.arms}, path, f"{trial.case.title}; {who}")
        files.append(path)
    return files


def _draw_confusions(confusions: dict[str, Confusion], path: Path, title: str = "") -> None:
    """Draw matrices side by side, each row in percent of the true class."""
    # matplotlib without a display, imported here so that only figures pay for it
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(confusions) // 5)
    columns = -(-len(confusions) // rows)
    figure = Figure(figsize=(3.4 * columns + 1, 3.4 * rows + 0.6), layout="constrained")
    for index, (name, confusion) in enumerate(confusions.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        share = 100 * confusion.counts / np.maximum(confusion.counts.sum(1, keepdims=True), 1)
        axes.imshow(share, vmin=0, vmax=100, cmap="Blues")
        for (i, j), value in np.ndenumerate(share):
            if value >= 0.5:
                axes.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=6, color="w" if value > 55 else "k")
        ticks = range(len(confusion.classes))
        left, bottom = index % columns == 0, index + columns >= len(confusions)
        axes.set_xticks(ticks, confusion.classes if bottom else [], rotation=90, fontsize=6)
        axes.set_yticks(ticks, confusion.classes if left else [], fontsize=6)
        accuracy = confusion.scores()["balanced_accuracy"]
        axes.set_title(f"{name}: balanced {100 * accuracy:.1f}%", fontsize=8)
    figure.suptitle(f"{title} (rows: labels; percent of the class)", fontsize=9)
    FigureCanvasAgg(figure).print_png(str(path))
