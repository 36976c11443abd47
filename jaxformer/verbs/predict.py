"""Predictions for a user's own images and texts, and what a model sees in images."""

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from jaxformer.config.fields import PositiveInt
from jaxformer.errors import UserError
from jaxformer.verbs.common import note_of_prompts, print_json, print_text, working
from jaxformer.verbs.options import How, Named, OfRun, argument, flag

if TYPE_CHECKING:
    from jaxformer.config.sections import ExperimentConfig
    from jaxformer.inference.texts import Given

TEXT_SUFFIXES = {".csv", ".json", ".jsonl", ".tsv", ".txt"}
EXPLANATIONS = "explanations"  # the folder in the run's, or in that of the predictions


@dataclass(frozen=True, kw_only=True)
class Explain(OfRun):
    """Draw what a run's model sees in images: attention, rollout, Grad-CAM, and each word's place."""

    files: tuple[Path, ...] = argument("FILE")
    """Image files, or folders of them."""
    class_name: str | None = flag(None, "NAME", "--class")
    """The class that Grad-CAM explains (default: what is predicted)."""
    prompt: str = flag("", "TEXT")
    """What stands in front of a text about an image, such as a question."""
    output: Path | None = flag(None, "DIR")
    """The folder of the drawings (default: RUN/explanations)."""
    skip_broken: bool = False
    """Leave unreadable images out instead of stopping."""

    def __call__(self) -> None:
        from jaxformer.runs import Run

        if Run.open(self.run).read_config().data.examples.modality == "text":
            refuse_text(self.run)
        with working():
            from jaxformer.inference.inputs import check_places, readable

            folder = self.output or self.run / EXPLANATIONS
            check_places(self.files, folder)
            trained = self.load()
            files = readable(self.files, trained.example, self.skip_broken)
            note_of_prompts(trained.config.data.examples, self.prompt)
            for line in trained.explain(files, folder, class_name=self.class_name, prompt=self.prompt):
                print_json(line)


def refuse_text(run: Path) -> NoReturn:
    """Raises UserError: the run's model is of text."""
    raise UserError(
        f"explain: looks into models of images, and {run} holds a model of text",
        "what such a model attends to is in its run's report.html",
    )


