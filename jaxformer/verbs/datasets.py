"""Listing, showing and importing datasets."""

import re
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxformer.errors import UserError
from jaxformer.verbs.back_translation import data_back_translate
from jaxformer.verbs.common import Overrides, in_flags
from jaxformer.verbs.tokenizers import tokenizer_show, tokenizer_train

MOST_LEFT_OUT = 20  # lines about what an import left out
PICTURES, TEXTS = 64, 5  # examples that `show` shows


def data(arguments: Namespace, overrides: Overrides) -> int:
    """Lists, shows and imports datasets, and makes tokenizers and paraphrases of them."""
    actions: dict[str, Any] = {
        "list": data_list,
        "show": data_show,
        "import": data_import,
        "tokenizer": data_tokenizer,
        "back-translate": data_back_translate,
    }
    return actions[arguments.action](arguments)


def data_tokenizer(arguments: Namespace) -> int:
    """Trains a tokenizer, or shows one."""
    actions = {"train": tokenizer_train, "show": tokenizer_show}
    return actions[arguments.tokenizer_action](arguments)


def data_list(arguments: Namespace) -> int:
    """Prints the datasets that are prepared."""
    from jaxformer.importing import dataset_table

    sys.stdout.write(dataset_table(arguments.data_dir) + "\n")
    return 0


def data_show(arguments: Namespace) -> int:
    """Prints examples of text; of pictures it writes a contact sheet and prints where it is."""
    from jaxformer.data import DataConfig
    from jaxformer.importing.show import contact_sheet, examples_as_text, has_images, with_examples

    config = DataConfig(name=arguments.name, data_dir=arguments.data_dir)
    if has_images(config):
        output = arguments.output or Path(f"{arguments.name.replace('/', '-')}.png")
        count = PICTURES if arguments.count is None else arguments.count
        with arguments_as_flags("count", "output"):
            shown = str(contact_sheet(with_examples(config), arguments.split, output, count))
    elif arguments.output is not None:
        raise UserError(
            f"--output: {arguments.name} has no pictures to draw; its texts are printed, leave it out"
        )
    else:
        count = TEXTS if arguments.count is None else arguments.count
        with arguments_as_flags("count"):
            shown = examples_as_text(config, arguments.split, count)
    sys.stdout.write(f"{shown}\n")
    return 0


def data_import(arguments: Namespace) -> int:
    """Makes a dataset of a user's own files and prints what is in it."""
    from jaxformer.files import located
    from jaxformer.importing import import_dataset

    options = {
        name: getattr(arguments, name)
        for name in ("unit", "label", "regression", "text", "classes", "columns")
    }
    with arguments_as_flags(*options, "test_share", "skip_broken", "data_dir"):
        made = import_dataset(
            arguments.kind,
            arguments.source,
            arguments.name,
            arguments.data_dir,
            arguments.test_share,
            arguments.skip_broken,
            **options,
        )
    splits = ", ".join(f"{name}: {count:,}" for name, count in made.splits.items())
    count = len(made.class_names)
    classes = f"; {count} class{'' if count == 1 else 'es'}" if count else ""
    sys.stdout.write(f"{made.folder}: {splits}{classes}\n")
    if "image" not in made.features:
        sys.stdout.write(f"data.name={made.name!r} has the features {', '.join(made.features)}\n")
    sys.stdout.writelines(f"{note}\n" for note in made.notes)
    for path, reason in made.broken[:MOST_LEFT_OUT]:
        sys.stdout.write(f"left out: {located(path, reason)}\n")
    if len(made.broken) > MOST_LEFT_OUT:
        sys.stdout.write(f"left out: {len(made.broken) - MOST_LEFT_OUT:,} more\n")
    if made.duplicates:
        copies = "1 copy" if len(made.duplicates) == 1 else f"{len(made.duplicates):,} copies"
        sys.stdout.write(f"left out: {copies} of other images\n")
    return 0


@contextmanager
def arguments_as_flags(*names: str) -> Iterator[None]:
    """Has messages name flags where the library names arguments: "--skip-broken" for "`skip_broken=True`"."""
    try:
        yield
    except UserError as error:
        argument = re.compile(f"`({'|'.join(names)})(=True)?`")
        lines = (argument.sub(lambda found: in_flags(found[1]), line) for line in error.lines)
        raise UserError(*lines) from error
