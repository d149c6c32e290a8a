"""The errors of this room; the command line shows them as one line, like the pipeline's."""


class ModelError(Exception):
    """A model, checkpoint or recipe that cannot be used; the message says why and what to do.

    Attributes
    ----------
    exit_code : int
        What the command line exits with: 2 where the user can fix it.
    """

    exit_code = 2
