"""timm's ConvNeXt (Liu et al. 2022), from its state dict or a checkpoint file of the Hub.

The same numbers need a `ConvNeXt` of the same sizes; its defaults are timm's.
"""

from jaxformer.weights.convert import Family, Row

OURS, THEIRS = "stage_{i+1}_block_{j}", "stages.{i}.blocks.{j}"
FIRST, BEFORE = "stage_{i+1}_block_0", "stages.{i}.downsample"
FAMILY = Family(
    rows=(
        Row("patch_embedding/kernel", "stem.0.weight", "conv"),
        Row("patch_embedding/bias", "stem.0.bias"),
        Row("norm_stem/scale", "stem.1.weight"),
        Row("norm_stem/bias", "stem.1.bias"),
        Row(f"{FIRST}/norm_downsample/scale", f"{BEFORE}.0.weight"),
        Row(f"{FIRST}/norm_downsample/bias", f"{BEFORE}.0.bias"),
        Row(f"{FIRST}/conv_downsample/kernel", f"{BEFORE}.1.weight", "conv"),
        Row(f"{FIRST}/conv_downsample/bias", f"{BEFORE}.1.bias"),
        Row(f"{OURS}/conv_1/kernel", f"{THEIRS}.conv_dw.weight", "conv"),
        Row(f"{OURS}/conv_1/bias", f"{THEIRS}.conv_dw.bias"),
        Row(f"{OURS}/norm_1/scale", f"{THEIRS}.norm.weight"),
        Row(f"{OURS}/norm_1/bias", f"{THEIRS}.norm.bias"),
        Row(f"{OURS}/mlp/up/kernel", f"{THEIRS}.mlp.fc1.weight", "linear"),
        Row(f"{OURS}/mlp/up/bias", f"{THEIRS}.mlp.fc1.bias"),
        Row(f"{OURS}/mlp/down/kernel", f"{THEIRS}.mlp.fc2.weight", "linear"),
        Row(f"{OURS}/mlp/down/bias", f"{THEIRS}.mlp.fc2.bias"),
        Row(f"{OURS}/layer_scale_1/scale", f"{THEIRS}.gamma"),
        Row("norm/scale", "head.norm.weight"),
        Row("norm/bias", "head.norm.bias"),
        Row("head/kernel", "head.fc.weight", "linear"),
        Row("head/bias", "head.fc.bias"),
    )
)
