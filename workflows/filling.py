"""Tables as TOML gives them, filled into frozen dataclasses: a key nobody knows is an error."""

from __future__ import annotations

import dataclasses
from typing import Any

from scenelift.models.errors import ModelError

Nested = dict[tuple[type, str], type]
"""(dataclass, field) to the dataclass that the field holds, one or a list of it."""


def fill(kind: type, values: Any, where: str, nested: Nested) -> Any:
    """Build a frozen dataclass from a table, checking every key and simple type.

    Parameters
    ----------
    kind : type
    values : dict
        As read from TOML.
    where : str
        Named in errors.
    nested : dict
        (dataclass, field) to the dataclass of that field.

    Raises
    ------
    ModelError
        If a key is unknown or missing, or a value is of the wrong type or out of range.
    """
    if not isinstance(values, dict):
        raise ModelError(f"{where}: expected a table, got {values!r}")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    if unknown := sorted(set(values) - set(fields)):
        raise ModelError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(fields)}")
    filled = {}
    for name, value in values.items():
        inner = nested.get((kind, name))
        if inner is not None and isinstance(value, list):
            value = tuple(fill(inner, v, f"{where}, {name}[{i}]", nested) for i, v in enumerate(value))
        elif inner is not None and value is not None:
            value = fill(inner, value, f"{where}, {name}", nested)
        elif isinstance(value, list):
            value = tuple(value)
        _check_type(fields[name], value, where)
        filled[name] = value
    try:
        return kind(**filled)
    except TypeError as error:
        raise ModelError(f"{where}: {str(error).removeprefix(f'{kind.__name__}.__init__() ')}") from None


_SIMPLE: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "dict[str, Any]": (dict,)}


def _check_type(wanted: dataclasses.Field[Any], value: Any, where: str) -> None:
    kinds = _SIMPLE.get(str(wanted.type))
    if kinds is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
        raise ModelError(f"{where}: {wanted.name} must be {wanted.type}, got {value!r}")
