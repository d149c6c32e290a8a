"""From what a user says on the command line, or in a file, to where tasks run."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scenelift.pipeline.errors import UsageError

if TYPE_CHECKING:  # --help does not wait for GDAL
    from scenelift.pipeline.cluster import ClusterSettings

ClusterOption = Annotated[
    str | None,
    typer.Option("--cluster", help="local, cuda, slurm, pbs, lsf, sge, or a TOML file with a [cluster] table."),
]
ClusterKeys = Annotated[
    list[str] | None,
    typer.Option("--cluster-option", help="One key of that table, e.g. maximum=20 or memory=16GB; repeatable."),
]


def cluster_settings(
    cluster: str | dict[str, Any] | None,
    options: list[str] | None,
    workers: int | None,
    scheduler: str | None,
    gpus: int = 0,
) -> ClusterSettings:
    """Return where tasks run: a table (or the file that has it), over it single keys, then --workers, --scheduler.

    Raises
    ------
    UsageError
        For a kind, key or value nobody knows, or a file that cannot be read.
    """
    from scenelift.pipeline.cluster import ClusterSettings

    table: dict[str, Any] = {"gpus": gpus} | _table(cluster)
    for option in options or []:
        key, equals, text = option.partition("=")
        if not equals:
            raise UsageError(f"--cluster-option takes KEY=VALUE, got {option!r}")
        table[key.strip()] = _value(text)
    table |= {k: v for k, v in (("workers", workers), ("scheduler", scheduler)) if v is not None}
    return ClusterSettings.of(table)


def _table(cluster: str | dict[str, Any] | None) -> dict[str, Any]:
    from scenelift.pipeline.cluster.settings import KINDS

    if cluster is None or isinstance(cluster, dict):
        return cluster or {}
    if cluster in KINDS:
        return {"kind": cluster}
    path = Path(cluster)
    if path.suffix != ".toml":
        raise UsageError(f"--cluster takes one of {', '.join(KINDS)} or a .toml file, got {cluster!r}")
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML: {error}") from None
    table = found.get("cluster")
    if not isinstance(table, dict):
        raise UsageError(f"{path} has no [cluster] table")
    return table


def _value(text: str) -> Any:
    """Read a value as TOML does; what is none of its values is a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
