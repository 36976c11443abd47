"""Training a tokenizer."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxformer.errors import UserError
from jaxformer.verbs.common import writing_to
from jaxformer.verbs.data_list import OfData
from jaxformer.verbs.options import Names, argument, flag

if TYPE_CHECKING:
    from jaxformer.data.records import Records
    from jaxformer.data.text.tokenizers import Tokenizer

PATH = "path"  # the feature in which imports of text keep where an example is from
SETTINGS = ("vocab_size", "lowercase", "template", "min_frequency")


@dataclass(frozen=True, kw_only=True)
class TokenizerTrain(OfData):
    """Train a tokenizer on a dataset's texts, or on text files."""

    names: tuple[str, ...] = argument("NAME")
    """A dataset, or text files."""
    kind: Literal["bpe", "wordpiece", "unigram", "characters"]
    """How texts are cut into tokens."""
    vocab_size: int | None = None
    """Tokens at most (default: 8192)."""
    lowercase: bool = False
    """Lowercase the texts."""
    min_frequency: int | None = None
    """How often a pair has to be there to become a token (default: 2)."""
    template: str | None = None
    """Special tokens: none, gpt, bert, roberta, t5 or seq2seq (default: none)."""
    feature: Names | None = flag(None, "NAME,...")
    """A dataset's texts (default: the only one besides path)."""
    split: str | None = None
    """A TFDS split (default: train)."""
    output: Path = Path("tokenizer.json")
    """The tokenizer's file."""

    def __call__(self) -> int:
        from jaxformer.data.text.tokenizers import describe

        settings = self.settings()
        files = [Path(name) for name in self.names]
        if any(path.is_file() for path in files):
            for name in ("feature", "split", "data_dir"):
                if getattr(self, name) is not None:
                    raise UserError(f"{name}: is for datasets, and there are files; leave it out")
            tokenizer = settings.build(lines_of(files))
        elif len(files) > 1:
            raise UserError(f"{files[0]}: there is no such file; give text files, or one dataset")
        else:
            tokenizer = self.of_dataset(settings)
        with writing_to(self.output):
            tokenizer.save(self.output)
        sys.stdout.write(f"{self.output}: {describe(tokenizer)}\n")
        return 0

    def settings(self) -> Any:
        """The tokenizer's settings, as a config would have them.

        Raises:
          UserError: one cannot be, or belongs to another kind.
        """
        from jaxformer.config import schema
        from jaxformer.data.text.tokenizers import Characters, Trained

        given = {name: value for name in SETTINGS if (value := getattr(self, name)) not in (None, False)}
        if self.kind == "characters":
            for name in given.keys() - {"template"}:
                raise UserError(f"{name}: is not for characters; leave it out")
            settings: Any = Characters(**given)
        else:
            settings = Trained(self.kind, **given)
        if problems := list(schema.problems(settings)):
            raise UserError(*problems)
        return settings

    def of_dataset(self, settings: Any) -> "Tokenizer":
        """A tokenizer of a dataset's texts.

        Raises:
          UserError: the dataset, its split or its feature is not there, or there are several to choose from (PATH is
            none of them).
        """
        from jaxformer.data.records import inner
        from jaxformer.data.text.rows import build_tokenizer

        (name,) = self.names
        records = open_records(name, self.data_dir, self.split or "train")
        known = [k for k, kind in records.features.items() if is_text(kind) or is_text(inner(kind))]
        features = text_features(records, known, self.feature, leave_out=PATH)
        return build_tokenizer(settings, features, [records])


def lines_of(files: list[Path]) -> Callable[[], Iterator[str]]:
    """The lines of text files.

    Raises:
      UserError: a file is not there, or is not UTF-8.
    """

    def texts() -> Iterator[str]:
        for path in files:
            try:
                with path.open(encoding="utf-8-sig") as file:
                    yield from file
            except OSError as error:
                raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
            except UnicodeDecodeError as error:
                raise UserError(f"{path}: is not UTF-8; save the file in that encoding") from error

    for _ in texts():  # what is wrong is said before training begins
        pass
    return texts


def open_records(name: str, data_dir: str | None, split: str) -> "Records":
    """A split of a dataset of texts.

    Raises:
      UserError: dataset or split is not there.
    """
    from jaxformer.config import schema
    from jaxformer.data.config import DataConfig
    from jaxformer.data.records import Records

    config = DataConfig(name=name, data_dir=data_dir)
    if list(schema.problems(config)):
        raise UserError(f"{name}: no dataset can be called that; see `jaxformer data list`")
    return Records(config, split)


def text_features(
    records: "Records", known: list[str], given: Sequence[str] | None, leave_out: str = ""
) -> list[str]:
    """The features of a dataset to take: those that are given, or the only one that is a text.

    Raises:
      UserError: one is not there, or there are several to choose from.
    """
    features = list(given or (name for name in known if name != leave_out))
    for feature in features:
        records.check(feature, "--feature", known, "a text")
    if not features:
        raise UserError(f"{records.name}: has no texts")
    if len(features) > 1 and not given:
        raise UserError(f"{records.name}: has the texts {', '.join(sorted(features))}; choose with --feature")
    return features


def is_text(feature: Any) -> bool:
    """Whether a TFDS feature is a text."""
    import tensorflow_datasets as tfds

    return isinstance(feature, tfds.features.Text)
