"""What models return, and the layer that makes the logits of image models."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array

from jaxformer.models.base import ImageModel
from jaxformer.models.block import Aux
from jaxformer.models.dense import Dense
from jaxformer.models.masks import Cache
from jaxformer.models.mlp import RouterLosses
from jaxformer.models.resampling import mean_of, resized_maps


@struct.dataclass
class ImageOutputs:
    """Outputs of an image model."""

    logits: Array | None
    """Float32 [B, K]; None of a model without a head (num_classes=0)."""
    features: Array
    """[B, D], what the head sees."""
    tokens: Array
    """[B, T, D] of a Transformer (prefix tokens first), or the last feature map [B, H, W, C] of a CNN."""
    maps: tuple[Array, ...] = ()
    """Feature maps [B, H, W, C], the finest first: one a stage of a CNN or a hierarchical Transformer, the
    patches on their grid of a plain one."""
    distilled: Array | None = None
    """Float32 [B, K], logits of the head that learns from a teacher (Touvron et al. 2021, DeiT); None of a
    model without one."""


def logits_of(features: Array, num_classes: int, param_dtype: Any, name: str = "head") -> Array:
    """Logits float32 [..., K] of features [..., D], by a sub-module of the linen module that calls this.

    The head is of zeros at first: every class is equally likely, as in google-research/vision_transformer.

    Args:
      features: what the head sees.
      num_classes: K.
      param_dtype: dtype of the parameters.
      name: name of the sub-module.
    """
    return Dense(num_classes, kernel_init=nn.initializers.zeros, param_dtype=param_dtype, name=name)(features)


def classified(
    model: ImageModel, tokens: Array, maps: tuple[Array, ...], features: Array | None = None
) -> ImageOutputs:
    """The outputs of `model`, which calls this; it has no head, and no parameters of one, if `num_classes` is 0.

    Args:
      model: the linen module.
      tokens: see `ImageOutputs`.
      maps: see `ImageOutputs`.
      features: what the head sees, [B, D]; None: the mean of the tokens.
    """
    features = mean_of(tokens) if features is None else features
    logits = logits_of(features, model.num_classes, model.param_dtype) if model.num_classes else None
    return ImageOutputs(logits, features, tokens, maps)


@struct.dataclass
class Denoised:
    """What a detector makes of objects that it was given with noise; G times, near their boxes and far off."""

    logits: Array
    """Float32 [L, B, G, 2, N, C]."""
    boxes: Array
    """Float32 [L, B, G, 2, N, 4]."""


@struct.dataclass
class DetectionOutputs:
    """Outputs of a detector: those of every layer of its decoder, the last one last."""

    logits: Array
    """Float32 [L, B, Q, C]; C is the number of classes, or one more, for no object."""
    boxes: Array
    """Float32 [L, B, Q, 4], centre x and y, width and height as shares of the image without its padding."""
    denoised: Denoised | None = None
    """In training, if it was given noised objects."""


@struct.dataclass
class SegmentationOutputs:
    """Outputs of a segmenter."""

    logits: Array
    """Float32 [B, h, w, K] on a grid over the image, of windows at the image's size."""
    maps: tuple[Array, ...] = ()
    """The backbone's feature maps; none where windows were laid over the image."""

    def at(self, size: tuple[int, int]) -> Array:
        """Logits float32 [B, H, W, K], interpolated bilinearly to the image's height and width."""
        return resized_maps(self.logits, size)


@struct.dataclass
class PairOutputs:
    """Outputs of a model of images and texts: a vector of each, compared by their products. Every array has rows."""

    image: Array
    """Float32 [B, E], of length 1."""
    text: Array
    """Float32 [B, E], of length 1."""
    scale: Array
    """Float32 [B], what products are multiplied by (1 / temperature); the same in each row."""
    bias: Array
    """Float32 [B], what is added to them; the same in each row."""
    axis: str | None = struct.field(pytree_node=False, default=None)
    """Pmap's axis, over whose devices the rows of the batch lie; None: they are all here. The train step sets it."""


