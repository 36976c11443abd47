"""What a config says about data. Imports nothing slow, so that `--help` and config checks stay quick."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

from jaxformer.config.fields import FOLDER, Constraint, PositiveInt, above, at_most
from jaxformer.config.schema import choice, load
from jaxformer.data.folds import Fold
from jaxformer.data.kinds import KINDS

# Names in configs -> the transform's class, imported when it is chosen.
TRANSFORMS: dict[str, str] = {
    "autoaugment": "jaxformer.data.policies:AutoAugment",
    "back_translate": "jaxformer.data.text.paraphrases:BackTranslate",
    "center_crop": "jaxformer.data.transforms:CenterCrop",
    "color_jitter": "jaxformer.data.operations:ColorJitter",
    "detr_crop": "jaxformer.data.cropping:DetrCrop",
    "eda": "jaxformer.data.text.augment:Eda",
    "flip": "jaxformer.data.transforms:Flip",
    "grayscale": "jaxformer.data.operations:Grayscale",
    "mask_tokens": "jaxformer.data.text.masking:MaskTokens",
    "mosaic": "jaxformer.data.cropping:Mosaic",
    "pad_and_crop": "jaxformer.data.transforms:PadAndCrop",
    "published": "jaxformer.data.published:Published",
    "randaugment": "jaxformer.data.policies:RandAugment",
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
    "three_augment": "jaxformer.data.operations:ThreeAugment",
    "token_cutoff": "jaxformer.data.text.augment:TokenCutoff",
    "trivialaugment": "jaxformer.data.policies:TrivialAugment",
}

# Names in configs -> the tokenizer's settings.
TRANSFORM = "jaxformer.data.transform:Transform"  # the contract
TOKENIZERS: dict[str, str] = {
    "bytes": "jaxformer.data.text.tokenizer_training:Bytes",
    "characters": "jaxformer.data.text.tokenizer_training:Characters",
    "file": "jaxformer.data.text.tokenizers:FromFile",
    "trained": "jaxformer.data.text.tokenizer_training:Trained",
}


def is_name(text: str) -> bool:
    """Whether a dataset can have this name."""
    if re.match("[a-z-]+:.", text):  # files of a user's own
        return True
    parts = text.split("/")
    return len(parts) <= 2 and all(part and part not in (".", "..") and "\\" not in part for part in parts)


DatasetName = Annotated[
    str, Constraint("NAME or NAME/CONFIG, as in 'cifar10', or KIND:PATH, as in 'csv:a.csv'", is_name)
]


def images() -> Any:
    """The kind of examples where a config names none."""
    return load(KINDS["images"])()


@dataclass(frozen=True)
class Part:
    """A further dataset of a mixture."""

    name: DatasetName
    """As `DataConfig.name`."""
    weight: Annotated[float, above(0, "more than 0; leave the dataset out otherwise")]
    """How many of its examples are seen for each of the first dataset's."""
    version: str | None = None
    """As `DataConfig.version`."""
    train_split: str | None = None
    """Its split; None takes the first dataset's."""


