"""Hugging Face transformers' SegformerDecodeHead (Xie et al. 2021), from a checkpoint file's tensors.

The same numbers need an `AllMLP` decoder of as many maps and the same width. Theirs joins the maps at full width, the
coarsest first; what joins them is here a product for each map, so that each takes its columns.
"""

from collections.abc import Iterator

from jaxformer.weights.convert import Extra, Family, Part, Row

LEVELS = 4  # of every published SegFormer


def level(i: int) -> Iterator[Row]:
    """The rows of map i, the finest being 0; checkpoints on the Hub have the first of the two names."""
    for name in ("linear_c", "linear_projections"):
        projection = f"decode_head.{name}.{i}.proj"
        yield Row(f"conv_level_{i + 1}/kernel", f"{projection}.weight", "linear_conv")
        yield Row(f"conv_level_{i + 1}/bias", f"{projection}.bias")
    own = Part(LEVELS - 1 - i, LEVELS, axis=1)
    yield Row(f"conv_fuse_{i + 1}/kernel", "decode_head.linear_fuse.weight", "conv", own)


FAMILY = Family(
    rows=(
        *(row for i in range(LEVELS) for row in level(i)),
        Row("norm/scale", "decode_head.batch_norm.weight"),
        Row("norm/bias", "decode_head.batch_norm.bias"),
        Row("norm/mean", "decode_head.batch_norm.running_mean"),
        Row("norm/var", "decode_head.batch_norm.running_var"),
        Row("head/kernel", "decode_head.classifier.weight", "conv_linear"),
        Row("head/bias", "decode_head.classifier.bias"),
    ),
    extras=(Extra("decode_head.batch_norm.num_batches_tracked"),),
    prefix="decode_head.",
)
