"""The room ``scenelift.pipeline``."""

if __name__ != "scenelift.pipeline":
    raise ImportError(
        "import this folder as 'scenelift.pipeline' (run 'pip install -e .' in the project first), "
        f"not as {__name__!r}: a plain 'pipeline' on the path would shadow other packages"
    )
