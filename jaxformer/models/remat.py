"""What the backward pass of a block keeps of its forward pass, and what it computes again (Chen et al. 2016,
"Training Deep Nets with Sublinear Memory Cost").

Layers name what they make: what a policy keeps is said in these names, not in XLA's operations, whose results are
float32 where a layer's are bfloat16.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
from jax import Array
from jax.ad_checkpoint import checkpoint_name

Policy: TypeAlias = Callable[..., Any]
PRODUCT = "product"  # a dense layer's result
ATTENTION = "attention"  # that of attention, and its weights, where no kernel makes them
CHOICE = "choice"  # what dropout drops, and where a router sends tokens
STATISTIC = "statistic"  # a token's mean or mean square, in a norm
# JAX's names of the operations that are fused attention.
KERNELS = {"pallas_call", "dot_product_attention_fwd_wrapper"}


def named(x: Array, name: str) -> Array:
    """`x`, which policies know by one of the names above."""
    return checkpoint_name(x, name)


def keeping(*names: str) -> Policy:
    """The policy that keeps what has one of these names, kernels' results with those of attention, and what is small
    beside all these: choices and statistics."""
    by_name = jax.checkpoint_policies.save_only_these_names(*names, CHOICE, STATISTIC)

    def policy(primitive: Any, *shapes: Any, **parameters: Any) -> bool:
        kernel = ATTENTION in names and primitive.name in KERNELS
        return kernel or by_name(primitive, *shapes, **parameters)

    return policy


def products_of_pairs(primitive: Any, *_: Any, **parameters: Any) -> bool:
    """Whether it is a product of two arrays that have a batch axis, such as attention's, or a convolution."""
    if primitive.name == "dot_general":
        return bool(parameters["dimension_numbers"][1][0])
    return primitive.name == "conv_general_dilated"


def offloading(*names: str) -> Policy:
    """The policy that keeps what "none" does, what has one of these names in the memory of the host."""
    kept = keeping(*{PRODUCT, ATTENTION} - set(names))
    in_host = jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=list(names),
        offload_src="device",
        offload_dst="pinned_host",
    )

    def policy(primitive: Any, *shapes: Any, **parameters: Any) -> Any:
        kept_here = kept(primitive, *shapes, **parameters)
        return kept_here or in_host(primitive, *shapes, **parameters)

    return policy


# By `RematName`. "none" has one for layers that are scanned over, though not on CPUs: there, every value that the
# backward pass reads is written to memory; elsewhere XLA sees both passes at once, and decides.
REMAT_POLICIES: dict[str, Policy | None] = {
    "none": keeping(PRODUCT, ATTENTION),
    "dots": jax.checkpoint_policies.save_from_both_policies(keeping(PRODUCT), products_of_pairs),
    "dots_without_batch": keeping(PRODUCT),
    "attention": keeping(ATTENTION),
    "full": None,
    "offload": offloading(PRODUCT),
}
