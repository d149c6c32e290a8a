"""``python -m scenelift.workflows.cli``."""

from scenelift.workflows.cli.app import main

if __name__ == "__main__":
    main()
