"""`python -m jaxformer VERB` and `jaxformer VERB` are the same."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until main's own handlers are there, Ctrl-C ends the process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import io
import os
import sys
import warnings

from jaxformer.preemption import ProcessSignals, leave


def main() -> None:
    """Runs the command line and leaves with its exit code; what a terminal's encoding lacks is escaped.

    Signals are answered before anything else is imported. A closed output refuses what is written, but for notes.
    """
    sys.stdout = sys.stdout or open(os.open(os.devnull, os.O_RDONLY), "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    warnings.filterwarnings("ignore", module="PIL")  # a broken image is an error of ours, said once
    with ProcessSignals():
        from jaxformer.cli import main as run
        from jaxformer.errors import ESCAPED

        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors=ESCAPED)
        try:
            code = run()
        except Exception:
            sys.excepthook(*sys.exc_info())
            code = 1
        if code:
            leave(code)


if __name__ == "__main__":
    main()
