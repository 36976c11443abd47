"""Which token is which place: of all families, in windows, behind strides."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.inside import MODELS, look_inside, picture, random_variables

from jaxformer.inference.attention_layers import calls_of, names_of
from jaxformer.models.token_layout import seen
from jaxformer.models.windows import WindowBlock

WINDOWS, STRIDED, CONVOLUTIONS = "windows", "what asks", "between convolutions"
# Part, layers, grid of what is seen, tokens, whose attention is shown, why there is no rollout.
EXPECTED = {
    "vit": [("encoder", 2, (4, 4), 17, "the class token", None)],
    "registers": [("encoder", 2, (4, 4), 20, "the class token", None)],
    "average": [("encoder", 2, (4, 4), 17, "all places", None)],
    "pooled": [
        ("encoder", 2, (4, 4), 16, "all places", None),
        ("pool", 1, (4, 4), 16, "the pooling", STRIDED),
    ],
    "scanned": [("encoder", 2, (4, 4), 17, "the class token", None)],
    "hybrid": [("encoder", 2, (4, 4), 33, "the class token", None)],
    "cct": [("encoder", 2, (8, 8), 64, "all places", None), ("pool", 1, (8, 8), 64, "the pooling", STRIDED)],
    "cvt": [
        ("stage_1", 1, (4, 4), 16, "all places", STRIDED),
        ("stage_2", 2, (2, 2), 5, "the class token", STRIDED),
    ],
    "mit": [
        ("stage_1", 1, (4, 4), 16, "all places", STRIDED),
        ("stage_2", 2, (4, 4), 16, "all places", None),
    ],
    "convnext": [],
    "swin": [
        ("stage_1", 2, (8, 8), 9, "all places", WINDOWS),
        ("stage_2", 2, (4, 4), 9, "all places", WINDOWS),
    ],
    "coatnet": [("stage_3", 2, (2, 2), 4, "all places", None)],  # the last stage is one place
    "maxvit": [
        ("stage_1", 2, (8, 8), 9, "all places", WINDOWS),
        ("stage_2", 2, (4, 4), 9, "all places", WINDOWS),
    ],
    "mixer": [],
    "botnet": [
        ("stage_1", 1, (16, 16), 256, "all places", CONVOLUTIONS),
        ("stage_2", 1, (16, 16), 256, "all places", CONVOLUTIONS),
    ],
    "resnet": [],
    "segmenter": [
        ("backbone/encoder", 2, (4, 4), 17, "all places", None),
        ("decoder/encoder", 1, (4, 4), 21, "the classes' tokens", None),
    ],
    "detr": [
        ("encoder", 1, (16, 16), 256, "all places", None),
        ("decoder", 2, (16, 16), 256, "all objects", STRIDED),
    ],
}


@pytest.mark.parametrize("name", MODELS)
def test_parts_of_all_families(name):
    _, _, _, layers = look_inside(MODELS[name], picture())
    parts = {part: list(members) for part, members in itertools.groupby(layers, lambda layer: layer.part)}
    assert [(part, len(members)) for part, members in parts.items()] == [row[:2] for row in EXPECTED[name]]
    for part, _, grid, tokens, whose, against in EXPECTED[name]:
        for layer in parts[part]:
            assert (layer.grid, layer.places.shape[1], layer.whose) == (grid, tokens, whose)
            assert layer.asking.shape == layer.queries.shape
            assert (against is None) == (layer.against_rollout is None)
            assert against is None or against in layer.against_rollout
            # Every place of the grid is one key, whatever lies before, behind or around them.
            there = layer.places[layer.places >= 0]
            assert sorted(there) == list(range(grid[0] * grid[1]))


def test_whose_attention_is_shown():
    (layer, *_) = look_inside(MODELS["registers"], picture())[3]
    assert layer.asking[0].tolist() == [
        0.5,
        0.5,
        *[0] * 18,
    ]  # class and distillation token, not the registers
    assert layer.places[0].tolist() == [-1, -1, -1, -1, *range(16)]
    (layer, *_) = look_inside(MODELS["average"], picture())[3]
    np.testing.assert_allclose(layer.asking[0], [0, *[1 / 16] * 16])
    (layer, *_) = look_inside(MODELS["hybrid"], picture())[3]
    assert layer.places[0].tolist() == [*[-1] * 17, *range(16)]  # the class token and the finer level
    classes = look_inside(MODELS["segmenter"], picture())[3][-1]
    np.testing.assert_allclose(classes.asking[0], [*[0] * 16, *[1 / 5] * 5])  # behind the places


SHAPES = [(6, 9), (7, 5), (2, 8)]


def window_block(windows):
    return WindowBlock(2, 3, windows, mlp_ratio=1, activation="relu", norm_epsilon=1e-5)


def windowed(block, shape):
    """The places of a block's windows on a grid."""
    return block.token_layout((shape,), 9, 9, False).places


