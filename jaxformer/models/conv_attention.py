"""What CoAtNet and MaxViT are alike in: a convolutional stem, stages that halve the map, and what the head sees."""

from typing import Any

import jax
from flax import linen as nn

from jaxformer.config.fields import PositiveFloat, PositiveInt
from jaxformer.models.base import Dropouts, Staged, Stages
from jaxformer.models.head import logits_of
from jaxformer.models.mbconv import MBConvSettings, stem, summary
from jaxformer.models.mlp import ActivationName
from jaxformer.models.outputs import ImageOutputs


class ConvAttentionModel(Staged, Dropouts):
    """A classifier of images by stages of convolutions and attention; a family says what its blocks are."""

    stage_sizes: Stages = (2, 3, 5, 2)
    """Number of blocks in each stage; every stage halves the feature map, and the stem the image."""
    widths: tuple[PositiveInt, ...] = (96, 192, 384, 768)
    """Number of channels of each stage."""
    stem_widths: tuple[PositiveInt, PositiveInt] = (64, 64)
    """Number of channels of the stem's two convolutions."""
    stem_bias: bool = False
    """Whether the stem's convolutions have biases."""
    representation: PositiveInt | None = 768
    """Width of a tanh layer between pooling and head; None: no layer, and the norm stands before the
    pooling."""
    mbconv: MBConvSettings = MBConvSettings()
    """The convolutional blocks."""
    head_dim: PositiveInt = 32
    """Size of the attention heads; must divide the widths."""
    mlp_ratio: PositiveInt = 4
    """Hidden width of the MLPs over the width."""
    activation: ActivationName = "gelu_erf"
    """Activation of the MLPs."""
    norm_epsilon: PositiveFloat = 1e-6
    """Epsilon of LayerNorms."""

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> ImageOutputs:
        """Classifies images, float [B, H, W, C]; "tokens" of the outputs is the last feature map."""
        norm = self.mbconv.norm(self, deterministic)
        x = stem(image, self.stem_widths, self.stem_bias, self.mbconv, norm, **self.dtypes)  # [B, h, w, C]
        maps = self.staged(x, self.block, deterministic)
        features = summary(maps[-1], self.representation, self.norm_epsilon, **self.dtypes)  # [B, D]
        logits = logits_of(features, self.num_classes, self.param_dtype)
        return ImageOutputs(logits, features, maps[-1], maps)

    def block(self, stage: int, i: int, **common: Any) -> nn.Module:
        """Block number `i` of a stage; see `Staged.staged`."""
        raise NotImplementedError

    @nn.nowrap
    def attention_fields(self) -> dict[str, Any]:
        """The fields of what attends in a block."""
        return self.passed_on(
            "head_dim", "mlp_ratio", "activation", "norm_epsilon", "dropout", "attention_dropout"
        )
