"""`python -m jaxformer VERB` and `jaxformer VERB` are the same."""

import os
import sys

from jaxformer.cli import INTERRUPTED
from jaxformer.cli import main as run


def main() -> None:
    """Runs the command line and leaves with its exit code."""
    code = run()
    if code == INTERRUPTED:  # at once: tearing XLA down while it compiles in the background can crash
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