@struct.dataclass
class CaptionedPairOutputs(PairOutputs):
    """Outputs of a model that compares images with texts, and writes of them, too."""

    logits: Array | None = None
    """Float32 [B, T, V], of the token after each."""
    tokens: Array | None = None
    """[B, T, D], what the last block gives."""
    head: None = struct.field(pytree_node=False, default=None)
    """As in `TextOutputs`: a loss takes the logits, which have rows."""


@struct.dataclass
class TokenHead:
    """The last product of a language model: its logits are seen table^T + bias. A loss that is made of these needs no
    array of the logits; under `jax.jit` what nobody takes is not computed."""

    seen: Array
    """[B, T, D], in the dtype of the computation."""
    table: Array
    """[V, D], in that of the parameters."""
    bias: Array | None = None
    """[V]."""


@struct.dataclass
class TextOutputs:
    """Outputs of a model of text."""

    logits: Array
    """Float32; [B, T, V] of a language model, [B, T, K] of a head over tokens, [B, K] of one over texts."""
    tokens: Array
    """[B, T, D], what the last block gives."""
    features: Array | None = None
    """[B, D], what a head over texts sees; None where there is none."""
    router: RouterLosses | None = None
    """The losses of all layers' routers, float32 [B] each; None without experts."""
    cache: Cache | None = None
    """The cache after these tokens, if one came in."""
    distilled: Array | None = None
    """Logits of a second head that learns from a teacher; no model of text has one."""
    head: TokenHead | None = None
    """What the logits of a language model are made of; None where a loss has to take the logits."""


def mean_of_tokens(tokens: Array, token_mask: Array | None) -> Array:
    """The mean [B, D] of tokens [B, T, D], in float32; those where `token_mask` bool [B, T] is False do not count."""
    if token_mask is None:
        return jnp.mean(tokens, axis=1, dtype=jnp.float32).astype(tokens.dtype)
    total = jnp.einsum(
        "btd,bt->bd", tokens, token_mask.astype(tokens.dtype), preferred_element_type=jnp.float32
    )
    count = jnp.maximum(jnp.sum(token_mask, axis=1), 1).astype(jnp.float32)
    return (total / count[:, None]).astype(tokens.dtype)


def router_losses(beside: Sequence[Aux]) -> RouterLosses | None:
    """The mean over layers of what the routers lose; None without experts."""
    losses = [b.router for b in beside if b.router is not None]
    if not losses:
        return None
    # Of unrolled layers a list of [B], of a scan one [L, B].
    balance = jnp.concatenate([jnp.atleast_2d(loss.balance) for loss in losses])
    z = jnp.concatenate([jnp.atleast_2d(loss.z) for loss in losses])
    return RouterLosses(jnp.mean(balance, axis=0), jnp.mean(z, axis=0))


def unmet(model: nn.Module, inputs: Mapping[str, Any]) -> Iterator[str]:
    """Yields a line if a class of a user's own cannot be called as the contract says, or gives something else.

    Args:
      model: a linen module; those of this package are not looked at.
      inputs: its arguments; only shapes and dtypes matter.
    """
    name, where = type(model).__qualname__, "jaxformer/models/base.py describes the contract"
    if type(model).__module__.startswith("jaxformer."):
        return
    keys = {name: jax.random.key(0) for name in ("params", "dropout")}
    try:
        given, _ = jax.eval_shape(
            lambda x: model.init_with_output(keys, **x, deterministic=True), dict(inputs)
        )
    except (AttributeError, TypeError) as error:
        called = ", ".join([*inputs, "deterministic"])
        yield f"model: {name} cannot be called with {called} ({str(error).splitlines()[0]}); {where}"
        return
    known = (ImageOutputs, DetectionOutputs, SegmentationOutputs, TextOutputs, PairOutputs)
    if not isinstance(given, known):
        expected = "expected one of the classes of jaxformer/models/outputs.py, such as ImageOutputs"
        yield f"model: {name} returns {type(given).__name__}; {expected}; {where}"
