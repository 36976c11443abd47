"""The contract between models and the rest of the package, and the fields that families share.

A model of your own is a linen module in a file of your own: derive it from `ImageModel` (or from `Model`, with a
`kind`), return one of the types in `outputs.py`, and name it "package.module:Class" in a config.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, cast

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxformer.config.fields import Constraint, Input, Layers, Rate, at_least, largest_divisor, not_empty
from jaxformer.errors import ConfigError
from jaxformer.models.token_layout import Grid, TokenLayout, plain_layout

Dtype = Any
Kind: TypeAlias = Literal[
    "image",
    "encoder",
    "decoder",
    "encoder-decoder",
    "detector",
    "segmenter",
    "two-towers",
    "text-pairs",
    "captioner",
    "coca",
]
COMPARE: tuple[Kind, ...] = ("two-towers", "coca")  # images with texts
WRITE_OF_IMAGES: tuple[Kind, ...] = ("captioner", "coca")
RematName: TypeAlias = Literal["none", "full", "attention", "dots", "dots_without_batch", "offload"]
Stages: TypeAlias = Annotated[tuple[Layers, ...], not_empty("at least one stage")]
OddInt: TypeAlias = Annotated[int, Constraint("an odd number, such as 3", lambda n: n > 0 and n % 2 == 1)]
# Methods of the contract that linen does not wrap: they compute nothing, and modules without parameters have them, too.
UNWRAPPED = {"problems", "token_layout", "attended", "seeing_whole"}
Source: TypeAlias = Annotated[
    str, not_empty("a folder or a name of the Hub; leave it out for random parameters")
]
Number: TypeAlias = Annotated[int, at_least(0)]
Classes: TypeAlias = Annotated[int, at_least(0, "1 or more, or 0 for a model without a head")]


class Layer(nn.Module, kw_only=True):
    """A linen module with the fields that the program sets: the base of everything in `models/`."""

    dtype: Dtype = jnp.float32
    """Dtype of the computation."""
    param_dtype: Dtype = jnp.float32
    """Dtype of the parameters."""
    axis_name: str | None = None
    """Pmap's axis, over which batch statistics are averaged; None under jit, where they are global."""

    @property
    def dtypes(self) -> dict[str, Any]:
        """Both dtypes, as keyword arguments for a part."""
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}

    def __init_subclass__(cls, **options: Any) -> None:
        for name in UNWRAPPED & vars(cls).keys():
            setattr(cls, name, nn.nowrap(vars(cls)[name]))
        super().__init_subclass__(**options)

    @nn.nowrap
    def param(self, name: str, init_fn: Any, *init_args: Any, **options: Any) -> Any:
        """linen's, whose gradient is laid out on the mesh as the train state is.

        linen traces the initializer of a parameter that is there once more, to compare shapes, which is half of what
        tracing a model takes. That is left out where the first of `init_args` is the parameter's shape.
        """
        from jaxformer.models.placement import (
            with_gradient_laid_out,
        )  # a config loads this file, and no layers

        shape = init_args[0] if init_args and self.has_variable("params", name) else None
        if isinstance(shape, tuple) and np.shape(self.get_variable("params", name)) == shape:
            parameter: Any = self.variable("params", name).value
        else:
            parameter = super().param(name, init_fn, *init_args, **options)
        return with_gradient_laid_out(parameter, "/".join((*self.path, name)))

    @nn.nowrap
    def passed_on(self, *names: str) -> dict[str, Any]:
        """The values of these fields and both dtypes, as keyword arguments for a part with fields of the same names."""
        return {name: getattr(self, name) for name in names} | self.dtypes

    @nn.nowrap
    def passed_to(self, part: type) -> dict[str, Any]:
        """The values of all fields that this class of a part has, too, as keyword arguments for it."""
        own = {field.name for field in fields(self)} - {"parent", "name"}
        return {field.name: getattr(self, field.name) for field in fields(part) if field.name in own}

    def problems(self) -> Iterator[str]:
        """Yields a line for every impossible combination of fields."""
        yield from ()

    def token_layout(self, grids: Sequence[Grid], asks: int, sees: int, cross: bool) -> TokenLayout:
        """Where the tokens of an attention in this module lie.

        Args:
          grids: of the feature maps that this module gives, or that it looks at.
          asks: T, the number of queries.
          sees: S, the number of keys.
          cross: whether it is cross-attention.
        """
        return plain_layout(grids, asks, sees, cross)