@dataclass(frozen=True)
class DataConfig:
    """Which examples a run sees, and what is done to them on the host."""

    name: DatasetName = "digits"
    """ "digits" (scikit-learn's) and "shapes" (coloured shapes with captions and questions), which are prepared on
    first use; or any prepared TFDS dataset, with its TFDS config
    if it has one ("cifar10", "imagenet2012", "imagenet_resized/64x64", or a name given to `data import`); or
    files of your own, which are imported into the cache: "csv:reviews.csv", "jsonl:reviews.jsonl", a folder of
    pictures with a folder for each class "folder:pictures", or another kind that `data import` takes; or a dataset of
    texts of the Hugging Face Hub, "hf:OWNER/NAME" (extra `hub`)."""
    version: str | None = None
    """The dataset's version ("3.0.2"); None takes the newest that is prepared."""
    data_dir: Annotated[str, FOLDER] | None = None
    """The folder of TFDS datasets; None takes $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    train_split: Annotated[
        str, Constraint("a split, as in 'train' or 'train[:90%]'", lambda text: bool(text.strip()))
    ] = "train"
    """The training split, with TFDS's slices if wanted ("train", "train[:90%]", "train+validation")."""
    fold: Fold | None = None
    """For cross-validation: "2/5" holds the second of five parts of `train_split` out, which `eval.split="fold"`
    evaluates on. Each part has the same share of every class. `jaxformer cross-validate` trains all of them."""
    mixture: tuple[Part, ...] = ()
    """Further datasets of text that training mixes in, each with an order and epochs of its own. The
    tokenizer learns from all; an epoch is as long as it takes to see `train_split` of `name` once; evaluation
    is on `name` alone."""
    batch_size: PositiveInt = 128
    """Examples in a global training batch, over all devices and processes."""
    repeats: Annotated[int, at_most(1024)] = 1
    """How often a training batch holds each of its examples, each time augmented anew (repeated augmentation,
    Hoffer et al. 2020; DeiT: 3). An epoch stays as many rows as there are examples, so that all have been
    seen after so many epochs."""
    eval_batch_size: PositiveInt | None = None
    """Examples in a global evaluation batch; None takes `batch_size`."""
    examples: Any = choice(KINDS, "jaxformer.data.kinds.base:Kind", default_factory=images)  # noqa: RUF009
    """What becomes of the dataset's examples: one of the kinds of images or of token rows
    (`data/kinds/`)."""
    tokenizer: Any | None = choice(TOKENIZERS, default=None)  # noqa: RUF009
    """What makes tokens of text; a tokenizer that learns does so from `train_split`."""
    buckets: tuple[int, ...] = ()
    """Lengths, besides the examples' own, that batches of token rows may be padded to, for kinds whose rows
    differ in length: each batch takes the smallest that holds its longest row, and rows of like lengths come
    together. Each is a shape that is compiled."""
    transforms: tuple[Any, ...] = choice(TRANSFORMS, TRANSFORM, "modality", default=())
    """What is done to each training example, in order, after decoding."""
    eval_transforms: tuple[Any, ...] = choice(TRANSFORMS, TRANSFORM, "modality", default=())
    """The same for evaluation; random transforms do not belong here."""
    cache: Literal["none", "memory"] = "none"
    """ "memory" keeps decoded images in memory from their first use on (before any transform);
    "none" reads and decodes them every time. (Token rows are mapped from files, and have no use for it.)"""
    read_threads: Annotated[int, at_most(1024)] | None = None
    """Threads that read, decode and transform in the background; None takes one a core, at most 16."""
    prefetch: Annotated[int, at_most(1024)] = 4
    """Batches that are kept ready ahead of the step."""

    def problems(self) -> Iterator[str]:
        if self.repeats > 1 and self.batch_size % self.repeats:
            fitting = round(self.batch_size / self.repeats) * self.repeats
            remedy = f"set batch_size={fitting}" if self.repeats < self.batch_size else "make repeats smaller"
            problem = f"a batch of batch_size={self.batch_size} does not divide by it"
            yield f"repeats={self.repeats}: {problem}; {remedy}"
        yield from self._text_problems()
        for name in ("transforms", "eval_transforms"):
            for index, transform in enumerate(getattr(self, name)):
                where = f"{name}[{index}]={type(transform).__name__}"
                yield from (f"{where}: {problem}" for problem in self._misfits(transform, name))

    def _misfits(self, transform: Any, name: str) -> Iterator[str]:
        """Why a transform does not suit the examples, or the list that it stands in."""
        kind, made_for = self.examples.kind, transform.modality
        if made_for != self.examples.modality:
            remedy = "leave it out, or name another kind in examples"
            yield f"is made for {made_for}s, and the examples are {kind!r}; {remedy}"
        elif transform.draws and not self.examples.letterboxed:
            remedy = "take task.mixup or task.cutmix"
            yield f"joins images with boxes or masks, and examples={kind!r} have one label; {remedy}"
        if transform.random and name == "eval_transforms":
            yield "is random, so evaluation would change from seed to seed; move it to transforms"

    def _text_problems(self) -> Iterator[str]:
        """What is wrong between the examples, the tokenizer and the buckets."""
        kind, is_text = self.examples.kind, self.examples.modality == "text"
        if self.examples.tokenized and self.tokenizer is None:
            yield f"tokenizer: missing; examples={kind!r} need one, as in dict(name='bytes', template='gpt')"
        if not self.examples.tokenized and self.tokenizer is not None:
            yield f"tokenizer: {kind!r} have no text; name another kind in examples, or leave it out"
        if self.buckets and not self.examples.varying:
            yield f"buckets={self.buckets}: rows of {kind!r} are all of one length; leave it out"
        elif self.buckets:
            lengths = [1, *self.buckets, self.examples.length]
            if not all(a < b for a, b in pairwise(lengths)):
                wanted = f"rising lengths of 2 or more, all below examples.length={self.examples.length}"
                yield f"buckets={self.buckets}: expected {wanted}, which is the last one"
        if self.mixture and not is_text:
            yield f"mixture: {kind!r} cannot be mixed, only kinds of text; leave it out"
