"""Errors that are part of the interface: they name the value that was given, the expected one, and the remedy."""

import contextlib
import sys


def tell(line: str) -> None:
    """Writes a line for the user on stderr, where that still takes one."""
    with contextlib.suppress(OSError, RuntimeError):
        sys.stderr.write(f"jaxformer: {line}\n")


class UserError(Exception):
    """A mistake of the user's: the command line prints `lines`, without a traceback, and exits with code 2.

    Args:
      lines: the message, one or more lines; each names the thing and the remedy.
    """

    def __init__(self, *lines: str):
        self.lines = lines
        super().__init__("\n".join(lines))


class NotPrepared(UserError):
    """A dataset is not on this machine."""


class ConfigError(UserError):
    """Everything that is wrong with a config, all at once, a line each."""
