"""Settings: frozen dataclasses whose fields are options of commands and keys of TOML and JSON tables alike."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_type_hints

from scenelift.pipeline.errors import UsageError

Settings = TypeVar("Settings")

EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a text",
    "path_type": "a path",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a table",
    "dataclass_type": "a table",
}
"""What a value must be, by pydantic's name of the error."""


def option(
    default: Any, help: str, *flags: str, panel: str | None = None, parse: Callable[[str], Any] | None = None
) -> Any:
    """Return a dataclass field that is also an option of commands.

    Parameters
    ----------
    default : Any
        ``dataclasses.MISSING`` for an option that must be given.
    help : str
        What ``--help`` says of it; it is the field's documentation too.
    *flags : str
        Names on the command line; default: the field's name.
    panel : str, optional
        Under which heading ``--help`` shows it.
    parse : callable, optional
        Turns the text of the command line into the field's value; raises UsageError, naming the flag.
    """
    metadata = {"help": help, "flags": flags, "panel": panel, "parse": parse}
    return dataclasses.field(default=default, metadata=metadata)


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises
    ------
    UsageError
        If the file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None


def toml_value(text: str) -> Any:
    """Return what a text is as a value of TOML; itself where it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def read_table(
    kind: type[Settings], table: Any, where: str, path: tuple[str, ...] = (), error: type[Exception] = UsageError
) -> Settings:
    """Return a frozen dataclass from a table; dataclasses within are tables within.

    Types are strict: a number is not a text, true is not 1. A list fills a tuple, a whole number a float.

    Parameters
    ----------
    kind : type
        The dataclass. Its own checks (``__post_init__``) may raise errors for people, which pass with `where` before
        them.
    table : mapping
        Plain values.
    where : str
        What holds the table, for messages: a file; may be empty.
    path : tuple of str
        Keys that lead to the table in the file, for messages.
    error : type
        What to raise.

    Raises
    ------
    error
        If a key is unknown or missing, or a value has the wrong type; one line with the path of the key.
    """
    from pydantic import ValidationError  # takes a tenth of a second, which --help does not have

    where = f"{where}: " if where else ""
    if not isinstance(table, Mapping):
        raise error(f"{where}{_dotted(path) or 'the whole'} must be a table, got {_shown(table)}")
    try:
        # JSON rather than Python's values: there a list is no tuple, and a date no text
        found: Settings = _adapter(cast(Any, kind)).validate_json(json.dumps(table, default=str))
    except ValidationError as wrong:
        raise error(f"{where}{_sentence(kind, path, wrong)}") from None
    except Exception as wrong:
        if isinstance(getattr(wrong, "exit_code", None), int):
            raise type(wrong)(f"{where}{wrong}") from None
        raise
    return found


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    # a dataclass itself takes no settings from outside; an optional one, and all within it, does
    return TypeAdapter(kind | None, config=ConfigDict(extra="forbid", strict=True))


def _sentence(kind: Any, path: tuple[str, ...], found: Any) -> str:
    """Return what is wrong first, and how many more errors there are."""
    errors = found.errors(include_url=False)
    first = min(errors, key=lambda e: e["type"] != "unexpected_keyword_argument")  # a misspelt key is missing, too
    place, given, key = first["loc"], first["input"], _dotted((*path, *first["loc"]))
    match first["type"]:
        case "unexpected_keyword_argument":
            known = [field.name for field in dataclasses.fields(_dataclass_at(kind, place[:-1]))]
            text = f"unknown key {key}{suggestion(str(place[-1]), known)}"
        case "value_error":  # from the dataclass's own checks
            text = f"{key}: {first['ctx']['error']}" if place else str(first["ctx"]["error"])
        case "missing":
            text = f"{key} is missing"
        case "too_long":
            text = f"{key} must have {first['ctx']['max_length']} values, got {_shown(given)}"
        case "tuple_type" if isinstance(given, dict) and _dataclass_at(kind, place):
            text = f"{key} must be a list of tables, got one table; write [[{key}]]"
        case other:
            wanted = EXPECTED.get(other) or first["msg"].removeprefix("Input should be ")
            text = f"{key} must be {wanted}, got {_shown(given)}"
    return text + (f" (and {len(errors) - 1} more)" if len(errors) > 1 else "")


def suggestion(word: str, known: list[str]) -> str:
    """Return the end of a message about an unknown name: the closest known one, or else all."""
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"


def _dataclass_at(kind: Any, path: tuple[str | int, ...]) -> Any:
    """Return the dataclass that a path leads to, itself or in a list; None if what is there is something else."""
    for part in path:
        if isinstance(part, str):
            kind = _dataclass_in(get_type_hints(kind)[part])
    return kind


def _dataclass_in(hint: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return hint
    return next((found for inner in get_args(hint) if (found := _dataclass_in(inner))), None)


def _dotted(path: tuple[str | int, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _shown(value: Any) -> str:
    """Return a value as its file has it, shortened."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
