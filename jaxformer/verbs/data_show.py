"""Examples of a dataset."""

import sys
from dataclasses import dataclass
from pathlib import Path

from jaxformer.errors import UserError
from jaxformer.verbs.data_list import OfData
from jaxformer.verbs.options import argument

IMAGES, TEXTS = 64, 5  # examples that are shown


@dataclass(frozen=True, kw_only=True)
class DataShow(OfData):
    """Show some examples: texts, or a contact sheet of images with their labels (PNG)."""

    name: str = argument("NAME")
    """A dataset: digits, cifar10, ..."""
    split: str = "train"
    """A TFDS split."""
    count: int | None = None
    """How many (default: 64 images, 5 texts)."""
    output: Path | None = None
    """The file of the contact sheet (default: NAME.png)."""

    def __call__(self) -> int:
        from jaxformer.data import DataConfig
        from jaxformer.importing.show import contact_sheet, examples_as_text, has_images, with_examples

        config = DataConfig(name=self.name, data_dir=self.data_dir)
        images = has_images(config)
        count = self.count if self.count is not None else IMAGES if images else TEXTS
        if images:
            output = self.output or Path(f"{self.name.replace('/', '-')}.png")
            shown = str(contact_sheet(with_examples(config), self.split, output, count))
        elif self.output is not None:
            raise UserError(
                f"--output: {self.name} has no images to draw; its texts are printed, leave it out"
            )
        else:
            shown = examples_as_text(config, self.split, count)
        sys.stdout.write(f"{shown}\n")
        return 0
