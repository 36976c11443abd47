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
    from jaxformer.inference.restore import TrainedText
    from jaxformer.tasks.text import kind_of

    trained = TrainedText(run, checkpoint)
    if kind_of(trained.model) != "decoder":
        raise UserError(
            f"{run}: holds a model ({type(trained.model).__name__}) that does not go from token to token",
            f"this is for language models; `jaxformer evaluate {run}` evaluates it on a split",
        )
    return CausalModel(trained.model, trained.variables, trained.tokenizer), trained.step
