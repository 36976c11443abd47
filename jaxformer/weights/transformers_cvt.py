"""Hugging Face transformers' CvtForImageClassification (Wu et al. 2021), from a checkpoint file's tensors.

The same numbers need a `CvT` of the same sizes; its defaults are transformers'.
"""

from collections.abc import Iterator

from jaxformer.weights.convert import Extra, Family, Row

OURS, THEIRS = "stage_{i+1}_block_{j}", "cvt.encoder.stages.{i}.layers.{j}"
FIRST, BEFORE = "stage_{i+1}_block_0", "cvt.encoder.stages.{i}.embedding.convolution_embeddings"
STEM = BEFORE.replace("{i}", "0")
PROJECTIONS = ("query", "key", "value")


def of_projection(name: str) -> str:
    """The name of the convolution and norm before queries, keys or values."""
    return f"{THEIRS}.attention.attention.convolution_projection_{name}.convolution_projection"


def projection(name: str) -> Iterator[Row]:
    """The rows of queries, keys or values."""
    linear = f"{THEIRS}.attention.attention.projection_{name}"
    yield Row(f"{OURS}/attention/{name}/kernel", f"{linear}.weight", "heads_in")
    yield Row(f"{OURS}/attention/{name}/bias", f"{linear}.bias", "heads_bias")
    yield Row(f"{OURS}/attention/conv_{name}/kernel", f"{of_projection(name)}.convolution.weight", "conv")
    for ours, theirs in (
        ("scale", "weight"),
        ("bias", "bias"),
        ("mean", "running_mean"),
        ("var", "running_var"),
    ):
        yield Row(f"{OURS}/attention/norm_{name}/{ours}", f"{of_projection(name)}.normalization.{theirs}")


FAMILY = Family(
    rows=(
        Row("conv_stem/kernel", f"{STEM}.projection.weight", "conv"),
        Row("conv_stem/bias", f"{STEM}.projection.bias"),
        Row("norm_stem/scale", f"{STEM}.normalization.weight"),
        Row("norm_stem/bias", f"{STEM}.normalization.bias"),
        Row(f"{FIRST}/conv_downsample/kernel", f"{BEFORE}.projection.weight", "conv"),
        Row(f"{FIRST}/conv_downsample/bias", f"{BEFORE}.projection.bias"),
        Row(f"{FIRST}/norm_downsample/scale", f"{BEFORE}.normalization.weight"),
        Row(f"{FIRST}/norm_downsample/bias", f"{BEFORE}.normalization.bias"),
        *(Row("class_token", f"cvt.encoder.stages.{stage}.cls_token") for stage in range(8)),
        Row(f"{OURS}/norm_1/scale", f"{THEIRS}.layernorm_before.weight"),
        Row(f"{OURS}/norm_1/bias", f"{THEIRS}.layernorm_before.bias"),
        *(row for name in PROJECTIONS for row in projection(name)),
        Row(f"{OURS}/attention/out/kernel", f"{THEIRS}.attention.output.dense.weight", "heads_out"),
        Row(f"{OURS}/attention/out/bias", f"{THEIRS}.attention.output.dense.bias"),
        Row(f"{OURS}/norm_2/scale", f"{THEIRS}.layernorm_after.weight"),
        Row(f"{OURS}/norm_2/bias", f"{THEIRS}.layernorm_after.bias"),
        Row(f"{OURS}/mlp/up/kernel", f"{THEIRS}.intermediate.dense.weight", "linear"),
        Row(f"{OURS}/mlp/up/bias", f"{THEIRS}.intermediate.dense.bias"),
        Row(f"{OURS}/mlp/down/kernel", f"{THEIRS}.output.dense.weight", "linear"),
        Row(f"{OURS}/mlp/down/bias", f"{THEIRS}.output.dense.bias"),
        Row("norm/scale", "layernorm.weight"),
        Row("norm/bias", "layernorm.bias"),
        Row("head/kernel", "classifier.weight", "linear"),
        Row("head/bias", "classifier.bias"),
    ),
    extras=tuple(Extra(f"{of_projection(name)}.normalization.num_batches_tracked") for name in PROJECTIONS),
)
