"""A run written down: a TOML file whose keys are the options of `scenelift archive`."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from scenelift.pipeline.errors import UsageError

RENAMED = {"json": "as_json"}


def read_runfile(path: Path, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Return option values from a run file.

    ``sources`` and ``output`` start from the file's own folder. Everything else is named and written as on the
    command line, with underscores or dashes.

    Parameters
    ----------
    path : Path
    kinds : mapping
        Type of every option by its name.

    Raises
    ------
    UsageError
        If the file is not TOML, has a key nobody knows or a value of another type, or names no sources.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    values = {}
    for key, value in found.items():
        name = RENAMED.get(key, key.replace("-", "_"))
        if name not in kinds:
            raise UsageError(f"{path}: unknown key {key!r}; known are {', '.join(kinds)}")
        table = name == "cluster" and isinstance(value, dict)
        plain = table or name in ("sources", "cluster_option")
        values[name] = value if plain else _fitting(value, kinds[name], f"{path}: {key}")
    sources = values.get("sources")
    values["sources"] = [sources] if isinstance(sources, str) else sources
    if not values["sources"]:
        raise UsageError(f'{path} names no sources, e.g. sources = ["scenes/*.tif"]')
    values["sources"] = [_from(path, str(source)) for source in values["sources"]]
    if "output" in values:
        values["output"] = _from(path, str(values["output"]))
    return values


def _from(path: Path, name: str) -> str:
    return name if "://" in name else os.path.join(path.parent, name)  # noqa: PTH118 - patterns are no paths


def _fitting(value: Any, kind: Any, where: str) -> Any:
    """Return a value as an option takes it; text may be written as a number, a date or a list of them."""
    kinds = get_args(kind) or (kind,)
    if str in kinds or Path in kinds:
        return ",".join(map(str, value)) if isinstance(value, list) else str(value)
    wanted = (bool,) if bool in kinds else (int, float) if float in kinds else (int,)
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in kinds):
        raise UsageError(f"{where} must be {' or '.join(k.__name__ for k in wanted)}, got {value!r}")
    return value
