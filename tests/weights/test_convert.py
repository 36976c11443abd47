"""Tables lose nothing: every part of a tensor has its row, and a change of shape keeps every number."""

import math
from collections import defaultdict

import numpy as np
import pytest

from jaxformer.weights import augreg, shi_labs_cct, timm, transformers_image, transformers_text
from jaxformer.weights.convert import Family
from jaxformer.weights.rows import Part, Row, rows_of

MODULES = (augreg, shi_labs_cct, timm, transformers_image, transformers_text)
FAMILIES = {
    f"{module.__name__.rpartition('.')[2]}.{name}": value
    for module in MODULES
    for name, value in vars(module).items()
    if isinstance(value, Family)
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_part_of_a_tensor_has_one_row(name):
    rows = defaultdict(list)
    for row in FAMILIES[name].rows:
        rows[row.theirs].append(row.part)
    for theirs, parts in rows.items():
        parts = [part for part in parts if part is not None]
        if parts:
            assert sorted(part.index for part in parts) == list(range(parts[0].count)), theirs
            assert len({(part.count, part.axis, part.by_head) for part in parts}) == 1, theirs


# A parameter, its shape, and the shape of the tensor.
SHAPES = {
    "same": ("embedding/embedding", (2, 3), "pytorch", (2, 3)),
    "same flax": ("query/kernel", (2, 3, 5), "flax", (2, 3, 5)),
    "channels": ("norm/scale", (2,), "flax", (1, 1, 1, 2)),
    "linear": ("up/kernel", (2, 3), "pytorch", (3, 2)),
    "conv": ("conv/kernel", (2, 3, 5, 7), "pytorch", (7, 5, 2, 3)),
    "heads in": ("query/kernel", (2, 3, 5), "pytorch", (15, 2)),
    "heads out": ("out/kernel", (2, 3, 5), "pytorch", (5, 6)),
    "heads bias": ("query/bias", (2, 3), "pytorch", (6,)),
    "conv linear": ("up/kernel", (2, 3), "pytorch", (3, 2, 1, 1)),
    "linear conv": ("up/kernel", (1, 1, 2, 3), "pytorch", (3, 2)),
    "conv heads in": ("key/kernel", (2, 3, 5), "pytorch", (15, 2, 1, 1)),
    "conv heads out": ("out/kernel", (2, 3, 5), "pytorch", (5, 6, 1, 1)),
    "conv1d": ("conv/kernel", (5, 1, 2, 3), "pytorch", (3, 2, 5)),
    "Conv1D": ("up/kernel", (2, 3), "conv1d", (2, 3)),
    "Conv1D heads in": ("value/kernel", (2, 3, 5), "conv1d", (2, 15)),
    "Conv1D heads out": ("out/kernel", (2, 3, 5), "conv1d", (6, 5)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_change_of_shape_keeps_every_number(name):
    path, shape, style, theirs = SHAPES[name]
    row = Row(path, "theirs", style=style)
    assert row.their_shape(shape, len(theirs)) == theirs
    tensor = np.arange(math.prod(shape)).reshape(theirs)
    ours = row.to_ours(tensor, shape)
    assert ours.shape == shape
    np.testing.assert_array_equal(np.sort(ours.ravel()), np.arange(math.prod(shape)))
    back = ours.transpose([axis for group in row.axes(len(shape), len(theirs)) for axis in group])
    np.testing.assert_array_equal(back.reshape(theirs), tensor)


def test_a_part_of_a_fused_tensor():
    """[D, 3 H Dh] with D = 2, H = 2, Dh = 3: the keys are columns 6 to 11, head by head."""
    row = Row("key/kernel", "c_attn.weight", Part(1, 3, axis=-1), "conv1d")
    fused = np.arange(36).reshape(2, 18)
    assert row.their_shape((2, 2, 3), 2) == (2, 18)
    expected = [[[6, 7, 8], [9, 10, 11]], [[24, 25, 26], [27, 28, 29]]]
    np.testing.assert_array_equal(row.to_ours(fused, (2, 2, 3)), expected)
    assert Row("key/bias", "c_attn.bias", Part(1, 3)).their_shape((2, 3), 1) == (18,)


def test_a_part_of_each_head():
    """[H 3 Dh] with H = 2, Dh = 3: the keys are numbers 3 to 5 of each head's nine."""
    row = Row("key/bias", "qkv.bias", Part(1, 3, by_head=True))
    np.testing.assert_array_equal(row.to_ours(np.arange(18), (2, 3)), [[3, 4, 5], [12, 13, 14]])


def test_numbers_are_filled_in_and_counted_from_where_they_begin():
    table = [Row("stage_{i}_block_{j}/conv_{k}/kernel", "block{i}/unit{j+1}/conv{k-1}/w"), Row("head", "fc")]
    (row,) = rows_of(table, "stage_12_block_0/conv_3/kernel")
    assert row.theirs == "block12/unit1/conv2/w"
    assert [row.theirs for row in rows_of(table, "head")] == ["fc"]
    assert not list(rows_of(table, "other/stage_1_block_0/conv_3/kernel"))


def test_the_parameters_of_a_layer_have_the_projects_names():
    table = [Row("block_{i}/norm", "layers.{i}.bn"), Row("block_{i}/dense", "layer{i}/fc", style="flax")]
    names = {
        leaf: [row.theirs for row in rows_of(table, f"block_3/norm/{leaf}")] for leaf in ("scale", "var")
    }
    assert names == {"scale": ["layers.3.bn.weight"], "var": ["layers.3.bn.running_var"]}
    assert [row.theirs for row in rows_of(table, "block_3/dense/kernel")] == ["layer3/fc/kernel"]
