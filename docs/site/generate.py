"""Pages of the documentation's site that are made of the program itself while the site is built (`make docs`).

A hook of MkDocs: the reference of Python, of the command line, of settings, of recipes and of models, README as the
first page, and the notebook as a page. Nothing of it is committed, so nothing of it can be out of date.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
import posixpath
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import scenelift
from scenelift.models.shipped import card, shipped
from scenelift.workflows.cli import app as program

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("pipeline", "models", "workflows")
TREE = tempfile.TemporaryDirectory()
RECIPES = ROOT / "workflows" / "training" / "recipes"
LINK = re.compile(r"(?<!!)\[([^\]\n]*)\]\(([^)\s]+)\)")
"""A link of Markdown, not an image: its text and its target."""
SETTINGS = {
    "An enhancement": (
        "workflows.settings.EnhanceSettings",
        "workflows.settings.Crop",
        "workflows.settings.Reading",
    ),
    "Where it runs": ("pipeline.cluster.settings.ClusterSettings", "pipeline.cluster.settings.JobSettings"),
    "An archive": (
        "workflows.archive.settings.ArchiveSettings",
        "workflows.archive.settings.Access",
        "workflows.archive.filters.Filters",
    ),
    "Scores and tiles": ("workflows.settings.ScoreSettings", "workflows.landcover.settings.TileSettings"),
    "Training": (
        "workflows.settings.TrainingRun",
        "workflows.derived.settings.Adaptation",
        "workflows.derived.settings.CompressSettings",
        "workflows.landcover.settings.OwnScene",
        "workflows.landcover.settings.MeasureSettings",
    ),
}
"""Dataclasses whose fields are options, by heading."""
RECIPE_TABLES = (
    "workflows.training.recipe.Recipe",
    "workflows.training.recipe.Data",
    "workflows.training.recipe.Source",
    "models.training.schedule.Schedule",
    "models.training.schedule.Phase",
    "models.training.adversarial.AdversarialSettings",
    "workflows.training.recipe.LandcoverRecipe",
    "workflows.training.recipe.Labelled",
    "models.training.labelled.Augment",
)
"""Dataclasses that the tables of a recipe fill. They are read, not imported, which would import torch too."""


# MkDocs calls these


@event_priority(100)  # before mkdocstrings looks at it
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Show mkdocstrings, which only reads the sources, the package as it is when installed."""
    package = Path(TREE.name, "scenelift")
    package.mkdir(exist_ok=True)
    for path in (*(ROOT / "workflows" / "api").glob("*.py"), *(ROOT / room for room in ROOMS)):
        if not (package / path.name).exists():
            (package / path.name).symlink_to(path)
    config.plugins["mkdocstrings"].config["handlers"]["python"]["paths"] = [TREE.name]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    for name, make in PAGES.items():
        files.append(File.generated(config, name, content=make()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository that are no part of the site into their names."""
    here = posixpath.dirname(page.file.src_uri)

    def linked(found: re.Match[str]) -> str:
        text, target = found.groups()
        path = posixpath.normpath(posixpath.join("docs", here, target.partition("#")[0]))
        within = path.startswith("docs/") or ":" in target or target.startswith("#")
        return found[0] if within else f"{text} (`{path}`)"

    return LINK.sub(linked, markdown)


# The pages


def readme() -> str:
    """Return README as the first page: its links start from the folder of the documents."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.replace("](docs/", "](").replace("[docs/", "[")


def python() -> str:
    """Return the page of the names of the package, which mkdocstrings fills from their docstrings."""
    names = sorted(set(scenelift.__all__) - {"__version__"}, key=str.lower)
    kinds = {
        "Functions": [name for name in names if name.islower()],
        "Settings and types": [name for name in names if not name.islower() and not name.endswith("Error")],
        "Errors": [name for name in names if name.endswith("Error")],
    }
    parts = ["# Python", inspect.getdoc(scenelift) or "", "`scenelift.__version__` is the version, a text."]
    for heading, names in kinds.items():
        parts += [f"## {heading}", *(_documented_here(name) for name in names)]
    return "\n\n".join(parts) + "\n"


def command_line() -> str:
    """Return the page of all commands with all their options."""
    import typer

    whole = typer.main.get_command(program.app)
    parts = [
        "# Command line",
        "Every option can also be set by a variable of the environment, which is `SCENELIFT`, the command and the "
        "option with underscores (`SCENELIFT_ENHANCE_WORKERS=4`), or in a file: see [settings](settings.md). The "
        "options of the program itself stand before the command; `--quiet`, `-v` and `--log-file` also behind it.",
        "## scenelift",
        *_options(whole, "models"),
    ]
    for panel in dict.fromkeys(entry.panel for entry in program.COMMANDS.values()):
        parts.append(f"## {panel}")
        for name, entry in program.COMMANDS.items():
            if entry.panel == panel:
                parts += _command(f"scenelift {name}", program.Command.of(name, entry).loaded())
    return "\n\n".join(parts) + "\n"


def settings() -> str:
    """Return the page of everything that can be set from Python, in files, or both."""
    parts = [
        "# Settings",
        "The fields of the dataclasses behind options: what `scenelift.Settings(…)` and the like take in Python, and "
        "the keys of tables in TOML files. An option of a command has the name of its field with dashes, unless the "
        "[command line](command-line.md) says otherwise.",
        "`scenelift --config FILE` takes defaults for all commands from a file with a table for each command. What is "
        "typed wins, then the environment, then the file:",
        '```toml\n[enhance]\nworkers = 4\nmodel = "denoise,sr-x2"\n\n[landcover.predict]\ndevice = "cpu"\n```',
    ]
    for heading, kinds in SETTINGS.items():
        parts.append(f"## {heading}")
        for path in kinds:
            module, _, name = path.rpartition(".")
            kind = getattr(__import__(f"scenelift.{module}", fromlist=[name]), name)
            rows = [[f"`{key}`", f"`{hint}`", default, text] for key, hint, default, text in _fields(kind)]
            called = {scenelift.Settings: "scenelift.Settings", scenelift.Cluster: "scenelift.Cluster"}.get(kind, name)
            said = " ".join((inspect.getdoc(kind) or "").split())
            parts += [f"### {called}", said, _table(["field", "type", "default", "what it is"], rows)]
    parts += ["## A recipe", "The tables and keys of a [recipe](recipes.md)."]
    parts += map(_documented_here, RECIPE_TABLES)
    return "\n\n".join(parts) + "\n"


def recipes() -> str:
    """Return the page of the recipes that ship: what each says of itself, and its text."""
    parts = [
        "# Recipes",
        "What networks were trained by, as they ship: `scenelift train NAME` takes one by its name, `scenelift train "
        "FILE.toml` one of your own. The keys are explained among the [settings](settings.md#a-recipe).",
    ]
    for path in sorted(RECIPES.rglob("*.toml")):
        text = path.read_text(encoding="utf-8")
        comment = " ".join(line.lstrip("# ") for line in _first_comment(text))
        body = "\n".join(text.splitlines()[len(_first_comment(text)) :]).strip()
        parts += [f"## {path.stem}", comment, '??? note "the recipe"\n' + _indented(f"```toml\n{body}\n```")]
    return "\n\n".join(parts) + "\n"


def models() -> str:
    """Return the page of the cards of the models that ship."""
    cards = {name: about for name in shipped() if (about := card(name))}
    keys = ["task", "scale", "bands", "parameters", "halo"]
    rows = [[f"[{name}](#{name})", *(_shown(about.get(key, "")) for key in keys)] for name, about in cards.items()]
    parts = [
        "# Model cards",
        "What ships with the package, by the card beside each file of weights. How the figures were made, and which "
        "model to take: [Models](models.md). On the command line: `scenelift models`, `scenelift models NAME`.",
        _table(["model", *keys], rows),
    ]
    for name, about in cards.items():
        plain = {key: value for key, value in about.items() if key != "name" and not isinstance(value, dict)}
        nested = {key: value for key, value in about.items() if isinstance(value, dict)}
        parts += [f"## {name}", _table(["", ""], [[_words(key), _shown(value)] for key, value in plain.items()])]
        for key, value in nested.items():
            text = _indented(f"```json\n{json.dumps(value, indent=2)}\n```")
            parts.append(f'??? note "{_words(key)}"\n{text}')
    return "\n\n".join(parts) + "\n"


def notebook() -> str:
    """Return the notebook as a page: its text, and its code."""
    cells = json.loads((ROOT / "docs" / "gallery.ipynb").read_text(encoding="utf-8"))["cells"]
    texts = [("".join(cell["source"]), cell["cell_type"]) for cell in cells]
    shown = [text if kind == "markdown" else f"```python\n{text}\n```" for text, kind in texts]
    return "\n\n".join(shown) + "\n"


PAGES = {
    "index.md": readme,
    "gallery.md": notebook,
    "reference/python.md": python,
    "reference/command-line.md": command_line,
    "reference/settings.md": settings,
    "reference/recipes.md": recipes,
    "reference/models.md": models,
}


# What they use


def _documented_here(name: str) -> str:
    """Return what mkdocstrings replaces by the documentation of a name of the package."""
    return f"::: scenelift.{name}\n    options:\n      heading_level: 3"


def _command(words: str, command: Any) -> Iterator[str]:
    """Yield the parts of the page about a command, or about all commands of a group."""
    yield f"### {words}"
    yield _plain(command.help or "")
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _command(f"{words} {name}", inner)
        return
    usage = " ".join(command.collect_usage_pieces(_context(command)))
    yield f"```console\n$ {words} {usage}\n```"
    yield from _options(command)
    if command.epilog:
        lines = command.epilog.split("\n\n")
        yield lines[0]
        yield "```console\n" + "\n".join(f"$ {line}" for line in lines[1:]) + "\n```"


def _options(command: Any, *words: str) -> Iterator[str]:
    """Yield a table of the arguments and options of a command, as its help has them."""
    context = _context(command, *words)
    shown = (parameter.get_help_record(context) for parameter in command.get_params(context))
    rows = [[f"`{names}`", _plain(text)] for names, text in filter(None, shown)]
    yield _table(["option", "what it does"], rows)


def _context(command: Any, *words: str) -> Any:
    """Return what a command needs to describe itself."""
    return command.make_context(command.name, list(words), resilient_parsing=True)


def _fields(kind: type) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, type, default and meaning of each field of a dataclass."""
    documented = _documented(kind)
    hints = kind.__annotations__
    for each in dataclasses.fields(kind):
        if each.default is not dataclasses.MISSING:
            default = f"`{json.dumps(each.default, default=str, ensure_ascii=False)}`"
        elif each.default_factory is not dataclasses.MISSING:
            default = "empty" if not dataclasses.is_dataclass(each.default_factory) else "its defaults"
        else:
            default = "must be given"
        text = each.metadata.get("help") or documented.get(each.name, "")
        yield each.name, str(hints[each.name]), default.replace("`null`", "none"), _plain(text)


def _documented(kind: type) -> dict[str, str]:
    """Return the texts that stand below the fields of a class."""
    body = ast.parse(inspect.getsource(kind)).body[0].body  # type: ignore[attr-defined]
    found = {}
    for first, second in itertools.pairwise(body):
        if isinstance(first, ast.AnnAssign) and isinstance(second, ast.Expr) and isinstance(second.value, ast.Constant):
            found[first.target.id] = " ".join(str(second.value.value).split())  # type: ignore[union-attr]
    return found


def _first_comment(text: str) -> list[str]:
    """Return the lines of comment that a file begins with."""
    lines = text.splitlines()
    return lines[: next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))]


def _plain(text: str) -> str:
    """Return text of the command line without the marks of its own markup."""
    return " ".join(text.replace("\\[", "[").split())


def _words(key: str) -> str:
    return key.replace("_", " ")


def _shown(value: Any) -> str:
    """Return a value of a card as text."""
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())


def _table(columns: list[str], rows: list[list[str]]) -> str:
    """Return a table of Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """Return text that stands in one cell."""
    return text.replace("\n", " ").replace("|", "\\|")
