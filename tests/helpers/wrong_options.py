"""Verbs, flags and values of flags that cannot be; see wrong_commands.py."""

import typing
from collections.abc import Iterator

from helpers.wrong import HOSTILE, NEEDED, Wrong, leaves, literals
from jaxformer.cli import verb_class
from jaxformer.config import schema
from jaxformer.verbs import VERBS
from jaxformer.verbs.options import called


def verbs_and_flags() -> Iterator[Wrong]:
    """Verbs and flags that are not there, or are not complete."""
    for words in (
        ["trian"],
        ["data"],
        [""],
        ["\0"],
        ["-"],
        ["x" * 5000],
        ["data", "lst"],
        ["data", "tokenizer"],
    ):
        yield Wrong(f"no verb: {' '.join(words)[:20]!r}", tuple(words))
    for verb in VERBS:
        start, needed = verb.split(), NEEDED[verb]
        yield Wrong(f"{verb}: an unknown flag", (*start, *needed, "--nope"), "--nope")
        yield Wrong(f"{verb}: a long unknown flag", (*start, *needed, "--" + "n" * 5000), "--nnn")
        yield Wrong(f"{verb}: three minus signs", (*start, *needed, "---"))
        yield Wrong(
            f"{verb}: an override without a value", (*start, *needed, "--config.seed"), "--config.seed"
        )
        if needed:
            yield Wrong(f"{verb}: nothing behind it", tuple(start), verb)
        for field in schema.config_fields(verb_class(verb)).values():
            name = called(field)
            if name.startswith("--") and field.type is not bool:
                if bool not in typing.get_args(field.type):
                    yield Wrong(f"{verb}: {name} without a value", (*start, *needed, name), name)
                misspelt = name[:3] + name[4:] + "q"
                yield Wrong(f"{verb}: {misspelt} for {name}", (*start, *needed, f"{misspelt}=1"), misspelt)


def values_of_flags() -> Iterator[Wrong]:
    """Hostile values of every flag that is a number or a choice."""
    for verb in VERBS:
        for field in schema.config_fields(verb_class(verb)).values():
            kinds = set(leaves(field.type))
            name = called(field)
            if not name.startswith("--") or (not kinds & {int, float} and not literals(field.type)):
                continue
            for what, value in HOSTILE.items():
                if what == "10**30" and float in kinds:  # large, and a number like others
                    continue
                argv = (*verb.split(), *NEEDED[verb], f"{name}={value}")
                yield Wrong(f"{verb}: {name} is {what}", argv, name)
