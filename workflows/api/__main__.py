"""``scenelift`` and ``python -m scenelift``."""

import os
import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it without a traceback, also while it is still being imported."""
    try:
        from scenelift.workflows.cli.app import main as run
    except KeyboardInterrupt:
        print("scenelift: interrupted", file=sys.stderr)
        os._exit(130)  # what was half imported need not be taken down
    run()


if __name__ == "__main__":
    main()
