"""The Transformer block of every family: encoders' and decoders', before and after the norm."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from jaxformer.models.attention import SEES_ALL, Attention, KeyValues
from jaxformer.models.base import Layer
from jaxformer.models.dense import Initializer, xavier
from jaxformer.models.drop_path import ResidualLayer, drop_path
from jaxformer.models.dropout import Dropout
from jaxformer.models.experts import ExpertMlp, Experts, RouterLosses
from jaxformer.models.masks import Mask
from jaxformer.models.mlp import ActivationName, Mlp
from jaxformer.models.norms import NormName, token_norm


@struct.dataclass
class LayerCache:
    """What one block remembers of the tokens before."""

    own: KeyValues
    """Keys and values of self-attention."""
    memory: KeyValues | None = None
    """Those of cross-attention, computed once; None where there is none."""


@struct.dataclass
class StackInputs:
    """What all blocks of a stack are given."""

    mask: Mask = SEES_ALL
    """Of self-attention."""
    bias: jax.Array | None = None
    """Of self-attention's logits, broadcast to [B, H, T, S]."""
    rotary: tuple[jax.Array, jax.Array] | None = None
    """`Rotary.tables` of the tokens' positions."""
    valid: jax.Array | None = None
    """Bool [B, T], False on padding; for the experts' router."""
    context: jax.Array | None = None
    """What cross-attention looks at, [B, S, D]."""
    context_mask: Mask = SEES_ALL
    """Its mask."""
    context_bias: jax.Array | None = None
    """Of cross-attention's logits, broadcast to [B, H, T, S]."""
    positions: jax.Array | None = None
    """What is added to tokens for queries and keys alone, [B, T, D]."""
    context_positions: jax.Array | None = None
    """The same of what cross-attention looks at, [B, S, D]; there where `positions` is."""
    slot: jax.Array | None = None
    """Int32 [], where the cache is written; None without a cache."""
    remembers: bool = struct.field(pytree_node=False, default=False)
    """Whether the blocks return their caches."""


@struct.dataclass
class BlockInputs:
    """What one block of a stack is given."""

    drop_path: jax.Array | None = None
    """Its rate of dropped paths, float32 []; None where no path is ever dropped."""
    mask: Mask | None = None
    """Of self-attention, in the place of the shared one."""
    cache: LayerCache | None = None
    """What it remembers."""


@struct.dataclass
class Aux:
    """What a block returns beside its tokens."""

    cache: LayerCache | None = None
    """What it remembers now, if asked."""
    router: RouterLosses | None = None
    """Its router's losses, if it has experts."""


class LayerScale(Layer):
    """A learned factor for each channel of a residual branch (Touvron et al. 2021, CaiT, section 2)."""

    initial: float
    """The factor's first value."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Scales [..., D]."""
        scale = self.param("scale", nn.initializers.constant(self.initial), (x.shape[-1],), self.param_dtype)
        return x * jnp.broadcast_to(scale.astype(self.dtype), x.shape)


