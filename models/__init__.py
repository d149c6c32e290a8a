"""The room ``scenelift.models``."""

if __name__ != "scenelift.models":
    raise ImportError(
        "import this folder as 'scenelift.models' (run 'pip install -e .' in the project first), "
        f"not as {__name__!r}: a plain 'models' on the path would shadow other packages"
    )
