"""Errors that are part of the interface: they name the value that was given, the expected one, and the remedy.

And how text from outside (names of files and classes, what a model writes) is shown in messages, logs and pages.
"""

import codecs
import json
import logging
import re
import unicodedata

# Joiners (U+200C, U+200D) that are not invisible: after letters of Arabic and Indic scripts, and in emoji.
JOINER = re.compile("(?<=[\u0600-\u109f\u1780-\u18af\u2600-\u27bf\ufe0f\U0001f000-\U0001faff])[\u200c\u200d]")
ESCAPED = "jaxformer"  # what an encoding lacks is escaped in the same way: `errors` of a stream
NOT_ASCII = re.compile("[^ -~]")
LONG = 120  # characters of a value that a message still quotes whole
VALUE = re.compile(rf"'[^']{{{LONG},}}'|\"[^\"]{{{LONG},}}\"|[^\s'\"]{{{LONG},}}")


def printable(words: str, keep: str = "\n\t") -> str:
    """Text that no terminal obeys: what is not seen is escaped as in JSON, as are halves of surrogate pairs.

    That is, control characters (ESC, BEL, C1), signs that turn the direction of writing, characters without width,
    ends of lines and paragraphs other than "\\n". Inside of a JSON text, its value stays the same.

    Args:
      words: the text.
      keep: control characters that stay; "" makes one line of it.
    """

    def shown(found: re.Match[str]) -> str:
        c = found[0]
        stays = c.isprintable() or c in keep or unicodedata.category(c) == "Zs"
        place = found.start()
        joins = JOINER.match(words, place) and words[place - 1].isprintable()  # the other is escaped itself
        return c if stays or joins else escaped(c)

    return NOT_ASCII.sub(shown, words)


def escaped(words: str) -> str:
    """Characters as a JSON text in ASCII has them, without its quotes."""
    return json.dumps(words)[1:-1]


def escape_record(record: logging.LogRecord) -> bool:
    """Makes what is logged `printable`: a line, or whole lines of ours where the message is nothing but "%s"."""
    record.msg = printable(record.getMessage(), "\n\t" if record.msg == "%s" else "")
    record.args = None
    return True


def escape_for(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that an encoding lacks, and where to go on behind them (`codecs.register_error`)."""
    assert isinstance(error, UnicodeEncodeError)
    return escaped(error.object[error.start : error.end]), error.end


logging.getLogger("jaxformer").addFilter(escape_record)
codecs.register_error(ESCAPED, escape_for)


def shortened(text: str) -> str:
    """A message in which long quoted values and long words have their beginning and their end alone."""
    if len(text) <= 4 * LONG:
        return text
    return VALUE.sub(lambda found: f"{found[0][:60]} ... {found[0][-20:]}", text)


class UserError(Exception):
    """A mistake of the user's: the command line prints `lines`, without a traceback, and exits with `code`.

    Args:
      lines: the message, one or more lines; each names the thing and the remedy. They become `printable`, and values
        of many characters are shortened.
    """

    code = 2
    """The exit code of the command line."""

    def __init__(self, *lines: str):
        self.lines = tuple(shortened(printable(line, keep="")) for line in lines)
        super().__init__("\n".join(self.lines))


class NotPrepared(UserError):
    """A dataset is not on this machine."""


class NoRoom(UserError):
    """A disk is full, or a quota is used up: a later attempt may succeed."""

    code = 74  # EX_IOERR of sysexits.h


class ConfigError(UserError):
    """Everything that is wrong with a config, all at once, a line each."""


def counted(value: float, noun: str, plural: str = "") -> str:
    """A number with its noun: "1 step", "1,200 steps", "0.5 epochs"; the plural is the noun with "s" unless given."""
    shown = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    return f"{shown} {noun}" if shown == "1" else f"{shown} {plural or noun + 's'}"


def data_size(size: float) -> str:
    """Bytes in powers of 1024: "312 MiB"."""
    power = 0
    while size >= 1000 and power < 6:
        size, power = size / 1024, power + 1
    return f"{size:.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB')[power]}"
