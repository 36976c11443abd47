"""The command line: finds the verb, lets it work, and turns mistakes into lines and exit codes."""

import contextlib
import os
import sys
from collections.abc import Sequence

from jaxformer import __version__
from jaxformer.config.schema import did_you_mean, load
from jaxformer.errors import UserError
from jaxformer.verbs import VERBS
from jaxformer.verbs.options import Verb, in_flags, parse

INTERRUPTED = 130  # the exit code after Ctrl-C: 128 + SIGINT
ABOUT = "Trains, evaluates and looks into Transformers, Vision Transformers and CNNs."
HELP = {"-h", "--help"}


def verb_class(name: str) -> type[Verb]:
    """The class of a verb."""
    return load(f"jaxformer.verbs.{VERBS[name]}")


def find(argv: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The name of the verb that a command line begins with, and the words behind it.

    Raises:
      SystemExit: help was asked for, and is printed.
      UserError: there is no such verb.
    """
    for count in range(1, len(argv) + 1):
        name = " ".join(argv[:count])
        if name in VERBS:
            return name, argv[count:]
        if not any(verb.startswith(f"{name} ") for verb in VERBS):
            break
    else:
        count = len(argv) + 1
    before, word = argv[: count - 1], argv[count - 1 : count]
    if HELP & set(word):
        sys.stdout.write(overview(before))
        raise SystemExit(0)
    if word == ["--version"]:
        sys.stdout.write(f"jaxformer {__version__}\n")
        raise SystemExit(0)
    there = {" ".join(verb.split()[: len(before) + 1]) for verb in matching(before)}
    known = [name.split()[-1] for name in there]
    start = "".join(f"{w} " for w in before)
    if not word:
        raise UserError(
            f"{start.strip() or 'jaxformer'}: which of its verbs? There are: {', '.join(sorted(known))}"
        )
    raise UserError(
        f"{start}{word[0]}: there is no such verb; {did_you_mean(word[0], known)}",
        f"see `jaxformer {start}--help`",
    )


def matching(before: Sequence[str]) -> list[str]:
    """The verbs that begin with these words."""
    return [verb for verb in VERBS if verb.split()[: len(before)] == list(before)]


def overview(before: Sequence[str]) -> str:
    """All verbs that begin with these words, and what they do."""
    lines = [f"usage: {' '.join(['jaxformer', *before])} VERB ... (--help behind a verb: its options)", ""]
    lines += [] if before else [ABOUT, ""]
    for name in matching(before):
        summary = " ".join((verb_class(name).__doc__ or "").split("\n\n")[0].split())
        lines.append(f"  {name:22}{summary}")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb and returns its exit code: 0 done, 1 failed, 2 the user's mistake, 75 preempted and saved.

    A user's own classes ("my_file:MyModel") are found in the working directory, too.
    """
    with contextlib.suppress(FileNotFoundError):
        if (here := os.getcwd()) not in sys.path:
            sys.path.append(here)
    cls: type[Verb] = Verb
    try:
        name, rest = find(list(sys.argv[1:] if argv is None else argv))
        cls = verb_class(name)
        return parse(name, cls, rest)()
    except UserError as error:
        for line in error.lines:
            sys.stderr.write(f"jaxformer: {in_flags(cls, line)}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("jaxformer: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 1