BLOCKS = {
    "swin": window_block("block"),
    "shifted": window_block("shifted"),
    "block": window_block("block"),
    "grid": window_block("grid"),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", BLOCKS)
def test_windows_lie_where_the_papers_say(name, shape):
    """The place of each token by the rule of its window's and its own row and column."""
    rows, columns = (min(3, side) for side in shape)
    down, across = -(-shape[0] // rows), -(-shape[1] // columns)
    whole = down * rows, across * columns
    expected = np.full((down * across, rows * columns), -1)
    for i, j, a, b in itertools.product(range(down), range(across), range(rows), range(columns)):
        y, x = (a * down + i, b * across + j) if name == "grid" else (i * rows + a, j * columns + b)
        if name == "shifted":  # half a window down and right, where there is more than one
            y, x = (
                (place + (1 if side > 3 else 0)) % full for place, side, full in zip((y, x), shape, whole)
            )
        if y < shape[0] and x < shape[1]:
            expected[i * across + j, a * columns + b] = y * shape[1] + x
    np.testing.assert_array_equal(windowed(BLOCKS[name], shape), expected)


@pytest.mark.parametrize("name", BLOCKS)
def test_attention_put_back_on_the_map_is_what_the_block_does(name):
    """The weights of all windows, as one matrix over places, times the values: the block's result without its MLP."""
    block, shape = BLOCKS[name], (7, 5)
    x = np.random.default_rng(0).normal(size=(1, *shape, 8)).astype(np.float32)
    params = random_variables(block, x, True)["params"]
    params["mlp"]["down"] = jax.tree.map(np.zeros_like, params["mlp"]["down"])

    def run():
        return block.apply({"params": params}, x, True, mutable=["attention_maps"])

    output, maps = jax.jit(run)()
    places = windowed(block, shape)
    weights = np.asarray(maps["attention_maps"]["attention"]["weights"])  # [N, H, t, t]
    matrix = np.zeros((weights.shape[1], shape[0] * shape[1], shape[0] * shape[1]))
    for window, of_window in zip(places, weights):
        real = np.flatnonzero(window >= 0)
        matrix[:, window[real][:, None], window[real]] = of_window[:, real[:, None], real]
    np.testing.assert_allclose(matrix.sum(axis=-1), 1, rtol=1e-5)  # nothing was lost to padding
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    y = y * params["norm_1"]["scale"] + params["norm_1"]["bias"]
    value, out = params["attention"]["value"], params["attention"]["out"]
    values = np.einsum("td,dhn->htn", y.reshape(-1, 8), value["kernel"]) + value["bias"][:, None]
    attended = np.einsum("hts,hsn,hnd->td", matrix, values, out["kernel"]) + out["bias"]
    np.testing.assert_allclose(output, x + attended.reshape(x.shape), rtol=1e-4, atol=1e-4)


def test_keys_behind_a_stride():
    places, grid = seen(np.arange(35), (5, 7), 1 + 3 * 4, 1)
    assert grid == (3, 4)
    assert places.tolist() == [-1, *range(12)]
    with pytest.raises(ValueError, match="11 keys are no grid of 5 x 7"):
        seen(np.arange(35), (5, 7), 11, 0)


@pytest.mark.parametrize(
    ("path", "name", "part"),
    [
        ("encoder/block_10/attention/weights", "block_10", "encoder"),
        ("backbone/stage_3_block_1/non_local/attention/weights", "block_1/non_local", "backbone/stage_3"),
        ("stage_2_block_0/grid/attention/weights", "block_0/grid", "stage_2"),
        ("decoder/block_1/cross_attention/weights", "block_1", "decoder"),
        ("pool", "pool", "pool"),
    ],
)
def test_names(path, name, part):
    assert names_of(tuple(path.split("/"))) == (name, part)


def test_nothing_is_computed():
    model = MODELS["vit"]
    image = picture()
    variables = random_variables(model, image)
    calls, outputs = calls_of(lambda: model.apply(variables, image))
    assert isinstance(outputs.logits, jax.ShapeDtypeStruct)
    last = calls[-1]
    assert (last.path, last.grids, last.output) == ((), ((4, 4),), None)
    assert any(
        call.path == ("norm",) and call.output == jax.ShapeDtypeStruct((1, 17, 16), jnp.float32)
        for call in calls
    )
