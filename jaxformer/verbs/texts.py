"""Texts of datasets: tokenizers that learn from them, and paraphrases by two translations."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from jaxformer.config.fields import MOST_NEW_TOKENS, Beams, NonNegativeInt, at_most
from jaxformer.errors import UserError, counted
from jaxformer.reading import regular
from jaxformer.verbs.common import OTHER_OUTPUT, print_line, print_text, working
from jaxformer.verbs.data import OfData
from jaxformer.verbs.options import Checkpoint, Named, Names, Verb, argument, flag

if TYPE_CHECKING:
    from jaxformer.data.records import Records
    from jaxformer.data.text.tokenizers import Tokenizer

PATH = "path"  # the feature in which imports of text keep where an example is from
SETTINGS = ("vocab_size", "lowercase", "template", "min_frequency")
TEMPERATURE = 0.9  # samples that differ, and still say the same


@dataclass(frozen=True, kw_only=True)
class TokenizerTrain(OfData):
    """Train a tokenizer on a dataset's texts, or on text files."""

    names: tuple[Named, ...] = argument("NAME")
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

    def problems(self) -> Iterator[str]:
        """Yields what cannot be together."""
        if self.kind == "characters":
            for name in self.given().keys() - {"template"}:
                yield f"{name}: is not for characters; leave it out"

    def given(self) -> dict[str, Any]:
        """The settings that are given, as a config would have them."""
        given = {name: getattr(self, name) for name in SETTINGS}
        return {name: value for name, value in given.items() if value is not None and value is not False}

    def __call__(self) -> None:
        from jaxformer.data.text.tokenizers import describe
        from jaxformer.files import writing_to

        tokenizer = self.trained()
        with writing_to(self.output, OTHER_OUTPUT):
            tokenizer.save(self.output)
        print_line(f"{self.output}: {describe(tokenizer)}")

    def trained(self) -> "Tokenizer":
        """The tokenizer of the files, or of the dataset.

        Raises:
          UserError: a setting cannot be, or what it learns from cannot be read.
        """
        from jaxformer.config import schema
        from jaxformer.data.text.rows import build_tokenizer
        from jaxformer.data.text.tokenizer_training import Characters, Trained

        kind: Any = Characters if self.kind == "characters" else partial(Trained, self.kind)
        settings = kind(**self.given())
        if problems := list(schema.problems(settings)):
            raise UserError(*problems)
        files = [Path(name) for name in self.names]
        if any(path.is_file() for path in files):
            for name in ("feature", "split", "data_dir"):
                if getattr(self, name) is not None:
                    raise UserError(f"{name}: is for datasets, and there are files; leave it out")
            return settings.build(lines_of(files))
        if len(files) > 1:
            raise UserError(f"{files[0]}: there is no such file; give text files, or one dataset")
        texts = open_texts(self.names[0], self.data_dir, self.split or "train", self.feature, lists=True)
        return build_tokenizer(settings, texts[1], [texts[0]])


@dataclass(frozen=True, kw_only=True)
class TokenizerShow(Verb):
    """Show what a tokenizer is, and the tokens of texts."""

    file: Path = argument("FILE")
    """tokenizer.json, vocab.txt, a sentencepiece model, or their folder."""
    text: tuple[str, ...] = flag(())
    """A text; give it again for more."""

    def __call__(self) -> None:
        from jaxformer.data.text.tokenizers import FromFile, describe

        tokenizer = FromFile(str(self.file)).build(lambda: iter(()))
        print_line(describe(tokenizer))
        for text in self.text:
            ids = tokenizer.encode(text)
            print_text(f"\n{text}\n")
            for index in ids:
                print_line(f"{index:8}  {tokenizer.hf.id_to_token(index)}")
            again = tokenizer.decode(ids)
            print_text(counted(len(ids), "token") + (f"; decoded: {again}\n" if again != text else "\n"))


