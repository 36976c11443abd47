"""Which dimension of which parameter goes to which mesh axis: rules by path, the first that matches."""

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxformer.paths import STACK, leaves_by_path, path_of, with_leaves

Tree = Any
Step: TypeAlias = Callable[..., Tree]
Rule: TypeAlias = tuple[str, tuple[str | None, ...]]
logger = logging.getLogger("jaxformer")

# D width, H heads, F MLP width, K classes, C channels, V tokens, E experts. "fsdp" splits the width and the experts,
# "tensor" what is computed independently: heads, hidden units and tokens (Shoeybi et al. 2019, Megatron-LM, section 3).
RULES: tuple[Rule, ...] = (
    (r"experts/[^/]*_lora_[ab]", (None, None, None)),  # [E, D, r], [E, r, F]
    (r"[^/]*_lora_[ab]", (None, None)),  # [D, r], [r, F]
    (r"experts/[^/]*_lora_magnitude", (None, None)),  # [E, F]
    (r"[^/]*_lora_magnitude", (None,)),  # [F]
    (r"adapter_[^/]*/(down|up)/kernel", (None, None)),  # [D, W], [W, D]
    (r"adapter_[^/]*/(down|up)/bias", (None,)),  # [W], [D]
    (r"prefix_(key|value)", ("tensor", None, None)),  # [H, P, Dh]
    (r"(cross_)?attention/(query|key|value)/kernel", ("fsdp", "tensor", None)),  # [D, H, Dh]
    (r"(cross_)?attention/(query|key|value)/bias", ("tensor", None)),  # [H, Dh]
    (r"(cross_)?attention/out/kernel", ("tensor", None, "fsdp")),  # [H, Dh, D]
    (r"mlp[^/]*/(up|gate)/kernel", ("fsdp", "tensor")),  # [D, F]
    (r"mlp[^/]*/(up|gate)/bias", ("tensor",)),  # [F]
    (r"experts/(up|gate)_kernel", ("fsdp", None, "tensor")),  # [E, D, F]
    (r"experts/down_kernel", ("fsdp", "tensor", None)),  # [E, F, D]
    (r"experts/router", (None, None)),  # [D, E]
    (r"mlp[^/]*/down/kernel", ("tensor", "fsdp")),  # [F, D]
    (r"(patch_embedding[^/]*|conv[^/]*)/kernel", (None, None, None, "fsdp")),  # [h, w, C, D]
    (r"merge/kernel", (None, "fsdp")),  # [4 C, D]
    (r"attention_pool/kernel", ("fsdp", None)),  # [D, 1]
    (r"(head[^/]*|representation|pooler|mlm_dense|[^/]*_projection)/kernel", ("fsdp", "tensor")),  # [D, K]
    (r"(head[^/]*|representation|pooler|mlm_dense|[^/]*_projection)/bias|mlm_bias", ("tensor",)),  # [K]
    (r"log_scale|bias", ()),
    (r"(token|decoder)_embedding/embedding", ("tensor", "fsdp")),  # [V, D]
    (r"(position|decoder_position|type)_embedding/embedding", (None, "fsdp")),  # [T, D]
    (r"[^/]*_bias/embedding", (None, "tensor")),  # [buckets, H]
    (r"(row|column)_position_embedding", (None, None)),  # [2 H - 1, Dh]
    (r"position_embedding|probe", (None, None, "fsdp")),  # [1, T, D]
    (r"(register|prompt)_tokens|(class|distillation)_token", (None, None, "fsdp")),  # [1, T, D]
    (r"((cross_)?attention/out|mlp[^/]*/down)/bias", (None,)),  # [D]
    (r"(patch_embedding[^/]*|conv[^/]*|attention_pool)/bias", (None,)),  # [D]
    (r"[^/]*norm[^/]*/(scale|bias)", (None,)),  # [D]
    (r"layer_scale[^/]*/scale", (None,)),  # [D]
    (r"(query_position|query|label)_embedding", (None, "fsdp")),  # [Q, D]
    (r"level_\d+_position_embedding", (None,)),  # [D]
    (r"anchors", (None, None)),  # [Q, 4]
    (r"prior_\d+/place/kernel", ("fsdp", None)),  # [D, 4 H]
    (r"prior_\d+/place/bias", (None,)),  # [4 H]
)


