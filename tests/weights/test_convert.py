"""Tables lose nothing: every part of a tensor has its row, and a change of shape keeps every number."""

import math
from collections import defaultdict

import numpy as np
import pytest

from jaxformer.weights.convert import CHANGES, Part, Row, axes_of, rows_of, their_shape, to_ours
from jaxformer.weights.transformers_config import FAMILIES


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_part_of_a_tensor_has_one_row(kind):
    rows = defaultdict(list)
    for row in FAMILIES[kind][0].rows:
        rows[row.theirs].append(row.part)
    for theirs, parts in rows.items():
        if parts == [None]:
            continue
        assert [part.index for part in parts] == list(range(parts[0].count)), theirs
        assert len({(part.count, part.axis) for part in parts}) == 1, theirs


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_shape_keeps_every_number(change):
    rank = sum(map(len, axes_of(change, 2)))
    shape = (2, 3, 5, 7)[:rank]
    tensor = np.arange(math.prod(shape)).reshape(their_shape(change, shape))
    ours = to_ours(change, tensor, shape)
    assert ours.shape == shape
    np.testing.assert_array_equal(np.sort(ours.ravel()), np.arange(math.prod(shape)))
    back = ours.transpose([axis for group in axes_of(change, rank) for axis in group]).reshape(tensor.shape)
    np.testing.assert_array_equal(back, tensor)


def test_a_part_of_a_fused_tensor():
    """[D, 3 H Dh] with D = 2, H = 2, Dh = 3: the keys are columns 6 to 11, head by head."""
    row = Row("key/kernel", "c_attn.weight", "conv1d_heads_in", Part(1, 3, axis=-1))
    fused = np.arange(36).reshape(2, 18)
    assert row.their_shape((2, 2, 3)) == (2, 18)
    expected = [[[6, 7, 8], [9, 10, 11]], [[24, 25, 26], [27, 28, 29]]]
    np.testing.assert_array_equal(row.to_ours(fused, (2, 2, 3)), expected)
    assert Row("key/bias", "c_attn.bias", "heads_bias", Part(1, 3, axis=0)).their_shape((2, 3)) == (18,)


def test_numbers_are_filled_in_and_counted_from_where_they_begin():
    table = [Row("stage_{i}_block_{j}/conv_{k}/kernel", "block{i}/unit{j+1}/conv{k-1}/w"), Row("head", "fc")]
    (row,) = rows_of(table, "stage_12_block_0/conv_3/kernel")
    assert row.theirs == "block12/unit1/conv2/w"
    assert [row.theirs for row in rows_of(table, "head")] == ["fc"]
    assert not list(rows_of(table, "other/stage_1_block_0/conv_3/kernel"))
