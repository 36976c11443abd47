"""What a config says about data. Imports nothing slow, so that `--help` and config checks stay quick."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from jaxformer.config.schema import choice
from jaxformer.data.examples import EXAMPLES, Images

# Names in configs -> the transform's class, imported when it is chosen.
TRANSFORMS: dict[str, str] = {
    "autoaugment": "jaxformer.data.autoaugment:AutoAugment",
    "back_translate": "jaxformer.data.text.paraphrases:BackTranslate",
    "center_crop": "jaxformer.data.transforms:CenterCrop",
    "color_jitter": "jaxformer.data.color:ColorJitter",
    "detr_crop": "jaxformer.data.cropping:DetrCrop",
    "eda": "jaxformer.data.text.augment:Eda",
    "flip": "jaxformer.data.transforms:Flip",
    "mask_tokens": "jaxformer.data.text.masking:MaskTokens",
    "mosaic": "jaxformer.data.mosaic:Mosaic",
    "pad_and_crop": "jaxformer.data.transforms:PadAndCrop",
    "randaugment": "jaxformer.data.randaugment:RandAugment",
    "random_crop": "jaxformer.data.cropping:RandomCrop",
    "random_deletion": "jaxformer.data.text.augment:RandomDeletion",
    "random_erasing": "jaxformer.data.transforms:RandomErasing",
    "random_insertion": "jaxformer.data.text.augment:RandomInsertion",
    "random_resized_crop": "jaxformer.data.transforms:RandomResizedCrop",
    "random_swap": "jaxformer.data.text.augment:RandomSwap",
    "resize": "jaxformer.data.transforms:Resize",
    "resize_shorter": "jaxformer.data.cropping:ResizeShorter",
    "scale_jitter": "jaxformer.data.cropping:ScaleJitter",
    "synonym_replacement": "jaxformer.data.text.augment:SynonymReplacement",
    "three_augment": "jaxformer.data.three_augment:ThreeAugment",
    "token_cutoff": "jaxformer.data.text.augment:TokenCutoff",
    "trivialaugment": "jaxformer.data.trivialaugment:TrivialAugment",
}

# Names in configs -> the tokenizer's settings.
TOKENIZERS: dict[str, str] = {
    "bytes": "jaxformer.data.text.tokenizers:Bytes",
    "characters": "jaxformer.data.text.tokenizers:Characters",
    "file": "jaxformer.data.text.tokenizers:FromFile",
    "trained": "jaxformer.data.text.tokenizers:Trained",
}


@dataclass(frozen=True)
class Part:
    """A further dataset of a mixture."""

    name: str
    """As `DataConfig.name`."""
    weight: float
    """How many of its examples are seen for each of the first dataset's."""
    version: str | None = None
    """As `DataConfig.version`."""
    train_split: str | None = None
    """Its split; None takes the first dataset's."""

    def problems(self) -> Iterator[str]:
        """Yields what cannot work."""
        yield from name_problems(self.name)
        if self.weight <= 0:
            yield f"weight={self.weight}: must be more than 0; leave the dataset out otherwise"