@dataclass(frozen=True, kw_only=True)
class BackTranslate(OfData):
    """Paraphrase a dataset's texts with two runs that translate, for the transform back_translate."""

    name: str = argument("NAME")
    """A dataset."""
    feature: str | None = flag(None, "NAME")
    """The text to paraphrase (default: the only one besides path)."""
    split: str = "train"
    """A TFDS split."""
    forward: Path = flag(metavar="RUN_DIR")
    """The run that translates the texts into another language."""
    backward: Path = flag(metavar="RUN_DIR")
    """The run that translates that language back."""
    checkpoint: Checkpoint = flag("best", "best|latest|STEP")
    """Which checkpoint of both."""
    samples: Annotated[int, at_most(1000)] = 1
    """Paraphrases for each text."""
    temperature: float | None = None
    """0 is greedy (default: 0.9)."""
    beams: Beams = flag(1, "K")
    """Beam search with so many beams instead of drawing."""
    seed: NonNegativeInt = 0
    """The seed of what is drawn."""
    output: Path = flag(metavar="FILE.jsonl")
    """The paraphrases; FILE.jsonl.part until all are there, and the same command goes on with it."""

    def problems(self) -> Iterator[str]:
        """Yields what cannot be together."""
        if self.beams > 1 and self.temperature is not None:
            yield f"temperature={self.temperature}: --beams draws nothing; leave one out"
        elif self.samples > 1 and (self.beams > 1 or self.temperature == 0):
            remedy = "set --temperature above 0, and no --beams"
            yield f"samples={self.samples}: would all be the same, since nothing is drawn; {remedy}"

    def __call__(self) -> None:
        from jaxformer.data.text.paraphrases import read_paraphrases
        from jaxformer.decoding.sampling import Sampling
        from jaxformer.files import writing_to
        from jaxformer.inference.back_translation import BackTranslation, check_runs, write_paraphrases
        from jaxformer.inference.loaded import LoadedRun
        from jaxformer.inference.writing import Generation
        from jaxformer.observe.terminal import Progress

        drawn = TEMPERATURE if self.beams == 1 else Sampling.temperature
        sampling = Sampling(drawn if self.temperature is None else self.temperature)
        sampling.check()
        as_many_as_fit = MOST_NEW_TOKENS
        how = Generation(as_many_as_fit, sampling, seed=self.seed, beams=self.beams)
        check_runs(self.forward, self.backward)
        chosen = self.feature and (self.feature,)
        records, (feature,) = open_texts(self.name, self.data_dir, self.split, chosen)
        texts = distinct_texts(records, feature)
        with working() as console, writing_to(self.output, OTHER_OUTPUT):
            forward, backward = (LoadedRun(run, self.checkpoint) for run in (self.forward, self.backward))
            made = {
                "dataset": records.name,
                "split": records.split,
                "feature": feature,
                "digest": records.digest(),
                "forward": [str(self.forward), forward.step],
                "backward": [str(self.backward), backward.step],
                "samples": self.samples,
                "temperature": sampling.temperature,
                "beams": self.beams,
                "seed": self.seed,
            }
            by = BackTranslation(forward.writer, backward.writer, how, self.samples)
            counts = write_paraphrases(self.output, made, texts, by)
            with Progress(len(texts), next(counts), console=console, memory=lambda: None) as progress:
                for done in counts:
                    progress.show(done, {})
        found = [len(paraphrases) for paraphrases in read_paraphrases(self.output).values()]
        changed = sum(count > 0 for count in found)
        print_line(
            f"{self.output}: {counted(sum(found), 'paraphrase')} of {counted(changed, 'text')}; "
            "texts without any, which stay as they are in training (too long, or no other text came back): "
            f"{len(found) - changed:,}"
        )
        if not changed:
            raise UserError(
                f"{self.output}: holds no paraphrase, there is nothing to train with",
                "the two runs may translate too badly yet, or take shorter texts; delete the file and try again",
            )
        print_line(f"data.transforms=[dict(name='back_translate', path={str(self.output)!r})]")


def distinct_texts(records: "Records", feature: str) -> list[str]:
    """The texts of a split, each once, in the order in which they first come."""
    numbered = (pair for first, group in records.groups() for pair in enumerate(group, first))
    return list(dict.fromkeys(records.text(record, feature, index) for index, record in numbered))


def lines_of(files: list[Path]) -> Callable[[], Iterator[str]]:
    """The lines of text files.

    Raises:
      UserError: a file is not there, or is not UTF-8.
    """

    def texts() -> Iterator[str]:
        for path in files:
            try:
                with regular(path).open(encoding="utf-8-sig") as file:
                    yield from file
            except OSError as error:
                raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
            except UnicodeDecodeError as error:
                raise UserError(f"{path}: is not UTF-8; save the file in that encoding") from error

    deque(texts(), maxlen=0)  # what is wrong is said before training begins
    return texts


def open_texts(
    name: str, data_dir: str | None, split: str, chosen: Sequence[str] | None, lists: bool = False
) -> tuple["Records", list[str]]:
    """A split of a dataset, and its features that hold the texts: the chosen ones, or the only one besides PATH.

    Args:
      name: the dataset.
      data_dir: the folder of TFDS datasets, or None.
      split: the split.
      chosen: the features that the user names, or None.
      lists: whether a feature may hold lists of texts.

    Raises:
      UserError: dataset, split or feature is not there, or there are several to choose from.
    """
    import tensorflow_datasets as tfds

    from jaxformer.config import schema
    from jaxformer.data.config import DataConfig
    from jaxformer.data.records import Records, inner

    config = DataConfig(name=name, data_dir=data_dir)
    if list(schema.problems(config)):
        raise UserError(f"{name}: no dataset can be called that; see `jaxformer data list`")
    records = Records(config, split)
    kinds = {key: inner(kind) or kind if lists else kind for key, kind in records.features.items()}
    known = [key for key, kind in kinds.items() if isinstance(kind, tfds.features.Text)]
    features = list(chosen or (key for key in known if key != PATH))
    for feature in features:
        records.check(feature, "--feature", known, "a text")
    if not features:
        raise UserError(f"{records.name}: has no texts")
    if len(features) > 1 and not chosen:
        raise UserError(f"{records.name}: has the texts {', '.join(sorted(features))}; choose with --feature")
    return records, features
