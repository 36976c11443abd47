"""Models of other projects, opened from what they publish: a folder with config.json and safetensors, or the Hub."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from jaxformer.config.schema import build
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.errors import UserError
from jaxformer.models import CONTRACT, MODELS
from jaxformer.reading import read_json
from jaxformer.weights.convert import Family
from jaxformer.weights.files import INDEX, SINGLE, read_tensors
from jaxformer.weights.transformers_config import Fields, family_of, text_model_of

HUB = "hf:"
PACKAGE = "package:"
NAME = re.compile(r"(?!\.)[\w.-]+(/(?!\.)[\w.-]+)?(@[\w./-]+)?")  # of a repository and its revision
WANTED = ("config.json", SINGLE, INDEX, "*.safetensors", "tokenizer.json", "tokenizer_config.json")
TINY: dict[str, dict[str, tuple[int, ...]]] = {  # inputs that show which variables a model has
    "encoder": {"tokens": (1, 2)},
    "decoder": {"tokens": (1, 2)},
    "encoder-decoder": {"tokens": (1, 2), "decoder_tokens": (1, 2)},
}


@dataclass(frozen=True)
class Pretrained:
    """A model of another project: its fields and tensors as ours."""

    source: str
    """What the user named."""
    folder: Path
    """Where its files are."""
    config: Mapping[str, Any]
    """Its config.json."""
    changes: Mapping[str, Any]
    """Fields of ours that take the place of its own."""

    @cached_property
    def described(self) -> tuple[str, Fields]:
        """A key of MODELS, and its fields.

        Raises:
          UserError: there is no table for such models, or it does something that ours does not.
        """
        name, fields = text_model_of(self.config)
        return name, {**fields, **self.changes}

    @property
    def family(self) -> Family:
        """How its tensors are read."""
        return family_of(self.config)

    @cached_property
    def model(self) -> Any:
        """The linen module that computes the same.

        Raises:
          ConfigError: a field is unknown or has an impossible value.
        """
        name, fields = self.described
        return build(MODELS, {"name": name, **fields}, "model", CONTRACT)

    @cached_property
    def shapes(self) -> Any:
        """Its variables, as shapes; nothing is computed."""
        inputs = {name: np.zeros(shape, np.int32) for name, shape in TINY[self.model.kind].items()}
        return jax.eval_shape(lambda key: dict(self.model.init(key, **inputs)), jax.random.key(0))

    @cached_property
    def variables(self) -> dict[str, Any]:
        """{"params": nested dicts of arrays}, on the first device; no more than one tensor is copied at a time.

        Raises:
          UserError: a file is missing or damaged, or tensors do not fit the model: a line for each.
        """
        matched = self.family.matched(read_tensors(self.folder), self.shapes)
        return unflatten_dict({path: jax.device_put(match.array()) for path, match in matched.items()})

    @property
    def tokenizer_file(self) -> Path | None:
        """Its tokenizer.json; None where it has none."""
        file = self.folder / "tokenizer.json"
        return file if file.exists() else None

    @property
    def longest(self) -> int | None:
        """The most tokens of its texts, by what it was trained with and by its positions; None: any number."""
        said = {"sentence_bert_config.json": "max_seq_length", "tokenizer_config.json": "model_max_length"}
        found = [(read_json(self.folder / file, needs={}) or {}).get(key) for file, key in said.items()]
        _, fields = self.described
        found.append(fields.get("context_length"))
        if "max_positions" in fields:
            found.append(fields["max_positions"] - fields.get("position_offset", 0))
        return min((each for each in found if isinstance(each, int) and each > 1), default=None)

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """Its tokenizer; None where it has no tokenizer.json.

        Raises:
          UserError: the file is damaged.
        """
        return None if self.tokenizer_file is None else Tokenizer.load(self.tokenizer_file)


def load_pretrained(source: str | Path, **fields: Any) -> Pretrained:
    """A model of another project; its tensors are read when they are asked for.

    Args:
      source: a folder with config.json and model.safetensors (or its index and parts), as `save_pretrained` of Hugging
        Face transformers writes it; "hf:OWNER/NAME", "hf:OWNER/NAME@REVISION" of the Hub; or "package:NAME/FOLDER", a
        folder in an installed Python package.
      **fields: fields of our model that take the place of its own.

    Raises:
      UserError: it is not there, or there is no table for such models.
    """
    if not isinstance(source, (str, Path)) or not str(source):
        raise UserError(f'source={source!r}: expected a folder, or "hf:OWNER/NAME"')
    folder = place_of(str(source))
    if not folder.is_dir():
        raise UserError(f'{source}: there is no such folder; a model of the Hub is "{HUB}OWNER/NAME"')
    config = read_json(folder / "config.json", needs={}, remedy="is the download complete?")
    if config is None:
        raise UserError(f"{folder}: holds no config.json, so nobody knows which model it is")
    found = Pretrained(str(source), folder, config, fields)
    _ = found.described
    return found


def place_of(source: str) -> Path:
    """The folder that a source names.

    Raises:
      UserError: the package is not installed, or the Hub does not have it.
    """
    if source.startswith(HUB):
        return downloaded(source)
    if not source.startswith(PACKAGE):
        return Path(source)
    name, _, inside = source.removeprefix(PACKAGE).partition("/")
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{source}: there is no Python package {name!r}; install it")
    return Path(spec.submodule_search_locations[0]) / inside


def downloaded(source: str) -> Path:
    """The folder of a model of the Hub, in huggingface_hub's cache.

    Raises:
      UserError: it has no such name, or it cannot be had.
    """
    if not NAME.fullmatch(name := source.removeprefix(HUB)):
        raise UserError(f"{source}: expected {HUB}OWNER/NAME or {HUB}OWNER/NAME@REVISION")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=[*WANTED]))
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"{source}: is not in the cache, and the Hub cannot be reached",
            "download it where there is a network, and give its folder",
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise UserError(f"{source}: cannot be had from the Hub ({str(error).splitlines()[0]})") from error
