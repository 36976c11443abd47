"""Predictions for a user's own images and texts."""

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxformer.errors import UserError
from jaxformer.verbs.common import Overrides, use_compilation_cache

if TYPE_CHECKING:
    from jaxformer.config.sections import ExperimentConfig
    from jaxformer.inference.restore import Trained

TEXT_SUFFIXES = {".csv", ".json", ".jsonl", ".tsv", ".txt"}
OF_TEXT = ("text", "question", "context_file")  # flags
EXPLANATIONS = "explanations"  # the folder of --explain without one, in that of the predictions


def predict(arguments: Namespace, overrides: Overrides) -> int:
    """Predicts files, of images or of text as the run's model takes them; prints a JSON line each."""
    from jaxformer.inference.predict import check_top
    from jaxformer.observe.logs import make_console, terminal_logging
    from jaxformer.run import read_experiment

    _, experiment = read_experiment(arguments.run)
    check_top(arguments.top)
    check_explain(arguments, experiment)
    use_compilation_cache()
    with terminal_logging(make_console()):
        if experiment.data.examples.text:
            predict_texts(arguments, experiment)
        else:
            predict_images(arguments)
    return 0


def predict_images(arguments: Namespace) -> None:
    """Classifies image files, or each of their pixels, or finds objects in them; annotated pictures go to a folder.

    Raises:
      UserError: texts were given; or as of `predict_files`.
    """
    texts = [f"--{flag.replace('_', '-')}" for flag in OF_TEXT if getattr(arguments, flag)]
    texts += [path for path in arguments.inputs if path == "-" or Path(path).suffix.lower() in TEXT_SUFFIXES]
    if texts:
        raise UserError(
            f"{texts[0]}: {arguments.run} holds a model of images; name image files, or folders of them"
        )
    from jaxformer.data.examples import Detection, Segmentation
    from jaxformer.inference.detect import detect_files
    from jaxformer.inference.predict import predict_files
    from jaxformer.inference.restore import Trained
    from jaxformer.inference.segment import segment_files

    trained = Trained(arguments.run, arguments.checkpoint)
    explain = make_explain(arguments, trained)
    answers = {Segmentation: segment_files, Detection: detect_files}
    answer = answers.get(type(trained.experiment.config.data.examples))
    if answer is not None:
        results = answer(
            trained,
            [Path(path) for path in arguments.inputs],
            arguments.output or arguments.run / "predictions",
            skip_broken=arguments.skip_broken,
            lines=sys.stdout,
        )
        explain([Path(result["file"]) for result in results])
        return
    results = predict_files(
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
    explain([Path(result["file"]) for result in results])


def check_explain(arguments: Namespace, experiment: "ExperimentConfig") -> None:
    """Refuses what cannot be explained, as far as the config says it.

    Raises:
      UserError: the model is of text, --explain was given a picture, or --class alone.
    """
    if arguments.explain is None:
        if arguments.class_name is not None:
            raise UserError("--class: chooses what --explain shows; give --explain, too, or leave it out")
        return
    if experiment.data.examples.text:
        raise UserError(
            f"--explain: looks into models of images, and {arguments.run} holds a model of text; leave it out",
            "what such a model attends to is in its run's report.html",
        )
    if arguments.explain is not True and arguments.explain.is_file():
        raise UserError(
            f"--explain {arguments.explain}: is a file, not a folder; put --explain behind the images, or name a folder"
        )


def make_explain(arguments: Namespace, trained: "Trained") -> Callable[[Sequence[Path]], object]:
    """A function that writes what the model saw in pictures, if --explain is given.

    Raises:
      UserError: nothing of the model can be shown, or it has no class of this name.
    """
    if arguments.explain is None:
        return lambda paths: None
    from jaxformer.inference.explain import Explainer, explain_files

    explainer = Explainer(trained, arguments.class_name)
    beside = (arguments.output or arguments.run / "predictions") / EXPLANATIONS
    folder = beside if arguments.explain is True else arguments.explain
    return lambda paths: explain_files(explainer, paths, folder)


def predict_texts(arguments: Namespace, experiment: "ExperimentConfig") -> None:
    """Predicts texts; the JSON lines go to a folder, too.

    Raises:
      UserError: images were given; or as of `predict_text`.
    """
    from jaxformer.files import IMAGE_EXTENSIONS, to_json, write_atomically
    from jaxformer.inference import predict_text
    from jaxformer.inference.predict import LINES, writing
    from jaxformer.inference.restore import TrainedText

    for path in map(Path, arguments.inputs):
        if path.suffix.lower() in IMAGE_EXTENSIONS or path.is_dir():
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
