"""What the verbs that print measurements share."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxformer.errors import UserError
from jaxformer.verbs.common import print_json, working
from jaxformer.verbs.options import OfRun

if TYPE_CHECKING:
    from jaxformer.inference.writers import CausalModel


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
        from jaxformer.inference.loaded import LoadedRun
        from jaxformer.inference.writers import CausalModel

        loaded = LoadedRun(self.run, self.checkpoint)
        if not loaded.is_language_model or not isinstance(loaded.writer, CausalModel):
            raise UserError(
                f"{self.run}: holds a model ({type(loaded.model).__name__}) that does not go from token to token",
                f"this is for language models; `jaxformer evaluate {self.run}` evaluates it on a split",
            )
        return loaded.writer, loaded.step
