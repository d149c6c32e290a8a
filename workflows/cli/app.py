"""The command line: what commands there are, and how their errors end."""

from __future__ import annotations

import functools
import gc
import io
import os
import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup

SCENES, TRAINING, COVER, MEASURING = "Scenes and archives", "Training", "Land cover", "Measuring"
CLUSTERS, TRYING = "Clusters", "Trying it out"

INTERRUPTED = 130
"""What a shell says of a command that Ctrl-C ended."""
GARBAGE = 20_000
"""New objects after which Python looks for garbage: by its 700, a tenth of the time of imports goes into that."""

PLAIN_NUMBER = re.compile(r"[0-9]{1,9}")
"""Numbers that need no check."""


class Entry(NamedTuple):
    """A command, or a group of them, as the program's own help lists it."""

    module: str
    """Of this folder; its `register` adds the command."""
    panel: str
    help: str
    """One line; the command's own help says more."""


COMMANDS = {
    "enhance": Entry("enhance", SCENES, "Turn a scene into a better one: denoised, sharper, finer."),
    "archive": Entry("archive", SCENES, "Enhance every scene of folders, lists or catalogues."),
    "resume": Entry("enhance", SCENES, "Go on with an interrupted enhancement."),
    "verify": Entry("enhance", SCENES, "Check an output byte by byte; repair what is damaged."),
    "expect": Entry("enhance", SCENES, "Say what super-resolution may gain on a scene."),
    "quicklook": Entry("scene.looking", SCENES, "Draw a scene before and after, side by side."),
    "explain": Entry("scene.explaining", SCENES, "Say why a network made a pixel."),
    "clean": Entry("scene.looking", SCENES, "List or remove what interrupted jobs left."),
    "info": Entry("enhance", SCENES, "Show what a scene is and how its numbers will be read."),
    "models": Entry("enhance", SCENES, "List the models, or show one model's card."),
    "export": Entry("methods.exporting", SCENES, "Write a model as an ONNX file."),
    "train": Entry("training", TRAINING, "Train a model from a recipe."),
    "adapt": Entry("methods.adapting", TRAINING, "Go on training a network on your own scenes, no labels needed."),
    "compress": Entry("methods.compressing", TRAINING, "Make a network smaller: fewer channels, 8-bit integers."),
    "landcover": Entry("landcover", COVER, "Train land-cover networks and classify images."),
    "classify": Entry("landcover", COVER, "Turn a scene into a map of land cover."),
    "tiles": Entry("landcover", COVER, "Cut a scene into tiles for a classifier."),
    "score": Entry("evidence", MEASURING, "Score a scene against a reference."),
    "compare": Entry("evidence", MEASURING, "Compare every method on the same images."),
    "report": Entry("evidence", MEASURING, "Write one page that shows a run."),
    "evaluate": Entry("training", MEASURING, "Print tables of quality against classical methods."),
    "ablate": Entry("evidence", MEASURING, "Train and score the paper's ablation study."),
    "submit": Entry("cluster", CLUSTERS, "Give a command to Slurm."),
    "scale": Entry("cluster", CLUSTERS, "Measure and simulate what scale costs."),
    "demo": Entry("trying", TRYING, "Degrade a real scene, enhance it, score it."),
    "bench": Entry("trying", TRYING, "Time the engine against the bare model."),
}
"""Every command. The modules are imported when one is called, so that help, mistakes and small commands are quick."""