@dataclass(frozen=True)
class DataConfig:
    """Which examples a run sees, and what is done to them on the host."""

    name: str = "digits"
    """ "digits" (scikit-learn's, prepared on first use), or any prepared TFDS dataset, with its TFDS config
    if it has one ("cifar10", "imagenet2012", "imagenet_resized/64x64", or a name given to `data import`)."""
    version: str | None = None
    """The dataset's version ("3.0.2"); None takes the newest that is prepared."""
    data_dir: str | None = None
    """The folder of TFDS datasets; None takes $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    train_split: str = "train"
    """The training split, with TFDS's slices if wanted ("train", "train[:90%]", "train+validation")."""
    mixture: tuple[Part, ...] = ()
    """Further datasets of text that training mixes in, each with an order and epochs of its own. The
    tokenizer learns from all; an epoch is as long as it takes to see `train_split` of `name` once; evaluation
    is on `name` alone."""
    batch_size: int = 128
    """Examples in a global training batch, over all devices and processes."""
    repeats: int = 1
    """How often a training batch holds each of its examples, each time augmented anew (repeated augmentation,
    Hoffer et al. 2020; DeiT: 3). An epoch stays as many rows as there are examples, so that all have been
    seen after so many epochs."""
    eval_batch_size: int | None = None
    """Examples in a global evaluation batch; None takes `batch_size`."""
    examples: Any = choice(EXAMPLES, default_factory=Images)  # noqa: RUF009
    """What becomes of the dataset's examples: one of the kinds of pictures or of token rows
    (`data/examples.py`)."""
    tokenizer: Any | None = choice(TOKENIZERS, default=None)  # noqa: RUF009
    """What makes tokens of text; a tokenizer that learns does so from `train_split`."""
    buckets: tuple[int, ...] = ()
    """Lengths, besides the examples' own, that batches of token rows may be padded to, for kinds whose rows
    differ in length: each batch takes the smallest that holds its longest row, and rows of like lengths come
    together. Each is a shape that is compiled."""
    transforms: tuple[Any, ...] = choice(TRANSFORMS, default=())
    """What is done to each training example, in order, after decoding."""
    eval_transforms: tuple[Any, ...] = choice(TRANSFORMS, default=())
    """The same for evaluation; random transforms do not belong here."""
    cache: Literal["none", "memory"] = "none"
    """Of pictures, "memory" keeps decoded images in memory from their first use on (before any transform);
    "none" reads and decodes them every time. (Token rows are mapped from files, and have no use for it.)"""
    read_threads: int | None = None
    """Threads that read, decode and transform in the background; None takes one a core, at most 16."""
    prefetch: int = 4
    """Batches that are kept ready ahead of the step."""

    def problems(self) -> Iterator[str]:
        """Yields a line for every value that cannot work, whatever the dataset holds."""
        yield from name_problems(self.name)
        if not self.train_split.strip():
            yield f"train_split={self.train_split!r}: empty; name a split, as in 'train' or 'train[:90%]'"
        for field in ("batch_size", "repeats", "eval_batch_size", "read_threads", "prefetch"):
            value = getattr(self, field)
            if value is not None and value < 1:
                yield f"{field}={value}: must be at least 1"
        if self.repeats > 1 and self.batch_size % self.repeats:
            yield (
                f"repeats={self.repeats}: a batch of batch_size={self.batch_size} does not divide by it; "
                f"set batch_size={max(1, round(self.batch_size / self.repeats)) * self.repeats}"
            )
        kind = type(self.examples).__name__.lower()
        for index, transform in enumerate(self.transforms):
            if getattr(transform, "draws", False) and kind not in ("detection", "segmentation"):
                yield (
                    f"transforms[{index}]={type(transform).__name__}: joins pictures with boxes or masks, and "
                    f"examples={kind!r} have one label; take task.mixup or task.cutmix"
                )
        for index, transform in enumerate(self.eval_transforms):
            if getattr(transform, "random", False):
                yield (
                    f"eval_transforms[{index}]={type(transform).__name__}: is random, so evaluation would "
                    "change from seed to seed; move it to transforms"
                )
        yield from self._text_problems()

    def _text_problems(self) -> Iterator[str]:
        """What is wrong between the examples, the tokenizer and the buckets."""
        kind = type(self.examples).__name__.lower()
        if self.examples.text and self.tokenizer is None:
            yield f"tokenizer: missing; examples={kind!r} need one, as in dict(name='bytes', template='gpt')"
        if not self.examples.text and self.tokenizer is not None:
            yield f"tokenizer: {kind!r} have no text; name another kind in examples, or leave it out"
        if self.buckets and not self.examples.varying:
            yield f"buckets={self.buckets}: rows of {kind!r} are all of one length; leave it out"
        elif self.buckets:
            rising = all(a < b for a, b in pairwise([*self.buckets, self.examples.length]))
            if not rising or self.buckets[0] < 2:
                yield (
                    f"buckets={self.buckets}: expected rising lengths of 2 or more, all below "
                    f"examples.length={self.examples.length}, which is the last one"
                )
        if self.mixture and not self.examples.text:
            yield f"mixture: {kind!r} cannot be mixed, only kinds of text; leave it out"
        for name in ("transforms", "eval_transforms"):
            for index, transform in enumerate(getattr(self, name)):
                if hasattr(transform, "bind") != self.examples.text:
                    made_for = "pictures" if self.examples.text else "text"
                    yield (
                        f"{name}[{index}]={type(transform).__name__}: is made for {made_for}, and the examples are "
                        f"{kind!r}; leave it out, or name another kind in examples"
                    )


def name_problems(name: str) -> Iterator[str]:
    """What is wrong with a dataset's name."""
    parts = name.split("/")
    if not all(part and part not in (".", "..") and "\\" not in part for part in parts) or len(parts) > 2:
        yield f"name={name!r}: not a dataset's name; write NAME or NAME/CONFIG, as in 'cifar10'"
