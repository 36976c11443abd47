"""Predictions for a user's own images and texts."""

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from jaxformer.errors import UserError
from jaxformer.verbs.common import Overrides, use_compilation_cache

if TYPE_CHECKING:
    from jaxformer.config import Experiment

TEXT_SUFFIXES = {".csv", ".json", ".jsonl", ".tsv", ".txt"}
OF_TEXT = ("text", "question", "context_file")  # flags


def predict(arguments: Namespace, overrides: Overrides) -> int:
    """Predicts files, of images or of text as the run's model takes them; prints a JSON line each."""
    from jaxformer.inference.predict import check_top
    from jaxformer.observe.logs import make_console, terminal_logging
    from jaxformer.run import read_experiment

    run, experiment = read_experiment(arguments.run)
    check_top(arguments.top)
    use_compilation_cache()
    with terminal_logging(make_console()):
        if run.tokenizer.exists():
            predict_texts(arguments, experiment)
        else:
            predict_images(arguments)
    return 0


def predict_images(arguments: Namespace) -> None:
    """Classifies image files; annotated pictures go to a folder.

    Raises:
      UserError: texts were given; or as of `predict_files`.
    """
    texts = [f"--{flag.replace('_', '-')}" for flag in OF_TEXT if getattr(arguments, flag)]
    texts += [path for path in arguments.inputs if path == "-" or Path(path).suffix.lower() in TEXT_SUFFIXES]
    if texts:
        raise UserError(
            f"{texts[0]}: {arguments.run} holds a model of images; name image files, or folders of them"
        )
    from jaxformer.inference.predict import predict_files
    from jaxformer.inference.restore import Trained

    trained = Trained(arguments.run, arguments.checkpoint)
    predict_files(
        [Path(path) for path in arguments.inputs],
        trained.probabilities,
        trained.preprocess,
        trained.class_names,
        arguments.output or arguments.run / "predictions",
        top=arguments.top,
        skip_broken=arguments.skip_broken,
        batch_size=trained.batch_size,
        lines=sys.stdout,
    )


def predict_texts(arguments: Namespace, experiment: "Experiment") -> None:
    """Predicts texts; the JSON lines go to a folder, too.

    Raises:
      UserError: images were given; or as of `predict_text`.
    """
    from jaxformer.files import to_json, write_atomically
    from jaxformer.inference import predict_text
    from jaxformer.inference.predict import LINES, SUFFIXES, writing
    from jaxformer.inference.restore import TrainedText

    for path in map(Path, arguments.inputs):
        if path.suffix.lower() in SUFFIXES or path.is_dir():
            raise UserError(
                f"{path}: {arguments.run} holds a model of text; give files of one text a line, or --text TEXT"
            )
    if arguments.skip_broken:
        raise UserError("--skip-broken: is for images; leave it out")
    given = predict_text.read_inputs(
        experiment.task,
        experiment.data.examples,
        arguments.text,
        arguments.inputs,
        arguments.question,
        arguments.context_file,
    )
    output = arguments.output or arguments.run / "predictions"
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    trained = TrainedText(arguments.run, arguments.checkpoint)
    lines = []
    for prediction in predict_text.predict_texts(trained, given, arguments.top):
        lines.append(json.dumps(to_json(prediction), ensure_ascii=False, allow_nan=False) + "\n")
        sys.stdout.write(lines[-1])
    with writing(output):
        write_atomically(output / LINES, "".join(lines))
