"""A run written down: a TOML file whose keys are the options of a command."""

from __future__ import annotations

import dataclasses
import datetime
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