class Model(Layer, kw_only=True):
    """What the rest of the package asks of a model; the attributes here are the answers of one that has no such thing.

    `model(**task.inputs(batch), deterministic=...)` gives one of the types in `outputs.py`.
    """

    kind: ClassVar[Kind]
    """What the model takes and gives."""
    sizes: ClassVar[tuple[str, ...]] = ()
    """The fields that the data fill in where they are None, such as "num_classes" and "vocab_size"."""
    parts: ClassVar[tuple[str, ...]] = ()
    """The fields that hold models with such fields of their own, such as "text"."""
    not_of_image: ClassVar[tuple[str, ...]] = ()
    """The parts of a model of images whose attention is not among the places of an image."""

    pretrained: Source | None = None
    """Where the first parameters come from: a folder of transformers or timm, "hf:OWNER/NAME", a run's folder, a file
    of weights, or a folder in a Python package, "package:NAME/FOLDER". A model without a name is that one, but for the
    fields that are given; texts then have its tokenizer and its length, too, where none is given. None: random ones."""

    # Without types, so that a model may have a field or a property of the same name.
    heads = cast(Any, ("head",))
    """The paths of the parts that a model which begins as another one (`pretrained`) may have anew."""
    num_classes = cast(Any, None)
    """Number of classes that it tells apart."""
    image_size = cast(Any, None)
    """Height and width of the images; None: any."""
    num_heads = cast(Any, None)
    """Number of attention heads; of models of stages, in each."""
    remat = cast(Any, None)
    """What the backward pass keeps, where the model can choose."""
    scan = cast(Any, False)
    """Whether its layers are stacked and scanned over."""
    by_class_token = cast(Any, False)
    """Whether a class token reads the places of an image for the head."""
    grid = cast(Any, None)
    """Rows and columns of the patches that the last tokens stand for."""
    tokens_before_grid = cast(Any, 0)
    """Number of tokens in front of these patches."""
    prompt = cast(Any, 0)
    """Number of learned vectors in front of its tokens."""
    context_length = cast(Any, None)
    """How many tokens of a text have positions; None of a model that reads none."""

    @property
    def longest_text(self) -> int:
        """The longest text that it takes, in tokens."""
        return int(self.context_length)

    @property
    def task_sizes(self) -> Mapping[str, int]:
        """What the model fills in of the task's fields that are None."""
        return {}

    @nn.nowrap
    def beginnings(self) -> dict[str, "Model"]:
        """Path -> the models that begin as others: this one, under "", or those in its fields."""
        if self.pretrained is not None:
            return {"": self}
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            f"{name}/{path}".rstrip("/"): begun
            for name, part in parts.items()
            if isinstance(part, Model) and name != "parent"
            for path, begun in part.beginnings().items()
        }

    @nn.nowrap
    def known(self, name: str) -> int:
        """The value of one of `sizes`.

        Raises:
          ConfigError: it is None: no data filled it in.
        """
        value = getattr(self, name)
        if value is None:
            raise ConfigError(f"model.{name} is None: the dataset does not say it; set it")
        return value

    def attended(self, path: Sequence[str], backbone: Sequence[Grid]) -> tuple[Grid, ...] | None:
        """The grids that an attention looks at; None: those of the innermost module around it that gives feature maps.

        Args:
          path: of the attention's weights in the collection "attention_maps".
          backbone: the grids of the backbone's feature maps; none without a backbone.
        """
        return None

    def seeing_whole(self, height: int, width: int) -> "Model | None":
        """The model, seeing images of this size as a whole instead of through windows; None if it cannot."""
        return self


class ImageModel(Model, kw_only=True):
    """A classifier of images, and a backbone for whatever needs feature maps (`ImageOutputs.maps`)."""

    kind: ClassVar[Kind] = "image"
    sizes: ClassVar[tuple[str, ...]] = ("num_classes",)

    num_classes: Classes | None = 1000
    """Number of classes K; None takes the dataset's, 0 is a model without a head."""


class Dropouts(Model, kw_only=True):
    """Models with dropout and stochastic depth."""

    dropout: Input[Rate] = 0.0
    """Rate of dropout after the embedding, after attention and in the MLPs."""
    attention_dropout: Input[Rate] = 0.0
    """Rate of dropout of the attention weights."""
    drop_path: Input[Rate] = 0.0
    """Stochastic depth: the last block's rate, growing linearly from 0."""


