"""Models of other projects, opened from what they publish: a folder or a file of weights, or a name of the Hub."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jaxformer.config.schema import did_you_mean
from jaxformer.errors import UserError
from jaxformer.reading import read_json
from jaxformer.weights.base import Pretrained
from jaxformer.weights.files import INDEX, PICKLED, SINGLE
from jaxformer.weights.open_clip import CONFIG as OPEN_CLIP
from jaxformer.weights.preprocessing import PROCESSOR
from jaxformer.weights.sources import OfFile, OfTower, form_of

HUB, TIMM, PACKAGE = "hf:", "timm/", "package:"
PARTS = ("image", "text", "backbone")  # of a source, that can be taken alone
FILES = (".npz", ".onnx", ".safetensors", *PICKLED)
NAME = re.compile(r"(?!\.)[\w.-]+(/(?!\.)[\w.-]+)?(@[\w./-]+)?")  # of a repository and its revision
WANTED = (
    "config.json", OPEN_CLIP, SINGLE, INDEX, "*.safetensors", PROCESSOR, "tokenizer.json", "tokenizer_config.json",
    "spiece.model",
)  # fmt: skip


def load_pretrained(source: str | Path, **fields: Any) -> Pretrained:
    """A model of another project; its tensors are read when they are asked for.

    Args:
      source: a folder with config.json and model.safetensors (or its index and parts), as `save_pretrained` of Hugging
        Face transformers writes it, or as timm does; the folder of a run; a file `.npz`, `.onnx` or `.safetensors` of
        a model that its tensors' names tell; "hf:OWNER/NAME", "hf:OWNER/NAME@REVISION" or "timm/NAME" of the Hub; or
        "package:NAME/FOLDER", a folder in an installed Python package. Behind it "#image" or "#text" takes one
        of two towers alone, "#backbone" what sees a captioner's pictures.
      **fields: fields of our model that take the place of its own.

    Raises:
      UserError: it is not there, or there is no table for such models.
    """
    if not isinstance(source, (str, Path)) or not str(source):
        raise UserError(f'source={source!r}: expected a folder, or "hf:OWNER/NAME"')
    name = str(source)
    if name.startswith(TIMM) and not Path(name).exists():
        name = HUB + name
    whole, _, part = name.rpartition("#")
    if part not in PARTS and whole and Path(whole).exists() and not Path(name).exists():
        raise UserError(f"{source}: #{part} is no part of a model; {did_you_mean(part, PARTS)}")
    if part in PARTS and not Path(name).exists():
        found = load_pretrained(whole)
        tower = OfTower(str(source), found.folder, found.config, fields, found, part)
        _ = tower.described
        return tower
    folder = place_of(name)
    if folder.suffix in FILES and not folder.is_dir():
        alone = OfFile(name, folder, {}, fields)
        _ = alone.described
        return alone
    if not folder.is_dir():
        raise UserError(f'{source}: there is no such folder; a model of the Hub is "{HUB}OWNER/NAME"')
    config = read_json(folder / "config.json", needs={}, remedy="is the download complete?")
    lone = config is None or not any((folder / file).exists() for file in (SINGLE, INDEX))
    if lone and (folder / OPEN_CLIP).exists():
        config = read_json(folder / OPEN_CLIP, needs={"model_cfg": dict})
    if config is None:
        raise UserError(f"{folder}: holds no config.json, so nobody knows which model it is")
    opened = form_of(config)(str(source), folder, config, fields)
    _ = opened.described
    return opened


def place_of(source: str) -> Path:
    """Where the files of a source are.

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
