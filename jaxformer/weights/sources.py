"""The forms that models are published in: each says which model it is and how its tensors are read.

Adding a form is a class here and a line in `pretrained.opened`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from jaxformer.checkpoints import Checkpoints
from jaxformer.config.schema import build
from jaxformer.config.upgrades import upgraded
from jaxformer.errors import UserError
from jaxformer.models.layouts import unstack_layers
from jaxformer.reading import as_written, read_json
from jaxformer.tasks import TASKS
from jaxformer.weights import preprocessing
from jaxformer.weights.base import SIDE, Fields, Pretrained, as_published
from jaxformer.weights.convert import Family, Tensors, unread
from jaxformer.weights.files import read_tensors
from jaxformer.weights.onnx import onnx_tensors
from jaxformer.weights.open_clip import OfOpenClip
from jaxformer.weights.preprocessing import PROCESSOR, Preprocessing
from jaxformer.weights.recognised import Recognised, recognise
from jaxformer.weights.rows import Row
from jaxformer.weights.timm_config import timm_model_of
from jaxformer.weights.transformers_config import family_of, model_of

BRING_BACK = "copy it from a backup, or train again in a new folder"
TASK = "jaxformer.tasks.base:Task"  # the contract
BEGINS_AS = ("name", "pretrained")  # of a run's model, what is not a field of the model that it gives


class OfTransformers(Pretrained):
    """A folder of Hugging Face transformers: config.json, model.safetensors or its index and parts."""

    @property
    def own(self) -> tuple[str, Fields]:
        with as_published(self.folder / "config.json"):
            name, fields = model_of(self.config)
        if name == "two_towers" and "padding" in fields and (pad := self.padding) is not None:
            fields["padding"] = pad
        return name, fields

    @property
    def padding(self) -> int | None:
        """The token that its tokenizer fills texts up with, by tokenizer_config.json; None where it says nothing."""
        said = (read_json(self.folder / "tokenizer_config.json", needs={}) or {}).get("pad_token")
        token = said.get("content") if isinstance(said, Mapping) else said
        return None if token is None or self.tokenizer is None else self.tokenizer.hf.token_to_id(str(token))

    @property
    def tokenizer_fields(self) -> Fields | None:
        spiece = self.folder / "spiece.model"
        if super().tokenizer_fields is None and self.config["model_type"] == "siglip" and spiece.exists():
            return {"name": "file", "path": str(spiece), "template": "t5", "canonical": True}
        return super().tokenizer_fields

    @property
    def family(self) -> Family:
        return family_of(self.config)

    @cached_property
    def tensors(self) -> Tensors:
        return read_tensors(self.folder)

    @property
    def preprocessing(self) -> Preprocessing | None:
        found = read_json(self.folder / PROCESSOR, needs={})
        with as_published(self.folder / PROCESSOR):
            return (
                None if found is None else preprocessing.from_transformers(found, self.config["model_type"])
            )

    @property
    def class_names(self) -> list[str]:
        names = self.config.get("id2label") or {}
        return [str(names[key]) for key in sorted(names, key=int)]


class OfTimm(Pretrained):
    """A folder as timm has them on the Hub: config.json with "architecture", and model.safetensors."""

    @property
    def own(self) -> tuple[str, Fields]:
        with as_published(self.folder / "config.json"):
            return timm_model_of(self.config)[1:]

    @property
    def family(self) -> Family:
        return timm_model_of(self.config)[0]

    @cached_property
    def tensors(self) -> Tensors:
        return read_tensors(self.folder)

    @property
    def preprocessing(self) -> Preprocessing | None:
        found = self.config.get("pretrained_cfg")
        with as_published(self.folder / "config.json"):
            return found and preprocessing.from_timm(found)

    @property
    def class_names(self) -> list[str]:
        names = self.config.get("label_names") or []
        return [str(names[key]) for key in sorted(names, key=int)] if isinstance(names, Mapping) else [*names]


class OfFile(Pretrained):
    """A file of tensors alone, `.npz`, `.safetensors` or `.onnx`: names and shapes tell which model it is."""

    @cached_property
    def recognised(self) -> Recognised:
        """Which model it is."""
        return recognise(self.source, self.tensors)

    @property
    def own(self) -> tuple[str, Fields]:
        return self.recognised.name, self.recognised.fields

    @property
    def family(self) -> Family:
        return self.recognised.family

    @cached_property
    def tensors(self) -> Tensors:
        return onnx_tensors(self.folder) if self.folder.suffix == ".onnx" else read_tensors(self.folder)

    @property
    def preprocessing(self) -> Preprocessing | None:
        side = self.model.image_size or SIDE
        return Preprocessing((side, side), shorter_side=round(side / 0.875), **self.recognised.pixels)


class OfRun(Pretrained):
    """The folder of a run of ours: what its best checkpoint holds."""

    @cached_property
    def run(self) -> dict[str, Any]:
        """The run's config, as this version names its fields."""
        with as_written(self.folder / "config.json", BRING_BACK):
            return upgraded(self.config["config"])

    @cached_property
    def data(self) -> dict[str, Any]:
        """What data.json says of the examples that it was trained on."""
        needs = {"train": dict}
        return (read_json(self.folder / "data.json", needs, BRING_BACK) or {"train": {}})["train"]

    @property
    def own(self) -> tuple[str, Fields]:
        sizes = self.data.get("sizes", {})

        def filled(key: str, value: Any) -> Any:
            if isinstance(value, Mapping):
                return {inner: filled(inner, each) for inner, each in value.items()}
            return sizes.get(key) if value is None else value

        model = filled("model", self.run["model"])
        return model["name"], {key: value for key, value in model.items() if key not in BEGINS_AS}

    @property
    def family(self) -> Family:
        return Family(tuple(Row(name, name, style="flax") for name in self.tensors))

    @cached_property
    def tensors(self) -> Tensors:
        """The variables of the best checkpoint (the latest where none was evaluated), averaged where a run averages.

        Raises:
          UserError: there is none, or it is damaged.
        """
        monitor = self.run["eval"]["monitor"]
        mode = build(TASKS, self.run["task"], "task", TASK).direction(monitor)
        with Checkpoints(self.folder / "checkpoints", monitor=monitor, mode=mode, read_only=True) as saved:
            found = saved.parameters()
        if found is None:
            raise UserError(f"{self.source}: is a run that has no checkpoint yet; train it first")
        held = unflatten_dict(found[1], sep="/")
        params = unstack_layers(held.get("average", held["params"]))
        others = held.get("model_state", {}).values()
        return {
            path: leaf for tree in (params, *others) for path, leaf in flatten_dict(tree, sep="/").items()
        }

    @property
    def preprocessing(self) -> Preprocessing | None:
        image = self.data.get("arrays", {}).get("image")
        if image is None:
            return None
        height, width = image[0][:2]
        return preprocessing.of_config(self.run["task"], self.run["data"], (height, width))

    @property
    def class_names(self) -> list[str]:
        return list(self.data.get("class_names") or [])


