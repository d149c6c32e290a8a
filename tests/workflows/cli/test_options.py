"""Options of the command line: help that is complete, and one line for whatever is wrong."""

from __future__ import annotations

import inspect
import json
import pkgutil
import re
import shutil
import struct
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import typer
from support.builders import noise_image, write_raster
from support.jobs import Run
from support.jobs import scenelift as program

import scenelift.workflows.cli
from scenelift.models.shipped import WEIGHTS
from scenelift.pipeline.errors import UsageError
from scenelift.workflows.cli import app as cli
from scenelift.workflows.cli.options import Source, Where, with_options
from scenelift.workflows.settings import EnhanceSettings, Reading

MOST = 8
"""Parameters of a function of the command line."""


def commands() -> dict[str, Any]:
    """Return every command by the words that call it."""
    found = {}
    todo = [("", typer.main.get_command(cli.app))]
    while todo:
        words, command = todo.pop()
        command = command.loaded() if isinstance(command, cli.Command) else command
        if hasattr(command, "commands"):
            todo += [(f"{words} {name}".strip(), inner) for name, inner in command.commands.items()]
        else:
            found[words] = command
    return found


@pytest.mark.parametrize("words", sorted(commands()))
def test_the_help_of_every_command_has_two_examples_that_the_command_understands(words: str, run: Run) -> None:
    command = commands()[words]
    for flag in ("-h", "--help"):
        code, out, _ = run(*words.split(), flag)
        assert code == 0
    examples = [line for line in command.epilog.split("\n\n") if line != "Examples:"]
    assert len(examples) == 2 and all(example.startswith(f"scenelift {words}") for example in examples)
    assert all(example in " ".join(out.split()) for example in examples)
    names = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    for example in examples:
        own = example.partition(" -- ")[0]  # what follows is another command's
        assert set(re.findall(r" (--?[a-z][\w-]*)", own)) <= names
    assert all(option.help for option in command.params), "every option says what it is for"


def test_help_is_in_panels(run: Run) -> None:
    for words, panels in {
        "enhance": ["Input", "Model", "Output", "Where it runs", "When it stops"],
        "archive": ["Input", "Model", "Output", "Where it runs", "When it stops"],
        "classify": ["Input", "Model", "Output", "Where it runs", "When it stops"],
        "": ["Scenes and archives", "Training", "Land cover", "Measuring", "Clusters"],
    }.items():
        _, out, _ = run(*words.split(), "--help")
        found = [panel for panel in re.findall(r"╭─ ([\w ]+?) ─", out) if panel in panels]
        assert found == panels


