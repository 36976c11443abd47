"""`python -m jaxformer VERB` and `jaxformer VERB` are the same."""

import os
import sys

from jaxformer.preemption import OfProcess, leave


def main() -> None:
    """Runs the command line and leaves with its exit code. Signals are answered before anything is imported."""
    nowhere = open(os.devnull, "w")  # noqa: SIM115
    sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    with OfProcess():
        from jaxformer.cli import main as run

        if code := run():
            leave(code)


if __name__ == "__main__":
    main()