class Command(TyperCommand):
    """A command whose module is imported once it is called."""

    @classmethod
    def of(cls, name: str, entry: Entry) -> Self:
        """Return what help needs to know of it."""
        return cls(name, help=entry.help, short_help=entry.help, rich_help_panel=entry.panel)

    def loaded(self) -> Any:
        """Return the command itself."""
        return _load(COMMANDS[str(self.name)].module)[str(self.name)]

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Begin to run it."""
        return self.loaded().make_context(*args, **kwargs)


class Program(TyperGroup):
    """The group of all commands."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings | {"commands": {name: Command.of(name, entry) for name, entry in COMMANDS.items()}})

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options of the program itself."""
        found = super().get_params(ctx)
        for parameter in found:
            _finish_parameter(parameter)
        return found


@functools.cache
def _load(module: str) -> dict[str, Any]:
    """Return the commands of a module by their names."""
    made = typer.Typer(rich_markup_mode="rich", context_settings=CONTEXT, pretty_exceptions_enable=False)
    made.callback()(lambda: None)  # makes it a group, even of one command
    import_module(f"scenelift.workflows.cli.{module}").register(made)
    found = dict(typer.main.get_group(made).commands)
    everywhere = [p for p in typer.main.get_command(app).params if p.name in SHOWN]
    for command in found.values():
        _finish(command, everywhere)
    return found


def _finish(command: Any, everywhere: list[Any]) -> None:
    """Add the options that stand before a command or behind it, and finish all its options."""
    inner = getattr(command, "commands", {})
    for each in inner.values():
        _finish(each, everywhere)
    if not inner:
        command.params += everywhere
    for parameter in command.get_params(typer.Context(command, help_option_names=HELP)):
        _finish_parameter(parameter)


def _finish_parameter(parameter: Any) -> None:
    """Keep the name of its variable out of the help, since it follows from the option's; take plain values as they are.

    typer imports pydantic for every value, also for those that no one gave: half the time of a command that is refused.
    """
    if hasattr(parameter, "show_envvar"):
        parameter.show_envvar = False
    if "process_value" not in vars(parameter):
        parameter.process_value = functools.partial(_process, parameter, parameter.process_value)


def _process(parameter: Any, by_typer: Callable[[Any, Any], Any], context: Any, value: Any) -> Any:
    """Return a value as the command takes it; typer turns into its type, or refuses, what has none yet."""
    found = _plain(parameter.type_descriptor.annotation, parameter.multiple or parameter.nargs == -1, value)
    if found is NotImplemented or (parameter.required and parameter.value_is_missing(found)):
        return by_typer(context, value)
    return found if parameter.callback is None else parameter.callback(context, parameter, found)


def _plain(kind: Any, several: bool, value: Any) -> Any:
    """Return a value that has its type, or has it by a step that cannot fail; else NotImplemented."""
    if value is None:
        return () if several else None
    if several:
        found = [_plain(next(iter(get_args(kind)), None), False, each) for each in value]
        return NotImplemented if isinstance(value, str) or NotImplemented in found else found
    if kind in (bool, int, float, str) and type(value) is kind:
        return value
    if get_origin(kind) is Literal and value in get_args(kind):
        return value
    if kind is Path and isinstance(value, str | Path) and (os.access(value, os.R_OK) or not os.path.exists(value)):  # noqa: PTH110
        return Path(value)
    if kind in (int, float) and (type(value) is int or (isinstance(value, str) and PLAIN_NUMBER.fullmatch(value))):
        return kind(value)
    return NotImplemented


SHOWN = ("quiet", "verbose", "log_file")
"""Options of the program that every command takes, too: what is shown and logged."""
PREFIX = "SCENELIFT"
"""Of variables of the environment that stand for options."""
HELP = ["-h", "--help"]
CONTEXT = {"help_option_names": HELP}
app = typer.Typer(
    name="scenelift",
    cls=Program,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings=CONTEXT,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"scenelift {version('scenelift')}")
        raise typer.Exit


def _set_up(name: str) -> Callable[[typer.Context, Any], Any]:
    """Return what sets one of the options that `console.set_up` takes, wherever on the line it stands."""

    def given(context: typer.Context, value: Any) -> Any:
        if value and not context.resilient_parsing:  # which only completes or describes a command
            from scenelift.workflows.cli.console import set_up

            set_up(**{name: value})
        return value

    return given


Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        callback=_set_up("quiet"),
        expose_value=False,
        help="Show no progress: results and errors only.",
    ),
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", callback=_set_up("verbose"), expose_value=False, help="Log every block."),
]
LogFile = Annotated[
    Path | None,
    typer.Option(callback=_set_up("log_file"), expose_value=False, help="Append the log to this file too."),
]


@app.callback(epilog=f"Every option can also be set by a variable of the environment: {PREFIX}_ENHANCE_WORKERS=4.")
def scenelift(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, allow_from_autoenv=False, help="Print the version."
        ),
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="Defaults of options (TOML): a table for each command, such as \\[enhance].")
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_file: LogFile = None,
) -> None:
    """Denoise and super-resolve satellite scenes: seamless, exact under tiling, measured."""
    # the last three act by their callbacks
    if config is not None:
        from scenelift.workflows.cli.runfile import read_defaults

        context.default_map = read_defaults(config, context.command, str(context.invoked_subcommand))


def _unraisable(event: Any) -> None:
    """Keep quiet about GDAL's messages that are no text (of damaged files), on which rasterio's log chokes."""
    if "rasterio" not in str(event.object):
        sys.__unraisablehook__(event)


def main() -> None:
    """Run the command line; anything a user can cause is one line and an exit code, never a traceback."""
    from scenelift.pipeline.errors import COMMAND_LINE

    os.environ[COMMAND_LINE] = "1"
    sys.unraisablehook = _unraisable
    gc.set_threshold(GARBAGE)
    for stream in (sys.stdout, sys.stderr):  # where the locale's encoding lacks a letter, a mark stands for it
        if isinstance(stream, io.TextIOWrapper) and (stream.encoding or "").lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="replace")
    for word in sys.argv[1:]:  # a name that is no text could not be written into a log, a journal or a report
        if any("\ud800" <= letter <= "\udfff" for letter in word):
            _fail(f"{os.fsencode(word)!r} is not UTF-8: rename that file or folder", 2)
    try:
        code = app(standalone_mode=False, auto_envvar_prefix=PREFIX)
    except BrokenPipeError:
        sys.exit(141)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - sorted out below; what is no user's fault is raised again
        _explain(error)
    else:
        if code == INTERRUPTED:  # typer makes that of Ctrl-C, without a word
            _fail("interrupted", INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)  # what typer.Exit said
    finally:
        gc.freeze()  # or Python looks through all that was imported once more before it ends, which takes a second


def _explain(error: Exception) -> None:
    from scenelift.pipeline.errors import interruption

    if isinstance(error, typer.Exit):
        sys.exit(error.exit_code)
    if isinstance(error, typer.Abort) or (not hasattr(error, "exit_code") and interruption(error)):
        _fail("interrupted", INTERRUPTED)
    code = getattr(error, "exit_code", None)  # SceneliftError, ModelError, and what typer says of a wrong option
    if not isinstance(code, int):
        raise error
    if type(error).__name__ == "NoArgsIsHelpError":  # which has shown the help
        sys.exit(code)
    text = error.format_message() if hasattr(error, "format_message") else str(error)
    text = text.replace(": Value error, ", ": ")  # pydantic's words for what typer checks
    _fail(" ".join(text.split()), code)


def _fail(message: str, code: int) -> None:
    from scenelift.pipeline.addresses import without_secrets

    print(f"scenelift: {without_secrets(message)}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
