"""Attention inside CNNs: what a ResNet's blocks can be given, by name.

To add one: a file with a linen module, and its line in ATTENTIONS. The module maps a feature map [B, H, W, C] to one of
the same shape, `module(x, norm)`; `norm` makes the network's normalisation from linen keyword arguments. It is derived
from `base.CnnAttention`, and its class attribute `where` says what it is given:

  "branch"  what the residual branch gives, before it is added to the shortcut;
  "inner"   what goes into a bottleneck's 3x3 convolution, in the place of that; the block halves the result by the mean
            of each 2x2 where that convolution would have had a stride of 2;
  "block"   what the whole block gives.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from jaxformer.config.fields import not_empty
from jaxformer.config.schema import choice

Numbers: TypeAlias = Annotated[tuple[int, ...], not_empty("at least one, or None for all")]
ATTENTIONS = {
    "botnet": "jaxformer.models.cnn_attention.botnet:BottleneckAttention",
    "cbam": "jaxformer.models.cnn_attention.cbam:CBAM",
    "coordinate": "jaxformer.models.cnn_attention.coordinate:CoordinateAttention",
    "eca": "jaxformer.models.cnn_attention.eca:EfficientChannelAttention",
    "non_local": "jaxformer.models.cnn_attention.non_local:NonLocal",
    "se": "jaxformer.models.cnn_attention.se:SqueezeExcitation",
}


@dataclass(frozen=True)
class Placement:
    """Which attention stands where in a ResNet."""

    module: Any = choice(ATTENTIONS)  # noqa: RUF009
    """One of ATTENTIONS, such as {"name": "se", "reduction": 8}."""
    stages: Numbers | None = None
    """Those that have it, counted from 1; None: all."""
    blocks: Numbers | None = None
    """Those of each of these stages that have it, counted from 0, or from the end: -1 is the last; None:
    all."""

    def holds(self, stage: int, block: int, size: int) -> bool:
        """Whether block number `block` of the `size` blocks in a stage has it."""
        in_stage = self.stages is None or stage in self.stages
        return in_stage and (self.blocks is None or block in self.blocks or block - size in self.blocks)

    def misplaced(self, stage_sizes: tuple[int, ...]) -> Iterator[str]:
        """Yields a line if a network with these stages has no such stage or block."""
        for stage in self.stages or ():
            if not 1 <= stage <= len(stage_sizes):
                yield f"stages={list(self.stages or ())}: there are {len(stage_sizes)} stages, counted from 1"
        sizes = [size for stage, size in enumerate(stage_sizes, 1) if not self.stages or stage in self.stages]
        for block in self.blocks or ():
            if sizes and not any(-size <= block < size for size in sizes):
                yield f"blocks={list(self.blocks or ())}: there are {max(sizes)} blocks in a stage, counted from 0"