def test_the_programs_help_lists_every_command_of_every_module() -> None:
    listed = {name: entry.module for name, entry in cli.COMMANDS.items()}
    there = {name: module for module in set(listed.values()) for name in cli._load(module)}
    assert listed == there
    panels = {
        name: command.rich_help_panel for module in set(listed.values()) for name, command in cli._load(module).items()
    }
    assert panels == {name: entry.panel for name, entry in cli.COMMANDS.items()}


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        ("enhnce", "enhance"),
        ("enhance a.tif -o b.tif --modle x", "--model"),
        ("models sr-x22", "sr-x2"),
        ("enhance {here} -o b.tif -m denois", "denoise"),
    ],
)
def test_a_wrong_name_names_the_nearest(words: str, nearest: str, run: Run) -> None:
    code, out, err = run(*words.format(here=__file__).split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.search(rf"{nearest}\b", err)


def test_where_no_terminal_is_there_is_a_line_of_the_log_now_and_then(capsys: Any, monkeypatch: Any) -> None:
    from types import SimpleNamespace

    from scenelift.workflows.cli import console

    monkeypatch.setattr(console, "EVERY", 0.0)
    monkeypatch.setattr(console.LOG, "handlers", [])
    monkeypatch.setattr(console.logging.getLogger(), "handlers", [])
    with console.Console() as shown:
        shown.progress(3, None)
        shown.progress(3, SimpleNamespace(pixels=2_000_000))  # type: ignore[arg-type]
    with console.bar("comparing", "images") as move:
        move(4, 9)
    lines = capsys.readouterr().err.splitlines()
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    for line, wanted in zip(
        lines,
        ["3 blocks to do", r"1 of 3 blocks, [\d.]+ Mpx/s, about \d+ min left", "comparing: 4 of 9 images"],
        strict=True,
    ):
        assert re.fullmatch(f"{stamp} {wanted}", line)


@pytest.mark.parametrize(
    ("models", "settings", "line"),
    [
        ("sharpen", EnhanceSettings(), "looking at the scene, fitting sharpen to it"),
        ("destripe,sr-x2", EnhanceSettings(), "looking at the scene, fitting destripe to it"),
        ("denoise,sr-x2", EnhanceSettings(), "looking at the scene, trying the models on it one level coarser"),
        ("sr-x2", EnhanceSettings(expect=False), "looking at the scene"),
        ("bicubic-x2", EnhanceSettings(), "looking at the scene"),
    ],
)
def test_what_takes_long_before_the_first_block_is_said(
    models: str, settings: EnhanceSettings, line: str, capsys: Any, monkeypatch: Any
) -> None:
    from scenelift.workflows.cli import console
    from scenelift.workflows.cli.scene.trying import preparing

    assert preparing(models, settings) == line
    monkeypatch.setattr(console, "SILENT", 0.02)
    with console.Console().preparing(line):
        time.sleep(0.2)
    assert capsys.readouterr().err == f"{line}\n"
    with console.Console().preparing(line):  # what is done at once is not said
        pass
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("scenelift enh", {"enhance"}),
        ("scenelift enhance --win", {"--window"}),
        ("scenelift enhance a.tif -m sr-x2-rgb-s", {"sr-x2-rgb-sentinel2"}),
        ("scenelift enhance a.tif -m denoise,bicu", {"denoise,bicubic-x2"}),
        ("scenelift models sharpen", {"sharpen", "sharpen-closed"}),
    ],
)
def test_names_of_models_are_completed(
    typed: str, completed: set[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_SCENELIFT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    with pytest.raises(SystemExit):
        cli.app(prog_name="scenelift", standalone_mode=False)
    assert {*capsys.readouterr().out.split()} == completed


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"scenelift {version('scenelift')}\n", "")


def test_no_function_of_the_command_line_has_many_parameters() -> None:
    most: dict[str, int] = {}
    for found in pkgutil.iter_modules(scenelift.workflows.cli.__path__):
        module = import_module(f"scenelift.workflows.cli.{found.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__:
                plain = getattr(function, "__wrapped__", function)
                most[f"{found.name}.{name}"] = len(inspect.signature(plain).parameters)
    assert {name: count for name, count in most.items() if count > MOST} == {}


def test_a_group_is_built_from_its_options_and_keeps_the_defaults_of_an_instance() -> None:
    built: list[tuple[Any, ...]] = []

    @with_options(Source, EnhanceSettings(precision="fp32", classes=True))
    def command(source: Source, settings: EnhanceSettings, name: str = "x") -> None:
        built.append((source, settings, name))

    app = typer.Typer()
    app.command()(command)
    app(
        ["--bands", "3,1", "--limit", "bands=9", "--limit", "pixels=8", "--noise", "7", "--no-shards"],
        standalone_mode=False,
    )
    app([], standalone_mode=False)
    settings = EnhanceSettings(precision="fp32", classes=True, noise=7.0, shards=False)
    assert built == [
        (Source(Reading("3,1"), limit=("bands=9", "pixels=8")), settings, "x"),
        (Source(), EnhanceSettings(precision="fp32", classes=True), "x"),
    ]


def test_the_log_goes_to_a_file_and_quiet_shows_nothing_but_results(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", np.full((1, 40, 50), 900, np.uint16))
    words = ("enhance", tmp_path / "a.tif", "-m", "bicubic-x2", "--workers", 0, "-o")
    block = re.compile(r"block 0 on .*: read [\d.]+ s, model [\d.]+ s, write [\d.]+ s")
    log = "-v", "--log-file"
    before = program(*log, "before.txt", *words, "b.tif", cwd=tmp_path)
    behind = program(*words, "c.tif", *log, "behind.txt", cwd=tmp_path)
    for done, file in ((before, "before.txt"), (behind, "behind.txt")):
        assert block.search((tmp_path / file).read_text()) and "1 block to do" in done.stderr
    for line in (("--quiet", *words, "d.tif"), (*words, "e.tif", "-q")):
        quiet = program(*line, cwd=tmp_path)
        assert quiet.stderr == "" and line[-2 if line[-1] == "-q" else -1] in quiet.stdout
    program("--log-file", "both.txt", *words, "f.tif", "-v", cwd=tmp_path)
    assert block.search((tmp_path / "both.txt").read_text())


WRONG_FLAGS = {
    "enhance a.tif -o b.tif --block many": "--block",
    "enhance a.tif -o b.tif --block 0": "--block must be from 1 to 65536, got 0",
    "enhance a.tif -o b.tif --batch 5000": "--batch must be from 1 to 4096, got 5000",
    "enhance a.tif -o b.tif --consistency 21": "--consistency must be from 0 to 20 steps, got 21",
    "enhance a.tif -o b.tif --realism 2": "--realism must be from 0 to 1, got 2.0",
    "enhance a.tif -o b.tif --strength -1": "--strength must be from 0 to 1, got -1.0",
    "enhance a.tif -o b.tif --noise lots": "--noise must be auto or a number in DN, got 'lots'",
    "enhance a.tif -o b.tif --noise -1": "--noise must be a number from 0 up, got -1.0",
    "enhance a.tif -o b.tif --require-gain nan": "--require-gain must be a number of dB, got nan",
    "enhance a.tif -o b.tif --require-gain inf": "--require-gain must be a number of dB, got inf",
    "enhance a.tif -o b.tif --device gpu": "--device",
    "enhance a.tif -o b.tif --precision fp8": "--precision",
    "enhance a.tif -o b.tif --bands 0": "--bands must be numbers from 1 or names, such as 4,3,2 or",
    "enhance a.tif -o b.tif --limit bytes=1": "--limit",
    "enhance a.tif -o b.tif --workers 9999": "--workers must be from 0 to 4096, got 9999",
    "enhance a.tif -o b.tif --cluster slrum": "--cluster must be one of",
    "enhance a.tif -o b.tif --cluster-option cores": "--cluster-option must be KEY=VALUE, got 'cores'",
    "enhance a.tif -o b.tif --cluster-option coers=4": "unknown key cluster.coers; did you mean cores?",
    "enhance a.tif -o b.tif --cluster-option cores=x": 'cluster.cores must be a whole number, got "x"',
    "enhance a.tif -o b.tif --tile 64": "--tile",
    "enhance a.tif": "--output",
    "archive a.tif": "--output",
    "archive a.tif -o out --format png": "--format",
    "archive a.tif -o out --date 2024-13": "--date must be",
    "archive a.tif -o out --bbox 1,2": "--bbox must be",
    "archive a.tif -o out --cloud-cover 101": "--cloud-cover must be a percentage from 0 to 100, got 101",
    "archive none.toml -o out": "cannot read none.toml",
    "archive a.tif -o out --format zarr --compress jpeg": "--compress for zarr must be one of zstd, deflate",
    "archive a.tif -o out --stall -3": "--stall must be seconds from 0 (never) up, got -3",
    "enhance a.tif -o b.tif --stall nan": "--stall must be seconds from 0 (never) up, got nan",
    "plan a.tif -o out": "plan",
    "score a.tif b.tif --block 3": "--block must be from 16 to 65536, got 3",
    "score a.tif b.tif --border -1": "--border must be from 0 up, got -1",
    "tiles a.tif -o t --size 0": "--size must be from 1 to 4096, got 0",
    "tiles a.tif -o t --format png": "--format",
    "tiles a.tif -o t --valid 2": "--valid must be a share from 0 to 1, got 2.0",
    "ablate --steps 0": "--steps must be at least 1, got 0",
    "train paper --threads 0": "--threads must be at least 1, got 0",
    "export denoise -o d.onnx --noise nan": "--noise must be a standard deviation from 0 up, got nan",
    "train denoise -o d.txt": "a trained network ends in .safetensors, got --output d.txt",
    "compare --seed -1": "--seed must be from 0 up, got -1",
    "compare --levels high": "--levels must be whole numbers such as 2,4, got 'high'",
    "scale stress --blocks x": "--blocks must be whole numbers",
    "scale simulate --compute 0": "--compute must be above 0, got 0.0",
    "scale simulate --compute 1 --scheduler x": "--scheduler must be numbers of milliseconds, got 'x'",
    "scale simulate --compute 1 --read -1": "--read must be from 0 up, got -1.0",
    "submit --array 0 -- archive in -o out": "--array must be from 1 to 10000 elements, got 0",
    "submit --warning 0 -- archive in -o out": "--warning must be from 1 up, got 0",
    "submit --requeues -1 -- archive in -o out": "--requeues must be from 0 up, got -1",
    "submit -- score a.tif": "one of the commands enhance, archive, resume",
}


@pytest.mark.parametrize("words", WRONG_FLAGS)
def test_a_wrong_flag_is_one_line_that_names_it(words: str, run: Run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*words.split())
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("scenelift: ") and WRONG_FLAGS[words] in err
    assert list(tmp_path.iterdir()) == []


def test_the_card_of_a_checkpoint_is_shown_if_it_is_its_own(run: Run, tmp_path: Path) -> None:
    own = tmp_path / "own.safetensors"
    shutil.copy(WEIGHTS / "denoise.safetensors", own)
    bare = json.loads(run("models", own)[1])
    assert (
        bare["name"] == "denoise" and bare["record"]["steps"] > 0 and len(bare["digest"]) == 64
    )  # as the file itself says
    shutil.copy(WEIGHTS / "denoise.json", own.with_suffix(".json"))
    assert run("models", own)[1] == run("models", "denoise")[1]
    shutil.copy(WEIGHTS / "sr-x2.json", own.with_suffix(".json"))  # of another network
    assert json.loads(run("models", own)[1]) == bare
    code, _, err = run("models", tmp_path / "none.safetensors")
    assert (code, err) == (2, f"scenelift: no such checkpoint: {tmp_path}/none.safetensors\n")


UNFIT = {
    "info text.tif": "supported file format. Name a raster, such as a GeoTIFF",
    "info cut.tif": "the file is cut off or damaged: fetch or copy it again",
    "enhance text.tif -o out.tif": "cannot open",
    "enhance text.tif -o out.tif --dry-run": "cannot open",
    "expect text.tif": "cannot open",
    "score scene.tif text.tif": "cannot open text.tif",
    "quicklook scene.tif text.tif -o out.png": "cannot open text.tif",
    "tiles text.tif -o out": "cannot open text.tif",
    "classify text.tif -o out.tif": "cannot open",
    "report text.tif -o out.html": "cannot open text.tif",
    "info scene.tif --limit pixels=10": "add --limit pixels=36864",
    "score scene.tif scene.tif --border 48": "--border 48 leaves nothing of 96 x 96 pixels: give less",
    "enhance scene.tif -o out.tif -m dehaze": "takes 3 bands, the scene has 4: choose them with --bands",
    "enhance scene.tif -o out.tif -m sr-x2-rgb --bands 1": "takes 3 bands, the scene has 1: choose them with --bands",
    "enhance scene.tif -o out.tif --scheduler foo": "missing port number in address 'foo'; check the address",
    "enhance scene.tif -o out.tif --bbox 1,2,3,4 --bbox-crs foo": "--bbox-crs must be a CRS such as EPSG:4326, got",
}
"""Files and options that do not go together, or are none, and what is said of them."""


@pytest.mark.parametrize("words", UNFIT)
def test_what_another_file_or_option_helps_is_one_line(words: str, run: Run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_raster(tmp_path / "scene.tif", noise_image(7, (4, 96, 96)))
    (tmp_path / "text.tif").write_text("hello")
    whole = (tmp_path / "scene.tif").read_bytes()
    directory = struct.pack("<I", len(whole) + 1000)  # as of a download that ended before it
    (tmp_path / "cut.tif").write_bytes(whole[:4] + directory + whole[8:])
    code, out, err = run(*words.split())
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("scenelift: ") and UNFIT[words] in err
    assert {path.name for path in tmp_path.iterdir()} == {"scene.tif", "text.tif", "cut.tif"}


def test_settings_given_from_python_are_checked_too() -> None:
    for make in (lambda: EnhanceSettings(block=0), lambda: Where(workers=-1).settings()):
        with pytest.raises(UsageError, match="must be from"):
            make()


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"crs": None}, "no coordinate reference system; give one with --crs"),
        ({"crs": None, "transform": rasterio.Affine.identity()}, "no coordinate reference system; give one with --crs"),
        ({"transform": rasterio.Affine.identity()}, "no affine transform"),
    ],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_info_tells_what_it_can_of_a_scene_that_enhance_refuses(
    how: dict[str, Any], why: str, tmp_path: Path, run: Run
) -> None:
    path = write_raster(tmp_path / "in.tif", noise_image(1, (2, 40, 50)), **how)
    code, out, err = run("info", path, "--json")
    facts = json.loads(out)
    assert (code, err, facts["crs"], facts["corners"]) == (0, "", None, {})
    assert (facts["width"], facts["height"], len(facts["bands"])) == (50, 40, 2)
    [note] = [note for note in facts["notes"] if note.startswith("enhance refuses it:")]
    assert why in note
    code, out, err = run("info", path)
    assert code == 0 and why.split(";")[0] in " ".join(out.replace("│", " ").split())
    code, out, err = run("enhance", path, "-o", tmp_path / "out.tif", "-m", "nearest-x2")
    assert (code, out) == (2, "") and note.removeprefix("enhance refuses it: ") in err
