"""The errors that a user can cause, each with a message that says what to do.

Everything derived from :class:`SceneliftError` is shown on the command line as one line, without a traceback.
"""

from __future__ import annotations

import errno
import os
import re

COMMAND_LINE = "SCENELIFT_COMMAND_LINE"
"""Variable of the environment that the command line sets, for its workers too."""
_OPTION = re.compile(r"(?<![\w-])--(no-)?([a-z]+(?:-[a-z]+)*)")
_IN_PYTHON = {"model": "models", "allow-remote": "remote=True", "input": "coarse", "map": "error_map"}
"""Names in Python of options that are called otherwise there."""
_SWITCHES = ("overwrite", "allow-holes", "keep-classes", "tta", "uncertainty", "clamp", "force")
"""Options without a value that messages tell people to add."""


def worded(message: str) -> str:
    """Return a message as its reader knows things: it is written with options, which are settings in Python.

    ``--require-gain`` is ``require_gain`` there, ``--overwrite`` ``overwrite=True``. Commands, which stand between
    backticks, stay as they are.
    """
    if os.environ.get(COMMAND_LINE):
        return message
    parts = message.split("`")
    parts[::2] = [_OPTION.sub(_setting, part) for part in parts[::2]]
    return "`".join(parts)


def _setting(option: re.Match[str]) -> str:
    no, name = option.groups()
    found = _IN_PYTHON.get(name, name.replace("-", "_"))
    return f"{found}=False" if no else f"{found}=True" if name in _SWITCHES else found


class SceneliftError(Exception):
    """Base of every error that scenelift raises on purpose.

    Messages name options of the command line; read in Python (``str(error)``), they name settings instead.

    Attributes
    ----------
    exit_code : int
        What the command line exits with: 2 for something the user can fix in the command or the input,
        3 for a job of which some blocks failed, 4 for one that failed, 75 for one that the same command continues.
    """

    exit_code = 4

    def __str__(self) -> str:
        return worded(super().__str__())


class UsageError(SceneliftError, ValueError):
    """A wrong argument: an unknown model, an impossible size, an output that exists."""

    exit_code = 2


class UnplacedError(UsageError):
    """A raster that does not say where on Earth its pixels are."""


class HeldError(UsageError):
    """Another living run is at work on the same output."""


class SceneError(SceneliftError):
    """A raster that cannot be read, or that is not what it says."""


class GridsError(SceneError):
    """Files of one scene whose grids do not go together: others can be named."""

    exit_code = 2


class TimesError(SceneError):
    """A scene holds several times, and none is chosen."""


class InputChangedError(SceneError):
    """The input was replaced while it was being enhanced: what was made of it is made of two."""


class SinkError(SceneliftError):
    """An output that could not be written, or that read back wrong."""

    @classmethod
    def of(cls, path: object, error: OSError) -> SinkError:
        """Return the error to raise for what the system said; a full disk is one that the same command continues."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DiskFullError(
                f"cannot write {path}: {error.strerror}; what is done is kept: make room, give the same command again"
            )
        return cls(f"cannot write {path}: {error.strerror or error}")


class DiskFullError(SinkError):
    """No room left; the job goes on from where it stopped once there is."""

    exit_code = 75


class ResumableError(SceneliftError):
    """A job that stopped through no fault of its own; the same command goes on with it."""

    exit_code = 75


class UnreachableError(ResumableError):
    """A storage on the network that does not respond: what it holds may be whole, so nothing is made a hole of it."""


class PartialError(SceneliftError):
    """A job of which all but some blocks were done."""

    exit_code = 3


class Interrupted(KeyboardInterrupt):
    """SIGTERM, SIGINT or the end of the walltime: stop now, keep what is done.

    Derived from KeyboardInterrupt so that libraries which swallow exceptions let it pass.
    """

    exit_code = 75


class NothingKeptError(SceneliftError):
    """Stopped by the user before anything was done: there is nothing to go on with."""

    exit_code = 130


class UnfitError(SceneliftError):
    """What was asked for is not reached, or not expected to be: nothing was written."""

    exit_code = 4


def interruption(error: BaseException | None) -> KeyboardInterrupt | None:
    """Return the interruption behind an error: Python wraps it where a class is being made, libraries elsewhere."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error
