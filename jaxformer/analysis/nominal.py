"""Batches of a dataset that is not here, by what its config says and what is known of it."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxformer.config.sections import ExperimentConfig
from jaxformer.data.base import NominalBatches, Spec
from jaxformer.data.config import DataConfig
from jaxformer.data.text.tokenizer_training import Bytes, Trained
from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.data.transform import pair
from jaxformer.errors import NotPrepared, UserError
from jaxformer.numbers import filled


@dataclass(frozen=True)
class Known:
    """What is known of a dataset."""

    counts: Mapping[str, int] = field(default_factory=dict)
    """How many examples each split has."""
    source: str = ""
    """Who says so."""
    classes: int | None = None
    """How many classes there are."""
    class_names: tuple[str, ...] = ()
    """Their names, where metrics go by them."""
    side: int = 0
    """Height and width of its images, where neither the model nor transforms say them."""
    in_tokens: bool = False
    """Whether it is tokens of running text that are counted."""


# Of entities, by Derczynski et al. 2017, "Results of the WNUT2017 shared task".
ENTITIES = ("corporation", "creative-work", "group", "location", "person", "product")
TAGS = ("O", *(f"{place}-{entity}" for entity in ENTITIES for place in "BI"))
KNOWN = {
    "bccd": Known({"train": 205, "validation": 87, "test": 72}, "its own lists", 3),
    "camvid": Known({"train": 367, "validation": 101, "test": 233}, "Badrinarayanan et al. 2017", 11),
    "cifar10": Known({"train": 50_000, "test": 10_000}, "Krizhevsky 2009, chapter 3", 10, side=32),
    "coco/2017": Known({"train": 118_287, "validation": 5_000}, "the sizes of COCO 2017", 80),
    "coco_captions": Known({"train": 82_783, "val": 5_000}, "the pictures of COCO 2014 in Karpathy's split"),
    "imagenet2012": Known(
        {"train": 1_281_167, "validation": 50_000}, "Russakovsky et al. 2015, table 2", 1000, side=224
    ),
    "multi30k": Known({"train": 29_000, "validation": 1_014}, "Elliott et al. 2016"),
    "openwebtext": Known(
        {"train": 9_035_582_198, "validation": 4_434_897},
        "nanoGPT's count with GPT-2's tokenizer (its data/openwebtext/readme.md)",
        in_tokens=True,
    ),
    "scene_parse150": Known({"train": 20_210, "test": 2_000}, "Zhou et al. 2017 (ADE20K)", 150),
    "sst2": Known({"train": 6_920, "validation": 872, "test": 1_821}, "Socher et al. 2013", 2),
    "wnut17": Known(
        {"train": 3_394, "validation": 1_009, "test": 1_287}, "its own files", len(TAGS), class_names=TAGS
    ),
}
# What a batch has where a model's size is the dataset's.
DECIDES = {"tokens": "vocab_size", "labels": "num_classes", "segmentation": "num_classes"}


def nominal_batches(config: ExperimentConfig, missing: NotPrepared) -> NominalBatches:
    """Batches of a dataset that is not here.

    Args:
      config: the resolved config.
      missing: what says that it is not here.

    Raises:
      NotPrepared: the same, and which fields would tell what neither the config nor `KNOWN` does.
    """
    data, known = config.data, KNOWN.get(config.data.name, Known())
    shape = image_shape(config, known)
    spec: Spec | None = data.examples.nominal_spec(shape, data.transforms)
    if spec is None:
        raise missing
    tokenizer, sizes = known_tokens(data.tokenizer)
    if known.classes is not None:
        sizes["num_classes"] = known.classes
    count = known_count(data, known)
    model = filled(config.model, sizes)
    unknown = [f"model.{size}" for array, size in DECIDES.items() if array in spec and lacks(model, size)]
    if "image" in spec and not all(spec["image"][0]):
        unknown.append("a size in data.transforms, as in dict(name='resize', size=224)")
    if count is None and config.train.total.unit == "epochs":
        unknown.append("train.total in steps")
    if unknown:
        raise NotPrepared(*missing.lines, f"or give what it would tell: {', '.join(unknown)}")
    facts = tuple(taken_for_granted(data, known, count))
    names = list(known.class_names) or None
    return NominalBatches(count, data.batch_size, spec, facts, names, tokenizer, sizes=sizes)


def lacks(model: Any, size: str) -> bool:
    """Whether a model has a size that the data decide, and it is not known."""
    return size in model.sizes and vars(model)[size] is None


def image_shape(config: ExperimentConfig, known: Known) -> tuple[int, int, int]:
    """Height, width and channels of the images that the last transform gives; 0 where that is not known."""
    made = [size for transform in config.data.transforms if (size := vars(transform).get("size"))]
    return *pair(config.model.image_size or (made or [known.side])[-1]), 3


def known_tokens(settings: Any) -> tuple[Tokenizer | None, dict[str, int]]:
    """The tokenizer of these settings where it learns nothing, and what is known of its tokens in any case."""
    if settings is None:
        return None, {}
    try:
        tokenizer = settings.build(lambda: iter(()))
    except UserError:  # it learns from texts, or its file is not here
        likewise = Bytes(settings.template or "none").build(lambda: iter(())).eos_id
        sizes = {} if likewise is None else {"eos_id": likewise}
        return None, sizes | ({"vocab_size": settings.vocab_size} if isinstance(settings, Trained) else {})
    return tokenizer, {"vocab_size": tokenizer.vocab_size}


def known_count(data: DataConfig, known: Known) -> int | None:
    """How many examples the training split has; "train[:99%]" is 99% of "train". None if that is not known."""
    split = re.fullmatch(r"(\w+)(?:\[:(\d+)%\])?", data.train_split)
    if split is None or split[1] not in known.counts or data.mixture or data.fold:
        return None
    count = round(known.counts[split[1]] * int(split[2] or 100) / 100)
    return math.ceil(count / data.examples.length) if known.in_tokens else count


def taken_for_granted(data: DataConfig, known: Known, count: int | None) -> Iterator[str]:
    """Yields lines for people."""
    if count is None:
        yield f"{data.name} is not here, and it is not known how many examples it has"
    elif known.in_tokens:
        tokens, length = known.counts[data.train_split.partition("[")[0]], data.examples.length
        yield f"{data.name} is not here; it is taken to have {tokens:,} tokens, {length:,} an example: {known.source}"
    else:
        yield f"{data.name} is not here; its {count:,} examples ({data.train_split}) are by {known.source}"
    if isinstance(data.tokenizer, Trained):
        yield f"its tokenizer is taken to learn all {data.tokenizer.vocab_size:,} tokens that it may"
