"""Listing, showing and importing datasets."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from jaxformer.errors import UserError
from jaxformer.verbs.back_translation import data_back_translate
from jaxformer.verbs.common import Overrides
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
    from jaxformer.data import dataset_table

    sys.stdout.write(dataset_table(arguments.data_dir) + "\n")
    return 0


def data_show(arguments: Namespace) -> int:
    """Prints examples of text; of pictures it writes a contact sheet and prints where it is."""
    from jaxformer.data import DataConfig, contact_sheet
    from jaxformer.data.listing import with_examples
    from jaxformer.data.text.showing import examples_as_text, has_images

    config = DataConfig(name=arguments.name, data_dir=arguments.data_dir)
    if has_images(config):
        output = arguments.output or Path(f"{arguments.name.replace('/', '-')}.png")
        count = PICTURES if arguments.count is None else arguments.count
        shown = str(contact_sheet(with_examples(config), arguments.split, output, count))
    elif arguments.output is not None:
        raise UserError(
            f"--output: {arguments.name} has no pictures to draw; its texts are printed, leave it out"
        )
    else:
        shown = examples_as_text(
            config, arguments.split, TEXTS if arguments.count is None else arguments.count
        )
    sys.stdout.write(f"{shown}\n")
    return 0


def data_import(arguments: Namespace) -> int:
    """Makes a dataset of a user's own files and prints what is in it."""
    from jaxformer.data.annotated.boxes import ImportedAnnotations, import_detection
    from jaxformer.data.annotated.masks import import_segmentation
    from jaxformer.data.importing import Imported, import_images
    from jaxformer.data.text.formats import located
    from jaxformer.data.text.importing import FORMATS, ImportedText, given_options, import_text, make_format

    options = {
        name: getattr(arguments, name)
        for name in ("unit", "label", "regression", "text", "classes", "columns")
    }
    common: dict[str, Any] = {
        "name": arguments.name,
        "data_dir": arguments.data_dir,
        "skip_broken": arguments.skip_broken,
    }
    if arguments.test_share is not None:
        common["test_share"] = arguments.test_share
    if arguments.kind not in FORMATS:
        given_options(arguments.kind, options)
    made: Imported
    if arguments.kind == "segmentation":
        made = import_segmentation(arguments.source, classes=options.pop("classes"), **common)
    elif arguments.kind == "detection":
        made = import_detection(arguments.source, **common)
    elif arguments.kind != "images":
        made = import_text(arguments.source, format=make_format(arguments.kind, options), **common)
    elif len(arguments.source) > 1:
        raise UserError(f"{arguments.source[1]}: is one source too many; images come from one folder or CSV")
    else:
        made = import_images(arguments.source[0], **common)
    splits = ", ".join(f"{name}: {count:,}" for name, count in made.splits.items())
    count = len(made.class_names)
    classes = f"; {count} class{'' if count == 1 else 'es'}" if count else ""
    sys.stdout.write(f"{made.folder}: {splits}{classes}\n")
    if isinstance(made, ImportedText):
        sys.stdout.write(f"data.name={made.name!r} has the features {', '.join(made.features)}\n")
    if isinstance(made, (ImportedText, ImportedAnnotations)):
        sys.stdout.writelines(f"{note}\n" for note in made.notes)
    for path, reason in made.broken[:MOST_LEFT_OUT]:
        sys.stdout.write(f"left out: {located(path, reason)}\n")
    if len(made.broken) > MOST_LEFT_OUT:
        sys.stdout.write(f"left out: {len(made.broken) - MOST_LEFT_OUT:,} more\n")
    if made.duplicates:
        copies = "1 copy" if len(made.duplicates) == 1 else f"{len(made.duplicates):,} copies"
        sys.stdout.write(f"left out: {copies} of other pictures\n")
    return 0
