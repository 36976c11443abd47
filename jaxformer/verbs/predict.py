"""Predictions for a user's own images and texts."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxformer.config.fields import PositiveInt
from jaxformer.errors import UserError
from jaxformer.verbs.common import working
from jaxformer.verbs.explain import EXPLANATIONS, refuse_text
from jaxformer.verbs.options import OfRun, argument, flag

if TYPE_CHECKING:
    from jaxformer.config.sections import ExperimentConfig
    from jaxformer.inference.texts import Given

TEXT_SUFFIXES = {".csv", ".json", ".jsonl", ".tsv", ".txt"}


@dataclass(frozen=True, kw_only=True)
class Predict(OfRun):
    """Print what a run's model says of your images or texts, as JSON lines."""

    inputs: tuple[str, ...] = argument("INPUT", default=())
    """Image files or folders of them. Or files of one text a line (two with a tab between them, or JSON lines of
    question and context, where the model takes that); - is stdin."""
    text: tuple[str, ...] = ()
    """A text; give it again for more."""
    question: tuple[str, ...] = flag((), "TEXT")
    """A question about the text of --context-file; give it again for more."""
    context_file: str | None = flag(None, "FILE")
    """The text that answers --question."""
    output: Path | None = flag(None, "DIR")
    """The folder of annotated images and JSON lines (default: RUN/predictions)."""
    top: PositiveInt = 5
    """How many classes to list."""
    skip_broken: bool = False
    """Leave unreadable images out instead of stopping."""
    explain: Path | bool | None = flag(None, "DIR")
    """Do what `jaxformer explain` does, too (default: explanations, beside the predictions)."""
    class_name: str | None = flag(None, "NAME", "--class")
    """The class that Grad-CAM explains (default: what is predicted)."""

    def problems(self) -> Iterator[str]:
        """Yields what cannot be together."""
        if self.explain is None and self.class_name is not None:
            yield "class_name: chooses what --explain shows; give --explain, too, or leave it out"
        if isinstance(self.explain, Path) and self.explain.is_file():
            yield (
                f"explain={self.explain}: is a file, not a folder; put --explain behind the images, or name a folder"
            )

    @property
    def folder(self) -> Path:
        """The folder of the predictions."""
        return self.output or self.run / "predictions"

    def __call__(self) -> int:
        from jaxformer.runs import Run

        config = Run.open(self.run).read_config()
        with working():
            if config.data.examples.modality == "text":
                self.predict_texts(config)
            else:
                self.predict_images(config)
        return 0

    def predict_images(self, config: "ExperimentConfig") -> None:
        """Classifies image files, or each of their pixels, or finds objects in them; annotated images go to a folder.

        Raises:
          UserError: texts were given; or as of `predict_files`.
        """
        given = {"--text": self.text, "--question": self.question, "--context-file": self.context_file}
        texts = [name for name, value in given.items() if value]
        texts += [path for path in self.inputs if path == "-" or Path(path).suffix.lower() in TEXT_SUFFIXES]
        if texts:
            raise UserError(
                f"{texts[0]}: {self.run} holds a model of images; name image files, or folders of them"
            )
        from jaxformer.inference.explain import Explainer, explain_files
        from jaxformer.inference.loaded import LoadedRun
        from jaxformer.inference.predict import predict_files

        run = LoadedRun(self.run, self.checkpoint)
        explainer = None if self.explain is None else Explainer(run, self.class_name)
        results = predict_files(
            run, self.inputs, self.folder, self.top, skip_broken=self.skip_broken, lines=sys.stdout
        )
        if explainer is not None:
            beside = self.folder / EXPLANATIONS
            folder = self.explain if isinstance(self.explain, Path) else beside
            explain_files(explainer, [Path(result["file"]) for result in results], folder)

    def predict_texts(self, config: "ExperimentConfig") -> None:
        """Predicts texts; the JSON lines go to a folder, too.

        Raises:
          UserError: images were given; or as of `predict`.
        """
        from jaxformer.files import IMAGE_EXTENSIONS, to_json, write_atomically, writing_to
        from jaxformer.inference.loaded import LoadedRun
        from jaxformer.inference.predict import LINES, check_task, predict

        if self.explain is not None:
            refuse_text(self.run)
        for path in map(Path, self.inputs):
            if path.suffix.lower() in IMAGE_EXTENSIONS or path.is_dir():
                raise UserError(
                    f"{path}: {self.run} holds a model of text; give files of one text a line, or --text TEXT"
                )
        if self.skip_broken:
            raise UserError("--skip-broken: is for images; leave it out")
        check_task(config.task)
        given = self.given(config)
        with writing_to(self.folder, "choose another output folder"):
            self.folder.mkdir(parents=True, exist_ok=True)
        run = LoadedRun(self.run, self.checkpoint)
        lines = []
        for prediction in predict(run, given, self.top):
            lines.append(json.dumps(to_json(prediction), ensure_ascii=False, allow_nan=False) + "\n")
            sys.stdout.write(lines[-1])
        with writing_to(self.folder, "choose another output folder"):
            write_atomically(self.folder / LINES, "".join(lines))

    def given(self, config: "ExperimentConfig") -> "Given":
        """The texts or the questions that were given.

        Raises:
          UserError: there is none, or the model takes others.
        """
        from jaxformer.inference.texts import form_of, read_given, read_text

        form, context = form_of(config), self.context_file
        if form != "question" and (self.question or context is not None):
            raise UserError(
                "--question, --context-file: are for runs that answer questions; give --text or files"
            )
        if form == "question" and self.text:
            raise UserError(
                "--text: this run answers questions; ask with --question TEXT --context-file FILE, or give a file "
                "of JSON lines with question and context"
            )
        named: list[tuple[Any, str]] = [(text, f"--text {n}") for n, text in enumerate(self.text, 1)]
        if self.question:
            if context is None:
                raise UserError(
                    "--question: needs the text that answers it; name its file with --context-file"
                )
            answering = read_text(context)
            named = [
                ((question, answering), f"--question {n}") for n, question in enumerate(self.question, 1)
            ]
        elif context is not None:
            raise UserError(f"--context-file {context}: needs a question about it; ask with --question")
        return read_given(form, named, self.inputs)
