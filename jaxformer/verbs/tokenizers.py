"""Training a tokenizer, and seeing what one makes of a text."""

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxformer.errors import UserError
from jaxformer.verbs.common import in_flags, writing_to

if TYPE_CHECKING:
    from jaxformer.data.text.tokenizers import Tokenizer

Texts = Callable[[], Iterator[str]]
PATH = "path"  # the feature in which imports of text keep where an example is from


def tokenizer_train(arguments: Namespace) -> int:
    """Trains a tokenizer on a dataset or on text files, saves it, and prints what it is and where."""
    from jaxformer.data.text.tokenizers import describe

    settings = tokenizer_settings(arguments)
    files = [Path(name) for name in arguments.names]
    if any(path.is_file() for path in files):
        refuse_dataset_flags(arguments)
        tokenizer = settings.build(lines_of(files))
    elif len(files) > 1:
        raise UserError(f"{files[0]}: there is no such file; give text files, or one dataset")
    else:
        tokenizer = train_on_dataset(arguments, settings)
    with writing_to(arguments.output):
        tokenizer.save(arguments.output)
    sys.stdout.write(f"{arguments.output}: {describe(tokenizer)}\n")
    return 0


def tokenizer_settings(arguments: Namespace) -> Any:
    """The tokenizer's settings, as a config would have them.

    Raises:
      UserError: one cannot be, or belongs to another kind.
    """
    from jaxformer.config.schema import problems
    from jaxformer.data.text.tokenizers import Characters, Trained

    given = {
        name: getattr(arguments, name)
        for name in ("vocab_size", "lowercase", "template", "min_frequency")
        if getattr(arguments, name) is not None
    }
    if arguments.kind == "characters":
        for name in given.keys() - {"template"}:
            raise UserError(f"{in_flags(name)}: is not for characters; leave it out")
        settings: Any = Characters(**given)
    else:
        settings = Trained(arguments.kind, **given)
    if found := list(problems(settings)):
        raise UserError(*map(in_flags, found))
    return settings


def refuse_dataset_flags(arguments: Namespace) -> None:
    """Raises UserError for flags that text files have no use for."""
    for flag in ("feature", "split", "data_dir"):
        if getattr(arguments, flag) is not None:
            raise UserError(f"{in_flags(flag)}: is for datasets, and there are files; leave it out")


def lines_of(files: list[Path]) -> Texts:
    """The lines of text files.

    Raises:
      UserError: a file is not there, or is not UTF-8.
    """
    for path in files:
        try:
            with path.open(encoding="utf-8-sig") as file:
                for _ in file:
                    pass
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: is not UTF-8; save the file in that encoding") from error

    def texts() -> Iterator[str]:
        for path in files:
            with path.open(encoding="utf-8-sig") as file:
                yield from file

    return texts


def train_on_dataset(arguments: Namespace, settings: Any) -> "Tokenizer":
    """A tokenizer of a dataset's texts.

    Raises:
      UserError: the dataset, its split or its feature is not there, or there are several to choose from (PATH is
        none of them).
    """
    from jaxformer.data.config import DataConfig
    from jaxformer.data.text.records import Records, inner
    from jaxformer.data.text.tokens import build_tokenizer

    (name,) = arguments.names
    problems = list(DataConfig(name=name).problems())
    if problems:
        raise UserError(f"{name}: there is no such file, and no dataset can be called that")
    records = Records(DataConfig(name=name, data_dir=arguments.data_dir), arguments.split or "train")
    known = [feature for feature, kind in records.features.items() if is_text(kind) or is_text(inner(kind))]
    features = arguments.feature or [name for name in known if name != PATH]
    for feature in features:
        records.check(feature, "--feature", known, "a text")
    if not features:
        raise UserError(f"{records.name}: has no texts")
    if len(features) > 1 and not arguments.feature:
        raise UserError(
            f"{records.name}: has the texts {', '.join(sorted(features))}; choose with --feature NAME,..."
        )
    return build_tokenizer(settings, features, [records])


def is_text(feature: Any) -> bool:
    """Whether a TFDS feature is a text."""
    import tensorflow_datasets as tfds

    return isinstance(feature, tfds.features.Text)


def tokenizer_show(arguments: Namespace) -> int:
    """Prints what a tokenizer is; of each text its tokens with their ids, and the text that they give if it differs."""
    from jaxformer.data.text.tokenizers import FromFile, describe

    tokenizer = FromFile(str(arguments.file)).build(lambda: iter(()))
    sys.stdout.write(describe(tokenizer) + "\n")
    for text in arguments.text:
        ids = tokenizer.encode(text)
        sys.stdout.write(f"\n{text}\n")
        sys.stdout.writelines(f"{index:8}  {tokenizer.hf.id_to_token(index)}\n" for index in ids)
        again = tokenizer.decode(ids)
        sys.stdout.write(f"{len(ids)} tokens" + (f"; decoded: {again}\n" if again != text else "\n"))
    return 0
