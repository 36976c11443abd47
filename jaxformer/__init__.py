"""jaxformer: Transformers, Vision Transformers and CNN-Transformer hybrids as pure functions in JAX.

    import jaxformer as jf

What stands here is imported when it is first used: importing the package loads neither JAX nor NumPy.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxformer.api import create_model, ensemble, experiment, init, list_models, load_run, sweep
    from jaxformer.errors import ConfigError, UserError
    from jaxformer.preemption import Preempted
    from jaxformer.train import train
    from jaxformer.weights.pretrained import load_pretrained

__version__ = "0.1.0"
__all__ = [
    "ConfigError",
    "Preempted",
    "UserError",
    "create_model",
    "ensemble",
    "experiment",
    "init",
    "list_models",
    "load_pretrained",
    "load_run",
    "sweep",
    "train",
]

HOMES = dict.fromkeys(__all__, "api")
HOMES |= {"ConfigError": "errors", "UserError": "errors", "Preempted": "preemption", "train": "train"}
HOMES["load_pretrained"] = "weights.pretrained"


class Face(ModuleType):
    """The package: names of HOMES stay what they are, though modules are called `experiment` and `train`, too.

    Importing such a module would otherwise put it in the function's place.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES})


sys.modules[__name__].__class__ = Face
