"""Chooses the examples that a report shows, some of all and the worst mistakes, each with the model's attention."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxformer.data import Batches
from jaxformer.models.attention import ATTENTION_MAPS
from jaxformer.observe.attention_maps import MOST_TOKENS, TokenMaps
from jaxformer.observe.samples import Shown
from jaxformer.parallel.compile import Layout
from jaxformer.paths import leaves_by_path, with_leaves
from jaxformer.tasks.base import Row, Task
from jaxformer.tasks.text import real_length

Tree = Any
Predict = Callable[[Tree, Tree], Any]
Make = Callable[[Any, Task], Predict]
Compile = Callable[[str, Make], Predict]
LOOKED_AT_MOST = 10_000  # images
TEXTS_AT_MOST = 2_000
AHEAD = 8  # batches that the device may be behind
PARTS = ("encoder", "decoder", "cross")  # in this order
NO_PART = re.compile(r"attention_maps|attention|weights|blocks|(stage_\d+_)?block_\d+")


def choose(
    model: Any,
    task: Task,
    variables: Tree,
    batches: Batches,
    layout: Layout,
    count: int,
    compiled: Compile | None = None,
) -> dict[str, list[Shown]]:
    """The examples of a report: "samples", evenly spread, and "mistakes", those with the largest errors.

    Args:
      model: the linen module.
      task: what it learns.
      variables: what it is applied with, on the devices.
      batches: the evaluation split's.
      layout: where arrays live. Every process has to take part.
      count: of each kind, at most.
      compiled: compiles what looks at a batch, see `Experiment.compiled`; None: compiled here.
    """

    def alone(name: str, make: Make) -> Predict:
        return layout.same_everywhere(make(model, task))

    compiled = compiled or alone
    errors, positions = find_errors(compiled("errors", make_errors), variables, task, batches, layout)
    look = make_look(compiled("look", make_predictions), task, batches)
    chosen = {"samples": evenly_spread(len(errors), count), "mistakes": worst_mistakes(errors, count)}
    return {kind: [look(variables, int(positions[row])) for row in rows] for kind, rows in chosen.items()}


def make_errors(model: Any, task: Task) -> Predict:
    """(variables, batch) -> which rows are examples, bool [B], and how wrong the model is about each, float32 [B]."""

    def errors(variables: Tree, batch: Tree) -> tuple[jax.Array, jax.Array]:
        outputs = model.apply(variables, **task.inputs(batch), deterministic=True)
        return batch["example_mask"], task.errors(outputs, batch)

    return errors


def find_errors(
    predict: Predict, variables: Tree, task: Task, batches: Batches, layout: Layout
) -> tuple[np.ndarray, np.ndarray]:
    """How wrong the model is about the examples of a split, or about those of a part if the split is large.

    Args:
      predict: the result of `make_errors`, compiled.
      variables: what it is called with.
      task: what is learnt.
      batches: the split.
      layout: where arrays live.

    Returns:
      `task.errors`, float32 [N], and the examples' positions in the batches, int64 [N].
    """
    positions, found = [], []
    rows = layout.rows(batches.batch_size)
    for number, batch in some_batches(batches, task.modality == "text", layout.reader):
        positions.append(number * batches.batch_size + rows)
        found.append(predict(variables, layout.shard_batch(batch)))
        if len(found) >= AHEAD:
            jax.block_until_ready(found[-AHEAD])
    mask, errors = (np.concatenate(parts) for parts in zip(*jax.device_get(found)))
    return errors[mask], np.concatenate(positions)[mask]


def some_batches(
    batches: Batches, of_text: bool, reader: tuple[int, int] = (0, 1)
) -> Iterator[tuple[int, Mapping[str, np.ndarray]]]:
    """Yields batches with their numbers, this process's rows: of images the first, which are read in order.

    Texts may be sorted by their lengths, so of these they are spread over the split.
    """
    most = TEXTS_AT_MOST if of_text else LOOKED_AT_MOST
    count = min(len(batches), -(-most // batches.batch_size))
    if of_text and count < len(batches):
        for number in evenly_spread(len(batches), count):
            yield int(number), batches.local(int(number), *reader)
        return
    with batches.read(0, *reader, stop=count) as found:
        yield from enumerate(found)


def evenly_spread(length: int, count: int) -> np.ndarray:
    """At most `count` of the positions 0 to length - 1, int [M]: the first, the last, and others between them."""
    return np.linspace(0, length - 1, min(count, length)).astype(int)


def worst_mistakes(errors: np.ndarray, count: int) -> np.ndarray:
    """The examples that the model is most wrong about.

    Args:
      errors: float [N]; 0 is no mistake.
      count: how many at most.

    Returns:
      int [M], M <= count: positions, the largest error first, of equal ones the first; empty without mistakes.
    """
    wrong = np.flatnonzero(errors > 0)
    return wrong[np.argsort(-errors[wrong], kind="stable")][:count]


def make_predictions(model: Any, task: Task) -> Predict:
    """(variables, batch) -> the task's predictions and the collection "attention_maps"."""

    def predictions(variables: Tree, batch: Tree) -> tuple[Tree, Tree]:
        mutable = [ATTENTION_MAPS]
        outputs, maps = model.apply(variables, **task.inputs(batch), deterministic=True, mutable=mutable)
        if task.modality == "image":
            over = {
                part: found
                for part, found in maps.get(ATTENTION_MAPS, {}).items()
                if part not in model.not_of_image
            }
            maps = {ATTENTION_MAPS: over}
        else:  # of long texts and many layers all weights would fill the memory
            maps = with_leaves(maps, {p: of_tokens(p, w, model) for p, w in leaves_by_path(maps).items()})
        return task.shown(outputs, batch, model, variables), maps

    return predictions


