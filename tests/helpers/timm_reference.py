"""timm, the reference of image models, also beside a PyTorch whose operators torchvision does not know."""

import sys
import warnings
from types import ModuleType


def timm() -> ModuleType:
    """The package.

    PyPI's torchvision fails to import beside a CPU build of PyTorch, for want of operators that timm's models do not
    use.
    """
    if sys.modules.get("torchvision", 0) is None:  # as conftest.py hides it
        del sys.modules["torchvision"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import torchvision  # noqa: F401
        except RuntimeError:
            define_operators()
        import timm as package
    return package


def define_operators() -> None:
    """Defines the operators without which torchvision does not import; nothing calls them."""
    import torch

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")
    timm.library = library  # its operators live as long as it does
