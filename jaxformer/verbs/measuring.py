"""What the verbs that print measurements share."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxformer.errors import UserError
from jaxformer.verbs.common import print_json, working
from jaxformer.verbs.options import OfRun

if TYPE_CHECKING:
    from jaxformer.inference.language import CausalModel


@dataclass(frozen=True, kw_only=True)
class Measuring(OfRun):
    """A verb that prints what it measures as a line of JSON."""

    def __call__(self) -> int:
        with working():
            print_json(self.measured())
        return 0

    def measured(self) -> dict[str, Any]:
        """What is printed."""
        raise NotImplementedError

    def language_model(self) -> "tuple[CausalModel, int]":
        """The run's language model, and the step of its checkpoint.

        Raises:
          UserError: the run's model is another one.
        """
        from jaxformer.inference.language import CausalModel
        from jaxformer.inference.restore import TrainedText
        from jaxformer.tasks.text import kind_of

        trained = TrainedText(self.run, self.checkpoint)
        if kind_of(trained.model) != "decoder":
            raise UserError(
                f"{self.run}: holds a model ({type(trained.model).__name__}) that does not go from token to token",
                f"this is for language models; `jaxformer evaluate {self.run}` evaluates it on a split",
            )
        return CausalModel(trained.model, trained.variables, trained.tokenizer), trained.step
