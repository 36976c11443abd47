"""What a config says about data. Imports nothing slow, so that `--help` and config checks stay quick."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from jaxformer.schema import choice

# Names in configs -> the transform's class, imported when it is chosen.
TRANSFORMS: dict[str, str] = {
    "center_crop": "jaxformer.data.transforms:CenterCrop",
    "color_jitter": "jaxformer.data.color:ColorJitter",
    "flip": "jaxformer.data.transforms:Flip",
    "pad_and_crop": "jaxformer.data.transforms:PadAndCrop",
    "randaugment": "jaxformer.data.randaugment:RandAugment",
    "random_erasing": "jaxformer.data.transforms:RandomErasing",
    "random_resized_crop": "jaxformer.data.transforms:RandomResizedCrop",
    "resize": "jaxformer.data.transforms:Resize",
}


@dataclass(frozen=True)
class DataConfig:
    """Which examples a run sees, and what is done to them on the host.

    Attributes:
      name: "digits" (scikit-learn's, prepared on first use), or any prepared TFDS dataset, with its TFDS
        config if it has one ("cifar10", "imagenet2012", "imagenet_resized/64x64", or a name given to `data
        import`).
      version: the dataset's version ("3.0.2"); None takes the newest that is prepared.
      data_dir: the folder of TFDS datasets; None takes $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      train_split: the training split, with TFDS's slices if wanted ("train", "train[:90%]",
        "train+validation").
      batch_size: examples in a global training batch, over all devices and processes.
      eval_batch_size: examples in a global evaluation batch; None takes `batch_size`.
      transforms: what is done to each training image, in order, after decoding.
      eval_transforms: the same for evaluation; random transforms do not belong here.
      image_feature: the dataset's feature that holds the image.
      label_feature: the dataset's feature that holds the label ("label", or CIFAR-100's "coarse_label").
      cache: "memory" keeps decoded images in memory from their first use on (before any transform); "none"
        reads and decodes them every time.
      read_threads: threads that read, decode and transform in the background; None takes one a core, at most
        16.
      prefetch: batches that are kept ready ahead of the step.
    """

    name: str = "digits"
    version: str | None = None
    data_dir: str | None = None
    train_split: str = "train"
    batch_size: int = 128
    eval_batch_size: int | None = None
    transforms: tuple[Any, ...] = choice(TRANSFORMS, default=())
    eval_transforms: tuple[Any, ...] = choice(TRANSFORMS, default=())
    image_feature: str = "image"
    label_feature: str = "label"
    cache: Literal["none", "memory"] = "none"
    read_threads: int | None = None
    prefetch: int = 4

    def problems(self) -> Iterator[str]:
        """Yields a line for every value that cannot work, whatever the dataset holds."""
        parts = self.name.split("/")
        if not all(part and part not in (".", "..") and "\\" not in part for part in parts) or len(parts) > 2:
            yield f"name={self.name!r}: not a dataset's name; write NAME or NAME/CONFIG, as in 'cifar10'"
        if not self.train_split.strip():
            yield f"train_split={self.train_split!r}: empty; name a split, as in 'train' or 'train[:90%]'"
        for field in ("batch_size", "eval_batch_size", "read_threads", "prefetch"):
            value = getattr(self, field)
            if value is not None and value < 1:
                yield f"{field}={value}: must be at least 1"
        for index, transform in enumerate(self.eval_transforms):
            if getattr(transform, "random", False):
                yield (
                    f"eval_transforms[{index}]={type(transform).__name__}: is random, so evaluation would "
                    "change from seed to seed; move it to transforms"
                )
