"""The errors of this room; the command line shows them as one line, like the pipeline's."""

from collections.abc import Callable
from typing import ClassVar


class ModelError(Exception):
    """A model, checkpoint or recipe that cannot be used; the message says why and what to do.

    Attributes
    ----------
    exit_code : int
        What the command line exits with: 2 where the user can fix it.
    """

    exit_code = 2
    worded: ClassVar[Callable[[str], str]] = staticmethod(str)
    """What makes of a message one for who reads it: of options settings, where that is a program in Python."""

    def __str__(self) -> str:
        return type(self).worded(super().__str__())
