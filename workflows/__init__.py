"""The room ``scenelift.workflows``."""

if __name__ != "scenelift.workflows":
    raise ImportError(
        "import this folder as 'scenelift.workflows' (run 'pip install -e .' in the project first), "
        f"not as {__name__!r}: a plain 'workflows' on the path would shadow other packages"
    )

from scenelift.models.errors import ModelError
from scenelift.pipeline.errors import worded

ModelError.worded = staticmethod(worded)  # the two lower rooms do not know each other
