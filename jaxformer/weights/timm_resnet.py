"""timm's ResNets (its resnet.py and resnetv2.py), from a state dict or a checkpoint file of the Hub.

The presets have the fields that these need: "resnet-50" for resnet50, "se-resnet-50" for seresnet50, "bit-r50x1" for
resnetv2_50x1_bit (whose `standardize` is "timm" here), and so on. With its own CBAM a model has use_bias=False.
timm's `BottleneckAttn` in the 3x3's place, as its byobnet.py has it, needs scale_pos_embed=True to be the paper's.
"""

from collections.abc import Iterator

from jaxformer.weights.convert import Extra, Family, Part, Row

BLOCK = "stage_{i}_block_{j}"
V1_BLOCK, V2_BLOCK = "layer{i}.{j}", "stages.{i-1}.blocks.{j}"


def norm(ours: str, theirs: str) -> Iterator[Row]:
    """The rows of a GroupNorm, or of a BatchNorm and its statistics."""
    yield Row(f"{ours}/scale", f"{theirs}.weight")
    yield Row(f"{ours}/bias", f"{theirs}.bias")
    yield Row(f"{ours}/mean", f"{theirs}.running_mean")
    yield Row(f"{ours}/var", f"{theirs}.running_var")


def layer(ours: str, theirs: str, change: str = "conv") -> Iterator[Row]:
    """The rows of a kernel and its bias."""
    yield Row(f"{ours}/kernel", f"{theirs}.weight", change)
    yield Row(f"{ours}/bias", f"{theirs}.bias")


def gate(ours: str, theirs: str) -> Iterator[Row]:
    """The rows of SE, ECA and CBAM."""
    for attention in (theirs, f"{theirs}.channel"):  # CBAM's is the second
        yield from layer(f"{ours}/mlp/up", f"{attention}.fc1", "conv_linear")
        yield from layer(f"{ours}/mlp/down", f"{attention}.fc2", "conv_linear")
    yield from layer(f"{ours}/conv", f"{theirs}.conv", "conv1d")
    yield from layer(f"{ours}/conv", f"{theirs}.spatial.conv.conv")
    yield from norm(f"{ours}/norm", f"{theirs}.spatial.conv.bn")


def botnet(ours: str, theirs: str) -> Iterator[Row]:
    """The rows of BoTNet's attention; query, key and value are one convolution."""
    for i, name in enumerate(("query", "key", "value")):
        yield Row(f"{ours}/{name}/kernel", f"{theirs}.qkv.weight", "conv_heads_in", Part(i, 3, 0))
    yield Row(f"{ours}/row_position_embedding", f"{theirs}.pos_embed.height_rel")
    yield Row(f"{ours}/column_position_embedding", f"{theirs}.pos_embed.width_rel")


FAMILY = Family(
    rows=(
        *layer("conv_stem", "conv1"),
        *norm("norm_stem", "bn1"),
        *layer(f"{BLOCK}/conv_{{k}}", f"{V1_BLOCK}.conv{{k}}"),
        *norm(f"{BLOCK}/norm_{{k}}", f"{V1_BLOCK}.bn{{k}}"),
        *layer(f"{BLOCK}/conv_shortcut", f"{V1_BLOCK}.downsample.0"),
        *norm(f"{BLOCK}/norm_shortcut", f"{V1_BLOCK}.downsample.1"),
        *gate(f"{BLOCK}/gate", f"{V1_BLOCK}.se"),
        *botnet(f"{BLOCK}/attention", f"{V1_BLOCK}.conv2"),
        *layer("head", "fc", "linear"),
        *layer("conv_stem", "stem.conv"),
        *layer(f"{BLOCK}/conv_{{k}}", f"{V2_BLOCK}.conv{{k}}"),
        *norm(f"{BLOCK}/norm_{{k}}", f"{V2_BLOCK}.norm{{k}}"),
        *layer(f"{BLOCK}/conv_shortcut", f"{V2_BLOCK}.downsample.conv"),
        *norm("norm", "norm"),
        *layer("head", "head.fc", "conv_linear"),
    ),
    extras=tuple(
        Extra(f"{name}.num_batches_tracked")
        for name in (
            "bn1",
            f"{V1_BLOCK}.bn{{k}}",
            f"{V1_BLOCK}.downsample.1",
            f"{V1_BLOCK}.se.spatial.conv.bn",
        )
    ),
)
