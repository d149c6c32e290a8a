"""A terminal of 80 columns: no line of a help or a table is longer, and no word or number is cut."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from scenelift.pipeline.scores.registry import known_scores
from scenelift.workflows.bench.simulation import Outcome
from scenelift.workflows.bench.stress import StressResult
from scenelift.workflows.cli import app as cli
from scenelift.workflows.cli import inform, tables
from scenelift.workflows.cli.console import table
from scenelift.workflows.cli.scene import looking, trying
from scenelift.workflows.looking.leftovers import Leftover
from scenelift.workflows.python import list_models

WIDTH = 80
S2 = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
NOTE = (
    "expected gain 1.23 [0.43, 2.03] dB over bicubic, 1.11 [0.31, 1.91] dB over lanczos (16 windows one level coarser)"
)
PATH = "/data/archive/2024/S2A_MSIL2A_20240501T100031_N0510_R122_T33UUP.SAFE-better.tif"


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))


def words(text: str) -> set[str]:
    """Return what stands between spaces and the lines of frames."""
    return set(re.sub(r"[─━╭╮╰╯│┃┏┓┗┛┳┻╇┡┩┴┬├┤┼╈]", " ", text).split())


def facts_of(function: Callable[..., None]) -> dict[str, Any]:
    """Return facts for a function that prints some: every key that it takes, with large numbers and long texts."""
    keys = re.findall(r"(?:facts|summary|found)\[[\"'](\w+)[\"']\]", inspect.getsource(function))
    return dict.fromkeys(keys, 1234567.891)


BENCH = facts_of(tables.print_bench) | {
    "model": "sr-x2-rgb-sentinel2",
    "device": "cpu",
    "precision": "fp32",
    "runs": 5,
    "stages_s": dict.fromkeys(("preparing", "blocks", "publishing", "reading", "model", "writing"), 123456.789),
    "ceilings": dict.fromkeys(tables.CEILINGS, 1234567.891),
}
JOB: dict[str, Any] = {
    "output": PATH,
    "models": ["denoise-rgb-taught", "sr-x4-rgb-sentinel2"],
    "width": 43920,
    "height": 43920,
    "bands": 12,
    "scale": 4,
    "blocks": 12100,
    "skipped": 1234,
    "resumed": 0,
    "seconds": 123456.7,
    "megapixels_per_second": 123.45,
    "model_share": 0.98,
    "peak_memory_mb": 123456.0,
    "device": "cuda",
    "precision": "bf16, fp32",
    "notes": [NOTE] * 2,
    "window": [10000, 10000, 980, 980],
    "dtype": "float32",
    "bytes": 10**11,
    "free_bytes": 10**13,
    "kept": 1200,
    "processes": "slurm workers",
    "expected": None,
}
STRESS = StressResult(**dict.fromkeys(inspect.signature(StressResult).parameters, 10**5))
REPORT = SimpleNamespace(
    test="better.tif",
    reference="truth.tif",
    factor=2,
    data_range=0.3,
    map="error.tif",
    bands=S2,
    values=dict.fromkeys(known_scores(), 0.98765432),
    by_band={name: [0.123456 * (i + 1) for i in range(12)] for name in known_scores()},
)
SCENE: dict[str, Any] = {
    "files": [PATH],
    "width": 10980,
    "height": 10980,
    "dtype": "uint16",
    "crs": "EPSG:32633",
    "product": "Sentinel-2",
    "made": {"kind": "an enhanced scene", "software": "scenelift 0.1.0", "models": S2, "input": [PATH]},
    "transform": [10.0, 0.0, 499980.0, 0.0, -10.0, 5300040.0],
    "ground_sample_distance": [10.0, 10.0],
    "nodata": 0,
    "mask": "nodata",
    "times": ["2024-05-01T10:00:00", "2024-05-11T10:00:00", "2024-05-21T10:00:00"],
    "time": "2024-05-11T10:00:00",
    "classes": ["scl", "qa_pixel"],
    "hidden": None,
    "notes": [NOTE],
    "unfamiliar": [NOTE],
    "conditions": {"lines": [NOTE]},
    "corners": {"upper left": [499980.0, 5300040.0], "lower right": [609780.0, 5190240.0]},
    "bands": [
        {
            "description": n,
            "scale": 1e-4,
            "offset": -0.1,
            "declared": True,
            "flags": None,
            "color": "undefined",
            "nodata": 0.0,
            "ground_sample_distance": [10.0 * (1 + i % 2)] * 2,
        }
        for i, n in enumerate(S2)
    ],
}
LEFT = [Leftover(PATH, "", 10**10, 12100, 1234, 12345.6, False, False), Leftover("a.tif", "", 0, 0, 0, 0, True, False)]
ARCHIVE = facts_of(tables.print_archive) | {"folder": PATH, "failures": {"S2A_T33UUP": NOTE}}
ESTIMATE = facts_of(tables.print_estimate) | {"skipped": [], "unusable": {"S2A_T33UUP": NOTE}}
PEERS = {
    "rows": {"scenelift": {"cpu_s": 1e4, "wall_s": 1e4, "largest_process_gb": 12.3}},
    "ratios": {"CPU": 1.23},
    "runs": 5,
    "workers": 16,
    "hardware": {"processor": "AMD EPYC 9654 96-Core Processor"},
}
DEMO = {
    "table": [{"method": "sr-x2-rgb-sentinel2", "psnr": 38.123, "ssim": 0.98765, "rmse": 0.0123, "sam": 1.234}],
    "picture": "demo-output/before-after.png",
    "folder": "demo-output",
    "seconds": 123.4,
}
PRINTED: dict[str, tuple[Callable[[], None], list[str]]] = {
    "bench": (lambda: tables.print_bench(BENCH), ["sr-x2-rgb-sentinel2,"]),
    "journal": (lambda: tables.print_journal_bench(facts_of(tables.print_journal_bench)), ["1234567.89"]),
    "peers": (lambda: tables.print_peers(PEERS), ["10000.0", "12.30"]),
    "stress": (lambda: tables.print_stress([STRESS]), ["100,000", "100000.000"]),
    "sweep": (
        lambda: tables.print_sweep(SimpleNamespace(limits=lambda: {"driver": 1e6}), [Outcome(1, 1e6, 0.9)]),  # type: ignore[arg-type]
        ["1,000,000"],
    ),
    "demo": (lambda: tables.print_demo(DEMO), ["sr-x2-rgb-sentinel2", "38.12", "0.9877", "123.0"]),
    "estimate": (lambda: tables.print_estimate(ESTIMATE), ["1234567.9", "S2A_T33UUP", "expected"]),
    "archive": (lambda: tables.print_archive(ARCHIVE), ["S2A_T33UUP", "1234567.9"]),
    "enhanced": (lambda: tables.print_enhanced(JOB), ["43920", "123456.7", *NOTE.split()]),
    "rehearsal": (lambda: trying.print_rehearsal(JOB), ["43920", "100000.0", *NOTE.split()]),
    "scores": (lambda: tables.print_scores(REPORT), [*S2, "0.98765", "0.12346", "1.4815"]),  # type: ignore[arg-type]
    "info": (
        lambda: inform.print_scene(SCENE),
        [*S2, "EPSG:32633", "5300040.000000", "declared", "enhanced", *NOTE.split()],
    ),
    "models": (lambda: inform.print_models(list_models(), None), ["sr-x2-rgb-sentinel2", "landcover-eurosat-robust"]),
    "leftovers": (lambda: looking.print_leftovers(LEFT), ["10000.0", "1234", "12346"]),
}


def test_every_function_that_prints_a_table_is_rendered_here() -> None:
    modules = tables, inform, trying, looking
    there = {name for module in modules for name, _ in inspect.getmembers(module, inspect.isfunction)}
    source = inspect.getsource(inspect.getmodule(words))  # type: ignore[arg-type]
    assert {name for name in there if name.startswith("print_") and f".{name}(" not in source} == set()


@pytest.mark.parametrize("name", PRINTED)
def test_a_table_fits(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    show, wanted = PRINTED[name]
    show()
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= WIDTH, out
    assert not {*wanted} - words(out), out


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(*[st.lists(st.text("ab1.", min_size=1, max_size=9), min_size=1, max_size=9).map(" ".join)] * 6),
        min_size=1,
        max_size=3,
    )
)
def test_no_word_of_any_table_is_cut(rows: list[tuple[str, ...]]) -> None:
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as out:
        table("title", ["", "a", "b", "c", "d", "e"], [list(row) for row in rows])
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= WIDTH
    assert {word for row in rows for cell in row for word in cell.split()} <= words(text)


def every_command() -> list[str]:
    found, todo = [], [("", typer.main.get_command(cli.app))]
    while todo:
        name, command = todo.pop()
        command = command.loaded() if isinstance(command, cli.Command) else command
        found.append(name)
        todo += [(f"{name} {inner}".strip(), each) for inner, each in getattr(command, "commands", {}).items()]
    return sorted(found)


@pytest.mark.parametrize("name", every_command())
def test_a_help_fits(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.app([*name.split(), "--help"], standalone_mode=False)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= WIDTH
    shown = words(out)
    context = typer.main.get_command(cli.app)
    for part in name.split():
        context = context.commands[part]  # type: ignore[attr-defined]
        context = context.loaded() if isinstance(context, cli.Command) else context
    for option in context.params:
        flags = [flag for flag in (*option.opts, *option.secondary_opts) if flag.startswith("--")]
        for flag in flags:
            assert flag in shown or f"{flag}," in shown, (flag, out)
        text = re.sub(r"\\(?=\[)", "", getattr(option, "help", None) or "")
        assert not {word for word in text.split() if word not in shown}, (flags, out)
