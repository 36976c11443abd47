"""Evaluating a run's checkpoint on a split."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxformer.verbs.measuring import Measuring
from jaxformer.verbs.options import flag


@dataclass(frozen=True, kw_only=True)
class Evaluate(Measuring):
    """Evaluate a run's checkpoint on a split of its dataset."""

    moved: ClassVar[Mapping[str, str]] = {
        "--fewshot": "fewshot RUN TASK.yaml",
        "--perplexity": "perplexity RUN FILE",
        "--harness": "harness RUN TASK",
    }
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
        from jaxformer.inference.loaded import LoadedRun

        loaded = LoadedRun(self.run, self.checkpoint)
        found = loaded.evaluate(self.split, views=self.views)
        if self.split is None and self.views is None:
            written = {"step": loaded.step, "metrics": found.metrics, **found.tables}
            write_json(loaded.run.evaluation_file, written)
        views = {} if self.views is None else {"tta": self.views}
        split = self.split or loaded.config.eval.split
        return {"step": loaded.step, "split": split, **views, **found.metrics}
