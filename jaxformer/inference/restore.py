"""A trained model from a run's folder, ready to evaluate and to predict."""

import logging
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from jaxformer.assembly import Assembly, filled
from jaxformer.checkpoints import Checkpoints
from jaxformer.config.sections import Experiment
from jaxformer.data.config import DataConfig
from jaxformer.data.decoding import decode_image
from jaxformer.data.examples import Detection, Segmentation, Tagged
from jaxformer.data.framing import framed
from jaxformer.data.nominal import NominalBatches, recorded
from jaxformer.data.text.tokenizers import FromFile, Tokenizer
from jaxformer.errors import NotPrepared, UserError
from jaxformer.files import read_json
from jaxformer.precision import in_precision
from jaxformer.run import Run, finished, read_experiment
from jaxformer.state import eval_variables, to_items

logger = logging.getLogger("jaxformer")
Tree = Any

BRING_BACK = "copy it from a backup, or train again in a new folder"


class Trained:
    """A checkpoint's model; nothing in the run's folder is changed.

    To predict of pictures the folder is enough; without the dataset, batches are nominal.

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

    missing: NotPrepared | None = None
    """Why the dataset cannot be read; None where it can."""

    def __init__(self, folder: Path, checkpoint: str = "best", split: str | None = None):
        self.run, experiment = read_experiment(folder)
        if split is not None:
            experiment = replace(experiment, eval=replace(experiment.eval, split=split))
        if experiment.data.examples.text:  # what the run was trained with, whatever made it
            tokenizer = FromFile(str(tokenizer_file(self.run)))
            experiment = replace(experiment, data=replace(experiment.data, tokenizer=tokenizer))
        self.assembly = Assembly(on_these_devices(experiment))
        try:
            self.assembly.train_batches, self.assembly.eval_batches  # noqa: B018 - builds them
        except NotPrepared as error:
            self.missing = error
            vars(self.assembly).update(self.nominal_batches())
        shapes = self.assembly.state_shapes
        self.step, self.variables = restore_items(
            self.run, experiment, to_items(shapes)["params"], checkpoint
        )

    def nominal_batches(self) -> dict[str, NominalBatches]:
        """What the run's folder says of its dataset, in the place of the assembly's batches.

        Raises:
          UserError: it says nothing, or the examples are texts.
        """
        data = self.assembly.experiment.data
        known = read_json(self.run.data, needs=("train", "evaluation"))
        if known is None or data.examples.text:
            assert self.missing is not None
            raise self.missing
        return {
            "train_batches": recorded(known["train"], data.batch_size),
            "eval_batches": recorded(known["evaluation"], data.eval_batch_size or data.batch_size),
        }

    @property
    def class_names(self) -> list[str]:
        """Names of the classes; their numbers where the dataset names none."""
        names = self.assembly.eval_batches.class_names
        return names or [str(i) for i in range(self.assembly.bare_model.num_classes)]

    @property
    def batch_size(self) -> int:
        """Images that are predicted at a time."""
        return min(32 * self.assembly.layout.batch_shards, self.assembly.eval_batches.batch_size)

    @cached_property
    def predict_step(self) -> Any:
        """(variables, batch) -> probabilities [B, K], compiled."""
        model, task = self.assembly.build_model(), self.assembly.task

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
        return self.example(path)["image"]

    def example(self, path: Path) -> dict[str, np.ndarray]:
        """An image file as `preprocess` makes it, "image", and in the size that the transforms gave it, "picture".

        The two differ where examples stand in a frame: then "extent" is the picture's height and width in "image".
        """
        shape = self.assembly.eval_batches.element_spec["image"][0]
        example = {"image": decode_image(path.read_bytes(), shape[-1], upright=True)}
        data = self.assembly.experiment.data
        for transform in data.eval_transforms:
            example = transform(example, np.random.default_rng(0))
        example["picture"] = example["image"]
        if isinstance(data.examples, (Detection, Segmentation)):
            example = framed(example, (shape[0], shape[1]), data.examples.enlarge)
        if example["image"].shape != shape:
            raise UserError(
                f"{path}: {example['image'].shape[0]}x{example['image'].shape[1]} pixels after data.eval_transforms, "
                f"the model takes {shape[0]}x{shape[1]}; resize the file"
            )
        return example


class TrainedText:
    """A checkpoint's model of text, on the first device; nothing in the run's folder is changed.

    The folder is enough, since the tokenizer is saved in it. Only where no evaluation has written the names of the
    classes are they taken from the dataset.

    Args:
      folder: the run's folder.
      checkpoint: as of `Trained`.

    Attributes:
      run: the folder's paths.
      experiment: its config.
      step: which checkpoint it is.
      model: the linen module, in the experiment's precision.
      variables: what it is applied with.
      tokenizer: what its tokens mean.
      class_names: names of the first classes; the others are called by their numbers.

    Raises:
      UserError: not a run's folder, or not of a model of text; it has no such checkpoint, or says nowhere how many
        classes there are.
    """

    def __init__(self, folder: Path, checkpoint: str = "best"):
        self.run, self.experiment = read_experiment(folder)
        if not self.experiment.data.examples.text:
            raise UserError(
                f"{folder}: holds no model of text",
                "`jaxformer predict RUN IMAGE ...` is for models of images",
            )
        self.tokenizer = Tokenizer.load(tokenizer_file(self.run))
        known = {"vocab_size": self.tokenizer.vocab_size}
        self.class_names: list[str] = []
        if self.experiment.model.classifies:
            names, count = classes(self.run, self.experiment.data)
            self.class_names = names or []
            if count is None and self.experiment.model.num_classes is None:
                raise UserError(
                    f"{folder}: the number of classes is in neither {self.run.evaluation.name} nor the config, "
                    f"and dataset {self.experiment.data.name!r} cannot be read",
                    "name the folder of the dataset in TFDS_DATA_DIR",
                )
            known |= {} if count is None else {"num_classes": count}
        self.model = in_precision(filled(self.experiment.model, known), self.experiment.precision)
        example = jnp.zeros((1, 2), jnp.int32)
        arguments = (example, example) if self.model.kind == "encoder-decoder" else (example,)
        shapes = jax.eval_shape(self.model.init, jax.random.key(0), *arguments)
        averaged = Assembly(self.experiment).average is not None
        self.step, self.variables = restore_params(self.run, self.experiment, shapes, averaged, checkpoint)
        logger.info("%s at step %d, %s tokens", folder, self.step, f"{self.tokenizer.vocab_size:,}")


def tokenizer_file(run: Run) -> Path:
    """Where a run of text keeps its tokenizer.

    Raises:
      UserError: it is not there.
    """
    if not run.tokenizer.exists():
        raise UserError(
            f"{run.tokenizer}: is missing, and without it nobody knows what the model's tokens mean",
            BRING_BACK,
        )
    return run.tokenizer


def classes(run: Run, data: DataConfig) -> tuple[list[str] | None, int | None]:
    """Names and number of a run's classes, as far as its last evaluation says them, or else its dataset."""
    names = (read_json(run.evaluation, needs=()) or {}).get("class_names")
    if names:
        return names, len(names)
    from jaxformer.data.text.records import Records, class_names, inner

    tagged = isinstance(data.examples, Tagged)
    name = data.examples.tags_feature if tagged else data.examples.label_feature
    try:
        features = dict(Records(data, data.train_split).features.items())
    except UserError:
        return None, None
    feature = features.get(name)
    return class_names(inner(feature) if tagged else feature)


