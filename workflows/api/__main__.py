"""``python -m scenelift``."""

from scenelift.workflows.cli.app import main

if __name__ == "__main__":
    main()
