"""The perplexity of a text."""

from dataclasses import dataclass
from typing import Any

from jaxformer.errors import UserError
from jaxformer.verbs.measuring import Measuring
from jaxformer.verbs.options import argument


@dataclass(frozen=True, kw_only=True)
class Perplexity(Measuring):
    """Measure the perplexity and the bits per byte of a text file under a run's language model."""

    file: str = argument("FILE")
    """A text file."""
    stride: int | None = None
    """Tokens from one window to the next (default: half of what the model sees)."""

    def measured(self) -> dict[str, Any]:
        """Perplexity and bits per byte.

        Raises:
          UserError: the file is empty, or has a character that is no token; or as of `perplexity`.
        """
        from jaxformer.evaluation.perplexity import encode, perplexity
        from jaxformer.inference.texts import read_text

        text = read_text(self.file)
        if not text:
            raise UserError(f"{self.file}: is empty; name a file with text in it")
        model, step = self.language_model()
        tokens = encode(model.tokenizer, text, self.file)
        found = perplexity(model, tokens, self.stride, len(text.encode()))
        return {"step": step, "file": self.file, **found}
