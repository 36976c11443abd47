"""A trained run, opened from its folder alone; its dataset is opened only to evaluate."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxformer.checkpoints import Checkpoints
from jaxformer.config.sections import ExperimentConfig
from jaxformer.data.base import NominalBatches, recorded
from jaxformer.data.collate import transformed
from jaxformer.data.config import DataConfig
from jaxformer.data.decoding import decode_image
from jaxformer.data.geometry import letterbox
from jaxformer.data.text.tokenizers import FromFile, Tokenizer
from jaxformer.errors import UserError
from jaxformer.experiment import Experiment
from jaxformer.inference.inputs import Input, reason
from jaxformer.optim.lora import beside_kernels
from jaxformer.reading import as_written, named, read_json, regular
from jaxformer.runs import BRING_BACK, Run
from jaxformer.state import eval_variables
from jaxformer.tasks.base import Evaluation, Row

if TYPE_CHECKING:
    from jaxformer.inference.writing import Writer

logger = logging.getLogger("jaxformer")
Tree = Any
Files = str | Path | Sequence[str | Path]


class LoadedRun:
    """A checkpoint's model with all that it takes to use it; nothing in the run's folder is changed.

    Args:
      folder: the run's folder.
      checkpoint: "best", "latest" or a step; "best" is the latest where no evaluation came with a checkpoint.

    Attributes:
      run: the folder.
      config: the run's config.
      step: which checkpoint it is.
      variables: what the model is applied with, the same on all devices.
      experiment: the parts of the config on the devices that are here. Its data are nominal: arrays' shapes
        and the names of classes, as the folder has them (`opened` has the examples).
      layout: the devices.
      task: what was learnt.
      model: the linen module, in the run's precision.

    Raises:
      UserError: the folder is not a run's, or has no such checkpoint.
    """

    def __init__(self, folder: str | Path, checkpoint: str | int = "best"):
        self.run = Run.open(folder)
        self.config = self.run.read_config()
        self._tokenizer = self._read_tokenizer()
        here = self._here()
        train_data, eval_data = self._known_data(here.data)
        self.experiment = Experiment(here, train_data=train_data, eval_data=eval_data)
        self.layout, self.model = self.experiment.layout, self.experiment.model
        self.task: Any = self.experiment.task
        self.step, self.variables = self._restore(str(checkpoint))
        logger.info("%s at step %d", folder, self.step)

    def _read_tokenizer(self) -> Tokenizer | None:
        """The tokenizer in the run's folder; None of a run without text.

        Raises:
          UserError: it is not there, or damaged.
        """
        if not self.config.data.examples.tokenized:
            return None
        if not self.run.tokenizer_file.exists():
            raise UserError(
                f"{self.run.tokenizer_file}: is missing, and without it nobody knows what the model's tokens mean",
                BRING_BACK,
            )
        return Tokenizer.load(self.run.tokenizer_file, BRING_BACK)

    def _here(self, split: str | None = None) -> ExperimentConfig:
        """The config with the devices that are here, and with the tokenizer that is in the folder.

        Args:
          split: what to evaluate on in the place of the config's `eval.split`.
        """
        config, data, count = self.config, self.config.data, jax.device_count()
        rows = -(-(data.eval_batch_size or data.batch_size) // count) * count  # padding does not count
        data = replace(data, eval_batch_size=rows)
        if self._tokenizer is not None:  # what the run was trained with, whatever made it
            data = replace(data, tokenizer=FromFile(str(self.run.tokenizer_file)))
        evaluation = config.eval if split is None else replace(config.eval, split=split)
        return replace(config, data=data, eval=evaluation, parallel=type(config.parallel)())

    def _known_data(self, data: DataConfig) -> tuple[NominalBatches | None, NominalBatches | None]:
        """What data.json says of the two splits; None where a run of an earlier version has not written it."""
        known = read_json(self.run.data_file, needs={}) or {}
        rows = {"train": data.batch_size, "evaluation": data.eval_batch_size or data.batch_size}
        with as_written(self.run.data_file, BRING_BACK):
            try:
                train, evaluation = (
                    replace(recorded(known[split], count), tokenizer=self._tokenizer)
                    for split, count in rows.items()
                )
            except KeyError:
                return None, None
        return train, evaluation

    def _restore(self, checkpoint: str) -> tuple[int, dict[str, Tree]]:
        """A checkpoint's step and variables, the same on all devices; the optimizer's state is not read.

        Raises:
          UserError: there is no such checkpoint, or the tokenizer in the folder is not the one it was trained with.
        """
        if checkpoint not in ("best", "latest") and not checkpoint.isdecimal():
            raise UserError(f"checkpoint={checkpoint!r}: expected best, latest or a step")
        experiment, monitor, run = self.experiment, self.config.eval.monitor, self.run
        laid_out = partial(jax.ShapeDtypeStruct, sharding=self.layout.replicated)
        shapes = jax.tree.map(
            lambda x: laid_out(x.shape, x.dtype),
            experiment.variable_shapes | {"params": experiment.parameter_shapes},
        )
        params = shapes.pop("params")
        average = None if experiment.average is None else params
        targets = {"params": {"params": params, "model_state": shapes, "average": average}}
        mode = self.task.direction(monitor)
        with Checkpoints(run.checkpoints, monitor=monitor, mode=mode, read_only=True) as checkpoints:
            if not checkpoints.steps():
                if run.finished() is None:
                    raise UserError(f"{run.checkpoints}: there is no checkpoint yet; train the run first")
                raise UserError(
                    f"{run.checkpoints}: is missing or empty, and the run has ended, so its model is lost",
                    BRING_BACK,
                )
            restored = checkpoints.restore_best(targets) if checkpoint == "best" else None
            if restored is None:
                restored = checkpoints.restore(targets, int(checkpoint) if checkpoint.isdecimal() else None)
        assert restored is not None
        digest = restored.progress.get("tokenizer")
        if digest is not None and (self._tokenizer is None or self._tokenizer.digest != digest):
            raise UserError(
                f"{run.tokenizer_file}: is not the tokenizer that the checkpoint was trained with; restore that file, "
                "or train again in a new folder"
            )
        found = eval_variables(restored.items)
        self.low_rank = beside_kernels(found["params"])
        return restored.progress["step"], experiment.merged(found)

    @property
    def metrics(self) -> dict[str, float]:
        """The run's final metrics."""
        return self.run.metrics

    @property
    def tokenizer(self) -> Tokenizer:
        """What the tokens of a text model mean.

        Raises:
          UserError: the model is of images.
        """
        if self._tokenizer is None:
            raise UserError(f"{self.run.folder}: holds a model of images, which has no tokenizer")
        return self._tokenizer

    @cached_property
    def class_names(self) -> list[str]:
        """The names of the classes; their numbers where the dataset names none, and [] where there are no classes."""
        data = self.experiment.eval_data
        return data.class_names or [str(i) for i in range(data.sizes.get("num_classes", 0))]

    @property
    def batch_size(self) -> int:
        """How many examples are predicted at a time."""
        return min(32 * self.layout.batch_shards, self.experiment.eval_data.batch_size)

    # Images

    def example(self, image: str | Path | np.ndarray) -> dict[str, np.ndarray]:
        """An image as the run's evaluation transforms make it.

        Args:
          image: a file, or uint8 [H, W, C].

        Returns:
          "image" as the model takes it, and "transformed", as the transforms left it. The two differ where examples
          stand in a frame: then "extent" is the height and width of the image in it.

        Raises:
          UserError: the image cannot be read, or has another size than the transforms make of the dataset's.
        """
        shape, data = self.experiment.eval_data.element_spec["image"][0], self.config.data
        where = str(image) if isinstance(image, (str, Path)) else "the image"
        expected = f"expected an image file, or uint8 [H, W, {shape[-1]}]"
        if isinstance(image, (str, Path)):
            try:
                image = decode_image(regular(named(image)).read_bytes(), shape[-1], upright=True)
            except (OSError, ValueError) as error:
                raise UserError(f"{where}: {reason(Path(where), error)}") from error
        elif not isinstance(image, np.ndarray):
            raise UserError(f"{where}: is {type(image).__name__}; {expected}")
        elif image.ndim != 3 or image.dtype != np.uint8:
            raise UserError(f"{where}: is {image.dtype} of the shape {image.shape}; {expected}")
        elif not image.size:
            raise UserError(f"{where}: has no pixels; {expected}")
        example: dict[str, Any] = {"image": image}
        example = dict(transformed(example, data.eval_transforms, np.random.default_rng(0), lambda: where))
        example["transformed"] = example["image"]
        if data.examples.letterboxed:
            example = letterbox(example, (shape[0], shape[1]), data.examples.enlarge)
        if example["image"].shape != shape:
            height, width, channels = example["image"].shape
            made, takes = f"{height}x{width} pixels", f"{shape[0]}x{shape[1]}; resize the file"
            if channels != shape[2]:
                made, takes = f"channels: {channels}", f"{shape[2]}; convert the image"
            raise UserError(f"{where}: {made} after data.eval_transforms, the model takes {takes}")
        return example

    def predict(self, inputs: Any, *, top: int = 5) -> list[dict[str, Any]]:
        """The model's answer to each input, as JSON values; see `jaxformer.inference.predict.predict`.

        Args:
          inputs: one input or several: image files, uint8 [H, W, C] or [N, H, W, C]; texts, pairs of texts,
            (question, context).
          top: how many answers to list where there are several.

        Raises:
          UserError: the task predicts nothing, an input cannot be read, or its prediction is not finite.
        """
        from jaxformer.inference.predict import predict

        return list(predict(self, inputs, top))

    def answered(self, inputs: Any, top: int) -> Iterator[tuple[Input, Row, dict[str, Any]]]:
        """Yields each input with its prediction and the answer in it; see `jaxformer.inference.predict.answered`."""
        from jaxformer.inference.predict import answered

        return answered(self, inputs, top)

    # Two towers

    def zero_shot(
        self, images: Any, texts: Sequence[str], *, templates: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """How likely each of some texts tells of each image; see `jaxformer.inference.zero_shot.zero_shot`."""
        from jaxformer.inference.zero_shot import zero_shot

        return list(zero_shot(self, images, texts, templates=templates))

    def embed_images(self, images: Any) -> np.ndarray:
        """Vectors of images, float32 [N, E], of length 1, of a model of two towers.

        Args:
          images: one or several, as of `predict`.

        Raises:
          UserError: the model has no two towers, or an image cannot be read.
        """
        from jaxformer.inference.zero_shot import image_vectors

        return image_vectors(self, images)

    def embed_texts(self, texts: str | Sequence[str]) -> np.ndarray:
        """Vectors of texts, float32 [N, E], of length 1, of a model of two towers.

        Raises:
          UserError: the model has no two towers, or a text is empty, or longer than it takes.
        """
        from jaxformer.inference.zero_shot import text_vectors

        return text_vectors(self, [texts] if isinstance(texts, str) else texts)

    # Texts

    @cached_property
    def writer(self) -> "Writer":
        """What writes texts with the model.

        Raises:
          UserError: the model writes none.
        """
        from jaxformer.inference.writers import writer_of

        return writer_of(self)

    def about(self, image: str | Path | np.ndarray) -> "Writer":
        """What writes texts about an image: a file, or uint8 [H, W, C].

        Raises:
          UserError: the model writes none of images, or the image cannot be read.
        """
        from jaxformer.inference.writers import writer_of

        return writer_of(self, image)

    def generate(
        self,
        prompts: str | Sequence[str] = "",
        *,
        image: str | Path | np.ndarray | None = None,
        max_new_tokens: int = 256,
        stop: str | Sequence[str] = (),
        seed: int = 0,
        beams: int = 1,
        length_penalty: float = 0.6,
        **sampling: Any,
    ) -> list[dict[str, Any]]:
        """Continues texts, translates them, or writes about an image.

        Args:
          prompts: one text or several; about an image what stands in front, such as a question, or nothing.
          image: a file, or uint8 [H, W, C], of which the model writes; None for models of texts.
          max_new_tokens: how many tokens are written at most.
          stop: strings before which a text ends.
          seed: decides what is drawn, for each prompt as if it were the only one; equal prompts are drawn anew.
          beams: how many hypotheses a beam search follows; 1 draws tokens, or takes the likeliest.
          length_penalty: of the beam search (Wu et al. 2016, equation 14).
          **sampling: `temperature`, `top_k`, `top_p`, `min_p` and `repetition_penalty`, as fields of `Sampling`.

        Returns:
          For each prompt "prompt", "text", "tokens" (how many there are) and "ended" ("end of text", "stop string",
          "length" or "context", see `Continuation`).

        Raises:
          UserError: the model writes no texts, a prompt is too long, or an argument is impossible.
        """
        from jaxformer.inference.writing import generation

        texts = [prompts] if isinstance(prompts, str) else prompts
        if not (isinstance(texts, Sequence) and all(isinstance(text, str) for text in texts)):
            raise UserError(f"prompts={prompts!r}: expected a text, or a list of texts")
        how = generation(max_new_tokens, stop, seed, beams, length_penalty, **sampling)
        places = ["prompt"] if len(texts) == 1 else [f"prompt {n}" for n in range(1, len(texts) + 1)]
        writer = self.writer if image is None else self.about(image)
        found = writer.generate(writer.encoded(zip(texts, places)), how)
        return [{"prompt": text, **vars(one)} for text, one in zip(texts, found)]

    # Evaluation

    def opened(self, split: str | None = None) -> Experiment:
        """The experiment with its dataset, to evaluate on `split` (None: the config's `eval.split`).

        Raises:
          UserError: the dataset, or the split, is not there.
        """
        return Experiment(self._here(split))

    def evaluate(self, split: str | None = None, *, views: str | None = None) -> Evaluation:
        """Evaluates the checkpoint.

        Args:
          split: a split of the dataset; None: the config's `eval.split`.
          views: averages predictions over views of each image, as `evaluation/views.py` names them; None: one view.

        Raises:
          UserError: the dataset or the split is not there.
        """
        if not isinstance(split, (str, NoneType)):
            raise UserError(f"split={split!r}: expected a split's name, such as 'test', or None")
        from jaxformer.evaluation.evaluator import evaluate
        from jaxformer.evaluation.views import many_views
        from jaxformer.step import make_eval_step

        experiment = self.opened(split)
        model: Any = experiment.model
        model = model if views is None else many_views(model, experiment.task, views)
        step = self.layout.eval_step(make_eval_step(model, experiment.task, axis=self.layout.axis))
        return evaluate(step, self.variables, experiment.task, experiment.eval_data, self.layout)

    def explain(
        self, files: Files, folder: str | Path, *, class_name: str | None = None, prompt: str = ""
    ) -> list[dict[str, Any]]:
        """Draws what the model saw in images: attention, rollout, Grad-CAM, and for each word that it writes.

        Args:
          files: image files.
          folder: where the drawings go.
          class_name: the class that Grad-CAM explains, by name or number; None: the predicted one.
          prompt: what stands in front of a text about an image, such as a question.

        Returns:
          For each file "file" and its drawings, as `inference/explain.py` lists them.

        Raises:
          UserError: nothing of this model can be shown, there is no such class, or a file cannot be read.
        """
        from jaxformer.inference.explain import Explainer, explain_files

        several = [files] if isinstance(files, (str, Path)) else files
        explainer = Explainer(self, class_name, prompt)
        return explain_files(explainer, [named(file) for file in several], named(folder))
