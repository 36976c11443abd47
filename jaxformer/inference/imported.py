"""A model of another project as a run's folder: what `evaluate`, `predict`, `generate` and the rest take."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxformer.config.files import apply_overrides
from jaxformer.config.sections import resolve
from jaxformer.data.base import NominalBatches
from jaxformer.errors import UserError
from jaxformer.experiment import Experiment
from jaxformer.inference.untrained import write_run
from jaxformer.runs import Run
from jaxformer.weights.base import OF_IMAGES, Pretrained
from jaxformer.weights.pretrained import load_pretrained

LONGEST = 512  # tokens of a text, where a model takes more
SEQUENCES = {"name": "sequences", "features": ["text"]}
# A kind of model, or the head of an encoder of texts -> its task, and the kind of its examples.
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "image": ("classification", {"name": "images"}),
    "detector": ("detection", {"name": "detection"}),
    "segmenter": ("segmentation", {"name": "segmentation"}),
    "two-towers": ("contrastive", {"name": "captions"}),
    "decoder": ("causal_lm", {"name": "documents"}),
    "encoder-decoder": (
        "translation",
        {"name": "pairs", "source_feature": "source", "target_feature": "target"},
    ),
    "mlm": ("masked_lm", {**SEQUENCES, "label_feature": None}),
    "token": ("token_classification", {"name": "tagged"}),
    "span": ("span_qa", {"name": "spans"}),
    **dict.fromkeys(("sequence", "none"), ("text_classification", SEQUENCES)),
}
IMAGENET = 1000  # classes


def import_model(source: str, folder: Path, overrides: Mapping[str, Any] | None = None) -> Run:
    """Writes the folder of a run whose only checkpoint, of step 0, is a published model.

    Args:
      source: as `load_pretrained` takes it.
      folder: the run's folder; nothing may be there yet.
      overrides: leaves of the run's config and their values; those of the model take the place of its own.

    Raises:
      UserError: the source is not there or damaged, no model of ours does the same, or the folder cannot be written.
    """
    run = Run(folder)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty; name another folder")
    changes = {path[6:]: value for path, value in (overrides or {}).items() if path.startswith("model.")}
    found = load_pretrained(source, **{key: value for key, value in changes.items() if "." not in key})
    found.family.matched(found.tensors, found.shapes)  # strictly, before anything is written
    nested = config_of(found)
    apply_overrides(nested, overrides or {})
    config = run.check(resolve(nested))
    experiment = Experiment(config, jax.local_devices()[:1])
    model, shape = experiment.config.model, None
    if config.data.examples.modality == "image":
        shape = (*found.view(found.model.image_size).size, 3)
    spec = config.data.examples.nominal_spec(shape or (0, 0, 3), config.data.transforms)
    sizes = {name: vars(model)[name] for name in model.sizes if vars(model)[name] is not None}
    tokenizer = found.tokenizer if config.data.examples.tokenized else None
    data = NominalBatches(
        1, config.data.batch_size, spec, (), found.class_names or None, tokenizer, sizes=sizes
    )
    experiment = Experiment(config, jax.local_devices()[:1], train_data=data, eval_data=data)
    with run.lock() as run:
        write_run(run, experiment, experiment.init_state())
    return run


def config_of(found: Pretrained) -> dict[str, Any]:
    """The config of the run, nested."""
    name, fields = found.described
    model, kind = found.model, found.model.kind
    task, examples = TASKS[model.head if kind == "encoder" else kind]
    config: dict[str, Any] = {
        "model": {"name": name, **fields, "pretrained": found.source},
        "task": {"name": task},
        "optimizer": {"name": "sgd", "learning_rate": 1e-3},
        "schedule": {"name": "constant"},
        "train": {"total": "1 steps"},
        "eval": {"split": "validation", "monitor": "loss"},
        "data": {"name": "own", "batch_size": 32, "examples": dict(examples)},
    }
    if kind in OF_IMAGES:
        view = found.view(found.model.image_size)
        config["task"] |= view.task
        config["data"] |= {"transforms": view.transforms, "eval_transforms": view.transforms}
        if kind in ("detector", "segmenter"):
            config["data"]["examples"] |= {"size": view.size, "enlarge": False}
        if kind == "image" and model.num_classes == IMAGENET:
            config["data"]["name"] = "imagenet2012"
        if kind != "two-towers":
            return config
        config["task"] |= {} if model.bias is None else {"loss_name": "sigmoid"}
        fields = fields["text"]
    config["data"]["tokenizer"] = found.tokenizer_fields
    if found.tokenizer is None:
        raise UserError(
            f"{found.source}: holds no tokenizer.json, so nobody knows what the model's tokens mean"
        )
    known = [fields[key] for key in ("max_positions", "context_length") if fields.get(key)]
    config["data"]["examples"]["length"] = min(
        [LONGEST, *(n - fields.get("position_offset", 0) for n in known)]
    )
    return config
