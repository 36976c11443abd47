"""Weights for other projects."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxformer.config.fields import PositiveInt
from jaxformer.verbs.common import print_json, print_line, working
from jaxformer.verbs.options import OfRun, Verb, argument, flag


@dataclass(frozen=True, kw_only=True)
class WeightsImport(Verb):
    """Write a published model as a run, which evaluate, predict, generate and the other verbs take."""

    source: str = argument("SOURCE")
    """A folder of transformers or timm, hf:OWNER/NAME, timm/NAME, a .npz or an .onnx file."""
    workdir: Path = flag(metavar="DIR")
    """The run's folder, which is made."""
    overrides: Mapping[str, Any] | None = None
    """Leaves of the run's config and their values, such as the dataset that it is evaluated on."""

    def __call__(self) -> None:
        with working():
            from jaxformer.inference.imported import import_model

            run = import_model(self.source, self.workdir, self.overrides)
        print_line(f"{run.folder}: {self.source} as a run at step 0")


@dataclass(frozen=True, kw_only=True)
class WeightsExport(OfRun):
    """Write a run's model as a folder that Hugging Face transformers opens by `from_pretrained`; or what its
    adapter has learnt, which peft opens."""

    output: Path = argument("OUT")
    """The folder, which is made: config.json, model.safetensors, the tokenizer, a model card."""
    license: str | None = flag(None, "NAME")
    """The license that the model card names, such as apache-2.0."""
    adapter: bool = False
    """Write what LoRA, DoRA, a prompt or prefixes have learnt, and the heads, as a folder that peft opens."""

    def problems(self) -> Iterator[str]:
        """Yields what cannot be together."""
        if self.adapter and self.license is not None:
            yield f"license={self.license}: is for the card of a whole model; leave it out, or `adapter`"

    def __call__(self) -> None:
        with working():
            from jaxformer.weights.export import model_card, write_pretrained
            from jaxformer.weights.preprocessing import of_config

            trained = self.load()
            if self.adapter:
                self.write_adapter(trained)
                return
            run, image = trained.run, trained.experiment.eval_data.element_spec.get("image")
            size = (image[0][0], image[0][1]) if image else (0, 0)
            write_pretrained(
                trained.model,
                run.config["model"]["name"],
                trained.variables,
                self.output,
                tokenizer=trained.tokenizer if trained.config.data.examples.tokenized else None,
                classes=trained.class_names,
                card=model_card(run.name, run.config, run.metrics_at(trained.step), self.license),
                preprocessing=of_config(run.config["task"], run.config["data"], size),
            )
        print_line(f"{self.output}: the model of {self.run} at step {trained.step}")

    def write_adapter(self, trained: Any) -> None:
        """Writes the folder for peft."""
        from jaxformer.errors import UserError
        from jaxformer.inference.peft import EXPORTED, write_adapter

        config = trained.config
        known = isinstance(config.adapter, EXPORTED)
        if not known or config.model.pretrained is None:
            lacks = "model.pretrained" if known else 'an adapter "lora", "dora", "prompt" or "prefix"'
            remedy = "export its model as a whole, without `adapter`"
            raise UserError(f"{self.run}: was trained without {lacks}; {remedy}")
        name = trained.run.config["model"]["name"]
        params, base = trained.variables["params"], config.model.pretrained
        beside = (config.adapter, config.optimizer, base.removeprefix("hf:"), self.output)
        write_adapter(trained.model, name, params, trained.low_rank, *beside)
        print_line(f"{self.output}: the changes of {base} by {self.run} at step {trained.step}")


@dataclass(frozen=True, kw_only=True)
class WeightsSoup(Verb):
    """Write the mean of several runs' parameters as a run (a model soup), or that of the last checkpoints of one."""

    runs: tuple[Path, ...] = argument("RUN")
    """Runs with the same model; of each the best checkpoint."""
    workdir: Path = flag(metavar="DIR")
    """The folder of the soup, which is made."""
    last: PositiveInt | None = None
    """Take the last N checkpoints of each run."""
    greedy: bool = False
    """Go from the best to the worst, and keep each with which the mean is no worse than before."""
    split: str | None = None
    """The split on which --greedy measures (default: the config's eval.split)."""

    def problems(self) -> Iterator[str]:
        """Yields what cannot be together."""
        if self.split is not None and not self.greedy:
            yield f"split={self.split}: is what `greedy` measures on; give that, too, or leave it out"

    def __call__(self) -> None:
        with working():
            from jaxformer.inference.soup import make_soup

            made = make_soup(self.runs, self.workdir, last=self.last, greedy=self.greedy, split=self.split)
        print_json(made)
