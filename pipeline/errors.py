"""The errors that a user can cause, each with a message that says what to do.

Everything derived from :class:`SceneliftError` is shown on the command line as one line, without a traceback.
"""


class SceneliftError(Exception):
    """Base of every error that scenelift raises on purpose.

    Attributes
    ----------
    exit_code : int
        What the command line exits with: 2 for something the user can mend in the command or the input,
        4 for a job that failed, 75 for one that the same command continues.
    """

    exit_code = 4


class UsageError(SceneliftError, ValueError):
    """A wrong argument: an unknown model, an impossible size, an output that exists."""

    exit_code = 2


class SceneError(SceneliftError):
    """A raster that cannot be read, or that is not what it says."""


class SinkError(SceneliftError):
    """An output that could not be written, or that read back wrong."""