class Block(ResidualLayer):
    """Attention and MLP, each around a residual (Vaswani et al. 2017, section 3.1)."""

    num_heads: int
    """Number of attention heads."""
    mlp_dim: int
    """Hidden width of the MLP."""
    num_kv_heads: int | None = None
    """Number of heads of keys and values; None: as many."""
    head_dim: int | None = None
    """Size of a head; None: the width over the heads."""
    activation: ActivationName = "gelu_tanh"
    """Activation of the MLP."""
    norm: NormName = "layer"
    """LayerNorm ("layer") or RMSNorm ("rms")."""
    norm_epsilon: float = 1e-6
    """Epsilon of the norms."""
    norm_position: Literal["pre", "post", "between"] = "pre"
    """Before each branch ("pre", Dosovitskiy et al. 2021, equations 2 and 3), after each sum ("post",
    Vaswani et al. 2017), or before attention and, for the residual too, before the MLP ("between")."""
    use_bias: bool = True
    """Whether dense layers and LayerNorms have biases."""
    qkv_bias: bool | None = None
    """Whether query, key and value have biases; None: as the others."""
    attention_scale: float | None = None
    """Scale of the attention's logits; None: 1 / sqrt(head_dim)."""
    qk_norm: bool = False
    """Normalises queries and keys."""
    cross: bool = False
    """Whether there is cross-attention between the two (to `StackInputs.context`)."""
    experts: Experts | None = None
    """A mixture of experts in the MLP's place."""
    layer_scale: float | None = None
    """First value of LayerScale; None has none."""
    mlp_dropout: float = 0.0
    """Rate of dropout after the MLP's activation."""
    kernel_init: Initializer = xavier
    """Initializer of the kernels into heads and hidden units."""
    out_init: Initializer = xavier
    """Initializer of the kernels back to the width."""

    @nn.compact
    def __call__(
        self, x: jax.Array, inputs: BlockInputs, shared: StackInputs, deterministic: bool
    ) -> tuple[jax.Array, Aux]:
        """Maps [B, T, D] to [B, T, D], as a block of a `Stack`."""
        found: dict[str, Any] = {}

        def residual(x: jax.Array, number: int | str, branch: Any) -> jax.Array:
            norm = token_norm(
                self.norm, self.norm_epsilon, self.use_bias, name=f"norm_{number}", **self.dtypes
            )
            if self.norm_position == "between" and number == 2:
                x = y = norm(x)
            else:
                y = x if self.norm_position == "post" else norm(x)
            y = branch(y)
            y = Dropout(self.dropout)(y, deterministic=deterministic)
            if self.layer_scale is not None:
                y = LayerScale(self.layer_scale, **self.dtypes, name=f"layer_scale_{number}")(y)
            if inputs.drop_path is not None and not deterministic:
                y = drop_path(y, inputs.drop_path, self.make_rng("dropout"))
            return norm(x + y) if self.norm_position == "post" else x + y

        def attend(y: jax.Array) -> jax.Array:
            y, found["own"] = self.attention("attention")(
                y,
                mask=shared.mask if inputs.mask is None else inputs.mask,
                bias=shared.bias,
                rotary=shared.rotary,
                positions=both(shared.positions, shared.positions),
                cache=None if inputs.cache is None else inputs.cache.own,
                slot=shared.slot,
                deterministic=deterministic,
            )
            return y

        def attend_to_context(y: jax.Array) -> jax.Array:
            y, found["memory"] = self.attention("cross_attention")(
                y,
                shared.context,
                mask=shared.context_mask,
                bias=shared.context_bias,
                positions=both(shared.positions, shared.context_positions),
                cache=None if inputs.cache is None else inputs.cache.memory,
                deterministic=deterministic,
            )
            return y

        def mlp(y: jax.Array) -> jax.Array:
            common = self.passed_on("mlp_dim", "activation", "kernel_init", "out_init")
            if self.experts is not None:
                y, found["router"] = ExpertMlp(self.experts, **common, name="experts")(y, shared.valid)
                return y
            layer = Mlp(dropout=self.mlp_dropout, use_bias=self.use_bias, **common, name="mlp")
            return layer(y, deterministic=deterministic)

        x = residual(x, 1, attend)  # [B, T, D]
        if self.cross:
            x = residual(x, "cross", attend_to_context)
        x = residual(x, 2, mlp)
        cache = LayerCache(found["own"], found.get("memory")) if shared.remembers else None
        return x, Aux(cache, found.get("router"))

    def attention(self, name: str) -> Attention:
        """An attention layer of this block."""
        return Attention(
            qkv_bias=self.use_bias if self.qkv_bias is None else self.qkv_bias,
            out_bias=self.use_bias,
            scale=self.attention_scale,
            dropout=self.attention_dropout,
            **self.passed_on(
                *(
                    "num_heads",
                    "num_kv_heads",
                    "head_dim",
                    "qk_norm",
                    "norm_epsilon",
                    "kernel_init",
                    "out_init",
                )
            ),
            name=name,
        )


def both(first: jax.Array | None, second: jax.Array | None) -> tuple[jax.Array, jax.Array] | None:
    """Two arrays, or None where either is."""
    return None if first is None or second is None else (first, second)
