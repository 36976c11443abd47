"""Evaluating a language model with lm-evaluation-harness."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxformer.config.fields import NonNegativeInt, PositiveInt
from jaxformer.verbs.common import writing_to
from jaxformer.verbs.measuring import Measuring
from jaxformer.verbs.options import argument, flag

KEPT = ("results", "n-shot", "versions")


@dataclass(frozen=True, kw_only=True)
class Harness(Measuring):
    """Evaluate a run's language model with lm-evaluation-harness."""

    tasks: tuple[str, ...] = argument("TASK")
    """Names of its tasks, or YAML files."""
    shots: NonNegativeInt | None = flag(None, "K")
    """Demonstrations in a prompt (default: the task's own)."""
    seed: int = 1234
    """The seed of the choice of demonstrations; the default is the harness's own."""
    limit: PositiveInt | None = None
    """Use the first N examples of each task alone."""
    output: Path | None = None
    """A file for the examples, a JSON line each."""

    def measured(self) -> dict[str, Any]:
        """What the harness finds."""
        from jaxformer.evaluation.harness import run_harness
        from jaxformer.files import write_atomically

        model, step = self.language_model()
        found = run_harness(model, list(self.tasks), self.shots, self.limit, self.seed)
        if self.output is not None:
            samples = [{"task": task, **sample} for task, rows in found["samples"].items() for sample in rows]
            lines = (json.dumps(sample, ensure_ascii=False, default=str) + "\n" for sample in samples)
            with writing_to(self.output):
                write_atomically(self.output, "".join(lines))
        kept = {name: found[name] for name in KEPT if name in found}
        return {"step": step, **json.loads(json.dumps(kept, default=str))}
