"""The tiny form of a config: everything that decides how it is built stays, everything that takes time is small."""

from collections.abc import Callable, Mapping
from functools import partial
from math import gcd
from typing import Any

from jaxformer.config.fields import largest_divisor
from jaxformer.config.schema import to_dict
from jaxformer.config.sections import ExperimentConfig, resolve
from jaxformer.errors import ConfigError

SIDE, LENGTH, PROMPT, LAYERS, BATCH = 32, 32, 4, 4, 16
STEPS = 20
STAGE, FIRST_STAGE = 2, 8  # layers in a stage, and the width of the first, which grows from stage to stage
# Sizes of models by the fields' names; a field of one value for each stage gets the size in each.
SIZES = {
    "width": 16,
    "widths": 16,
    "stem_width": 8,
    "stem_widths": 8,
    "channels": 8,
    "num_heads": 2,
    "num_kv_heads": 1,
    "head_dim": 8,
    "mlp_dim": 32,
    "token_mlp_dim": 16,
    "channel_mlp_dim": 32,
    "representation": 16,
    "embedding": 16,  # of pictures and texts
    "groups": 8,
    "count": 4,  # of experts
    "prompt": PROMPT,
}
DEPTHS = ("depth", "encoder_depth", "decoder_depth")
SIZING = ("size", "shorter_side")


def tiny(config: ExperimentConfig, *, layers: int = LAYERS, side: int = SIDE) -> ExperimentConfig:
    """The tiny form of a config: narrow, shallow, on small images or short texts, in small batches and few steps.

    Masks, tasks, the optimizer and its rules by path, the form of the schedule, augmentation, precision and the dataset
    stay what they are. The devices are those that are there. A model of a user's own becomes tiny as far as it has
    fields of the same names, and stays as it is where it refuses that.

    Args:
      config: a resolved config.
      layers: how many layers a tower or a stage has at most.
      side: height and width of images that the config resizes; others keep their size.
    """
    written = to_dict(config)
    data, model = written["data"], written["model"]
    resized = shrink_data(data, side)
    own, before = ":" in model["name"], to_dict(config.model)
    shrink_model(model, layers, side if resized else None)
    written["train"] |= {"total": f"{STEPS} steps", "log_every": "1 step"}
    written["train"]["accumulate"] = min(written["train"]["accumulate"], 2)
    written["eval"]["every"] = f"{STEPS // 2} steps"
    written["checkpoint"] |= {"every": f"{STEPS // 2} steps", "every_minutes": None}
    written["schedule"] = {name: in_shares(value) for name, value in written["schedule"].items()}
    if (written["adapter"] or {}).get("name") == "prompt":
        written["adapter"]["length"] = min(written["adapter"]["length"], PROMPT)
    del written["parallel"]["mesh"]
    try:
        return resolve(written)
    except ConfigError:
        if not own:
            raise
        return resolve(written | {"model": {"name": model["name"], **before}})


def shrink_model(model: dict[str, Any], layers: int, side: int | None) -> None:
    """Makes the dict of a model tiny, in place, with the models and the parts in its fields.

    Args:
      side: of its images, where they are resized; None: as before.
    """
    for name, value in model.items():
        if name == "rotary" or value is None:
            continue
        if isinstance(value, dict):
            shrink_model(value, layers, side)
        elif name in DEPTHS:
            model[name] = each(value, partial(min, layers))
        elif name == "stage_sizes":
            model[name] = each(value, partial(min, layers, STAGE))
        elif name == "blocks" and all(isinstance(block, int) for block in value):
            last = min(layers, STAGE) - 1  # of a stage
            model[name] = sorted({min(block, last) for block in value})
        elif name in SIZES:
            model[name] = each(value, partial(min, SIZES[name]))
        elif isinstance(value, list):
            for part in value:
                if isinstance(part, dict):
                    shrink_model(part, layers, side)
    if "stage_sizes" in model and isinstance(model.get("width"), int):
        model["width"] = min(model["width"], FIRST_STAGE)
    room = LENGTH + model.get("prompt", 0)
    for name, least in (("max_positions", room + model.get("position_offset", 0)), ("context_length", room)):
        if (positions := model.get(name)) is not None:
            model[name] = min(positions, least)
    if side is not None and model.get("image_size") is not None:
        model["image_size"] = min(side, model["image_size"])
    if isinstance(model.get("window"), int):
        model["window"] = min(model["window"], 4)
    if model.get("backbone") is not None and "patch_size" in model:
        model["patch_size"] = 1
    elif "patch_size" in model and (pixels := model.get("image_size")):
        model["patch_size"] = largest_divisor(pixels, min(model["patch_size"], max(pixels // 2, 1)))


def shrink_data(data: dict[str, Any], side: int) -> bool:
    """Makes the dict of the data section tiny, in place; returns whether it sizes its images."""
    repeats, examples = data["repeats"], data["examples"]
    data["batch_size"] = BATCH * repeats // gcd(BATCH, repeats)
    data |= {"eval_batch_size": BATCH, "read_threads": 2, "prefetch": 1}
    if "length" in examples:
        examples["length"] = min(examples["length"], LENGTH)
        if "question_length" in examples:
            examples |= {"question_length": LENGTH // 3, "stride": LENGTH // 8}
        if data["buckets"]:
            data["buckets"] = [examples["length"] // 2]
    resized = False
    named = [t for key in ("transforms", "eval_transforms") for t in data[key] if t["name"] != "detr_crop"]
    for part in (examples, *named):
        for name in ("eval_size", *SIZING):
            if part.get(name) is not None:
                part[name], resized = each(part[name], partial(min, side)), True
    return resized


def each(value: Any, change: Callable[[Any], Any]) -> Any:
    """A value changed, or a list with each of its numbers changed."""
    if isinstance(value, (list, tuple)):
        return [each(item, change) for item in value]
    return change(value) if isinstance(value, int) else value


def in_shares(value: Any) -> Any:
    """A field of a schedule with its durations as shares of the training, which tiny trainings have, too."""
    if isinstance(value, Mapping):
        return {name: in_shares(inner) for name, inner in value.items()}
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return [f"{100 * (i + 1) // (len(value) + 1)}%" for i in range(len(value))]
    is_length = isinstance(value, str) and value[:1].isdigit() and not value.endswith("%")
    return "10%" if is_length else value