def of_tokens(path: str, weights: jax.Array, model: Any) -> jax.Array:
    """The weights [..., T, S] at a path among the first MOST_TOKENS tokens of a text, without those of a prompt."""
    prompted = model.kind != "encoder-decoder" or "encoder" in path.split("/")
    rows = model.prompt if prompted else 0
    columns = model.prompt if prompted or "cross_attention" in path else 0
    return weights[..., rows : rows + MOST_TOKENS, columns : columns + MOST_TOKENS]


def make_look(predict: Predict, task: Task, batches: Batches) -> Callable[[Tree, int], Shown]:
    """A function (variables, position in the batches) -> the example, its prediction and the model's attention.

    Args:
      predict: the result of `make_predictions`, compiled.
      task: what is learnt.
      batches: the split.
    """

    def look(variables: Tree, position: int) -> Shown:
        number, row = divmod(position, batches.batch_size)
        batch = batches.local(number, row, batches.batch_size)  # one row, as long as its batch
        predicted, maps = jax.device_get(predict(variables, batch))
        example, found = ({name: array[0] for name, array in rows.items()} for rows in (batch, predicted))
        sample, attention = task.sample(example, found, batches), attention_weights(maps)
        if task.modality == "text":
            parts = (token_maps(part, weights, example, batches) for part, weights in attention.items())
            return Shown(sample, maps=[part for part in parts if part is not None])
        if file := batches.source.file_of(position):  # images are evaluated in order
            sample = {**sample, "file": file}
        drawn = task.compare(example, found, sample)
        return shown_image(example, sample, attention, drawn, task.looked(found, batches))

    return look


def picture_of(batches: Batches, index: int) -> np.ndarray:
    """An example's picture, uint8 [H, W, C]."""
    number, row = divmod(index, batches.batch_size)
    return batches.local(number, row, batches.batch_size)["image"][0]


def shown_image(
    example: Row,
    sample: Mapping[str, Any],
    attention: Mapping[str, np.ndarray],
    drawn: Mapping[str, np.ndarray],
    words: Sequence[tuple[str, np.ndarray]] = (),
) -> Shown:
    """An image without its padding; attention is shown where there is no padding and one part of the model has it.

    Args:
      example: its arrays.
      sample: the task's.
      attention: [L, heads, T, S] of each part of the model.
      drawn: further images.
      words: as of `Task.looked`.
    """
    image = example["image"]
    if "extent" in example:
        rows, columns = (int(length) for length in example["extent"])
        return Shown(sample, image[:rows, :columns], drawn=drawn)
    square = [weights for weights in attention.values() if weights.shape[-1] == weights.shape[-2]]
    return Shown(sample, image, square[0] if len(square) == 1 else None, drawn=drawn, words=words)


def attention_weights(maps: Tree) -> dict[str, np.ndarray]:
    """Attention weights of one example by part of the model, float32 [L, heads, T, S], the first layer first.

    The parts are called as in the tree, "encoder" and "decoder"; cross-attention is "cross". A part whose layers
    differ in size has no place in one array, and is left out.

    Args:
      maps: the collection "attention_maps", leaves [1, heads, T, S], or [L, 1, heads, T, S] of scanned layers.
    """
    layers: dict[str, list[np.ndarray]] = defaultdict(list)
    leaves = leaves_by_path(maps)
    for path in sorted(leaves, key=lambda path: re.sub(r"\d+", lambda number: number[0].zfill(9), path)):
        layers[part_of(path)].extend(leaves[path] if leaves[path].ndim == 5 else [leaves[path]])
    parts = sorted(layers, key=lambda part: PARTS.index(part) if part in PARTS else len(PARTS))
    return {
        part: np.stack([weights[0] for weights in layers[part]]).astype(np.float32)
        for part in parts
        if len({weights.shape for weights in layers[part]}) == 1
    }


def part_of(path: str) -> str:
    """The part of a model that a path of its attention maps names: "encoder" of ".../encoder/block_0/..."."""
    names = path.split("/")
    if "cross_attention" in names:
        return "cross"
    return "/".join(name for name in names if not NO_PART.fullmatch(name)) or "attention"


def token_maps(part: str, weights: np.ndarray, example: Row, batches: Batches) -> TokenMaps | None:
    """Attention of a part of the model, without padding; None if it is not over the text's tokens."""
    has_two = "decoder_tokens" in example
    queries = "decoder_tokens" if has_two and part != "encoder" else "tokens"
    keys = "tokens" if part == "cross" else queries
    expected = tuple(min(MOST_TOKENS, len(example[name])) for name in (queries, keys))
    lengths = [real_length(example, name) for name in (queries, keys)]
    if weights.shape[2:] != expected or not all(lengths):
        return None
    assert batches.tokenizer is not None
    rows, columns = (min(MOST_TOKENS, length) for length in lengths)
    shown, given = (
        [batches.tokenizer.decode([token], skip_special=False) for token in example[name][:count].tolist()]
        for name, count in ((queries, rows), (keys, columns))
    )
    return TokenMaps(part, weights[:, :, :rows, :columns], shown, given, max(lengths) <= MOST_TOKENS)