def on_these_devices(experiment: Experiment) -> Experiment:
    """The experiment, laid out over the devices that are here rather than those it was trained on."""
    data, count = experiment.data, jax.device_count()
    rows = -(-(data.eval_batch_size or data.batch_size) // count) * count  # padding does not count
    return replace(experiment, parallel=type(experiment.parallel)(), data=replace(data, eval_batch_size=rows))


def restore_params(
    run: Run, experiment: Experiment, variables: Tree, averaged: bool, checkpoint: str
) -> tuple[int, Tree]:
    """A checkpoint's step and variables, on the first device; neither the optimizer's state nor the data are needed.

    Args:
      run: the run's folder.
      experiment: its config.
      variables: the model's, as shapes.
      averaged: whether an average of the parameters was kept.
      checkpoint: as in `Trained`.
    """
    here = SingleDeviceSharding(jax.devices()[0])
    params, state = (
        jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), tree)
        for tree in (variables["params"], {n: v for n, v in variables.items() if n != "params"})
    )
    items = {"params": params, "model_state": state, "average": params if averaged else None}
    return restore_items(run, experiment, items, checkpoint)


def restore_items(run: Run, experiment: Experiment, target: Tree, checkpoint: str) -> tuple[int, Tree]:
    """The checkpoint's step and variables.

    Args:
      run: the run's folder.
      experiment: its config.
      target: the item "params" of a checkpoint, as shapes with shardings.
      checkpoint: "best", "latest" or a step.

    Raises:
      UserError: there is no such checkpoint.
    """
    if checkpoint not in ("best", "latest") and not checkpoint.isdecimal():
        raise UserError(f"--checkpoint {checkpoint}: expected best, latest or a step")
    watched = experiment.eval
    with Checkpoints(
        run.checkpoints, monitor=watched.monitor, mode=watched.mode, read_only=True
    ) as checkpoints:
        if not checkpoints.steps():
            if finished(run) is None:
                raise UserError(f"{run.checkpoints}: there is no checkpoint yet; train the run first")
            raise UserError(
                f"{run.checkpoints}: is missing or empty, and the run has ended, so its model is lost",
                BRING_BACK,
            )
        targets = {"params": target}
        restored = checkpoints.restore_best(targets) if checkpoint == "best" else None
        if restored is None:
            step = int(checkpoint) if checkpoint.isdecimal() else None
            restored = checkpoints.restore(targets, step)
    assert restored is not None
    check_tokenizer(run, restored.progress.get("tokenizer"))
    return restored.progress["step"], eval_variables(restored.items)


def check_tokenizer(run: Run, digest: str | None) -> None:
    """Refuses a tokenizer that is not the one with which a checkpoint was trained.

    Args:
      run: the run's folder.
      digest: of the checkpoint's tokenizer; None where there is none, or none is known.

    Raises:
      UserError: the one in the folder makes other tokens.
    """
    if digest is not None and Tokenizer.load(run.tokenizer).digest != digest:
        raise UserError(
            f"{run.tokenizer}: is not the tokenizer that the checkpoint was trained with; restore that file, "
            "or train again in a new folder"
        )
