"""The shapes through a model, module by module; nothing is computed."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from jaxformer.experiment import Experiment
from jaxformer.observe import text
from jaxformer.paths import leaves_by_path

HEAD = ("module", "class", "takes", "gives", "parameters")
SHOWN = 2  # arrays in a cell


def trace(experiment: Experiment) -> str:
    """A table of the modules in the order in which a training batch passes through them, a line each.

    A module that is called several times stands there once, with its first call; of layers that are scanned over there
    is one for all of them, without the axis of the layers.
    """
    rows: dict[tuple[str, ...], list[str]] = {}
    params = leaves_by_path(experiment.variable_shapes["params"])
    sizes = {path: int(np.prod(leaf.shape)) for path, leaf in params.items()}

    def watch(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        path = context.module.path
        if context.method_name != "__call__" or path in rows:
            return call(*args, **kwargs)
        name = "/".join(path)
        count = sum(size for leaf, size in sizes.items() if not name or leaf.startswith(f"{name}/"))
        shown = "  " * len(path) + (path[-1] if path else "(model)")
        row = rows[path] = [shown, type(context.module).__name__, arrays((args, kwargs)), "", f"{count:,}"]
        outputs = call(*args, **kwargs)
        row[3] = arrays(outputs)
        return outputs

    def forward(variables: Any, batch: Any) -> Any:
        inputs: dict[str, Any] = {**experiment.task.inputs(batch), "deterministic": True}
        with nn.intercept_methods(watch):
            return experiment.build_model().apply(variables, **inputs)

    jax.eval_shape(forward, experiment.variable_shapes, experiment.batch_shapes)
    return text.table(HEAD, list(rows.values()), right=("parameters",))


def arrays(tree: Any) -> str:
    """The dtypes and shapes of the first arrays in a tree: "float32 [16, 64, 48]"."""
    found = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, (jax.Array, np.ndarray))]
    words = [f"{leaf.dtype} {list(leaf.shape)}" for leaf in found if leaf.ndim]
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more
