"""Looking inside a model: what it saw in an image, as drawings.

Attention rollout and the maps of all heads, Grad-CAM for the class, of a detector what each object was found by, and of
what writes about an image where it looked for each word.
"""

import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.data.names import class_key
from jaxformer.drawing import save
from jaxformer.errors import UserError, counted
from jaxformer.files import writing_to
from jaxformer.inference.attention_layers import CROSS, attention_layers, calls_of
from jaxformer.inference.explain_drawings import Drawing, attention_drawings, over_image, word_sheet
from jaxformer.inference.grad_cam import find_target, with_activation
from jaxformer.inference.inputs import REMEDY, all_at_once, place_images
from jaxformer.models.attention import ATTENTION_MAPS
from jaxformer.models.base import WRITE_OF_IMAGES, Model, replaced
from jaxformer.models.layouts import unstack_layers
from jaxformer.models.outputs import DetectionOutputs, SegmentationOutputs
from jaxformer.models.token_layout import Grid
from jaxformer.observe.attention_maps import received
from jaxformer.paths import leaves_by_path
from jaxformer.tasks.base import class_name

if TYPE_CHECKING:
    from jaxformer.inference.loaded import LoadedRun

logger = logging.getLogger("jaxformer")
Tree = Any

LINES = "explanations.jsonl"
PREDICTED = -1  # in a class's place: the one that the model says
MOST_OBJECTS = 20


