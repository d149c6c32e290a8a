"""Options of several commands: dataclasses whose fields are options, and the decorator that makes them so.

Imports late, so that --help is quick.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import typer

from scenelift.pipeline.cluster.settings import KINDS, ClusterSettings
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.settings import option, read_toml, toml_value
from scenelift.workflows.settings import INPUT, MODEL, MODELS, OUTPUT, STOPS, WHERE, Reading, band_list, split_names

if TYPE_CHECKING:  # --help does not wait for GDAL
    from scenelift.pipeline.scenes.scenes import SceneSource

PANELS = (INPUT, MODEL, OUTPUT, WHERE, STOPS, None)

Inputs = Annotated[
    list[str],
    typer.Argument(help="A raster, several of one scene, a product (.SAFE, .SAFE.zip, Landsat) or a Zarr store."),
]
Output = Annotated[
    Path,
    typer.Option("--output", "-o", help="What to write: *.tif (COG) or *.zarr.", rich_help_panel=OUTPUT),
]


def complete_model(incomplete: str) -> list[str]:
    """Return the names of models that begin so; of a chain, its last part is completed."""
    from scenelift.models.catalog import known_names

    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in known_names() if name.startswith(last)]


Models = Annotated[
    str, typer.Option("--model", "-m", help=MODELS, rich_help_panel=MODEL, autocompletion=complete_model)
]
WORKERS = "Worker processes; 0: none. Default: one a core, or one a GPU."
Workers = Annotated[int | None, typer.Option(help=WORKERS, rich_help_panel=WHERE)]
DataFolder = Annotated[Path | None, typer.Option(help="Folder the recipe's paths start from.", rich_help_panel=INPUT)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines instead of text.")]


def examples(*commands: str) -> str:
    """Return what stands below a command's help: commands that work, without the program's name."""
    return "\n\n".join(["Examples:", *(f"scenelift {command}" for command in commands)])


def with_options(*groups: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Flatten the dataclass parameters of a command into options: one a field that `option` declares.

    Parameters
    ----------
    *groups : dataclass, or instance of one
        Types of the command's parameters. The values of an instance are the defaults; dataclasses within are
        flattened too.
    """
    bases = {group if isinstance(group, type) else type(group): group for group in groups}

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        plain = inspect.signature(function, eval_str=True)
        kinds = {p.name: p.annotation for p in plain.parameters.values() if p.annotation in bases}
        own = [p for p in plain.parameters.values() if p.name not in kinds]
        flat = [option for kind in kinds.values() for option in _options(bases[kind])]

        @functools.wraps(function)
        def command(**values: Any) -> None:
            built = {name: _built(bases[kind], values) for name, kind in kinds.items()}
            function(**values, **built)

        parameters = sorted((p.replace(kind=p.KEYWORD_ONLY) for p in (*own, *flat)), key=_panel)
        command.__signature__ = plain.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def _options(group: Any) -> Iterator[inspect.Parameter]:
    for each, hint, default in _fields(group):
        if dataclasses.is_dataclass(hint):
            yield from _options(hint if default is MISSING else default)
        elif "help" in each.metadata:
            facts = each.metadata
            names = facts["flags"] or (f"--{each.name.replace('_', '-')}",)
            if hint is bool and default and "/" not in names[0]:
                names = (f"{names[0]}/--no-{names[0].removeprefix('--')}",)
            info = typer.Option(*names, help=facts["help"], rich_help_panel=facts["panel"])
            if facts["parse"]:  # given as text, or not at all
                hint, default = str | None, None
            elif get_origin(hint) is tuple:
                hint, default = list[get_args(hint)[0]] | None, None  # type: ignore[misc]
            default = inspect.Parameter.empty if default is MISSING else default
            yield inspect.Parameter(
                each.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, info]
            )


def _built(group: Any, values: dict[str, Any]) -> Any:
    """Return the dataclass made of the options' values, which are taken out of `values`."""
    given = {}
    for each, hint, default in _fields(group):
        if dataclasses.is_dataclass(hint):
            given[each.name] = _built(hint if default is MISSING else default, values)
        elif "help" in each.metadata:
            value, parse = values.pop(each.name), each.metadata["parse"]
            if value is None and default is not MISSING:
                value = default
            elif parse:
                value = parse(value)
            given[each.name] = tuple(value) if isinstance(value, list) else value
    return group(**given) if isinstance(group, type) else dataclasses.replace(group, **given)


def _fields(group: Any) -> Iterator[tuple[dataclasses.Field[Any], Any, Any]]:
    """Yield the fields of a dataclass with their types and defaults; those of an instance are its values."""
    hints = get_type_hints(group if isinstance(group, type) else type(group))
    for each in dataclasses.fields(group):
        default = each.default if isinstance(group, type) else getattr(group, each.name)
        yield each, hints[each.name], default


def _panel(parameter: inspect.Parameter) -> int:
    info = next(iter(get_args(parameter.annotation)[1:]), None)
    return PANELS.index(getattr(info, "rich_help_panel", None))


