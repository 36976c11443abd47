"""The Transformer block of every family: encoders' and decoders', before and after the norm."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from jaxformer.models.attention import SEES_ALL, Attention, KeyValues
from jaxformer.models.dense import Initializer, xavier
from jaxformer.models.drop_path import drop_path
from jaxformer.models.dropout import Dropout
from jaxformer.models.experts import ExpertMlp, Experts, RouterLosses
from jaxformer.models.masks import Mask
from jaxformer.models.mlp import ActivationName, Mlp
from jaxformer.models.norms import NormName, token_norm

Dtype = Any


@struct.dataclass
class LayerCache:
    """What one block remembers of the tokens before."""

    own: KeyValues
    """Keys and values of self-attention."""
    memory: KeyValues | None = None
    """Those of cross-attention, computed once; None where there is none."""


@struct.dataclass
class Shared:
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
class Layer:
    """What one block of a stack is given."""

    drop_path: jax.Array | None = None
    """Its rate of dropped paths, float32 []; None where no path is ever dropped."""
    mask: Mask | None = None
    """Of self-attention, in the place of the shared one."""
    cache: LayerCache | None = None
    """What it remembers."""


@struct.dataclass
class Beside:
    """What a block returns beside its tokens."""

    cache: LayerCache | None = None
    """What it remembers now, if asked."""
    router: RouterLosses | None = None
    """Its router's losses, if it has experts."""


class LayerScale(nn.Module):
    """A learned factor for each channel of a residual branch (Touvron et al. 2021, CaiT, section 2)."""

    initial: float
    """The factor's first value."""
    dtype: Dtype = jnp.float32
    """Of the computation."""
    param_dtype: Dtype = jnp.float32
    """Of the factors."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Scales [..., D]."""
        scale = self.param("scale", nn.initializers.constant(self.initial), (x.shape[-1],), self.param_dtype)
        return x * jnp.broadcast_to(scale.astype(self.dtype), x.shape)


class Block(nn.Module):
    """Attention and MLP, each around a residual (Vaswani et al. 2017, section 3.1)."""

    num_heads: int
    """Attention heads."""
    mlp_dim: int
    """The MLP's hidden width."""
    num_kv_heads: int | None = None
    """Heads of keys and values; None: as many."""
    head_dim: int | None = None
    """A head's size; None: the width over the heads."""
    activation: ActivationName = "gelu_tanh"
    """The MLP's."""
    norm: NormName = "layer"
    """LayerNorm ("layer") or RMSNorm ("rms")."""
    norm_epsilon: float = 1e-6
    """Of the norms."""
    norm_position: Literal["pre", "post"] = "pre"
    """Before each branch ("pre", Dosovitskiy et al. 2021, equations 2 and 3) or after each sum ("post",
    Vaswani et al. 2017)."""
    use_bias: bool = True
    """Whether dense layers and LayerNorms have biases."""
    qkv_bias: bool | None = None
    """Whether query, key and value have; None: as the others."""
    attention_scale: float | None = None
    """Of the attention's logits; None: 1 / sqrt(head_dim)."""
    qk_norm: bool = False
    """Normalises queries and keys."""
    cross: bool = False
    """Whether there is cross-attention between the two (to `Shared.context`)."""
    experts: Experts | None = None
    """A mixture of experts in the MLP's place."""
    layer_scale: float | None = None
    """The first value of LayerScale; None has none."""
    dropout: float = 0.0
    """Of each branch's result."""
    mlp_dropout: float = 0.0
    """After the MLP's activation."""
    attention_dropout: float = 0.0
    """Of the attention weights."""
    kernel_init: Initializer = xavier
    """Of the kernels into heads and hidden units."""
    out_init: Initializer = xavier
    """Of those back to the width."""
    dtype: Dtype = jnp.float32
    """Of the computation."""
    param_dtype: Dtype = jnp.float32
    """Of the parameters."""

    @nn.compact
    def __call__(
        self, x: jax.Array, layer: Layer, shared: Shared, deterministic: bool
    ) -> tuple[jax.Array, Beside]:
        """Maps [B, T, D] to [B, T, D], as a block of a `Stack`."""
        beside: dict[str, Any] = {}

        def residual(x: jax.Array, number: int | str, branch: Any) -> jax.Array:
            norm = token_norm(
                self.norm, self.norm_epsilon, self.use_bias, self.dtype, self.param_dtype, f"norm_{number}"
            )
            y = branch(norm(x) if self.norm_position == "pre" else x)
            y = Dropout(self.dropout)(y, deterministic=deterministic)
            if self.layer_scale is not None:
                name = f"layer_scale_{number}"
                y = LayerScale(self.layer_scale, self.dtype, self.param_dtype, name=name)(y)
            if layer.drop_path is not None and not deterministic:
                y = drop_path(y, layer.drop_path, self.make_rng("dropout"))
            return x + y if self.norm_position == "pre" else norm(x + y)

        def attend(y: jax.Array) -> jax.Array:
            y, beside["own"] = self.attention("attention")(
                y,
                mask=shared.mask if layer.mask is None else layer.mask,
                bias=shared.bias,
                rotary=shared.rotary,
                positions=both(shared.positions, shared.positions),
                cache=None if layer.cache is None else layer.cache.own,
                slot=shared.slot,
                deterministic=deterministic,
            )
            return y

        def attend_to_context(y: jax.Array) -> jax.Array:
            y, beside["memory"] = self.attention("cross_attention")(
                y,
                shared.context,
                mask=shared.context_mask,
                bias=shared.context_bias,
                positions=both(shared.positions, shared.context_positions),
                cache=None if layer.cache is None else layer.cache.memory,
                deterministic=deterministic,
            )
            return y

        def mlp(y: jax.Array) -> jax.Array:
            if self.experts is not None:
                experts = ExpertMlp(
                    self.experts,
                    self.mlp_dim,
                    self.activation,
                    self.kernel_init,
                    self.out_init,
                    self.dtype,
                    self.param_dtype,
                    name="experts",
                )
                y, beside["router"] = experts(y, shared.valid)
                return y
            layer = Mlp(
                self.mlp_dim,
                self.activation,
                self.mlp_dropout,
                self.use_bias,
                self.kernel_init,
                self.out_init,
                self.dtype,
                self.param_dtype,
                name="mlp",
            )
            return layer(y, deterministic=deterministic)

        x = residual(x, 1, attend)
        if self.cross:
            x = residual(x, "cross", attend_to_context)
        x = residual(x, 2, mlp)
        cache = LayerCache(beside["own"], beside.get("memory")) if shared.remembers else None
        return x, Beside(cache, beside.get("router"))

    def attention(self, name: str) -> Attention:
        """An attention layer of this block."""
        return Attention(
            self.num_heads,
            self.num_kv_heads,
            self.head_dim,
            self.use_bias if self.qkv_bias is None else self.qkv_bias,
            self.use_bias,
            self.attention_scale,
            self.qk_norm,
            self.norm_epsilon,
            self.attention_dropout,
            self.kernel_init,
            self.out_init,
            self.dtype,
            self.param_dtype,
            name=name,
        )


def both(first: jax.Array | None, second: jax.Array | None) -> tuple[jax.Array, jax.Array] | None:
    """Two arrays, or None where either is."""
    return None if first is None or second is None else (first, second)
