"""`python -m jaxformer VERB` and `jaxformer VERB` are the same."""

import io
import os
import sys
import warnings

from jaxformer.preemption import ProcessSignals, leave


def main() -> None:
    """Runs the command line and leaves with its exit code; what a terminal's encoding lacks is escaped.

    Signals are answered before anything else is imported.
    """
    nowhere = open(os.devnull, "w")  # noqa: SIM115
    sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    warnings.filterwarnings("ignore", module="PIL")  # a broken image is an error of ours, said once
    with ProcessSignals():
        from jaxformer.cli import main as run
        from jaxformer.errors import ESCAPED

        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors=ESCAPED)
        if code := run():
            leave(code)


if __name__ == "__main__":
    main()
