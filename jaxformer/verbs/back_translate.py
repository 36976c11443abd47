"""Paraphrases of a dataset's texts, by two translations."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxformer.config.fields import PositiveInt
from jaxformer.errors import UserError
from jaxformer.verbs.common import use_compilation_cache, writing_to
from jaxformer.verbs.data_list import OfData
from jaxformer.verbs.options import Checkpoint, argument, flag

if TYPE_CHECKING:
    from jaxformer.data.records import Records
    from jaxformer.inference.writing import Generation

TEMPERATURE = 0.9  # samples that differ, and still say the same


@dataclass(frozen=True, kw_only=True)
class BackTranslate(OfData):
    """Paraphrase a dataset's texts with two runs that translate, for the transform back_translate."""

    name: str = argument("NAME")
    """A dataset."""
    feature: str | None = flag(None, "NAME")
    """The text to paraphrase (default: the only one)."""
    split: str = "train"
    """A TFDS split."""
    forward: Path = flag(metavar="RUN_DIR")
    """The run that translates the texts into another language."""
    backward: Path = flag(metavar="RUN_DIR")
    """The run that translates that language back."""
    checkpoint: Checkpoint = flag("best", "best|latest|STEP")
    """Which checkpoint of both."""
    samples: PositiveInt = 1
    """Paraphrases for each text."""
    temperature: float | None = None
    """0 is greedy (default: 0.9)."""
    beams: PositiveInt = flag(1, "K")
    """Beam search with so many beams instead of drawing."""
    seed: int = 0
    """The seed of what is drawn."""
    output: Path = flag(metavar="FILE.jsonl")
    """The paraphrases; FILE.jsonl.part until all are there, and the same command goes on with it."""

    def problems(self) -> Iterator[str]:
        """Yields what cannot be together."""
        if self.beams > 1 and self.temperature is not None:
            yield f"temperature={self.temperature}: --beams draws nothing; leave one out"
        elif self.samples > 1 and (self.beams > 1 or self.temperature == 0):
            yield (
                f"samples={self.samples}: would all be the same, since nothing is drawn; set --temperature above 0, "
                "and no --beams"
            )

    def __call__(self) -> int:
        how = self.generation()
        use_compilation_cache()
        from jaxformer.data.text.paraphrases import read_paraphrases
        from jaxformer.inference.back_translation import (
            BackTranslation,
            check_runs,
            write_paraphrases,
        )
        from jaxformer.inference.loaded import LoadedRun
        from jaxformer.observe.terminal import Progress, make_console, terminal_logging

        check_runs(self.forward, self.backward)
        records, feature = self.open_texts()
        texts = distinct_texts(records, feature)
        console = make_console()
        with terminal_logging(console):
            forward = LoadedRun(self.forward, self.checkpoint)
            backward = LoadedRun(self.backward, self.checkpoint)
            made: dict[str, Any] = {
                "dataset": records.name,
                "split": records.split,
                "feature": feature,
                "digest": records.digest(),
                "forward": [str(self.forward), forward.step],
                "backward": [str(self.backward), backward.step],
                "samples": self.samples,
                "temperature": how.sampling.temperature,
                "beams": how.beams,
                "seed": how.seed,
            }
            by = BackTranslation(forward.writer, backward.writer, how, self.samples)
            with writing_to(self.output):
                counts = write_paraphrases(self.output, made, texts, by)
                before = next(counts)
                with Progress(len(texts), before, console=console, memory=lambda: None) as progress:
                    for done in counts:
                        progress.show(done, {})
        found = [len(paraphrases) for paraphrases in read_paraphrases(self.output).values()]
        changed = sum(count > 0 for count in found)
        sys.stdout.write(
            f"{self.output}: {sum(found):,} paraphrases of {changed:,} texts; {len(found) - changed:,} texts have "
            "none (too long, or no other text came back) and stay as they are in training\n"
        )
        if not changed:
            raise UserError(
                f"{self.output}: holds no paraphrase, there is nothing to train with",
                "the two runs may translate too badly yet, or take shorter texts than these; delete the file before "
                "the next try",
            )
        sys.stdout.write(f"data.transforms=[dict(name='back_translate', path={str(self.output)!r})]\n")
        return 0

    def generation(self) -> "Generation":
        """How translations are written.

        Raises:
          UserError: a value cannot be.
        """
        from jaxformer.decoding.sampling import Sampling
        from jaxformer.inference.writing import Generation

        sampling = Sampling(TEMPERATURE if self.temperature is None else self.temperature)
        sampling.check()
        as_many_as_fit = sys.maxsize
        return Generation(as_many_as_fit, sampling, seed=self.seed, beams=self.beams)

    def open_texts(self) -> tuple["Records", str]:
        """The split's examples, and the feature that holds their text.

        Raises:
          UserError: dataset, split or feature is not there, or there are several texts to choose from.
        """
        from jaxformer.verbs.tokenizer_train import is_text, open_records, text_features

        records = open_records(self.name, self.data_dir, self.split)
        known = [name for name, kind in records.features.items() if is_text(kind)]
        (feature,) = text_features(records, known, self.feature and (self.feature,))
        return records, feature


def distinct_texts(records: "Records", feature: str) -> list[str]:
    """The texts of a split, each once, in the order in which they first come."""
    return list(
        dict.fromkeys(
            records.text(record, feature, index)
            for first, group in records.groups()
            for index, record in enumerate(group, first)
        )
    )
