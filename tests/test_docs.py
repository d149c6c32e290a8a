"""The documentation: a site that opens offline, a tutorial that prints what it says, a notebook that runs."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir, redirect_stdout
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from nbclient import NotebookClient
from support import processes
from support.browser import CHROMIUM, DRIVER, browser

import scenelift
from scenelift.models.shipped import shipped
from scenelift.workflows.cli.app import COMMANDS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LOADED = {"script": "src", "link": "href", "img": "src", "source": "src", "iframe": "src"}
"""Elements that load something by themselves, and the attribute that says what."""


class Links(HTMLParser):
    """What a page loads, where it leads, and the names of its places."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.leads: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if tag in LOADED and LOADED[tag] in given:
            self.loads.append(given[LOADED[tag]])
        elif tag == "a" and "href" in given:
            self.leads.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does: what MkDocs would warn of is an error."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(out)]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Links]:
    return {path: Links(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


def test_the_site_loads_nothing_from_elsewhere(site: Path, pages: dict[Path, Links]) -> None:
    loaded = {address for links in pages.values() for address in links.loads}
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    loaded |= set(re.findall(r"(?:url\(|@import )[\"']?([^\"')]+)", styles))
    assert len(loaded) > 10
    assert [address for address in loaded if address.startswith(("http:", "https:", "//"))] == []


def test_no_link_within_the_site_is_dead(pages: dict[Path, Links]) -> None:
    dead = []
    for path, links in pages.items():
        for address in (*links.loads, *links.leads):
            parts = urlsplit(address)
            if parts.scheme or path.name == "404.html":  # whose links begin at a server's root
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            place = unquote(parts.fragment)
            if not target.is_file() or (place and target in pages and place not in pages[target].places):
                dead.append(f"{path.name}: {address}")
    assert dead == [] and sum(len(links.leads) for links in pages.values()) > 1000


def test_the_reference_has_every_name_command_recipe_and_model(site: Path, pages: dict[Path, Links]) -> None:
    places = {path.stem: links.places for path, links in pages.items() if path.parent.name == "reference"}
    assert {f"scenelift.{name}" for name in scenelift.__all__ if name != "__version__"} <= places["python"]
    assert {f"scenelift-{name}" for name in COMMANDS} <= places["command-line"]
    recipes = (ROOT / "workflows" / "training" / "recipes").rglob("*.toml")
    assert {path.stem for path in recipes} <= places["recipes"]
    assert {*shipped()} <= places["models"]
    assert {"block", "scheduler", "walltime"} <= {*re.findall(r"<code>(\w+)</code>", _text(site, "settings"))}
    assert "--require-gain" in _text(site, "command-line")


def _text(site: Path, name: str) -> str:
    return (site / "reference" / f"{name}.html").read_text(encoding="utf-8")


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")
def test_search_works_where_the_site_is_opened_as_a_file(site: Path, tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as tab:
        tab.open(site / "index.html", 1440)
        tab.run("document.querySelector('.md-search__input').focus()")
        tab.press(".md-search__input", "date line")
        found: list[str] = []
        for _ in range(150):
            found = tab.run("return [...document.querySelectorAll('.md-search-result__link')].map(a => a.href)")
            if found:
                break
            time.sleep(0.2)
        assert found and all(address.startswith("file://") for address in found)
        assert [line for line in tab.console() if "favicon" not in line] == []


def transcript() -> ModuleType:
    """The file that runs pages; its folder has the name of a module of Python's own."""
    spec = importlib.util.spec_from_file_location("transcript", DOCS / "site" / "transcript.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of a short name, for lines are wrapped where names are long."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def test_the_tutorial_prints_what_it_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    def command(words: list[str]) -> str:
        done = processes.run(*words, cwd=folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def script(code: str) -> str:
        with chdir(folder), redirect_stdout(io.StringIO()) as said:
            exec(compile(code, "tutorial.md", "exec"), {"__name__": "__main__"})
        return said.getvalue()

    page = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    run = transcript()
    now, then = (run.outputs(text) for text in (run.renewed(page, folder, command, script), page))
    assert len(then) >= 9 and len(now) == len(then)
    for made, written in zip(now, then, strict=True):
        assert run.alike(made, written), f"{written}\n--- prints now:\n{made}"
    assert (folder / "look.png").is_file()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("│ PSNR │ 39.11 │\n", "│ PSNR  │ 39.13 │\n", True),
        ("│ PSNR │ 39.11 │\n", "│ PSNR │ 38.11 │\n", False),
        ("done in … s on cpu, bf16", "done in …… s on cpu, fp32", True),
        ("bias │ 2.1721e-06 │", "bias │ -3e-06 │", True),
        ("bias │ 2.1721e-03 │", "bias │ -3e-06 │", False),
        ("3 blocks", "4 blocks", False),
        ("bicubic-x2", "lanczos-x2", False),
        ("columns 64 to 192", "columns 64 to 256", False),
    ],
)
def test_outputs_are_alike_but_for_last_digits(one: str, other: str, same: bool) -> None:
    assert transcript().alike(one, other) == same


CHECK = """
gains = {name: ours - plain for name, (plain, ours) in table.items()}
assert min(gains["fields"], gains["shallows"]) > 1 and abs(gains["open sea"]) < 0.3, gains
assert min(within["fields"], within["shallows"]) > 0.8 > within["open sea"] > 0.5, within
assert abs(report.values["psnr"] - table["shallows"][1]) < 0.02, report.values["psnr"]
assert {image.shape for image in finer.values()} == {(4, 256, 256)}
"""
"""What must hold at the end of the notebook."""


def test_the_notebook_runs_and_says_what_is_true(tmp_path: Path) -> None:
    book = nbformat.read(DOCS / "gallery.ipynb", as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code), "outputs are not committed"
    book.cells.append(nbformat.v4.new_code_cell(CHECK))
    client = NotebookClient(book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    pictures = [out for cell in code for out in cell.outputs if "image/png" in out.get("data", {})]
    assert len(pictures) == 3


def test_what_is_different_each_time_is_left_out_and_columns_stay() -> None:
    said = "│ output │ /tmp/x/part.tif │\n│ time   │ 1.2 s, 98% of … │  \n/tmp/x/part.tif: intact in 12 s\n"
    written = transcript().renewed("```console\n$ scenelift verify a\n```\n", Path("/tmp/x"), lambda _: said, str)
    lines = ["│ output │ part.tif        │", "│ time   │ ……… s, ……% of … │", "part.tif: intact in …… s"]
    assert written.splitlines() == ["```console", "$ scenelift verify a", *lines, "```"]


def test_every_command_of_the_readme_is_a_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\$ scenelift (.*?)(?:  +#.*)?$", text, re.MULTILINE)
    assert len(lines) > 15 and {shlex.split(line)[0] for line in lines} <= {*COMMANDS}


def test_what_is_written_by_hand_stays_short_enough_to_be_read() -> None:
    """Neither rows of tables nor blocks of code are counted. What is too long is neither read nor kept true."""
    lines = 0
    for path in (*DOCS.glob("*.md"), ROOT / "README.md"):
        prose = re.sub(r"^ *```.*?^ *```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        lines += sum(not line.startswith("|") for line in map(str.strip, prose.splitlines()) if line)
    assert 1000 < lines <= 1400
