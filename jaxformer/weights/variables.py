"""Models with BatchNorm: its running statistics are tensors of theirs as parameters are, and a collection of ours."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxformer.weights.convert import Family


def read_variables(
    family: Family, source: Mapping[str, np.ndarray], shapes: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Our variables from a model's tensors.

    Args:
      family: its rows are of parameters and of statistics; both have the path of their layer.
      source: their name -> tensor.
      shapes: our variables, with a shape and a dtype at every leaf (of `jax.eval_shape`).

    Returns:
      "params", and "batch_stats" where `shapes` has any.

    Raises:
      UserError: what does not fit; see `convert.from_table`.
    """
    params, statistics = (flatten_dict(shapes.get(name, {})) for name in ("params", "batch_stats"))
    read = flatten_dict(family.read(source, unflatten_dict({**params, **statistics})))
    variables = {"params": unflatten_dict({path: read[path] for path in params})}
    if statistics:
        variables["batch_stats"] = unflatten_dict({path: read[path] for path in statistics})
    return variables
