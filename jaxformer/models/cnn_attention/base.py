"""The base of attentions inside CNNs."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from flax import linen as nn

from jaxformer.models.base import Layer
from jaxformer.models.token_layout import Grid, TokenLayout, plain_layout


class CnnAttention(Layer):
    """What a ResNet's block asks of an attention; see the package's docstring."""

    where: ClassVar[Literal["branch", "inner", "block"]] = "branch"
    num_heads = 1

    @nn.nowrap
    def token_layout(self, grids: Sequence[Grid], asks: int, sees: int, cross: bool) -> TokenLayout:
        against = "its attention stands between convolutions"
        return plain_layout(grids, asks, sees, cross, against_rollout=against)