class Staged(ImageModel, kw_only=True):
    """Image models of stages, each of which gives a feature map."""

    stage_sizes: Stages
    """Number of blocks in each stage."""
    drop_path: Input[Rate] = 0.0
    """Stochastic depth: the last block's rate, growing linearly from 0."""

    @nn.nowrap
    def one_a_stage(self, *names: str) -> Iterator[str]:
        """Yields a line for each of these fields that has not one value for each stage."""
        for name in names:
            if len(getattr(self, name)) != len(self.stage_sizes):
                given, count = list(getattr(self, name)), len(self.stage_sizes)
                yield f"{name}={given}: expected one for each of {count} stages"

    def staged(self, x: Any, block: Callable[..., nn.Module], deterministic: bool) -> tuple[Any, ...]:
        """The feature maps [B, H, W, C] of all stages.

        Args:
          x: the stem's feature map, or whatever else all blocks map to its like.
          block: makes a block from its stage, counted from 1, its number in the stage, counted from 0, and linen's
            keyword arguments with its rate `drop_path`.
          deterministic: whether there is no dropout.
        """
        shares = iter(np.linspace(0, 1, sum(self.stage_sizes)).tolist())
        maps = []
        for stage, size in enumerate(self.stage_sizes, 1):
            for i in range(size):
                share = next(shares)  # none of the first block is dropped
                common = {
                    **self.dtypes,
                    "drop_path": self.drop_path * share,
                    "name": f"stage_{stage}_block_{i}",
                }
                x = block(stage, i, **common)(x, deterministic)
            maps.append(x)
        return tuple(maps)


class Stacked(Model, kw_only=True):
    """Models whose equal blocks stand in a `Stack`."""

    remat: RematName = "none"
    """What the backward pass keeps of each block, beside its input, while it computes the rest again. "none": what
    products and attention give. "dots": all products, attention's too where no kernel makes them. "dots_without_batch":
    products with parameters. "attention": what attention gives. "full": nothing. "offload": as "none", but products
    with parameters in the memory of the host."""
    scan: bool = False
    """Scans over stacked layers instead of unrolling them: compiles faster."""


class Adaptable(Stacked, kw_only=True):
    """Models whose blocks take what is trained in their place (`config.adapter`)."""

    bottleneck: Number = 0
    """Width of two layers behind each branch of a block (Houlsby et al. 2019, figure 2); 0: there are none."""
    prefix: Number = 0
    """Learned keys and values in each attention, besides those of its tokens (Li and Liang 2021); 0: there are none."""


class Prompted(Adaptable, kw_only=True):
    """Models that take learned vectors in front of their embedded tokens."""

    prompt: Number = 0
    """Learned vectors in front of the embedded tokens (Lester et al. 2021, section 2); 0: there are none."""

    @property
    def longest_text(self) -> int:
        """The longest text that it takes, in tokens: the learned vectors take the first positions."""
        return max(0, int(self.context_length) - self.prompt)

    def prompt_vectors(self, width: int) -> Any:
        """The learned vectors, [1, N, D]; None where there are none."""
        init, shape = nn.initializers.normal(0.02), (1, self.prompt, width)
        return self.param("prompt_tokens", init, shape, self.param_dtype) if self.prompt else None


def behind(learned: Any, x: Any) -> Any:
    """Embedded tokens [B, T, D] behind learned vectors [1, N, D], [B, N + T, D]; as they are behind None."""
    if learned is None:
        return x
    # Before it is rounded, so that the gradient is added up over the batch in float32.
    rows = jnp.broadcast_to(learned, (len(x), *learned.shape[1:]))
    return jnp.concatenate([rows.astype(x.dtype), x], axis=1)


def head_problems(
    width: int, num_heads: int, head_dim: int | None = None, num_kv_heads: int | None = None
) -> Iterator[str]:
    """Yields a line for every number of heads that does not fit the width, or the others."""
    if num_heads > 0 and head_dim is None and width % num_heads:
        near = largest_divisor(width, 2 * num_heads - 1)
        yield f"num_heads={num_heads} does not divide width={width}: use one that does, as {near}"
    if num_kv_heads and num_heads > 0 and num_heads % num_kv_heads:
        yield f"num_kv_heads={num_kv_heads} does not divide num_heads={num_heads}: use one that does"


def replaced(module: nn.Module, **changes: Any) -> Any:
    """A module with other values in these fields, and so the modules in its fields; what has no such field stays."""
    named = {field.name for field in fields(module) if field.name != "parent"}
    parts = {name: getattr(module, name) for name in named}
    inner = {name: replaced(part, **changes) for name, part in parts.items() if isinstance(part, nn.Module)}
    return module.clone(**inner, **{name: value for name, value in changes.items() if name in named})
