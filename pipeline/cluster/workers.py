"""What a worker process is, and whether it may stand in for another: same code, same libraries, same settings."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import platform
import socket
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("scenelift", "torch", "numpy", "rasterio", "zarr")
"""Libraries whose version can change bytes."""
CARRIED = ("GDAL_", "CPL_", "OGR_", "OSR_", "PROJ_", "VSI_", "JP2")
"""Beginnings of the variables that go along to every worker."""
LOCAL = ("GDAL_DATA", "GDAL_DRIVER_PATH", "GDAL_CURL_CA_BUNDLE", "PROJ_DATA", "PROJ_LIB", "PROJ_CURL_CA_BUNDLE")
"""Variables that name files of this machine's own installation."""
SECRETS = ("SECRET", "TOKEN", "PASSWORD", "USERPWD", "KEY", "HEADER", "COOKIE")
"""Parts of names of variables that stay here: job scripts are files."""

Identity = dict[str, str]


@functools.cache
def identity() -> Identity:
    """Return what decides the bytes that this process makes, apart from its hardware."""
    import rasterio  # a second, which who only names a cluster need not wait for

    found = {"python": platform.python_version(), "GDAL": rasterio.__gdal_version__, "scenelift's code": _code()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def origin() -> str:
    """Return where this process found scenelift."""
    return str(Path(__file__).parents[2])


def mismatch(here: Identity, there: Identity, whose: str, found_at: str) -> str | None:
    """Return one line on how a worker differs from the process that gives the work; None if it does not."""
    differing = [f"{name} {there.get(name)} instead of {here[name]}" for name in here if there.get(name) != here[name]]
    if not differing:
        return None
    return f"worker {whose} has {', '.join(differing)} (scenelift from {found_at}): give all machines one environment"


@functools.cache
def refusal(expected: tuple[tuple[str, str], ...]) -> str | None:
    """Return why this process must not do the work of one with the expected identity; None if it may."""
    return mismatch(dict(expected), identity(), f"{socket.gethostname()}:{os.getpid()}", origin())


def carried(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables to set in every worker: GDAL's of this process, then those asked for."""
    mine = {name: value for name, value in os.environ.items() if name.startswith(CARRIED) and name not in LOCAL}
    public = {name: value for name, value in mine.items() if not any(part in name for part in SECRETS)}
    return public | dict(extra)


def worker_index() -> int:
    """Return this worker's number within its local cluster (0 in the main process): which GPU is its own.

    Where CUDA_VISIBLE_DEVICES was set for the worker (dask-cuda, batch systems), its own GPU is the first it sees.
    """
    from distributed.worker import get_worker

    if "CUDA_VISIBLE_DEVICES" in os.environ and os.environ.get("SCENELIFT_OWN_GPU"):
        return 0
    try:
        name = get_worker().name
    except ValueError:
        return 0
    return name if isinstance(name, int) else 0


def _code() -> str:
    """Return a digest of the code of all rooms, wherever they are: a decoy on the path is found out."""
    total = hashlib.sha256()
    for room in ("pipeline", "models", "workflows"):
        spec = importlib.util.find_spec(f"scenelift.{room}")
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for file in sorted(Path(folder).rglob("*.py")):
                total.update(f"{room}/{file.relative_to(folder)}\n".encode())
                total.update(file.read_bytes())
    return total.hexdigest()[:12]