def form_of(config: Mapping[str, Any]) -> type[Pretrained]:
    """The form of a folder with this config.json, or this open_clip_config.json."""
    if "model_cfg" in config:
        return OfOpenClip
    if isinstance(config.get("config"), Mapping) and "model" in config["config"]:
        return OfRun
    return OfTimm if "architecture" in config and "model_type" not in config else OfTransformers


@dataclass(frozen=True)
class OfTower(Pretrained):
    """A model within a model, as one of its own: one of two towers, or a backbone."""

    whole: Pretrained
    """The model."""
    part: str
    """The field that holds it: "image", "text" or "backbone"."""

    @property
    def own(self) -> tuple[str, Fields]:
        name, fields = self.whole.described
        if self.part not in fields:
            raise UserError(f"{self.source}: the model ({name}) has no such part; leave #{self.part} out")
        tower = dict(fields[self.part])
        return tower.pop("name"), tower

    @property
    def family(self) -> Family:
        whole, ours = self.whole.family, f"{self.part}/"
        rows = tuple(row for row in whole.rows if row.ours.startswith(ours))
        return replace(
            whole, rows=tuple(replace(row, ours=row.ours.removeprefix(ours)) for row in rows), extras={}
        )

    @cached_property
    def tensors(self) -> Tensors:
        rows = self.family.rows
        own = unread(rows, self.whole.tensors, [row.ours for row in rows])
        return {name: tensor for name, tensor in self.whole.tensors.items() if name in own}

    @property
    def preprocessing(self) -> Preprocessing | None:
        return None if self.part == "text" else self.whole.preprocessing

    @property
    def tokenizer_fields(self) -> Fields | None:
        return self.whole.tokenizer_fields if self.part == "text" else None
