"""Published models that can be imported."""

from dataclasses import asdict, dataclass

from jaxformer.errors import UserError
from jaxformer.verbs.common import print_json, print_table
from jaxformer.verbs.options import Verb, argument


@dataclass(frozen=True, kw_only=True)
class Models(Verb):
    """List published models that `weights import` takes, with parameters, licence and published accuracy."""

    pattern: str = argument("PATTERN", default="*")
    """A glob for the source, or for our preset of the same size, such as "timm/vit*"."""

    def __call__(self) -> None:
        from jaxformer.weights.zoo import published

        if not (found := published(self.pattern)):
            raise UserError(f"{self.pattern}: matches no published model; leave it out to see all")
        head = ("source", "preset", "parameters", "input", "licence", "published", "by")
        rows = (
            (one.source, one.preset, f"{one.millions:g} M", one.size, one.license, one.figure, one.by)
            for one in found
        )
        print_table(head, rows, width=200)


@dataclass(frozen=True, kw_only=True)
class ModelsShow(Verb):
    """Show the facts of one published model as a line of JSON."""

    name: str = argument("NAME")
    """Its source, such as timm/resnet50.a1_in1k."""

    def __call__(self) -> None:
        from jaxformer.weights.zoo import find

        print_json(asdict(find(self.name)))
