"""Paraphrases of a dataset's texts, by two translations."""

import sys
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from jaxformer.errors import UserError
from jaxformer.verbs.common import use_compilation_cache, writing_to

if TYPE_CHECKING:
    from jaxformer.data.text.records import Records
    from jaxformer.inference.writing import Generation

TEMPERATURE = 0.9  # samples that differ, and still say the same


def data_back_translate(arguments: Namespace) -> int:
    """Translates a split's texts there and back, writes the paraphrases, and prints how many there are."""
    how = generation(arguments)
    use_compilation_cache()
    from jaxformer.data.text.paraphrases import read_paraphrases
    from jaxformer.inference.back_translation import (
        BackTranslation,
        check_runs,
        write_paraphrases,
    )
    from jaxformer.inference.loaded import LoadedRun
    from jaxformer.observe.logs import make_console, terminal_logging
    from jaxformer.observe.progress import Progress

    check_runs(arguments.forward, arguments.backward)
    records, feature = open_texts(arguments)
    texts = distinct_texts(records, feature)
    console = make_console()
    with terminal_logging(console):
        forward = LoadedRun(arguments.forward, arguments.checkpoint)
        backward = LoadedRun(arguments.backward, arguments.checkpoint)
        made: dict[str, Any] = {
            "dataset": records.name,
            "split": records.split,
            "feature": feature,
            "digest": records.digest(),
            "forward": [str(arguments.forward), forward.step],
            "backward": [str(arguments.backward), backward.step],
            "samples": arguments.samples,
            "temperature": how.sampling.temperature,
            "beams": how.beams,
            "seed": how.seed,
        }
        by = BackTranslation(forward.writer, backward.writer, how, arguments.samples)
        with writing_to(arguments.output):
            counts = write_paraphrases(arguments.output, made, texts, by)
            before = next(counts)
            with Progress(len(texts), before, console=console, memory=lambda: None) as progress:
                for done in counts:
                    progress.show(done, {})
    found = [len(paraphrases) for paraphrases in read_paraphrases(arguments.output).values()]
    changed = sum(count > 0 for count in found)
    sys.stdout.write(
        f"{arguments.output}: {sum(found):,} paraphrases of {changed:,} texts; {len(found) - changed:,} texts have "
        "none (too long, or no other text came back) and stay as they are in training\n"
    )
    if not changed:
        raise UserError(
            f"{arguments.output}: holds no paraphrase, there is nothing to train with",
            "the two runs may translate too badly yet, or take shorter texts than these; delete the file before the "
            "next try",
        )
    sys.stdout.write(f"data.transforms=[dict(name='back_translate', path={str(arguments.output)!r})]\n")
    return 0


def generation(arguments: Namespace) -> "Generation":
    """How translations are written.

    Raises:
      UserError: a flag cannot be, or does not go with another.
    """
    for name in ("samples", "beams"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name} {getattr(arguments, name)}: expected at least 1")
    if arguments.beams > 1 and arguments.temperature is not None:
        raise UserError(f"--temperature {arguments.temperature}: --beams draws nothing; leave one out")
    temperature = TEMPERATURE if arguments.temperature is None else arguments.temperature
    if arguments.samples > 1 and (arguments.beams > 1 or temperature == 0):
        raise UserError(
            f"--samples {arguments.samples}: would all be the same, since nothing is drawn; set --temperature above 0, "
            "and no --beams"
        )
    from jaxformer.decoding.sampling import Sampling
    from jaxformer.inference.writing import Generation

    sampling = Sampling(temperature)
    sampling.check()
    as_many_as_fit = sys.maxsize
    return Generation(as_many_as_fit, sampling, seed=arguments.seed, beams=arguments.beams)


def open_texts(arguments: Namespace) -> tuple["Records", str]:
    """The split's examples, and the feature that holds their text.

    Raises:
      UserError: dataset, split or feature is not there, or there are several texts to choose from.
    """
    from jaxformer.data.config import DataConfig
    from jaxformer.data.text.records import Records
    from jaxformer.verbs.tokenizers import is_text

    config = DataConfig(name=arguments.name, data_dir=arguments.data_dir)
    if list(config.problems()):
        raise UserError(f"{arguments.name}: no dataset can be called that; see `jaxformer data list`")
    records = Records(config, arguments.split)
    known = [name for name, kind in records.features.items() if is_text(kind)]
    if not known:
        raise UserError(f"{records.name}: has no texts")
    if arguments.feature is None and len(known) > 1:
        raise UserError(f"{records.name}: has the texts {', '.join(known)}; choose with --feature NAME")
    feature = known[0] if arguments.feature is None else arguments.feature
    records.check(feature, "--feature", known, "a text")
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
