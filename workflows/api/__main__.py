"""``scenelift`` and ``python -m scenelift``."""

import os
import signal
from typing import Any


def main() -> None:
    """Run the command line; Ctrl-C ends it without a traceback, also while it is still being imported."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _leave)  # raised within an import it would be wrapped, or half a module would stay
    from scenelift.workflows.cli.app import main as run

    signal.signal(signal.SIGINT, before)
    run()


def _leave(*_: Any) -> None:
    os.write(2, b"scenelift: interrupted\n")
    os._exit(130)  # what was half imported need not be taken down


if __name__ == "__main__":
    main()
