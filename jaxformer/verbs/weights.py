"""Weights for other projects."""

from dataclasses import dataclass
from pathlib import Path

from jaxformer.verbs.common import print_line, working
from jaxformer.verbs.options import OfRun, argument, flag


@dataclass(frozen=True, kw_only=True)
class WeightsExport(OfRun):
    """Write a run's model as a folder that Hugging Face transformers opens by `from_pretrained`."""

    output: Path = argument("OUT")
    """The folder, which is made: config.json, model.safetensors, the tokenizer, a model card."""
    license: str | None = flag(None, "NAME")
    """The license that the model card names, such as apache-2.0."""

    def __call__(self) -> None:
        with working():
            from jaxformer.weights.export import model_card, write_pretrained

            trained = self.load()
            run = trained.run
            write_pretrained(
                trained.model,
                run.config["model"]["name"],
                trained.variables,
                self.output,
                tokenizer=trained.tokenizer if trained.config.data.examples.modality == "text" else None,
                classes=trained.class_names,
                card=model_card(run.name, run.config, run.metrics_at(trained.step), self.license),
            )
        print_line(f"{self.output}: the model of {self.run} at step {trained.step}")
