"""Which columns of a table a config means: those that it names, or those that look like them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxformer.config.schema import did_you_mean
from jaxformer.errors import UserError

LABELS = ("label", "labels", "class", "category", "target", "sentiment", "rating", "stars")
TEXTS = (
    "text",
    "texts",
    "sentence",
    "review",
    "content",
    "comment",
    "body",
    "message",
    "tweet",
    "document",
    "title",
)
LABEL = "label_feature"  # the field that names the label


@dataclass(frozen=True)
class Asked:
    """The columns that a config asks for."""

    names: Mapping[str, str]
    """Field of `data.examples` -> the name that it gives."""

    def columns(self, where: str, there: Sequence[str], texts: Sequence[str]) -> dict[str, str]:
        """The name that each column that is asked for has in the config -> its own.

        A common name ("text", "label") that no column has stands for the column that has another common one, and "text"
        for the only column of texts.

        Args:
          where: the table, for messages.
          there: its columns.
          texts: those that hold texts.

        Raises:
          UserError: none of them fits.
        """
        found: dict[str, str] = {}
        for field, name in sorted(
            self.names.items(), key=lambda item: item[0] != LABEL
        ):  # the label is no text
            free = [column for column in there if column not in found.values()]
            common = LABELS if field == LABEL else TEXTS
            fitting = [name] if name in free else []
            if name.lower() in common:
                fitting += [column for each in common for column in free if column.strip().lower() == each]
                fitting += (
                    [c for c in texts if c in free]
                    if field != LABEL and len(set(texts) & {*free}) == 1
                    else []
                )
            if not fitting:
                remedy = did_you_mean(name, there)
                raise UserError(
                    f"{where}: has no column {name!r}, which data.examples.{field} names; {remedy}"
                )
            found[name] = fitting[0]
        return found

    @property
    def label(self) -> str | None:
        """What the config calls the label; None: it asks for none."""
        return self.names.get(LABEL)

    @property
    def texts(self) -> tuple[str, ...]:
        """What it calls the texts."""
        return tuple(name for field, name in self.names.items() if field != LABEL)
