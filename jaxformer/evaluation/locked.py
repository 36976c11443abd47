"""A locked image tower (LiT, Zhai et al. 2022): what it gives of each picture is computed once, before training."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxformer.config.schema import to_dict
from jaxformer.data.base import Example, Source
from jaxformer.data.batches import Batches
from jaxformer.errors import ConfigError
from jaxformer.evaluation.features import kept, weights_digest
from jaxformer.experiment import Experiment
from jaxformer.paths import leaves_by_path

Tree = Any


class Pictures(Source):
    """Each picture of a source of pairs once.

    Attributes:
      numbers: int [N], for each pair the number of its picture here.
    """

    def __init__(self, source: Source):
        found = [source.truth(index)["picture"] for index in range(len(source))]
        _, self._first, self.numbers = np.unique(found, return_index=True, return_inverse=True)
        self._source, self.name, self.split = source, source.name, source.split

    def __len__(self) -> int:
        return len(self._first)

    def read(self, indices: Sequence[int]) -> list[Example | None]:
        """The pictures alone."""
        found = self._source.read([int(self._first[index]) for index in indices])
        return [example and {"image": example["image"]} for example in found]


def check_locked(experiment: Experiment) -> None:
    """Raises ConfigError for models without a frozen image tower, and where training sees other pictures than an
    evaluation does."""
    config, asked = experiment.config, "train.cached_images=True"
    trained = leaves_by_path(experiment.trainable or {})
    if experiment.bare_model.kind != "two-towers":
        raise ConfigError(f'{asked}: is for a model of two towers, name="two_towers"')
    if not trained or any(moves for path, moves in trained.items() if path.startswith("image/")):
        raise ConfigError(f"{asked}: the image tower is trained; set optimizer.freeze=['image/.*']")
    if config.data.transforms != config.data.eval_transforms:
        raise ConfigError(
            f"{asked}: nothing may change at random; make data.transforms as data.eval_transforms"
        )


def with_image_features(experiment: Experiment, variables: Mapping[str, Tree]) -> Experiment:
    """The same experiment, whose batches of both splits hold "image_features" float32 [B, D], too.

    Args:
      experiment: has passed `check_locked`.
      variables: of the model, on the devices.
    """
    task: Any = experiment.task
    model = experiment.config.model.image
    own = {name: tree["image"] for name, tree in variables.items() if "image" in tree}
    made_from = {"weights": weights_digest(own), "model": to_dict(model)}
    made_from |= {"pixels": [*task.mean, *task.std], "precision": experiment.config.precision}
    run = experiment.compiled("image_tower", tower)

    def with_features(batches: Batches) -> Batches:
        whole: Any = batches.source
        pictures, read = Pictures(whole), whole.read
        alone = Batches(pictures, experiment.config.data, seed=0, train=False)
        rows, _ = kept(experiment, alone, partial(run, variables), made_from)

        def read_both(indices: Sequence[int]) -> list[Example | None]:
            pairs = zip(read(indices), pictures.numbers[indices])
            return [example and {**example, "image_features": rows[number]} for example, number in pairs]

        source = copy.copy(whole)
        source.read = read_both
        made = batches.of(source)
        del made.element_spec["image_features"]  # models begin with pictures, and runs tell of these
        return made

    data = {name: with_features(getattr(experiment, name)) for name in ("train_data", "eval_data")}
    return Experiment(experiment.config, experiment.devices, shared=experiment.shared, **data)


def tower(model: Any, task: Any) -> Callable[[Mapping[str, Tree], Mapping[str, jax.Array]], jax.Array]:
    """(variables, batch) -> what the image tower gives, float32 [B, D]."""

    def run(variables: Mapping[str, Tree], batch: Mapping[str, jax.Array]) -> jax.Array:
        found = model.apply(variables, task.normalised(batch)["image"], method="seen")
        return found.astype(jax.numpy.float32)

    return run
