"""CLIP in OpenCLIP's form: open_clip_config.json and open_clip_model.safetensors, with openai/CLIP's names."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from jaxformer.errors import UserError
from jaxformer.files import incomplete, put_in_place, write_json
from jaxformer.models.layouts import unrolled
from jaxformer.weights.base import Fields, Pretrained, as_published
from jaxformer.weights.convert import Family, Tensors
from jaxformer.weights.files import read_tensors
from jaxformer.weights.preprocessing import Preprocessing
from jaxformer.weights.towers import OPEN_CLIP
from jaxformer.weights.towers_config import open_clip_config, open_clip_fields

CONFIG, TENSORS = "open_clip_config.json", "open_clip_model.safetensors"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of openai/CLIP
RESIZED = {"shortest": True, "squash": False}  # whether the shorter side is resized, and the middle cut out


class OfOpenClip(Pretrained):
    """A folder of OpenCLIP's; its config is that of `CONFIG`."""

    @property
    def own(self) -> tuple[str, Fields]:
        with as_published(self.folder / CONFIG):
            return "two_towers", open_clip_fields(self.config["model_cfg"])

    @property
    def family(self) -> Family:
        return OPEN_CLIP

    @cached_property
    def tensors(self) -> Tensors:
        return read_tensors(self.folder / TENSORS)

    @property
    def preprocessing(self) -> Preprocessing:
        given: Mapping[str, Any] = self.config.get("preprocess_cfg") or {}
        mode = given.get("resize_mode", "shortest")
        if mode not in RESIZED:
            raise UserError(f"{self.folder / CONFIG}: resize_mode={mode!r}: there is no such transform here")
        with as_published(self.folder / CONFIG):
            side = int(self.model.image_size)
            return Preprocessing(
                (side, side),
                side if RESIZED[mode] else None,
                interpolation=given.get("interpolation", "bicubic"),
                mean=tuple(map(float, given.get("mean", MEAN))),
                std=tuple(map(float, given.get("std", STD))),
            )


def write_open_clip(
    model: Any, variables: Mapping[str, Any], folder: Path, view: Preprocessing | None
) -> None:
    """Writes the folder, all of it or nothing.

    Args:
      model: a linen module of two towers.
      variables: {"params": ...}.
      folder: is made; nothing may be there yet.
      view: what is done to images; None: as openai/CLIP's are.

    Raises:
      UserError: no model of OpenCLIP's computes the same, or there is something at `folder`.
    """
    if folder.exists():
        raise UserError(f"{folder}: is there already; name another folder, or remove it")
    config: dict[str, Any] = {"model_cfg": open_clip_config(model)}
    mean, std = (MEAN, STD) if view is None else (view.mean, view.std)
    mode = "shortest" if view is None or view.shorter_side is not None else "squash"
    config["preprocess_cfg"] = {
        "mean": list(mean * (3 // len(mean))),
        "std": list(std * (3 // len(std))),
        "interpolation": "bicubic" if view is None else view.interpolation,
        "resize_mode": mode,
    }
    model, variables = unrolled(model, variables)
    tensors = OPEN_CLIP.write(variables)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with incomplete(folder) as hidden:
        hidden.mkdir()
        write_json(hidden / CONFIG, config)
        save_file(tensors, hidden / TENSORS, metadata={"format": "pt"})
        (hidden / TENSORS).chmod((hidden / CONFIG).stat().st_mode)
        put_in_place(hidden, folder)
