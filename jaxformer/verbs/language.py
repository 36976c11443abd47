"""What the verbs that evaluate language models share."""

from pathlib import Path
from typing import TYPE_CHECKING

from jaxformer.errors import UserError

if TYPE_CHECKING:
    from jaxformer.inference.language import CausalModel


def language_model(run: Path, checkpoint: str) -> "tuple[CausalModel, int]":
    """The run's language model, and the step of its checkpoint.

    Raises:
      UserError: the run's model is another one.
    """
    from jaxformer.inference.language import CausalModel
    from jaxformer.inference.loaded import LoadedRun

    loaded = LoadedRun(run, checkpoint)
    if not loaded.is_language_model or not isinstance(loaded.writer, CausalModel):
        raise UserError(
            f"{run}: holds a model ({type(loaded.model).__name__}) that does not go from token to token",
            f"this is for language models; `jaxformer evaluate {run}` evaluates it on a split",
        )
    return loaded.writer, loaded.step
