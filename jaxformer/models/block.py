"""The Transformer block of every family: encoders' and decoders', before and after the norm."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array

from jaxformer.models.attention import SEES_ALL, Attention
from jaxformer.models.base import Layer
from jaxformer.models.dense import Dense, Initializer, xavier
from jaxformer.models.dropout import Dropout, ResidualLayer, drop_path
from jaxformer.models.masks import LayerCache, Mask
from jaxformer.models.mlp import ACTIVATIONS, ActivationName, ExpertMlp, Experts, Mlp, RouterLosses
from jaxformer.models.norms import NormName, token_norm
from jaxformer.models.placement import split_by_rows


@struct.dataclass
class StackInputs:
    """What all blocks of a stack are given."""

    mask: Mask = SEES_ALL
    """What self-attention may look at."""
    bias: Array | None = None
    """Added to self-attention's logits, broadcast to [B, H, T, S]."""
    rotary: tuple[Array, Array] | None = None
    """`Rotary.tables` of the tokens' positions."""
    valid: Array | None = None
    """Bool [B, T], False on padding; for the experts' router."""
    context: Array | None = None
    """What cross-attention looks at, [B, S, D]."""
    context_mask: Mask = SEES_ALL
    """Which places of the context cross-attention may look at."""
    context_bias: Array | None = None
    """Added to cross-attention's logits, broadcast to [B, H, T, S]."""
    positions: Array | None = None
    """What is added to tokens for queries and keys alone, [B, T, D]."""
    context_positions: Array | None = None
    """The same for the context, [B, S, D]; given if `positions` are."""
    slot: Array | None = None
    """Int32 [], where the cache is written; None without a cache."""


@struct.dataclass
class BlockInputs:
    """What one block of a stack is given."""

    drop_path: Array | None = None
    """Its rate of dropped paths, float32 []; None where no path is ever dropped."""
    mask: Mask | None = None
    """Self-attention's mask, in the place of the shared one."""
    rotary: tuple[Array, Array] | None = None
    """`Rotary.tables` in the place of the shared ones."""
    cache: LayerCache | None = None
    """The keys and values of the tokens before."""
    first: int = struct.field(pytree_node=False, default=0)
    """How many of the first tokens are given by themselves, too (`Aux.first`); 0: none."""


@struct.dataclass
class Aux:
    """What a block returns beside its tokens."""

    cache: LayerCache | None = None
    """What it remembers now, if asked."""
    router: RouterLosses | None = None
    """Its router's losses, if it has experts."""
    first: Array | None = None
    """The first tokens of the result, if asked, [B, N, D]. They go through the last norm and MLP by themselves: where
    nothing reads the other tokens, XLA leaves out theirs."""


class LayerScale(Layer):
    """A learned factor for each channel of a residual branch (Touvron et al. 2021, CaiT, section 2)."""

    initial: float
    """The factor's first value."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Scales [..., D]."""
        scale = self.param("scale", nn.initializers.constant(self.initial), (x.shape[-1],), self.param_dtype)
        return x * jnp.broadcast_to(scale.astype(self.dtype), x.shape)