@dataclass(frozen=True)
class Source:
    """A scene's reading, and what it may ask for."""

    reading: Reading = dataclasses.field(default_factory=Reading)
    remote: bool = option(False, "Read http(s)://, s3:// and gs:// inputs.", "--allow-remote", panel=INPUT)
    limit: tuple[str, ...] = option(
        (), "Raise what an input may declare: pixels=N, bands=N or chunk-mb=N; repeatable.", panel=INPUT
    )

    def of(self, inputs: list[str] | str) -> SceneSource:
        """Return the scene at one path or several.

        Raises
        ------
        UsageError
            For an empty list of bands, or an unknown limit.
        """
        bands = band_choice(self.reading.bands)
        from scenelift.pipeline.scenes.limits import Limits
        from scenelift.pipeline.scenes.scenes import SceneSource

        reading, paths = self.reading, (inputs,) if isinstance(inputs, str) else tuple(inputs)
        numbers = reading.scale, reading.offset, reading.nodata, reading.crs
        limits = Limits.of(self.limit, self.remote)
        source = SceneSource(paths, bands, *numbers, limits, extent=reading.extent)
        source = dataclasses.replace(source, time=reading.time, mask=reading.mask, mask_classes=reading.mask_classes)
        if reading.mask is None:
            return source
        from scenelift.workflows.clouds import with_clouds

        return with_clouds(source)


@dataclass(frozen=True)
class Where:
    """Where tasks run."""

    workers: int | None = option(None, WORKERS, panel=WHERE)
    scheduler: str | None = option(None, "Address of a running Dask scheduler, e.g. tcp://host:8786.", panel=WHERE)
    cluster: str | None = option(None, f"{', '.join(KINDS)}, or a TOML file with a \\[cluster] table.", panel=WHERE)
    cluster_option: tuple[str, ...] = option(
        (), "One key of that table, e.g. maximum=20 or memory=16GB; repeatable.", panel=WHERE
    )

    def settings(self, device: str = "cpu") -> ClusterSettings:
        """Return the table (or the file that has it), over it single keys, then --workers and --scheduler.

        Parameters
        ----------
        device : str
            Where the model runs; "cpu": no GPU of this machine is given work.

        Raises
        ------
        UsageError
            For an unknown kind, key or value, or a file that cannot be read.
        """
        given = (("workers", self.workers), ("scheduler", self.scheduler))
        flags: dict[str, Any] = {name: value for name, value in given if value is not None}
        if self.cluster is None and not self.cluster_option:  # what flags give has its type already
            return ClusterSettings(gpus=_gpus(device), **flags)
        table: dict[str, Any] = {"gpus": _gpus(device)} | _table(self.cluster)
        for text in self.cluster_option:
            key, equals, value = text.partition("=")
            if not equals:
                raise UsageError(f"--cluster-option must be KEY=VALUE, got {text!r}")
            table[key.strip()] = toml_value(value)
        table |= flags
        file = self.cluster if self.cluster and self.cluster.endswith(".toml") else None
        return ClusterSettings.of(table, file or ("--cluster-option" if self.cluster_option else ""))


def refuse(
    inputs: list[str],
    source: Source,
    model: str | None = None,
    output: Path | None = None,
    where: Where | None = None,
) -> None:
    """Refuse what is wrong with a command at first sight, before torch or GDAL are imported.

    Raises
    ------
    UsageError, ModelError
    """
    from scenelift.pipeline.scenes.limits import Limits
    from scenelift.workflows.refusals import check_output, refuse_inputs, refuse_models

    band_choice(source.reading.bands)
    Limits.of(source.limit, source.remote)
    if where is not None:
        where.settings()
    if output is not None:
        check_output(output, inputs)
    refuse_inputs(inputs, source.remote)
    if model is not None:
        refuse_models(model)


GPU_NODES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""What Linux has where there is a GPU: without one, torch need not be imported to count them."""


def _gpus(device: str) -> int:
    none_here = sys.platform == "linux" and not any(Path(node).exists() for node in GPU_NODES)
    if device == "cpu" or (device == "auto" and none_here):
        return 0
    from scenelift.models.enhancer import gpu_count

    return gpu_count()


def _table(cluster: str | None) -> dict[str, Any]:
    """Return the keys of --cluster: a kind, or the [cluster] table of a file."""
    if cluster is None or cluster in KINDS:
        return {"kind": cluster} if cluster else {}
    if Path(cluster).suffix != ".toml":
        raise UsageError(f"--cluster must be one of {', '.join(KINDS)} or a .toml file, got {cluster!r}")
    table = read_toml(Path(cluster)).get("cluster")
    if not isinstance(table, dict):
        found = "none" if table is None else "something else"
        raise UsageError(f"{cluster} must hold one table [cluster], got {found}: write its keys below that line")
    return table


def band_choice(text: str | None) -> tuple[int | str, ...] | None:
    """Return the bands that --bands names, in its order: 1-based numbers, or names; None for all.

    Raises
    ------
    UsageError
        If a part is empty, or 0.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if "" in parts or "0" in parts:
        raise UsageError(f"--bands must be numbers from 1 or names, such as 4,3,2 or red,green,blue, got {text!r}")
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def band_numbers(text: str | None) -> tuple[int, ...] | None:
    """Return the 1-based bands that --bands names, in its order; None for all.

    Raises
    ------
    UsageError
        If a part is not a number from 1 up.
    """
    return None if text is None else band_list(text)


def whole_numbers(flag: str, text: str) -> list[int]:
    """Return the whole numbers of a list with commas, such as 10,1e3; an empty one has none.

    Raises
    ------
    UsageError
        If a part is something else.
    """
    with suppress(ValueError, OverflowError):
        numbers = [float(part) for part in split_names(text)]
        if all(number.is_integer() for number in numbers):
            return [int(number) for number in numbers]
    raise UsageError(f"{flag} must be whole numbers such as 2,4, got {text!r}")
