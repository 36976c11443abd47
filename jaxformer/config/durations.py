"""Durations as people write them: "90 epochs", "10_000 steps", "5%", "1M examples"."""

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil

from jaxformer.errors import UserError

UNITS = {"step": "steps", "steps": "steps", "epoch": "epochs", "epochs": "epochs", "%": "%"}
UNITS |= {"percent": "%", "example": "examples", "examples": "examples"}
MULTIPLIERS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9}
PATTERN = re.compile(r"\s*([0-9][0-9_]{0,30}(?:\.[0-9]{1,30})?)\s*([kMB]?)\s*([a-z%]+)\s*")


@dataclass(frozen=True)
class Duration:
    """A length of training."""

    amount: Fraction
    """How many units, exact."""
    unit: str
    """ "steps", "epochs", "examples", or "%" of the whole training."""

    @classmethod
    def parse(cls, text: str) -> "Duration":
        """Reads "5 epochs", "10_000 steps", "1.5k steps", "1M examples" or "5%".

        Raises:
          ValueError: it is none of these; the message says what would be.
        """
        match = PATTERN.fullmatch(text)
        if not match or match[3] not in UNITS:
            known = 'as in "10_000 steps", "5 epochs", "1M examples" or "5%"'
            expected = f"write a number and a unit (steps, epochs, examples or %), {known}"
            raise ValueError(f"{text!r} is not a duration: {expected}")
        return cls(Fraction(match[1].replace("_", "")) * MULTIPLIERS[match[2]], UNITS[match[3]])

    def steps(self, *, batch_size: int, epoch_examples: int | None, total_steps: int | None = None) -> int:
        """The duration in train steps, rounded up, so that "1 epoch" shows every example at least once.

        Args:
          batch_size: examples in a global batch.
          epoch_examples: examples in one epoch of the training split; None where that is not known.
          total_steps: length of the training in steps; "%" needs it.

        Raises:
          UserError: it is in epochs, and their examples are not known.
        """
        if self.unit == "epochs" and epoch_examples is None:
            raise UserError(
                f'"{self}": without the dataset no one knows how long an epoch is; give it in steps'
            )
        if self.unit != "%":
            examples = {"examples": 1, "epochs": epoch_examples or 0, "steps": batch_size}[self.unit]
            return ceil(self.amount * examples / batch_size)
        if total_steps is None:
            raise ValueError('a percentage needs a total: give steps, epochs or examples, as in "90 epochs"')
        return ceil(self.amount * total_steps / 100)

    def __str__(self) -> str:
        whole, parts = self.amount.numerator, self.amount.denominator
        number = f"{whole}" if parts == 1 else format(Decimal(whole) / parts, "f")
        return f"{number}%" if self.unit == "%" else f"{number} {self.unit}"
