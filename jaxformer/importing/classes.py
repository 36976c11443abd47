"""The names of classes."""

from collections.abc import Callable, Sequence
from pathlib import Path

from jaxformer.errors import UserError
from jaxformer.files import lines_of, read_text
from jaxformer.importing.contents import Examples


def natural(name: str) -> tuple[bool, int, str]:
    """A sort key that orders numbers by value, before words."""
    return (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)


def is_class_name(name: str) -> bool:
    """Whether TFDS can store a class of this name: it keeps a line for each, and strips it."""
    return name != "" and name == name.strip() and not {"\n", "\r"} & set(name)


def check_given(classes: Sequence[str]) -> None:
    """Raises a UserError for an impossible name among the classes that the user gave."""
    for name in classes:
        if not is_class_name(name):
            raise UserError(
                f"`classes`: {name!r} is no name of a class; it needs to be one line without spaces around"
            )
        if list(classes).count(name) > 1:
            raise UserError(f"`classes`: {name!r} is there twice")


def check_read(path: Path, names: list[str]) -> list[str]:
    """The names of classes that a file holds; refuses impossible ones."""
    if not names:
        raise UserError(f"{path}: has no names of classes")
    for place, name in enumerate(names):
        if not is_class_name(name) or name in names[:place]:
            raise UserError(f"{path}: the class {name!r} is empty or there twice")
    return names


def read_names(path: Path) -> list[str]:
    """The names of classes in a file, one a line."""
    return check_read(path, [line.strip() for line in lines_of(read_text(path).rstrip())])


def several_classes(
    names: Sequence[str], needed: Sequence[str] = ()
) -> Callable[[Examples, Path], list[str]]:
    """A check of `Contents`: there is not only one class, and examples of those `needed` are in train."""

    def check(train: Examples, source: Path) -> list[str]:
        if len(names) == 1:
            raise UserError(f"{source}: there is only the class {names[0]!r}; two are needed at least")
        there = {example.label for example in train}
        missing = [name for name in needed if name not in there]
        if missing:
            raise UserError(
                f"{source}: no example in train for {', '.join(missing)}; check how classes are spelt"
            )
        return []

    return check
