"""Measuring a run: on a split of its dataset, on a task in prompts, on a text file, by lm-evaluation-harness."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from jaxformer.config.fields import NonNegativeInt, PositiveInt
from jaxformer.errors import UserError
from jaxformer.verbs.common import OTHER_OUTPUT, print_json, working
from jaxformer.verbs.options import How, Named, OfRun, argument, flag

KEPT = ("results", "n-shot", "versions")  # of what the harness finds


@dataclass(frozen=True, kw_only=True)
class Measuring(OfRun):
    """A verb that prints what it measures as a line of JSON."""

    def __call__(self) -> None:
        with working():
            print_json(self.measured())

    def measured(self) -> dict[str, Any]:
        """What is printed."""
        raise NotImplementedError

    def language_model(self) -> tuple[Any, int]:
        """What writes texts with the run's language model, and the step of its checkpoint.

        Raises:
          UserError: the run's model is another one.
        """

        loaded = self.load()
        if loaded.model.kind != "decoder":
            raise UserError(
                f"{self.run}: holds a model ({type(loaded.model).__name__}) that does not go from token to token",
                f"this is for language models; `jaxformer evaluate {self.run}` evaluates it on a split",
            )
        return loaded.writer, loaded.step


@dataclass(frozen=True, kw_only=True)
class Evaluate(Measuring):
    """Evaluate a run's checkpoint on a split of its dataset, or several runs' that answer together."""

    moved: ClassVar[Mapping[str, str]] = {
        "--fewshot": "fewshot RUN TASK.yaml",
        "--perplexity": "perplexity RUN FILE",
        "--harness": "harness RUN TASK",
    }
    others: tuple[Path, ...] = argument("RUN", default=())
    """Further runs, which answer together with the first."""
    ensemble: How | None = None
    """How several runs answer together: the mean of their probabilities, of their logits, or a vote (default: mean)."""
    split: str | None = None
    """A TFDS split (default: the config's eval.split)."""
    views: Literal["flip", "five_crop", "ten_crop"] | None = flag(None, "", "--tta")
    """Show each image of the split to the model several times, mirrored, in parts, or both, and average the
    probabilities."""

    def measured(self) -> dict[str, Any]:
        """The metrics of a split; those of the config's own are written into the run's folder, with their tables.

        With test-time augmentation nothing is written: the report shows what training saw.
        """
        from jaxformer.files import write_json

        loaded = self.load_all(self.others, self.ensemble)
        found = loaded.evaluate(self.split, views=self.views)
        if self.split is None and self.views is None and not self.others:
            written = {"step": loaded.step, "metrics": found.metrics, **found.tables}
            write_json(loaded.run.evaluation_file, written)
        views = {} if self.views is None else {"tta": self.views}
        split = self.split or loaded.config.eval.split
        together = {"runs": 1 + len(self.others), "ensemble": self.ensemble or "mean"} if self.others else {}
        return {"step": loaded.step, "split": split, **together, **views, **found.metrics}


@dataclass(frozen=True, kw_only=True)
class Fewshot(Measuring):
    """Evaluate a run's language model on a task in prompts."""

    task: Path = argument("TASK.yaml")
    """The task: a YAML file in lm-evaluation-harness's format, or JSON lines."""
    shots: NonNegativeInt | None = flag(None, "K")
    """Demonstrations in a prompt (default: as many as the task says, or none)."""
    seed: NonNegativeInt = 0
    """The seed of the choice of demonstrations."""
    limit: PositiveInt | None = None
    """Use the first N examples alone."""
    output: Path | None = None
    """The file of the examples (default: RUN/fewshot/TASK-K.jsonl)."""

    def measured(self) -> dict[str, Any]:
        """The metrics; the rows go to a file."""
        from jaxformer.evaluation.fewshot import evaluate_fewshot, write_rows
        from jaxformer.evaluation.fewshot_task import read_task
        from jaxformer.files import writing_to

        read_task(self.task)  # what is wrong with it is said before anything is loaded
        model, step = self.language_model()
        found = evaluate_fewshot(model, self.task, self.shots, self.seed, self.limit)
        rows = found.pop("rows")
        name = "".join(c if c.isalnum() or c in "._-" else "_" for c in found["task"])
        output = self.output or self.run / "fewshot" / f"{name}-{found['shots']}.jsonl"
        with writing_to(output, OTHER_OUTPUT):
            write_rows(output, rows)
        return {"step": step, **found, "rows": str(output)}


@dataclass(frozen=True, kw_only=True)
class Perplexity(Measuring):
    """Measure the perplexity and the bits per byte of a text file under a run's language model."""

    file: Named = argument("FILE")
    """A text file."""
    stride: PositiveInt | None = None
    """Tokens from one window to the next (default: half of what the model sees)."""

    def measured(self) -> dict[str, Any]:
        """Perplexity and bits per byte.

        Raises:
          UserError: the file is empty, or has a character that is no token; or as of `perplexity`.
        """
        from jaxformer.evaluation.likelihood import encode, perplexity
        from jaxformer.inference.texts import read_text

        text = read_text(self.file)
        if not text:
            raise UserError(f"{self.file}: is empty; name a file with text in it")
        model, step = self.language_model()
        tokens = encode(model.tokenizer, text, self.file)
        found = perplexity(model, tokens, self.stride, len(text.encode()))
        return {"step": step, "file": self.file, **found}


@dataclass(frozen=True, kw_only=True)
class Harness(Measuring):
    """Evaluate a run's language model with lm-evaluation-harness."""

    tasks: tuple[str, ...] = argument("TASK")
    """Names of its tasks, or YAML files."""
    shots: NonNegativeInt | None = flag(None, "K")
    """Demonstrations in a prompt (default: the task's own)."""
    seed: NonNegativeInt = 1234
    """The seed of the choice of demonstrations; the default is the harness's own."""
    limit: PositiveInt | None = None
    """Use the first N examples of each task alone."""
    output: Path | None = None
    """A file for the examples, a JSON line each."""

    def measured(self) -> dict[str, Any]:
        """What the harness finds."""
        from jaxformer.evaluation.harness import run_harness
        from jaxformer.files import json_line, write_atomically, writing_to

        model, step = self.language_model()
        found = run_harness(model, list(self.tasks), self.shots, self.limit, self.seed)
        if self.output is not None:
            samples = [{"task": task, **sample} for task, rows in found["samples"].items() for sample in rows]
            lines = (json_line(json.loads(json.dumps(sample, default=str))) for sample in samples)
            with writing_to(self.output, OTHER_OUTPUT):
                write_atomically(self.output, "".join(lines))
        kept = {name: found[name] for name in KEPT if name in found}
        return {"step": step, **json.loads(json.dumps(kept, default=str))}
