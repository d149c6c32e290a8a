"""Options written down: a TOML file for one archive, and one with defaults for every command."""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, get_args

from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.settings import read_table, read_toml


def read_runfile(path: Path, parameters: Sequence[Any], kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a run file gives to a command's parameters, by their names.

    ``sources`` and ``output`` start from the file's own folder. Everything else is named and written as on the
    command line, with underscores or dashes; text may also be a number, a date or a list of them. A ``[cluster]``
    table stands for ``--cluster`` with this file.

    Parameters
    ----------
    path : Path
    parameters : sequence of click.Parameter
        Of the command; keys are their flags.
    kinds : mapping
        Types by the parameters' names.

    Raises
    ------
    UsageError
        If the file is not TOML, a key is unknown, a value has the wrong type, or no sources are named.
    """
    names = {max(p.opts, key=len).lstrip("-").replace("-", "_"): p.name for p in parameters if p.name in kinds}
    table = {key.replace("-", "_"): value for key, value in read_toml(path).items()}
    if isinstance(table.get("cluster"), dict | list):  # a list is refused where the table is read
        table["cluster"] = str(path)
    if isinstance(table.get("sources"), str):
        table["sources"] = [table["sources"]]
    table = {key: _text(value) if _takes_text(kinds.get(names.get(key, ""))) else value for key, value in table.items()}
    fields = [(key, kinds[name], dataclasses.field(default=None)) for key, name in names.items()]
    found: Any = read_table(dataclasses.make_dataclass("RunFile", fields), table, str(path))
    values = {names[key]: getattr(found, key) for key in table}
    if not values.get("sources") and not values.get("stac_api"):
        raise UsageError(f'{path} names no sources, e.g. sources = ["scenes/*.tif"]')
    values["sources"] = [_from(path, source) for source in values.get("sources") or ()]
    if "output" in values:
        values["output"] = _from(path, str(values["output"]))
    return values


def read_defaults(path: Path, command: Any, called: str) -> dict[str, Any]:
    """Return the defaults that a file has for a command, as click takes them: ``{called: {parameter: value}}``.

    Each table is named like a command (``[enhance]``, ``[landcover.predict]``), its keys like the flags.

    Parameters
    ----------
    path : Path
    command : click.Group
        The program.
    called : str
        The command that is run: only its table is looked into.

    Raises
    ------
    UsageError
        If the file is not TOML, or names a command or an option that there is not.
    """
    table = read_toml(path)
    for name in table:
        _check(name, list(command.commands), f"{path}: no command [{name}]")
    return {called: _defaults(table.get(called, {}), command.get_command(None, called), f"{path} [{called}]")}


def _defaults(table: Any, command: Any, where: str) -> dict[str, Any]:
    command = command.loaded() if hasattr(command, "loaded") else command
    if not isinstance(table, dict):
        raise UsageError(f"{where} must be a table of options, got {table!r}")
    inner = getattr(command, "commands", {})
    flags = {
        max(p.opts, key=len).lstrip("-").replace("-", "_"): p for p in command.params if p.param_type_name == "option"
    }
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if key in inner:
            found[key] = _defaults(value, inner[key], f"{where[:-1]}.{key}]")
            continue
        _check(name, [*flags, *inner], f"{where}: no option {key!r}")
        flag = flags[name]
        if flag.is_flag != isinstance(value, bool):
            raise UsageError(f"{where}: {key} must be {'true or false' if flag.is_flag else 'a value'}, got {value!r}")
        found[str(flag.name)] = value if flag.is_flag or flag.multiple else _text(value)
    return found


def _check(name: str, known: list[str], what: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        raise UsageError(f"{what}" + (f"; did you mean {near[0]}?" if near else ""))


def _takes_text(hint: Any) -> bool:
    return hint is str or (isinstance(hint, UnionType) and str in get_args(hint))


def _text(value: Any) -> Any:
    """Return a number, a date or a list of them and of texts as text, with commas; anything else as it is."""
    if isinstance(value, list) and value and all(map(_is_plain, value)):
        return ",".join(map(str, value))
    return str(value) if _is_plain(value) else value


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | datetime.date | datetime.time) and not isinstance(value, bool)


def _from(path: Path, name: str) -> str:
    return name if "://" in name else os.path.join(path.parent, name)  # noqa: PTH118 - patterns are not paths
