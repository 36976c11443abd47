"""The command line: finds the verb, lets it work, and turns mistakes into lines and exit codes."""

import contextlib
import os
import sys
from collections.abc import Sequence

from jaxformer import __version__
from jaxformer.config.schema import did_you_mean, load
from jaxformer.errors import UserError, shortened
from jaxformer.parallel.topologies import quiet_libtpu
from jaxformer.preemption import Preempted, farewell
from jaxformer.verbs import VERBS
from jaxformer.verbs.common import print_note, print_text, refusing
from jaxformer.verbs.options import Verb, in_flags, parse, summary

ABOUT = "Trains, evaluates and looks into Transformers, Vision Transformers and CNNs."


def verb_class(name: str) -> type[Verb]:
    """The class of a verb."""
    return load(f"jaxformer.verbs.{VERBS[name]}")


def find(argv: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The name of the verb that a command line begins with, and the words behind it.

    Raises:
      SystemExit: help or the version was asked for, and is printed.
      UserError: there is no such verb.
    """
    count = 0
    while count < len(argv) and matching(argv[: count + 1]):
        count += 1
        longer = count < len(argv) and matching(argv[: count + 1])  # "sweep work" goes before "sweep"
        if (name := " ".join(argv[:count])) in VERBS and not longer:
            return name, argv[count:]
    before, word = argv[:count], argv[count] if count < len(argv) else ""
    if word in ("-h", "--help", "--version"):
        print_text(f"jaxformer {__version__}\n" if word == "--version" else overview(before))
        raise SystemExit(0)
    known = sorted({verb.split()[len(before)] for verb in matching(before)})
    if not word:
        said = " ".join(before) or "jaxformer"
        raise UserError(f"{said}: which of its verbs? There are: {', '.join(known)}")
    no_verb = f"{' '.join([*before, word])}: there is no such verb; {did_you_mean(word, known)}"
    raise UserError(no_verb, f"see `{' '.join(['jaxformer', *before])} --help`")


def matching(before: Sequence[str]) -> list[str]:
    """The verbs that begin with these words."""
    return [verb for verb in VERBS if verb.split()[: len(before)] == list(before)]


def overview(before: Sequence[str]) -> str:
    """All verbs that begin with these words, and what they do."""
    lines = [f"usage: {' '.join(['jaxformer', *before])} VERB ... (--help behind a verb: its options)", ""]
    lines += [] if before else [ABOUT, ""]
    for name in matching(before):
        lines.append(f"  {name:22}{summary(verb_class(name))}")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb and returns its exit code: 0 done, 1 failed, 2 the user's mistake, 75 preempted and saved;
    the others are in `launching/decisions.py`.

    A user's own classes ("my_file:MyModel") are found in the working directory, too.
    """
    with contextlib.suppress(FileNotFoundError):
        if (here := os.getcwd()) not in sys.path:
            sys.path.append(here)
    quiet_libtpu()
    cls: type[Verb] = Verb
    try:
        name, rest = find(list(sys.argv[1:] if argv is None else argv))
        cls = verb_class(name)
        code = parse(name, cls, rest)() or 0
        sys.stdout.flush()
        return code
    except UserError as error:
        for line in error.lines:
            print_note(f"jaxformer: {in_flags(cls, line)}")
        return error.code
    except (KeyboardInterrupt, Preempted) as stop:
        return farewell(stop)
    except OSError as error:
        place = error.filename or next(refusing(), None)
        if place is None:
            raise
        if isinstance(error, BrokenPipeError):
            return 1
        print_note(shortened(f"jaxformer: {place}: {error.strerror or error}"))
        return 2
