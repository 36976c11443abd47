"""`python -m jaxformer VERB` and `jaxformer VERB` are the same."""

import sys

from jaxformer.cli import main as run


def main() -> None:
    """Runs the command line and leaves with its exit code."""
    sys.exit(run())


if __name__ == "__main__":
    main()
