"""The shipped configs, for tests: those that begin as a pretrained model do without its files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxformer.config import files

ENCODER = {"name": "bert", "vocab_size": None, "max_positions": 128}
TOKENIZER = {"name": "bytes", "template": "bert"}


def read(path: Path | str, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A config; in the place of a pretrained model one of the same kind with random parameters, and its own tokenizer,
    and in the place of a user's own files a dataset by name."""
    config = files.read(str(path))
    if ":" in config["data"]["name"]:
        config["data"]["name"] = "sst2"
    if "pretrained" in config["model"]:
        del config["model"]["pretrained"]
        config["model"] = ENCODER | config["model"]
        config["data"]["tokenizer"] = dict(TOKENIZER)
    files.apply_overrides(config, overrides or {})
    return config
