"""A model of another project, whatever form it has there: the contract of `sources.py`."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict

from jaxformer.config.schema import build
from jaxformer.data.text.tokenizers import FromFile, Tokenizer
from jaxformer.errors import UserError
from jaxformer.models import CONTRACT, MODELS
from jaxformer.reading import read_json
from jaxformer.weights.convert import Family, Tensors
from jaxformer.weights.preprocessing import Preprocessing

Fields = dict[str, Any]
TEXT = ((1, 2), jnp.int32)
TINY: dict[str, dict[str, tuple[tuple[int, ...], Any]]] = {  # inputs that show which variables a model has
    "encoder": {"tokens": TEXT},
    "decoder": {"tokens": TEXT},
    "encoder-decoder": {"tokens": TEXT, "decoder_tokens": TEXT},
    "two-towers": {"tokens": TEXT},
}
OF_IMAGES = ("image", "detector", "segmenter", "two-towers")  # kinds of models
SIDE = 224  # of an image, in pixels, where a model takes any


@contextlib.contextmanager
def as_published(path: Path) -> Iterator[None]:
    """Turns what values of unexpected kinds in a file of theirs bring about into a UserError that names it."""
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: is not as such models have it ({what})") from error


def on_device(array: Any, device: Any = None) -> jax.Array:
    """A copy on a device (None: the first one), made before anything else is read."""
    return jax.device_put(array, device, may_alias=False).block_until_ready()


@dataclass(frozen=True)
class Pretrained:
    """A model of another project: its fields and tensors as ours."""

    source: str
    """What the user named."""
    folder: Path
    """Where its files are, or the one file."""
    config: Mapping[str, Any]
    """Its config.json; {} where it has none."""
    changes: Mapping[str, Any]
    """Fields of ours that take the place of its own."""

    # What a form of source says of itself

    @property
    def own(self) -> tuple[str, Fields]:
        """A key of MODELS, and the fields with which it computes what theirs does.

        Raises:
          UserError: there is no table for such models, or it does something that ours does not.
        """
        raise NotImplementedError

    @property
    def family(self) -> Family:
        """How its tensors are read."""
        raise NotImplementedError

    @cached_property
    def tensors(self) -> Tensors:
        """Their name -> tensor.

        Raises:
          UserError: a file is missing or damaged.
        """
        raise NotImplementedError

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What is done to an image before the model sees it; None of a model of text, or where nothing is said."""
        return None

    @property
    def class_names(self) -> list[str]:
        """The names of its classes; [] where it names none."""
        return []

    # What follows from that

    @cached_property
    def described(self) -> tuple[str, Fields]:
        """A key of MODELS, and its fields; raises what `own` does."""
        name, fields = self.own
        return name, {**fields, **self.changes}

    @cached_property
    def model(self) -> Any:
        """The linen module that computes the same.

        Raises:
          ConfigError: a field is unknown or has an impossible value.
        """
        name, fields = self.described
        return build(MODELS, {"name": name, **fields}, "model", CONTRACT)

    def view(self, side: int | None) -> Preprocessing:
        """What is done to images, for a model that takes `side` pixels (None: those that it was published with).

        Where nothing is said the shorter side is resized, and the middle cut out.
        """
        found = self.preprocessing or Preprocessing((side or SIDE,) * 2, shorter_side=side or SIDE)
        if side is None or found.whole or found.size == (side, side):
            return found
        short = found.shorter_side and round(found.shorter_side * side / min(found.size))
        return replace(found, size=(side, side), shorter_side=short)

    @cached_property
    def shapes(self) -> Any:
        """Its variables, as shapes; nothing is computed."""
        side = self.model.image_size or SIDE
        tiny = dict(TINY.get(self.model.kind, {}))
        if self.model.kind in OF_IMAGES:
            tiny["image"] = (1, side, side, 3), jnp.float32
        inputs = {name: jax.ShapeDtypeStruct(*each) for name, each in tiny.items()}
        return jax.eval_shape(lambda key, x: dict(self.model.init(key, **x)), jax.random.key(0), inputs)

    @cached_property
    def variables(self) -> dict[str, Any]:
        """Nested dicts of arrays: "params", and "batch_stats" where there are any.

        They are on the first device; no more than one tensor is copied at a time.

        Raises:
          UserError: a file is missing or damaged, or tensors do not fit the model: a line for each.
        """
        matched = self.family.matched(self.tensors, self.shapes)
        return unflatten_dict({path: on_device(match.array(copy=False)) for path, match in matched.items()})

    @property
    def tokenizer_fields(self) -> Fields | None:
        """`data.tokenizer` of a config that takes its tokenizer; None where it has none."""
        file = self.folder / "tokenizer.json"
        return {"name": "file", "path": str(file)} if file.exists() else None

    @property
    def longest(self) -> int | None:
        """The most tokens of its texts, by what it was trained with and by its positions; None: any number."""
        said = {"sentence_bert_config.json": "max_seq_length", "tokenizer_config.json": "model_max_length"}
        found = [(read_json(self.folder / file, needs={}) or {}).get(key) for file, key in said.items()]
        _, fields = self.described
        fields = fields.get("text", fields)
        found.append(fields.get("context_length"))
        if "max_positions" in fields:
            found.append(fields["max_positions"] - fields.get("position_offset", 0))
        return min((each for each in found if isinstance(each, int) and each > 1), default=None)

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """Its tokenizer; None where it has none.

        Raises:
          UserError: the file is damaged.
        """
        if (fields := self.tokenizer_fields) is None:
            return None
        return FromFile(**{name: value for name, value in fields.items() if name != "name"}).build(
            lambda: iter(())
        )
