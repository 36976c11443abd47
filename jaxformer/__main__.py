"""`python -m jaxformer VERB` and `jaxformer VERB` are the same."""

import io
import os
import sys

from jaxformer.cli import INTERRUPTED
from jaxformer.cli import main as run
from jaxformer.errors import ESCAPED


def main() -> None:
    """Runs the command line and leaves with its exit code; what a terminal's encoding lacks is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPED)
    code = run()
    if code == INTERRUPTED:  # at once: tearing XLA down while it compiles in the background can crash
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
