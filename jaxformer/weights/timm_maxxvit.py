"""timm's CoAtNets and MaxViTs (its maxxvit.py), from a state dict or a checkpoint file of the Hub.

`variables.read_variables` reads them with FAMILY, parameters and running statistics. The presets have the fields that
they need: "coatnet-0" those of coatnet_0_224, "coatnet-0-rw" of coatnet_0_rw_224, "maxvit-t" of maxvit_tiny_tf_224
(Google's weights), and so on. timm's 2x2 pools leave a last odd row out, or pad it with zeros: with feature maps of
an odd size the two differ.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jaxformer.weights.convert import Extra, Family, Part, Row

BLOCK, THEIR_BLOCK = "stage_{i+1}_block_{j}", "stages.{i}.blocks.{j}"


@dataclass(frozen=True)
class HeadFirstRow(Row):
    """A query, key or value out of a 1x1 convolution [H 3 Dh, D, 1, 1] to each head's three, and of its bias [H 3 Dh].

    Which of the three is the part's index.
    """

    def their_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of their tensor for our kernel [D, H, Dh] or bias [H, Dh]."""
        *width, heads, head_dim = shape
        return (heads * 3 * head_dim, *((*width, 1, 1) if width else ()))

    def to_ours(self, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Their tensor as our parameter of `shape`."""
        *_, heads, head_dim = shape
        assert self.part is not None
        part = tensor.reshape(heads, 3, head_dim, -1)[:, self.part.index]  # [H, Dh, D or 1]
        return np.moveaxis(part, -1, 0).reshape(shape)


@dataclass(frozen=True)
class TurnedTableRow(Row):
    """A table of biases [H, 2 S - 1, 2 S - 1] by key minus query, which is query minus key from its end on."""

    def their_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of their tensor for our table [(2 S - 1)^2, H]."""
        span = math.isqrt(shape[0])
        return shape[1], span, span

    def to_ours(self, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Their tensor as our table."""
        return tensor[:, ::-1, ::-1].reshape(shape[1], shape[0]).T


def norm(ours: str, theirs: str, statistics: bool = False) -> Iterator[Row]:
    """The rows of a LayerNorm, or of a BatchNorm with its `statistics`."""
    yield Row(f"{ours}/scale", f"{theirs}.weight")
    yield Row(f"{ours}/bias", f"{theirs}.bias")
    if statistics:
        yield Row(f"{ours}/mean", f"{theirs}.running_mean")
        yield Row(f"{ours}/var", f"{theirs}.running_var")


def layer(ours: str, theirs: str, change: str) -> Iterator[Row]:
    """The rows of a kernel and its bias."""
    yield Row(f"{ours}/kernel", f"{theirs}.weight", change)
    yield Row(f"{ours}/bias", f"{theirs}.bias")


def mbconv(ours: str, theirs: str) -> Iterator[Row]:
    """The rows of an MBConv block."""
    yield from layer(f"{ours}/conv_shortcut", f"{theirs}.shortcut.expand", "conv")
    yield from norm(f"{ours}/norm_in", f"{theirs}.pre_norm", True)
    for number, name in enumerate(("conv1_1x1", "conv2_kxk", "conv3_1x1"), 1):
        yield from layer(f"{ours}/conv_{number}", f"{theirs}.{name}", "conv")
    for number in (1, 2):
        yield from norm(f"{ours}/norm_{number}", f"{theirs}.norm{number}", True)
    for number, name in ((1, "up"), (2, "down")):
        for squeeze in ("se", "se_early"):
            yield from layer(f"{ours}/mlp_squeeze/{name}", f"{theirs}.{squeeze}.fc{number}", "conv_linear")


def attention(ours: str, theirs: str, is_conv: bool) -> Iterator[Row]:
    """The rows of attention, an MLP and their norms: of 1x1 convolutions in CoAtNet, of dense layers in MaxViT."""
    kind = "conv_" if is_conv else ""
    for part, name in enumerate(("query", "key", "value")):
        for leaf, their_leaf, change in (("kernel", "weight", "heads_in"), ("bias", "bias", "heads_bias")):
            path, tensor = f"{ours}/attention/{name}/{leaf}", f"{theirs}.attn.qkv.{their_leaf}"
            if is_conv:
                yield HeadFirstRow(path, tensor, part=Part(part, 3, 0))
            else:
                yield Row(path, tensor, change, Part(part, 3, 0))
    yield from layer(f"{ours}/attention/out", f"{theirs}.attn.proj", f"{kind}heads_out")
    table = (f"{ours}/relative_bias/embedding", f"{theirs}.attn.rel_pos.relative_position_bias_table")
    yield Row(*table) if is_conv else TurnedTableRow(*table)
    for number, name in ((1, "up"), (2, "down")):
        yield from norm(f"{ours}/norm_{number}", f"{theirs}.norm{number}")
        yield from layer(f"{ours}/mlp/{name}", f"{theirs}.mlp.fc{number}", f"{kind}linear")
    yield from norm(f"{ours}/norm_1", f"{theirs}.norm1.norm")  # of a block that halves the feature map


FAMILY = Family(
    rows=(
        *layer("conv_stem_1", "stem.conv1", "conv"),
        *norm("norm_stem", "stem.norm1", True),
        *layer("conv_stem_2", "stem.conv2", "conv"),
        *mbconv(BLOCK, THEIR_BLOCK),
        *attention(BLOCK, THEIR_BLOCK, True),
        *mbconv(f"{BLOCK}/mbconv", f"{THEIR_BLOCK}.conv"),
        *attention(f"{BLOCK}/block", f"{THEIR_BLOCK}.attn_block", False),
        *attention(f"{BLOCK}/grid", f"{THEIR_BLOCK}.attn_grid", False),
        *norm("norm", "norm"),
        *norm("norm", "head.norm"),
        *layer("representation", "head.pre_logits.fc", "linear"),
        *layer("head", "head.fc", "linear"),
    ),
    extras=(
        Extra("stem.norm1.num_batches_tracked"),
        *(
            Extra(f"{THEIR_BLOCK}.{conv}{name}.num_batches_tracked")
            for conv in ("", "conv.")
            for name in ("pre_norm", "norm1", "norm2")
        ),
    ),
)
