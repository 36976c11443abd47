"""A trained model from a run's folder, ready to evaluate and to predict."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxformer.assembly import Assembly
from jaxformer.checkpoints import Checkpoints
from jaxformer.config import Experiment
from jaxformer.data.decoding import decode_image
from jaxformer.errors import UserError
from jaxformer.run import read_experiment
from jaxformer.state import eval_variables, to_items

Tree = Any


class Trained:
    """A checkpoint's model; nothing in the run's folder is changed.

    Args:
      folder: the run's folder.
      checkpoint: "best", "latest" or a step; "best" is the latest where no evaluation came with a checkpoint.
      split: evaluate on this split instead of the config's.

    Attributes:
      run: the folder's paths.
      step: which checkpoint it is.
      variables: what the model is applied with.

    Raises:
      UserError: not a run's folder, or it has no such checkpoint.
    """

    def __init__(self, folder: Path, checkpoint: str = "best", split: str | None = None):
        self.run, experiment = read_experiment(folder)
        if split is not None:
            experiment = replace(experiment, eval=replace(experiment.eval, split=split))
        self.assembly = Assembly(on_these_devices(experiment))
        self.step, self.variables = self.restore(checkpoint)

    def restore(self, checkpoint: str) -> tuple[int, Tree]:
        """The checkpoint's step and variables; the optimizer's state is not read."""
        if checkpoint not in ("best", "latest") and not checkpoint.isdecimal():
            raise UserError(f"--checkpoint {checkpoint}: expected best, latest or a step")
        watched = self.assembly.experiment.eval
        with Checkpoints(
            self.run.checkpoints, monitor=watched.monitor, mode=watched.mode, read_only=True
        ) as checkpoints:
            targets = {"params": to_items(self.assembly.state_shapes)["params"]}
            restored = checkpoints.restore_best(targets) if checkpoint == "best" else None
            if restored is None:
                step = int(checkpoint) if checkpoint.isdecimal() else None
                restored = checkpoints.restore(targets, step)
        if restored is None:
            raise UserError(f"{self.run.checkpoints}: there is no checkpoint yet; train the run first")
        return restored.progress["step"], eval_variables(restored.items)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes; their numbers where the dataset names none."""
        names = self.assembly.eval_batches.class_names
        return names or [str(i) for i in range(self.assembly.experiment.model.num_classes)]

    @property
    def batch_size(self) -> int:
        """Images that are predicted at a time."""
        return min(32 * self.assembly.layout.batch_shards, self.assembly.eval_batches.batch_size)

    @cached_property
    def predict_step(self) -> Any:
        """(variables, batch) -> probabilities [B, K], compiled."""
        model, task = self.assembly.experiment.build_model(), self.assembly.task

        def predict(variables: Tree, batch: Tree) -> jax.Array:
            return task.probabilities(model.apply(variables, **task.inputs(batch), deterministic=True))

        return jax.jit(predict, out_shardings=self.assembly.layout.replicated)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Probabilities float32 [B, K] of images uint8 [B, H, W, C]."""
        return np.asarray(self.predict_step(self.variables, self.assembly.layout.put({"image": images})))

    def preprocess(self, path: Path) -> np.ndarray:
        """An image file as the model takes it, uint8 [H, W, C]: with the run's evaluation transforms.

        Raises:
          UserError: the image cannot be read, or has another size than the transforms make of the dataset's.
        """
        shape = self.assembly.eval_batches.element_spec["image"][0]
        example = {"image": decode_image(path.read_bytes(), shape[-1], upright=True)}
        for transform in self.assembly.experiment.data.eval_transforms:
            example = transform(example, np.random.default_rng(0))
        if example["image"].shape != shape:
            raise UserError(
                f"{path}: {example['image'].shape[0]}x{example['image'].shape[1]} pixels after data.eval_transforms, "
                f"the model takes {shape[0]}x{shape[1]}; resize the file"
            )
        return example["image"]


def on_these_devices(experiment: Experiment) -> Experiment:
    """The experiment, laid out over the devices that are here rather than those it was trained on."""
    data, count = experiment.data, jax.device_count()
    rows = -(-(data.eval_batch_size or data.batch_size) // count) * count  # padding does not count
    return replace(experiment, parallel=type(experiment.parallel)(), data=replace(data, eval_batch_size=rows))
