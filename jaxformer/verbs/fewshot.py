"""Evaluating a language model on a task in prompts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxformer.config.fields import NonNegativeInt, PositiveInt
from jaxformer.verbs.common import writing_to
from jaxformer.verbs.measuring import Measuring
from jaxformer.verbs.options import argument, flag


@dataclass(frozen=True, kw_only=True)
class Fewshot(Measuring):
    """Evaluate a run's language model on a task in prompts."""

    task: Path = argument("TASK.yaml")
    """The task: a YAML file in lm-evaluation-harness's format, or JSON lines."""
    shots: NonNegativeInt | None = flag(None, "K")
    """Demonstrations in a prompt (default: as many as the task says, or none)."""
    seed: int = 0
    """The seed of the choice of demonstrations."""
    limit: PositiveInt | None = None
    """Use the first N examples alone."""
    output: Path | None = None
    """The file of the examples (default: RUN/fewshot/TASK-K.jsonl)."""

    def measured(self) -> dict[str, Any]:
        """The metrics; the rows go to a file."""
        from jaxformer.evaluation.fewshot import evaluate_fewshot, write_rows
        from jaxformer.evaluation.fewshot_task import read_task

        read_task(self.task)  # what is wrong with it is said before anything is loaded
        model, step = self.language_model()
        found = evaluate_fewshot(model, self.task, self.shots, self.seed, self.limit)
        rows = found.pop("rows")
        name = "".join(c if c.isalnum() or c in "._-" else "_" for c in found["task"])
        output = self.output or self.run / "fewshot" / f"{name}-{found['shots']}.jsonl"
        with writing_to(output):
            write_rows(output, rows)
        return {"step": step, **found, "rows": str(output)}
