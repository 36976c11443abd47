"""What a model sees in images."""

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from jaxformer.errors import UserError
from jaxformer.verbs.common import print_json, working
from jaxformer.verbs.options import OfRun, argument, flag

EXPLANATIONS = "explanations"  # the folder in the run's, or in that of the predictions


@dataclass(frozen=True, kw_only=True)
class Explain(OfRun):
    """Draw what a run's model sees in images: attention, rollout, Grad-CAM."""

    files: tuple[Path, ...] = argument("FILE")
    """Image files, or folders of them."""
    class_name: str | None = flag(None, "NAME", "--class")
    """The class that Grad-CAM explains (default: what is predicted)."""
    output: Path | None = flag(None, "DIR")
    """The folder of the drawings (default: RUN/explanations)."""
    skip_broken: bool = False
    """Leave unreadable images out instead of stopping."""

    def __call__(self) -> int:
        from jaxformer.runs import Run

        config = Run.open(self.run).read_config()
        if config.data.examples.modality == "text":
            refuse_text(self.run)
        with working():
            from jaxformer.inference.explain import Explainer, explain_files
            from jaxformer.inference.inputs import find_images, readable
            from jaxformer.inference.loaded import LoadedRun

            trained = LoadedRun(self.run, self.checkpoint)
            explainer = Explainer(trained, self.class_name)
            files = readable(find_images(self.files), trained.example, self.skip_broken)
            for line in explain_files(explainer, files, self.output or self.run / EXPLANATIONS):
                print_json(line)
        return 0


def refuse_text(run: Path) -> NoReturn:
    """Raises UserError: the run's model is of text."""
    raise UserError(
        f"explain: looks into models of images, and {run} holds a model of text",
        "what such a model attends to is in its run's report.html",
    )