class Bottleneck(Layer):
    """Two dense layers with few units between, around a residual (Houlsby et al. 2019, figure 2).

    They are nearly nothing at first, as in google-research/adapter-bert.
    """

    width: int
    """Number of units between."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [..., D] to the same."""
        fields: dict[str, Any] = {"kernel_init": nn.initializers.truncated_normal(1e-3), **self.dtypes}
        hidden = ACTIVATIONS["gelu_tanh"](Dense(self.width, **fields, name="down")(x))
        return x + Dense(x.shape[-1], **fields, name="up")(hidden)


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
    attention_norm: bool = True
    """Whether there is a norm of attention's branch."""
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
    bottleneck: int = 0
    """Units of a `Bottleneck` behind each branch; 0: there are none."""
    prefix: int = 0
    """As of `Attention`."""
    mlp_dropout: float = 0.0
    """Rate of dropout after the MLP's activation."""
    kernel_init: Initializer = xavier
    """Initializer of the kernels into heads and hidden units."""
    out_init: Initializer = xavier
    """Initializer of the kernels back to the width."""

    @nn.compact
    def __call__(
        self, x: Array, inputs: BlockInputs, shared: StackInputs, deterministic: bool
    ) -> tuple[Array, Aux]:
        """Maps [B, T, D] to [B, T, D], as a block of a `Stack`."""
        found: dict[str, Any] = {}

        def residual(number: int | str, branch: Any) -> Callable[[Array], Array]:
            norm, *behind = self.around(number)

            def applied(x: Array) -> Array:
                if self.norm_position == "between" and number == 2:
                    x = y = norm(x)
                else:
                    y = x if self.norm_position == "post" else norm(x)
                y = branch(y)
                y = Dropout(self.dropout)(y, deterministic=deterministic)
                for layer in behind:
                    y = layer(y)
                if inputs.drop_path is not None and not deterministic:
                    y = drop_path(y, inputs.drop_path, self.make_rng("dropout"))
                return norm(x + y) if self.norm_position == "post" else x + y

            return applied

        cache = inputs.cache or LayerCache()
        drops: Any = {"deterministic": deterministic}

        def attend(y: Array) -> Array:
            mask = shared.mask if inputs.mask is None else inputs.mask
            positions = both(shared.positions, shared.positions)
            layer = partial(
                self.attention("attention"),
                mask=mask,
                bias=shared.bias,
                rotary=inputs.rotary or shared.rotary,
            )
            y, found["own"] = layer(y, positions=positions, cache=cache.own, slot=shared.slot, **drops)
            return y

        def attend_to_context(y: Array) -> Array:
            positions = both(shared.positions, shared.context_positions)
            layer = partial(
                self.attention("cross_attention"), mask=shared.context_mask, bias=shared.context_bias
            )
            memory = cache.memory if shared.context is None else None
            y, found["memory"] = layer(y, shared.context, positions=positions, cache=memory, **drops)
            return y

        x = residual(1, attend)(split_by_rows(x))  # [B, T, D]
        if self.cross:
            x = residual("cross", attend_to_context)(x)
        layer: Any
        if self.experts is None:
            layer = Mlp(**self.passed_to(Mlp) | {"dropout": self.mlp_dropout}, name="mlp")
        else:
            config = self.experts if shared.slot is None else self.experts.roomy
            layer = ExpertMlp(config, **self.passed_to(ExpertMlp), name="experts")

        def mlp(y: Array) -> Array:
            if self.experts is None:
                return layer(y, deterministic=deterministic)
            y, found["router"] = layer(y, shared.valid)
            return y

        second = residual(2, mlp)
        if inputs.first:
            rest, first = second(x[:, inputs.first :]), second(x[:, : inputs.first])
            x = jnp.concatenate([first, rest], axis=1)
        else:
            x, first = second(x), None
        x = split_by_rows(x)
        kept = None if shared.slot is None else LayerCache(found["own"], found.get("memory"))
        return x, Aux(kept, found.get("router"), first)

    def around(self, number: int | str) -> list[Any]:
        """The norm of a branch, and the layers behind it."""
        norm: Any = token_norm(
            self.norm, self.norm_epsilon, self.use_bias, name=f"norm_{number}", **self.dtypes
        )
        found = [norm if self.attention_norm or number != 1 else lambda x: x]
        if self.bottleneck:
            found.append(Bottleneck(self.bottleneck, **self.dtypes, name=f"adapter_{number}"))
        if self.layer_scale is not None:
            found.append(LayerScale(self.layer_scale, **self.dtypes, name=f"layer_scale_{number}"))
        return found

    def attention(self, name: str) -> Attention:
        """An attention layer of this block."""
        qkv_bias = self.use_bias if self.qkv_bias is None else self.qkv_bias
        own = {"qkv_bias": qkv_bias, "out_bias": self.use_bias, "scale": self.attention_scale}
        fields = self.passed_to(Attention) | own | {"dropout": self.attention_dropout}
        return Attention(**fields, name=name)


def both(first: Array | None, second: Array | None) -> tuple[Array, Array] | None:
    """Two arrays, or None where either is."""
    return None if first is None or second is None else (first, second)
