"""Published models that can be imported."""

import sys
from dataclasses import asdict, dataclass

from jaxformer.errors import UserError
from jaxformer.verbs.common import print_json
from jaxformer.verbs.options import Verb, argument


@dataclass(frozen=True, kw_only=True)
class Models(Verb):
    """List published models that `weights import` takes, with parameters, licence and published accuracy."""

    pattern: str = argument("PATTERN", default="*")
    """A glob for the source, or for our preset of the same size, such as "timm/vit*"."""

    def __call__(self) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        from jaxformer.weights.zoo import published

        if not (found := published(self.pattern)):
            raise UserError(f"{self.pattern}: matches no published model; leave it out to see all")
        table = Table(
            "source", "preset", "parameters", "input", "licence", "published", "by", box=SIMPLE_HEAD
        )
        for each in found:
            millions = f"{each.millions:g} M"
            table.add_row(each.source, each.preset, millions, each.size, each.license, each.figure, each.by)
        table.columns[0].no_wrap = True
        width = None if sys.stdout.isatty() else 200
        Console(width=width, markup=False, emoji=False, highlight=False).print(table)


@dataclass(frozen=True, kw_only=True)
class ModelsShow(Verb):
    """Show the facts of one published model as a line of JSON."""

    name: str = argument("NAME")
    """Its source, such as timm/resnet50.a1_in1k."""

    def __call__(self) -> None:
        from jaxformer.weights.zoo import find

        print_json(asdict(find(self.name)))
