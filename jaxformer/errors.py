"""Errors that are part of the interface: they name the value that was given, the expected one, and the remedy."""


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


def counted(value: float, noun: str, plural: str = "") -> str:
    """A number with its noun: "1 step", "1,200 steps", "0.5 epochs"; the plural is the noun with "s" unless given."""
    shown = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    return f"{shown} {noun}" if shown == "1" else f"{shown} {plural or noun + 's'}"
