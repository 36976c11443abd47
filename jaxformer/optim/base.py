"""The contract of optimizers, and the rules by parameter path that all of them have."""

import re
import warnings
from abc import ABC
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import jax
import optax

from jaxformer.config.durations import Duration
from jaxformer.config.fields import Constraint, Input, NonNegativeFloat, above, at_least, left_out
from jaxformer.optim.masks import NO_DECAY, decay_mask
from jaxformer.paths import STACK, path_of

Tree = Any
MomentDtype: TypeAlias = Literal["float32", "bfloat16"]


def is_pattern(value: str) -> bool:
    """Whether `value` is a regular expression; Python warns of one that will mean something else, such as "[[a]"."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            re.compile(value)
    except (re.error, Warning, RecursionError, OverflowError):
        return False
    return True


Pattern: TypeAlias = Annotated[
    str, Constraint("a regular expression; escape its special characters or correct it", is_pattern)
]
Penalty: TypeAlias = Annotated[float, at_least(0, "0 or more; below 0 the weights would grow")]
LearningRate: TypeAlias = Annotated[float, above(0, "a number above 0; with 0 nothing would be learnt")]
Epsilon: TypeAlias = Annotated[float, at_least(1e-38, "a number above 0 that float32 can hold, such as 1e-8")]
Limit: TypeAlias = Annotated[float, above(0, "a number above 0, or None for no clipping")]


@dataclass(frozen=True)
class Optimizer(ABC):
    """The base of all optimizers: w -= lr(t) * multiplier * (direction + weight_decay * w).

    An optimizer is a frozen dataclass of its hyperparameters. Most define `direction` alone; one that decays or
    multiplies in a way of its own defines `transformation`.

    Patterns are regular expressions for whole names of a parameter's path (`paths.py`): "head" takes
    head/kernel and head/bias, "encoder/block_[0-3]" the first four blocks, stacked or not.
    """

    learning_rate: Input[LearningRate]
    """The peak, of which the schedule is a share."""
    weight_decay: Input[Penalty] = 0.0
    """Decoupled from the gradient and multiplied by the learning rate, as in PyTorch's and in optax's AdamW
    (Loshchilov and Hutter 2019). Where a paper multiplies it by the schedule alone (big_vision), its number
    is weight_decay * learning_rate here: 1e-4 at a peak of 1e-3 is 0.1."""
    clip_norm: Input[Limit] | None = None
    """The largest global norm of the gradient; larger ones are scaled down."""
    clip_value: Input[Limit] | None = None
    """The largest absolute value of a gradient's entry; it is applied before clip_norm."""
    agc: Input[Limit] | None = None
    """Adaptive gradient clipping (Brock et al. 2021, section 4.1): the largest norm of a unit's gradient as a
    share of the norm of its weights, 0.01 in the paper. It is applied after clip_norm, and not to the head."""
    no_decay: tuple[Pattern, ...] = NO_DECAY
    """Patterns of parameters that neither decay nor are regularised."""
    freeze: tuple[Pattern, ...] = ()
    """Patterns of parameters that do not move: no gradient, no optimizer state."""
    train_only: tuple[Pattern, ...] = ()
    """Patterns of the only parameters that move, such as ("head",) or ("[^/]*bias", "head"); all others are frozen.
    Empty: all that `freeze` does not take."""
    unfreeze: tuple[tuple[Pattern, Duration], ...] = ()
    """Gradual unfreezing: pairs of a pattern and the time before which its parameters do not move, such as
    [("encoder/block_[3-5]", "1 epoch"), ("encoder", "2 epochs")]; the first pattern that takes a parameter counts. It
    saves no time and no memory, unlike `freeze`."""
    learning_rate_multipliers: tuple[tuple[Pattern, NonNegativeFloat], ...] = ()
    """Pairs of a pattern and what it multiplies the whole update by, decay included; the first pattern that
    takes a parameter counts."""
    layer_decay: (
        Input[Annotated[float, Constraint("a number above 0, at most 1, such as 0.75", lambda v: 0 < v <= 1)]]
        | None
    ) = None
    """Multiplies the update of layer i of N, decay included, by layer_decay ** (N - i): embeddings are layer
    0, block i is layer i + 1, the head is layer N (Bao et al. 2022)."""
    l1: Input[Penalty] = 0.0
    """Adds l1 * sum |w| to the loss."""
    l2: Input[Penalty] = 0.0
    """Adds l2 / 2 * sum w^2 to the loss: what PyTorch's SGD and Adam call weight_decay."""

    averages: ClassVar[bool] = False
    """Whether it averages the parameters by itself; `eval_params` then gives those to evaluate."""
    needs_whole_batch: ClassVar[bool] = False
    """Whether its update calls the loss of the whole batch, which no device has under pmap."""

    @property
    def freezes(self) -> bool:
        """Whether some parameters do not move."""
        return bool(self.freeze or self.train_only)

    @property
    def known_rate(self) -> float:
        """The largest learning rate of which is known before training that it will be reached."""
        return self.learning_rate

    def problems(self) -> Iterator[str]:
        """Yields what cannot be together."""
        if self.weight_decay * self.known_rate > 1:
            taken = f"{self.weight_decay * self.known_rate:.3g} times each weight"
            yield f"weight_decay={self.weight_decay}: at the learning rate it takes {taken} a step; 0.1 is usual"
        if self.unfreeze and self.averages:
            yield "unfreeze: this optimizer averages all parameters from the first step on; use another optimizer"

    def direction(self) -> optax.GradientTransformation:
        """From the (clipped) gradient to the direction of descent, before the learning rate."""
        return optax.identity()

    def transformation(
        self, schedule: optax.Schedule, multiply: optax.GradientTransformation
    ) -> optax.GradientTransformation:
        """From the (clipped) gradient to the update.

        Args:
          schedule: learning rate by step.
          multiply: applies the multipliers by path.
        """
        return optax.chain(self.direction(), self.decay(), multiply, optax.scale_by_learning_rate(schedule))

    def decay(self) -> optax.GradientTransformation:
        """Adds weight_decay * w to the direction, where it decays."""
        if left_out(self.weight_decay):
            return optax.identity()
        return optax.add_decayed_weights(self.weight_decay, lambda tree: decay_mask(self, tree))

    def eval_params(self, opt_state: Tree, params: Tree) -> Tree:
        """The parameters to evaluate with.

        Args:
          opt_state: the state of `make_optimizer`'s transformation.
          params: the parameters that are trained.
        """
        return params

    def parts(self, params: Tree) -> dict[str, Tree]:
        """Rule in words -> a tree of bools, where it moves different parameters by different rules."""
        return {}

    def patterns(self) -> dict[str, tuple[str, ...]]:
        """Field -> the patterns in it."""
        return {
            "no_decay": self.no_decay,
            "freeze": self.freeze,
            "train_only": self.train_only,
            "unfreeze": tuple(p for p, _ in self.unfreeze),
            "learning_rate_multipliers": tuple(p for p, _ in self.learning_rate_multipliers),
        }


def by_layer(choose: Callable[[str, int], optax.GradientTransformation]) -> optax.GradientTransformation:
    """Applies a stateless transformation to every layer for itself.

    What is measured over a leaf (a norm, a root mean square) is then the same whether layers are stacked in
    one leaf or not.

    Args:
      choose: a leaf's path and the rank of one layer of it -> the transformation of that array. Its update
        may depend on the parameter.
    """

    def of_leaf(key_path: Any, update: jax.Array, weight: jax.Array) -> jax.Array:
        path = path_of(key_path)
        stacked = STACK.search(path) is not None
        transformation = choose(path, update.ndim - stacked)

        def one(update: jax.Array, weight: jax.Array) -> jax.Array:
            return transformation.update(update, transformation.init(weight), weight)[0]

        return (jax.vmap(one) if stacked else one)(update, weight)

    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(of_leaf, updates, params))


def is_masked(leaf: Any) -> bool:
    """Whether a leaf stands for a parameter that optax has masked away."""
    return isinstance(leaf, optax.MaskedNode)
