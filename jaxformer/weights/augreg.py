"""The `.npz` files of google-research/vision_transformer: ViT (Dosovitskiy et al. 2021), AugReg (Steiner et al. 2022).

Plain models and hybrids with a ResNet, pretrained or fine-tuned. Our ViT's defaults are theirs; what their hybrids'
backbone is stands in `models/presets.py`.

The oldest files, and AugReg's, were written before Linen, which numbered all layers of a block in one row; newer ones
number each kind for itself. Norms of feature maps are [1, 1, 1, C] in the older ones. Files of whole train states have
the parameters below "opt/target/", and big_vision's below "params/"; the latter's class token has its position within
itself, and the table has no row for it.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxformer.errors import UserError
from jaxformer.paths import leaves_by_path
from jaxformer.weights.convert import Row, from_table

OURS, THEIRS = "encoder/block_{i}", "Transformer/encoderblock_{i}"
BLOCK, UNIT = "backbone/stage_{i}_block_{j}", "block{i}/unit{j+1}"
PREFIXES = ("opt/target/", "params/")
POSITIONS = ("Transformer/posembed_input/pos_embedding", "pos_embedding")
GROUP_NORM = re.compile(r"(.*/)?gn(\d|_root|_proj)/(scale|bias)")

# A block's layers before Linen and since.
NUMBERINGS = (
    {"attention": "MultiHeadDotProductAttention_1", "norm_2": "LayerNorm_2", "mlp": "MlpBlock_3"},
    {"attention": "MultiHeadDotProductAttention_0", "norm_2": "LayerNorm_1", "mlp": "MlpBlock_0"},
)


def leaves(ours: str, theirs: str, names: tuple[str, ...], change: str = "same") -> tuple[Row, ...]:
    """The rows of a layer whose leaves have the same names here and there."""
    return tuple(Row(f"{ours}/{name}", f"{theirs}/{name}", change) for name in names)


NORM, LAYER = ("scale", "bias"), ("kernel", "bias")
TABLE = (
    Row("class_token", "cls"),
    *(Row("position_embedding", name) for name in POSITIONS),
    *leaves("patch_embedding", "embedding", LAYER),
    *leaves(f"{OURS}/norm_1", f"{THEIRS}/LayerNorm_0", NORM),
    *(
        row
        for names in NUMBERINGS
        for row in (
            *(
                row
                for name in ("query", "key", "value", "out")
                for row in leaves(f"{OURS}/attention/{name}", f"{THEIRS}/{names['attention']}/{name}", LAYER)
            ),
            *leaves(f"{OURS}/norm_2", f"{THEIRS}/{names['norm_2']}", NORM),
            *leaves(f"{OURS}/mlp/up", f"{THEIRS}/{names['mlp']}/Dense_0", LAYER),
            *leaves(f"{OURS}/mlp/down", f"{THEIRS}/{names['mlp']}/Dense_1", LAYER),
        )
    ),
    *leaves("norm", "Transformer/encoder_norm", NORM),
    *leaves("representation", "pre_logits", LAYER),
    *leaves("head", "head", LAYER),
    *leaves("backbone/conv_stem", "conv_root", ("kernel",)),
    *leaves("backbone/norm_stem", "gn_root", NORM, "channels"),
    *leaves(f"{BLOCK}/conv_{{k}}", f"{UNIT}/conv{{k}}", ("kernel",)),
    *leaves(f"{BLOCK}/norm_{{k}}", f"{UNIT}/gn{{k}}", NORM, "channels"),
    *leaves(f"{BLOCK}/conv_shortcut", f"{UNIT}/conv_proj", ("kernel",)),
    *leaves(f"{BLOCK}/norm_shortcut", f"{UNIT}/gn_proj", NORM, "channels"),
)


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` file by name; nothing in it is executed.

    Raises:
      UserError: there is no such file, it is damaged, or it holds something else than arrays of numbers.
    """
    try:
        with open(path, "rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it is a single array")
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: cannot be read as a .npz file of arrays ({error})", "is the download complete?"
        ) from None


def from_augreg(source: Mapping[str, np.ndarray], params_shapes: Any) -> dict[str, Any]:
    """Our ViT's parameters from the arrays of such a file.

    Args:
      source: their name -> array, of `read_npz`.
      params_shapes: our tree, unrolled, with a shape and a dtype at every leaf (of `jax.eval_shape`).

    Returns:
      A nested dict of NumPy arrays, with the shapes and dtypes of `params_shapes`.

    Raises:
      UserError: with a line for every array that is missing, is not a parameter of this model, or has another shape.
    """
    source = plain(source)
    table = leaves_by_path(params_shapes).get("position_embedding")
    for name in POSITIONS:
        if name in source and table is not None and "cls" in source:
            source[name] = with_class_position(source[name], table.shape)
    return from_table(TABLE, source, params_shapes)


def plain(source: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The parameters alone, without a prefix, and their norms of feature maps as the table has them, [1, 1, 1, C]."""
    for prefix in PREFIXES:
        if any(name.startswith(prefix) for name in source):
            source = {name.removeprefix(prefix): x for name, x in source.items() if name.startswith(prefix)}
    return {
        name: x.reshape(1, 1, 1, -1) if x.ndim == 1 and GROUP_NORM.fullmatch(name) else x
        for name, x in source.items()
    }


def with_class_position(table: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A table of positions, with a first row of zeros if it is the class token's row that it lacks for `shape`."""
    lacks = table.ndim == 3 and (table.shape[0], table.shape[1] + 1, table.shape[2]) == tuple(shape)
    return np.pad(table, ((0, 0), (1, 0), (0, 0))) if lacks else table