def param_specs(params: Tree, mesh: Mesh) -> dict[str, PartitionSpec]:
    """Path -> PartitionSpec for every parameter.

    Where a dimension is not a multiple of its mesh axis it is not split: "fsdp" then takes the largest dimension that
    it divides and that nothing else splits. So it does with what the layers of a scan have and no rule splits, biases
    and norms: see `gathered_at_once`. A parameter that no rule takes, such as one of a model of the user's own, is
    split over "fsdp" along its largest dimension. The log notes what is whole for want of a dimension, and what no rule
    takes.

    Args:
      params: a tree of arrays or ShapeDtypeStructs.
      mesh: with the axes data, fsdp, sequence and tensor.
    """
    specs, whole, unknown = {}, [], []
    for path, leaf in leaves_by_path(params).items():
        axes = axes_of(path, leaf.shape)
        if axes is None:
            unknown.append(f"no sharding rule takes what is split by its shape (parallel/rules.py): {path}")
            axes = by_shape(leaf.shape)
        split = [axis if axis and mesh.shape[axis] > 1 else None for axis in axes]
        fitting = [axis if axis and n % mesh.shape[axis] == 0 else None for axis, n in zip(split, leaf.shape)]
        stacked = bool(STACK.search(path))  # a scan takes slices of the axis of layers
        if "fsdp" not in fitting and ("fsdp" in split or (stacked and mesh.shape["fsdp"] > 1)):
            fitting = with_fsdp(fitting, leaf.shape, mesh.shape["fsdp"], first=int(stacked))
        specs[path] = PartitionSpec(*fitting)
        whole += [
            f"{path}: a dimension of {n} is not split by {axis}={mesh.shape[axis]}"
            for axis, n in zip(split, leaf.shape)
            if axis and axis not in fitting
        ]
    for lines in filter(None, (unknown, whole)):
        logger.info("%s%s", lines[0], f" (and {len(lines) - 1} more)" if len(lines) > 1 else "")
    return specs


def axes_of(path: str, shape: tuple[int, ...]) -> tuple[str | None, ...] | None:
    """The mesh axes of a parameter's dimensions by the first rule that takes its path; None if none does."""
    stacked = bool(STACK.search(path))  # layers scanned over: one more axis in front
    for pattern, axes in RULES:
        if re.search(f"(^|/)({pattern})$", path) and len(axes) + stacked == len(shape):
            return (None, *axes) if stacked else axes
    return None


def gathered_at_once(step: Step, shapes: Tree) -> Step:
    """A step that begins with gathering what the layers of a scan have and no rule splits over "fsdp".

    In the train state those are split: whole, the vectors of 40 layers are a fifth of what each of 1,024 devices holds
    of a model of 13 billion parameters. Gathered at once they take as many collectives as there are parameters of a
    layer; left to XLA, each layer of the scan would gather its own.

    Args:
      step: (state, ...) -> (state, ...).
      shapes: the state as shapes with shardings on one mesh.
    """
    whole = {}
    for path, leaf in leaves_by_path(shapes.params).items():
        axes, lies = axes_of(path, leaf.shape), leaf.sharding
        if STACK.search(path) and axes and "fsdp" not in axes and "fsdp" in lies.spec:
            kept = (None if axis == "fsdp" else axis for axis in lies.spec)
            whole[path] = NamedSharding(lies.mesh, PartitionSpec(*kept))

    def gathering(state: Tree, *others: Tree) -> Tree:
        leaves = leaves_by_path(state.params)
        laid = {path: jax.lax.with_sharding_constraint(leaves[path], lies) for path, lies in whole.items()}
        return step(state.replace(params=with_leaves(state.params, laid)), *others)

    return gathering if whole else step


def by_shape(shape: tuple[int, ...]) -> tuple[str | None, ...]:
    """Axes of a parameter without a rule: "fsdp" for the largest dimension of a matrix, nothing for a vector."""
    largest = max(range(len(shape)), key=lambda axis: shape[axis], default=0)
    return tuple("fsdp" if len(shape) > 1 and axis == largest else None for axis in range(len(shape)))


def with_fsdp(axes: Sequence[str | None], shape: Sequence[int], size: int, first: int) -> list[str | None]:
    """Axes with "fsdp" at the largest dimension from `first` on that it divides and that has none; else as they are."""
    free = [i for i in range(first, len(shape)) if axes[i] is None and shape[i] % size == 0]
    chosen = max(free, key=lambda i: shape[i], default=None)
    return ["fsdp" if i == chosen else axis for i, axis in enumerate(axes)]


def state_shardings(state: Tree, mesh: Mesh) -> Tree:
    """A sharding for every leaf of a train state.

    Parameters go by the rules. Whatever else ends in the path of a parameter and has its shape (moments, the
    moving average) lies as that parameter does; the rest (counters, statistics, factored moments) is replicated.

    Args:
      state: a TrainState of arrays or ShapeDtypeStructs.
      mesh: with the axes data, fsdp, sequence and tensor.
    """
    shapes = {path: leaf.shape for path, leaf in leaves_by_path(state.params).items()}
    specs = param_specs(state.params, mesh)

    def sharding(key_path: Sequence[Any], leaf: Any) -> NamedSharding:
        parts = path_of(key_path).split("/")
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        spec = next((specs[end] for end in ends if shapes.get(end) == leaf.shape), PartitionSpec())
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, state)
