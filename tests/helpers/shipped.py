"""The shipped configs, for tests: those that begin as a pretrained model do without its files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxformer.config import files

# Of what a source is called, a model of the same kind with random parameters.
STAND_INS: dict[str, dict[str, Any]] = {
    "minilm": {"name": "bert", "vocab_size": None, "max_positions": 512, "width": 384},
    "vit_s": {"name": "vit", "patch_size": 14, "width": 384, "num_heads": 6, "layer_scale": 1.0},
    "efficientnet_lite0": {  # as many maps, by fewer stages
        "name": "efficientnet", "stage_sizes": (1,) * 5, "widths": (16,) * 5, "kernel_sizes": (3,) * 5,
        "strides": (1, 2, 2, 2, 2), "expansions": (1,) * 5,
    },
    "captioner_shapes#backbone": {"name": "conv_stem", "channels": [16, 32, 64], "strides": [1, 2, 2]},
}  # fmt: skip
TOKENIZER = {"name": "bytes", "template": "bert"}


def read(path: Path | str, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A config; in the place of pretrained models those of the same kinds with random parameters, and a tokenizer of
    their own, and in the place of a user's own files a dataset by name."""
    config = files.read(str(path))
    if ":" in config["data"]["name"]:
        config["data"]["name"] = "sst2"
    config["model"], replaced = without_sources(config["model"], None)
    if "bert" in replaced:
        config["data"]["tokenizer"] = dict(TOKENIZER)
    files.apply_overrides(config, overrides or {})
    return config


def without_sources(model: Mapping[str, Any], classes: int | None) -> tuple[dict[str, Any], set[str]]:
    """The dict of a model without `pretrained`, in the models within it, too; and the names of the stand-ins.

    Args:
      model: of a config.
      classes: its number of classes where it does not say it.
    """
    made, replaced = dict(model), set()
    for key, part in model.items():
        if isinstance(part, Mapping):
            made[key], names = without_sources(part, 0)
            replaced |= names
    if "pretrained" in model and "name" not in model:
        source = made.pop("pretrained") or "minilm"  # a user's own, of texts
        stand_in = next(fields for words, fields in STAND_INS.items() if words in source)
        by_data = {} if stand_in["name"] == "bert" else {"num_classes": classes}
        made, replaced = {**stand_in, **by_data, **made}, replaced | {stand_in["name"]}
    return made, replaced