@dataclass(frozen=True, kw_only=True)
class Predict(OfRun):
    """Print what a run's model says of your images or texts, as JSON lines."""

    inputs: tuple[Named, ...] = argument("INPUT", default=())
    """Image files or folders of them. Or texts of several words, and files of one text a line (two with a tab between
    them, or JSON lines of question and context, where the model takes that); - is stdin."""
    text: tuple[str, ...] = ()
    """A text; give it again for more."""
    question: tuple[str, ...] = flag((), "TEXT")
    """A question about the text of --context-file; give it again for more."""
    context_file: Named | None = flag(None, "FILE")
    """The text that answers --question."""
    others: tuple[Path, ...] = flag((), "RUN", "--with")
    """A further run, which answers together with the first; give it again for more."""
    ensemble: How | None = None
    """How several runs answer together: the mean of their probabilities, of their logits, or a vote (default: mean)."""
    output: Path | None = flag(None, "DIR")
    """The folder of annotated images and JSON lines (default: RUN/predictions)."""
    zero_shot: tuple[str, ...] = flag((), "TEXT", several=True)
    """Texts, two or more, of which the one is looked for that tells of an image, where a model compares both (CLIP,
    SigLIP); the images stand behind two hyphens."""
    templates: tuple[str, ...] = flag((), "TEMPLATE", several=True)
    """What each text is filled into, such as "a photo of a {}."; of several the mean counts."""
    features: bool = False
    """Print what the model's head sees of each input, as numbers, in the place of answers; nothing is drawn."""
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
        if self.explain is not None and self.others:
            yield "explain: looks into one model; leave it out, or `others`"
        if self.explain is None and self.class_name is not None:
            yield "class_name: chooses what --explain shows; give --explain, too, or leave it out"
        if self.features and (self.explain is not None or self.class_name is not None):
            yield "features: explains nothing; leave --explain out"
        if self.features and self.others:
            yield "features: are those of one model; leave `others` out"
        if self.templates and not self.zero_shot:
            yield "templates: are what texts are filled into; give `zero_shot`, too, or leave them out"
        if self.zero_shot and (self.others or self.features or self.explain is not None):
            yield "zero_shot: compares by one model; leave `others`, `features` and --explain out"
        if self.zero_shot and (self.text or self.question or self.context_file):
            yield "zero_shot: is followed by all texts; leave `text`, `question` and --context-file out"
        if isinstance(self.explain, Path) and self.explain.is_file():
            yield f"explain={self.explain}: is a file; put --explain behind the images, or name a folder"

    def __call__(self) -> None:
        from jaxformer.runs import Run

        config = Run.open(self.run).read_config()
        folder = self.output or self.run / "predictions"
        with working():
            if self.zero_shot:
                self.compare(folder)
            elif config.model.kind == "two-towers" and self.features:
                self.embed(folder)
            elif config.model.kind == "two-towers":
                raise UserError(
                    f"{self.run}: holds a model that compares images with texts; say with which texts",
                    "give --zero-shot TEXT TEXT, and the images behind two hyphens; or --features",
                )
            elif config.model.kind == "text-pairs":
                remedy = f'its encoder of texts is model.pretrained="{self.run}#text"'
                raise UserError(f"{self.run}: compares texts, and says nothing of one", remedy)
            elif config.data.examples.modality == "text":
                self.predict_texts(config, folder)
            else:
                self.predict_images(folder)

    def compare(self, folder: Path) -> None:
        """Compares images with texts; the JSON lines go to `folder`, too.

        Raises:
          UserError: the model does not, a text cannot be taken, or there are no images.
        """
        from jaxformer.inference.inputs import check_places, readable
        from jaxformer.inference.zero_shot import check_towers, checked_templates, checked_texts, zero_shot

        checked_texts(self.zero_shot)
        checked_templates(self.templates)
        if not self.inputs:
            example = '--zero-shot "a cat" "a dog" -- picture.png'
            raise UserError(f"no images were named; they stand behind two hyphens, as in: {example}")
        check_places(self.inputs, folder)
        one = self.load()
        check_towers(one)
        files = readable(self.inputs, one.example, self.skip_broken)
        self.write(zero_shot(one, files, self.zero_shot, templates=self.templates, top=self.top), folder)

    def embed(self, folder: Path) -> None:
        """Writes the vectors that two towers compare: of images, and of the texts behind --text.

        Raises:
          UserError: there is neither, or one of them cannot be taken.
        """
        if self.question or self.context_file:
            raise UserError(f"--question: {self.run} answers none; give image files, and texts behind --text")
        from jaxformer.inference.inputs import check_places, readable
        from jaxformer.inference.zero_shot import embedded

        if self.inputs or not self.text:
            check_places(self.inputs, folder)
        one = self.load()
        files = readable(self.inputs, one.example, self.skip_broken) if self.inputs else []
        self.write(embedded(one, files, self.text), folder)

    def predict_images(self, folder: Path) -> None:
        """Classifies image files, or each of their pixels, or finds objects in them; annotated images go to `folder`.

        Raises:
          UserError: texts were given; or as of `predict_files`.
        """
        given = {"--text": self.text, "--question": self.question, "--context-file": self.context_file}
        texts = [name for name, value in given.items() if value]
        texts += [path for path in self.inputs if path == "-" or Path(path).suffix.lower() in TEXT_SUFFIXES]
        if texts:
            raise UserError(f"{texts[0]}: {self.run} holds a model of images; name image files, or folders")
        from jaxformer.inference.inputs import check_places, readable

        check_places(self.inputs, folder)
        from jaxformer.inference.explain import Explainer, explain_files
        from jaxformer.inference.predict import featured, predict_files

        if self.features:
            one = self.load()
            self.write(featured(one, readable(self.inputs, one.example, self.skip_broken)), folder)
            return
        run = self.load_all(self.others, self.ensemble)
        explainer = None if self.explain is None else Explainer(run, self.class_name)
        written = predict_files(
            run, self.inputs, folder, self.top, skip_broken=self.skip_broken, lines=sys.stdout
        )
        if explainer is not None:
            explanations = self.explain if isinstance(self.explain, Path) else folder / EXPLANATIONS
            explain_files(explainer, [Path(result["file"]) for result in written], explanations)

    def predict_texts(self, config: "ExperimentConfig", folder: Path) -> None:
        """Predicts texts; the JSON lines go to `folder`, too.

        Raises:
          UserError: images were given; or as of `predict`.
        """
        from jaxformer.inference.predict import check_task, featured, predict
        from jaxformer.reading import IMAGE_EXTENSIONS

        if self.explain is not None:
            refuse_text(self.run)
        itself = "--question" if config.task.reads == "question" else "--text"
        for path in self.inputs:
            if Path(path).suffix.lower() in IMAGE_EXTENSIONS or os.path.isdir(path):
                remedy = f"give files of one text a line, or {itself} TEXT"
                raise UserError(f"{path}: {self.run} holds a model of text; {remedy}")
            if path != "-" and not os.path.exists(path) and not self.is_text(path, config):
                remedy = f"what is no file, but a text itself, stands behind {itself}"
                raise UserError(f"{path!r}: there is no such file; {remedy}")
        if self.skip_broken:
            raise UserError("--skip-broken: is for images; leave it out")
        check_task(config.task)
        given = self.given(config)
        if self.features:
            self.write(featured(self.load(), given), folder)
        else:
            self.write(predict(self.load_all(self.others, self.ensemble), given, self.top), folder)

    def write(self, found: Iterable[dict[str, Any]], folder: Path) -> None:
        """Prints what was found, a line of JSON each; the lines go to `folder`, too."""
        from jaxformer.files import json_line
        from jaxformer.inference.inputs import all_at_once
        from jaxformer.inference.predict import LINES

        with all_at_once(folder, LINES) as (_, written):
            for one in found:
                written.append(one)
                print_text(json_line(one))

    def is_text(self, word: str, config: "ExperimentConfig") -> bool:
        """Whether an input is a text itself: it has several words, and is called neither as a file that is there nor as
        one that could be meant."""
        several = len(word.split()) > 1 and Path(word).suffix.lower() not in TEXT_SUFFIXES
        return several and config.task.reads != "question" and not os.path.exists(word)

    def given(self, config: "ExperimentConfig") -> "Given":
        """The texts or the questions that were given.

        Raises:
          UserError: there is none, or the model takes others.
        """
        from jaxformer.inference.texts import form_of, read_given, read_text

        form, context = form_of(config), self.context_file
        texts = [word for word in self.inputs if self.is_text(word, config)]
        named: list[tuple[Any, str]] = [(text, f"text {n}") for n, text in enumerate(texts, 1)]
        named += [(text, f"--text {n}") for n, text in enumerate(self.text, 1)]
        if form != "question" and (self.question or context is not None):
            remedy = "give --text or a file"
            raise UserError(f"--question, --context-file: are for runs that answer questions; {remedy}")
        if form == "question" and self.text:
            remedy = "ask with --question TEXT --context-file FILE, or give JSON lines with both"
            raise UserError(f"--text: this run answers questions; {remedy}")
        if context is None and self.question:
            raise UserError("--question: needs the text that answers it; name its file with --context-file")
        if context is not None:
            if not self.question:
                raise UserError(f"--context-file {context}: needs a question about it; ask with --question")
            answering = read_text(context)
            named = [((asked, answering), f"--question {n}") for n, asked in enumerate(self.question, 1)]
        return read_given(form, named, [word for word in self.inputs if word not in texts])
