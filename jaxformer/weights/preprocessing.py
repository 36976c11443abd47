"""What published models do to an image before they see it, as the configs of transformers and timm say it, and as ours.

Both resize as Pillow does, so the transform is `data/published.py`'s; mean and deviation are fields of our tasks.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxformer.errors import UserError

RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
PROCESSOR = "preprocessor_config.json"
VIEWS = ("published", "center_crop", "resize")  # our transforms that give what a model sees
CONVNEXT_WHOLE = 384  # pixels from which transformers' ConvNeXt sees all of an image


@dataclass(frozen=True)
class Preprocessing:
    """From an image to what a model sees."""

    size: tuple[int, int]
    """Height and width of the image that the model sees, in pixels."""
    shorter_side: int | None = None
    """The shorter side is resized to this, and the middle cut out; None: all of the image is resized to `size`."""
    whole: bool = False
    """Whether nothing is cut out: the longer side is at most that of `size`, and images differ in shape."""
    square: bool = False
    """Whether all of an image becomes a square of `shorter_side` before."""
    corner: str = "rounded"
    """Where the middle lies, "rounded" or "down"; see `data/published.py`."""
    interpolation: str = "bilinear"
    """ "nearest", "bilinear", "bicubic" or "lanczos"."""
    mean: tuple[float, ...] = (0.5,)
    """Subtracted from pixels in 0..1, for all channels or for each."""
    std: tuple[float, ...] = (0.5,)
    """What they are divided by then."""

    @property
    def transforms(self) -> list[dict[str, Any]]:
        """As `data.eval_transforms` of a config."""
        view: dict[str, Any] = {"longest": max(self.size)} if self.whole else {"size": self.size}
        if self.shorter_side is not None:
            view |= {"shorter_side": self.shorter_side, "corner": self.corner, "square": self.square}
        return [{"name": "published", **view, "interpolation": self.interpolation}]

    @property
    def task(self) -> dict[str, Any]:
        """As fields of `task` in a config."""
        return {"mean": self.mean, "std": self.std}


def of_config(
    task: Mapping[str, Any], data: Mapping[str, Any], size: tuple[int, int]
) -> Preprocessing | None:
    """Of the sections of a config of ours.

    Args:
      task: with "mean" and "std"; without them there are no images, and the result is None.
      data: with "eval_transforms", of which the last one counts that says a size.
      size: height and width of the images that the model sees.
    """
    if "mean" not in task:
        return None
    views = [view for view in data.get("eval_transforms", ()) if view["name"] in VIEWS]
    view = views[-1] if views else {}
    return Preprocessing(
        size=size,
        shorter_side=view.get("shorter_side"),
        whole=bool(view) and view.get("size") is None,
        square=view.get("square", False),
        corner=view.get("corner", "down"),
        interpolation=view.get("interpolation", "bilinear"),
        mean=tuple(task["mean"]),
        std=tuple(task["std"]),
    )


def from_transformers(config: Mapping[str, Any], kind: str = "") -> Preprocessing:
    """Of a preprocessor_config.json.

    Args:
      config: the file, parsed.
      kind: the "model_type" of the model that it belongs to.

    Raises:
      UserError: it does something that our transforms do not.
    """
    if config.get("do_flip_channel_order"):
        raise UserError(f"{PROCESSOR}: do_flip_channel_order=True: there is no such transform here")
    size = config.get("size", 224)
    if kind == "clip" and not isinstance(
        size, Mapping
    ):  # of CLIP's first processor, whose files say a number
        size = {"shortest_edge": size}
    shorter = size.get("shortest_edge") if isinstance(size, Mapping) else None
    crop = sides(config.get("crop_size", shorter or size)) if config.get("do_center_crop") else None
    if kind == "convnext":
        side = shorter or sides(size)[0]
        shorter, crop = (
            None if side >= CONVNEXT_WHOLE else int(side / config.get("crop_pct", 224 / 256)),
            (side, side),
        )
    square = crop is not None and shorter is None and bool(config.get("do_resize", True))
    square = square and kind != "convnext" and sides(size) != crop
    if square:
        shorter = sides(size)[0]
    whole = crop is None and shorter is not None
    if whole:
        crop = (int(size.get("longest_edge", 1333)),) * 2
    scale = 255 * config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 255.0
    normalized = config.get("do_normalize", True)
    mean = config.get("image_mean", (0.5,)) if normalized else (0.0,)
    std = config.get("image_std", (0.5,)) if normalized else (1.0,)
    return Preprocessing(
        size=crop or sides(size),
        shorter_side=shorter if config.get("do_resize", True) else None,
        whole=whole,
        square=square,
        corner="down",
        interpolation=RESAMPLING.get(config.get("resample", 2), "bilinear"),
        mean=tuple(float(x) / scale for x in mean),
        std=tuple(float(x) / scale for x in std),
    )


def sides(size: Any) -> tuple[int, int]:
    """Height and width of a size of transformers'."""
    if isinstance(size, Mapping):
        return int(size["height"]), int(size["width"])
    return (int(size), int(size)) if isinstance(size, (int, float)) else (int(size[0]), int(size[1]))


def to_transformers(found: Preprocessing, kind: str) -> dict[str, Any]:
    """The preprocessor_config.json that does the same."""
    height, width = found.size
    numbers = {name: number for number, name in RESAMPLING.items()}
    whole = {"height": height, "width": width}
    config: dict[str, Any] = {
        "image_processor_type": "ViTImageProcessor" if found.shorter_side is None else "BitImageProcessor",
        "do_resize": True,
        "size": whole if found.shorter_side is None else {"shortest_edge": found.shorter_side},
        "do_center_crop": found.shorter_side is not None,
        "resample": numbers[found.interpolation],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(found.mean * (3 // len(found.mean))),
        "image_std": list(found.std * (3 // len(found.std))),
    }
    if found.square:
        config["size"] = {"height": found.shorter_side, "width": found.shorter_side}
    return config if found.shorter_side is None else {**config, "crop_size": whole}


def from_timm(config: Mapping[str, Any]) -> Preprocessing:
    """Of "pretrained_cfg" in a config.json of timm's.

    Raises:
      UserError: it does something that our transforms do not.
    """
    _, height, width = config.get("input_size", (3, 224, 224))
    mode, share = config.get("crop_mode", "center"), config.get("crop_pct") or 0.875
    if mode not in ("center", "squash") or (mode == "squash" and share != 1):
        raise UserError(f"crop_mode={mode!r} with crop_pct={share}: there is no such transform here")
    return Preprocessing(
        size=(height, width),
        shorter_side=None if mode == "squash" else math.floor(min(height, width) / share),
        interpolation=config.get("interpolation") or "bilinear",
        mean=tuple(config.get("mean", (0.485, 0.456, 0.406))),
        std=tuple(config.get("std", (0.229, 0.224, 0.225))),
    )