class Explainer:
    """Explains what a trained model says of images.

    Args:
      trained: the model.
      chosen: the class that Grad-CAM explains, by name or number; None: the one that the model says.
      prompt: what stands in front of a text about an image, such as a question.

    Attributes:
      layers: those whose attention can be shown.
      target: the feature map of Grad-CAM; None: there is none.

    Raises:
      UserError: nothing of this model can be shown, there is no such class, or the model takes no such prompt.
    """

    def __init__(self, trained: "LoadedRun", chosen: str | None = None, prompt: str = ""):
        self.trained, self.task, self.prompt = trained, trained.task, prompt
        if prompt and trained.model.kind not in WRITE_OF_IMAGES:
            raise UserError(
                f"prompt: {trained.run.folder} holds a model that writes nothing of images; leave it out"
            )
        spec = trained.experiment.eval_data.element_spec
        if "image" not in spec:
            raise UserError(
                f"{trained.run.folder}: holds a model of text; explain looks into models of images"
            )
        shape = spec["image"][0]
        self.model = explainable(replaced(trained.model, scan=False, remat="none"), *shape[:2])
        batch = self.batch_of({"image": np.zeros(shape, np.uint8)})
        if prompt and (count := batch["tokens"].shape[1]) > (longest := self.model.context_length):
            raise UserError(
                f"prompt: has {counted(count, 'token')}, the model's context is {longest}; shorten it"
            )
        calls, (_, maps) = calls_of(lambda: self.apply(trained.variables, batch))
        self.layers = attention_layers(self.model, calls, maps.get(ATTENTION_MAPS, {}))
        self.target = None if self.model.num_classes == 0 else find_target(self.model, calls)  # 0: no classes
        if not (self.layers or self.target or self.task.looks):
            raise UserError(
                f"there is nothing to show of {trained.run.folder}: its model ({type(self.model).__name__}) "
                "has neither attention over an image nor blocks whose feature maps its classes are read from",
                "a model of your own becomes explainable by the names of its parts: docs/adding.md, A model",
            )
        self.chosen = PREDICTED if chosen is None else self.class_index(chosen)

    def class_index(self, name: str) -> int:
        """The number of a class.

        Raises:
          UserError: there is none of this name, or nothing that is of one class.
        """
        if self.target is None:
            remedy = "leave `class_name` out"
            raise UserError(f"class_name: this model has no map of a class's evidence (Grad-CAM); {remedy}")
        names = self.trained.class_names
        if (key := class_key(name)) in names:
            return names.index(key)
        if name.isdecimal() and int(name) < max(len(names), self.trained.experiment.bare_model.num_classes):
            return int(name)
        expected = f"expected one of {', '.join(names[:10])}" + ", ..." * (len(names) > 10)
        near = [f"do you mean {known}?" for known in difflib.get_close_matches(name, names, n=1)]
        raise UserError(f"class_name={name}: there is no such class; {(near or [expected])[0]}")

    def batch_of(self, example: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A batch of one example; without an extent its image has no padding."""
        extent = np.asarray(example.get("extent", example["image"].shape[:2]), np.int32)
        arrays = {
            "image": example["image"],
            "extent": extent,
            **({"prompt": self.prompt} if self.prompt else {}),
        }
        return {name: array[None] for name, array in self.task.prepare(arrays, self.trained).items()}

    def apply(self, variables: Tree, batch: Tree) -> tuple[Any, Tree]:
        """What the model gives, and its attention."""
        flat = {**variables, "params": unstack_layers(variables["params"])}
        inputs = self.task.inputs(batch)
        return self.model.apply(flat, **inputs, deterministic=True, mutable=[ATTENTION_MAPS])

    @cached_property
    def look(self) -> Any:
        """(variables, batch, class) -> what is said, attention and Grad-CAM's map, compiled."""

        def look(variables: Tree, batch: Tree, chosen: jax.Array) -> tuple[Tree, Tree, Tree]:
            def scored(outputs: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
                return class_score(outputs, chosen, batch["extent"][0], batch["image"].shape[1:3])

            run = partial(self.apply, variables, batch)
            (outputs, maps), activation = with_activation(self.target, run, lambda found: scored(found[0])[0])
            said: Tree = {}
            if isinstance(outputs, DetectionOutputs):
                probabilities = self.task.class_probabilities(outputs.logits[-1])
                said = {"probabilities": probabilities[0], "boxes": outputs.boxes[-1][0]}
            elif self.target is not None:
                said = dict(zip(("class", "found"), scored(outputs)[1:]))
            elif self.task.looks:
                shown = self.task.shown(outputs, batch, self.trained.model, variables)
                said = {name: rows[0] for name, rows in shown.items()}
            return said, maps.get(ATTENTION_MAPS, {}), activation

        return jax.jit(look, out_shardings=self.trained.layout.replicated)

    def drawings(self, example: Mapping[str, np.ndarray]) -> Iterator[Drawing]:
        """Yields what the model saw in an example: `image` uint8 [H, W, C] and, if there is padding, `extent`."""
        batch = self.batch_of(example)
        look = self.look(self.trained.variables, batch, np.int32(self.chosen))
        said, maps, activation = jax.device_get(look)
        image, (height, width) = batch["image"][0], batch["extent"][0].tolist()
        weights = {path: np.asarray(leaf, np.float32) for path, leaf in leaves_by_path(maps).items()}
        yield from attention_drawings(image, (height, width), self.layers, weights)
        if activation is not None:
            nowhere = "" if said["found"] else ", said nowhere"
            shows = f"Grad-CAM of {class_name(int(said['class']), self.trained.class_names)}{nowhere}"
            yield Drawing("grad-cam", shows, over_image(image, activation, shows, (height, width)))
        if self.task.looks:
            words = self.task.looked(said, self.trained)
            text = " ".join(word for word, _ in words)
            shows = (
                f"where the model looked for each word of “{text}”" if words else "the model wrote nothing"
            )
            shows += f", asked “{self.prompt}”" if self.prompt else ""
            yield Drawing("words", shows, word_sheet(image, words, shows, (height, width)))
        if "boxes" in said:
            yield from self.object_drawings(image, (height, width), said, weights)

    def object_drawings(
        self, image: np.ndarray, extent: Grid, said: Mapping[str, np.ndarray], weights: Tree
    ) -> Iterator[Drawing]:
        """What the query of each object, the surest first, saw in the decoder's last layer: the mean over heads."""
        layer = next(layer for layer in reversed(self.layers) if CROSS in layer.path.split("/"))
        scores, classes = said["probabilities"].max(axis=-1), said["probabilities"].argmax(axis=-1)
        order = np.argsort(-scores, kind="stable")
        sure = [query for query in order if scores[query] >= self.task.score_threshold]
        if len(sure) > MOST_OBJECTS:
            logger.info("of %d objects the %d surest are explained", len(sure), MOST_OBJECTS)
        for number, query in enumerate(sure[:MOST_OBJECTS] or order[:1], 1):
            asking = (np.arange(len(scores)) == query).astype(np.float64)[None]
            seen = received(weights[layer.path], asking, layer.places, layer.grid).mean(axis=0)
            name = class_name(int(classes[query]), self.trained.class_names)
            shows = f"object {number}, {name} {scores[query]:.0%}: the decoder's attention"
            drawn = over_image(image, seen, shows, extent, said["boxes"][query])
            yield Drawing(f"object-{number}", shows, drawn)


def explainable(model: Model, height: int, width: int) -> Model:
    """The model, one that sees images through windows without these.

    Raises:
      UserError: it cannot do without.
    """
    whole = model.seeing_whole(height, width)
    if whole is None:
        raise UserError(
            f"explain: the model sees images of {height}x{width} through windows of {model.image_size}, one after "
            "the other, and there is no image of them all"
        )
    return whole


def class_score(
    outputs: Any, chosen: jax.Array, extent: jax.Array, size: tuple[int, int]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The score of a class of one image, float32 [], the class, int32 [], and whether any place is said to be of it.

    Of a segmentation it is the sum of the logits where the class is said (Vinogradova et al. 2020, Seg-Grad-CAM,
    equation 2), or of all where it is nowhere; padding is left out.

    Args:
      outputs: with logits [1, K] or [1, h, w, K].
      chosen: the class; PREDICTED: the likeliest one, or that of most places.
      extent: int32 [2], the image's height and width without padding.
      size: with it.
    """
    logits = outputs.logits[0]
    if not isinstance(outputs, SegmentationOutputs):
        index = jnp.where(chosen == PREDICTED, jnp.argmax(logits), chosen)
        return logits[index], index, jnp.bool(True)
    rows, columns = (
        jnp.arange(count) * whole < real * count for count, whole, real in zip(logits.shape[:2], size, extent)
    )
    real = jnp.outer(rows, columns)
    says = jnp.where(real, jnp.argmax(logits, axis=-1), -1)
    counts = jnp.sum(says[..., None] == jnp.arange(logits.shape[-1])[None, None], axis=(0, 1))
    index = jnp.where(chosen == PREDICTED, jnp.argmax(counts), chosen)
    there = jnp.where(counts[index] > 0, says == index, real)
    return jnp.sum(logits[..., index], where=there), index, counts[index] > 0


def explain_files(explainer: Explainer, files: Sequence[Path], folder: Path) -> list[dict[str, Any]]:
    """Writes FOLDER/NAME/*.png for every image, and FOLDER/explanations.jsonl, which lists them, an object a file.

    All of them appear at the end, together, and take the place of what earlier explanations left in the folder.

    Returns:
      The objects: {"file": "cats/1.jpg", "images": [{"image": "1/rollout.png", "shows": "..."}, ...]}.

    Raises:
      UserError: the folder cannot be written, or one of the files would be overwritten.
    """
    against: dict[str, dict[str, None]] = {}
    for layer in explainer.layers:
        if layer.against_rollout and layer.part != "pool":
            against.setdefault(layer.against_rollout, {})[layer.part] = None
    for why, parts in sorted(against.items()):
        logger.info("no rollout of %s: %s", ", ".join(parts), why)
    originals = {path.resolve() for path in files}
    with all_at_once(folder, LINES, "*/*.png", files) as (hidden, explanations):
        for path, places in zip(files, place_images(files, folder)):
            listed = []
            for drawing in explainer.drawings(explainer.trained.example(path)):
                name = f"{places[''].stem}/{drawing.name}.png"
                if (folder / name).resolve() in originals:
                    raise UserError(f"{folder / name}: would be overwritten; choose another folder")
                with writing_to(folder, REMEDY):
                    (hidden / name).parent.mkdir(exist_ok=True)
                    save(drawing.image, hidden / name)
                listed.append({"image": name, "shows": drawing.shows})
            explanations.append({"file": str(path), "images": listed})
    logger.info("explanations of %s are in %s", counted(len(files), "image"), folder)
    return explanations
