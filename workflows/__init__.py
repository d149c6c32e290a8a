"""The room ``scenelift.workflows``."""

if __name__ != "scenelift.workflows":
    raise ImportError(
        "import this folder as 'scenelift.workflows' (run 'pip install -e .' in the project first), "
        f"not as {__name__!r}: a plain 'workflows' on the path would shadow other packages"
    )
