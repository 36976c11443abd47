"""Evaluating a run's checkpoint on a split."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxformer.verbs.measuring import Measuring


@dataclass(frozen=True, kw_only=True)
class Evaluate(Measuring):
    """Evaluate a run's checkpoint on a split of its dataset."""

    moved: ClassVar[Mapping[str, str]] = {
        "--fewshot": "fewshot RUN TASK.jsonl",
        "--perplexity": "perplexity RUN FILE",
        "--harness": "harness RUN TASK",
    }
    split: str | None = None
    """A TFDS split (default: the config's eval.split)."""
    tta: Literal["flip", "five_crop", "ten_crop"] | None = None
    """Show each image of the split to the model several times, mirrored, in parts, or both, and average the
    probabilities."""

    def measured(self) -> dict[str, Any]:
        """The metrics of a split; those of the config's own are written into the run's folder, with their tables.

        With test-time augmentation nothing is written: the report shows what training saw.
        """
        from jaxformer.evaluation.evaluator import evaluate
        from jaxformer.evaluation.views import many_views
        from jaxformer.files import write_json
        from jaxformer.inference.restore import Trained
        from jaxformer.step import make_eval_step

        trained, tta = Trained(self.run, self.checkpoint, split=self.split), self.tta
        if trained.missing is not None:
            raise trained.missing
        experiment, layout = trained.experiment, trained.experiment.layout
        model: Any = experiment.model if tta is None else many_views(experiment.model, experiment.task, tta)
        eval_step = layout.eval_step(make_eval_step(model, experiment.task, axis=layout.axis))
        found = evaluate(eval_step, trained.variables, experiment.task, experiment.eval_data, layout)
        if self.split is None and tta is None:
            write_json(
                trained.run.evaluation, {"step": trained.step, "metrics": found.metrics, **found.tables}
            )
        views = {} if tta is None else {"tta": tta}
        return {"step": trained.step, "split": experiment.config.eval.split, **views, **found.metrics}
