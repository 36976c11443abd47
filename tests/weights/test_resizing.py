"""Tables of positions and kernels of patches are resized as PyTorch and timm do it; tables of tokens grow."""

import logging

import numpy as np
import pytest
from helpers.timm_reference import timm

from jaxformer.errors import UserError
from jaxformer.weights.convert import family
from jaxformer.weights.resizing import grown, resized_patches, resized_positions
from jaxformer.weights.rows import rows


class Leaf:
    """A parameter that a model needs."""

    def __init__(self, *shape):
        self.shape, self.dtype = shape, np.dtype(np.float32)


def table(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("old", "new"), [(14, 24), (14, 7), (37, 16), (3, 5)])
@pytest.mark.parametrize("antialias", [True, False])
def test_positions_are_interpolated_as_in_pytorch(old, new, antialias):
    torch = pytest.importorskip("torch")
    source = table(1, 1 + old * old, 6)
    grid = torch.from_numpy(source[:, 1:].reshape(1, old, old, 6).transpose(0, 3, 1, 2).copy())
    expected = torch.nn.functional.interpolate(grid, size=(new, new), mode="bicubic", antialias=antialias)
    expected = expected.numpy().transpose(0, 2, 3, 1).reshape(1, new * new, 6)
    found = resized_positions(source, 1 + new * new, prefix=1, antialias=antialias)
    np.testing.assert_array_equal(found[:, :1], source[:, :1])
    np.testing.assert_allclose(found[:, 1:], expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(("old", "new"), [(16, 8), (16, 32), (14, 16)])
def test_patches_are_resized_as_in_timm(old, new):
    timm()
    import torch
    from timm.layers import resample_patch_embed

    source = table(old, old, 3, 5)
    expected = resample_patch_embed(torch.from_numpy(source.transpose(3, 2, 0, 1).copy()), [new, new])
    found = resized_patches(source, new)
    np.testing.assert_allclose(found, expected.numpy().transpose(2, 3, 1, 0), rtol=1e-3, atol=1e-4)


def test_a_larger_patch_sees_an_enlarged_image_as_a_patch_sees_the_image():
    from jaxformer.weights.resizing import resize_matrix

    kernel, patch, matrix = table(8, 8, 3, 5), table(8, 8, 3), resize_matrix(8, 12)
    enlarged = np.einsum("yY,xX,YXc->yxc", matrix, matrix, patch)
    expected = np.einsum("yxc,yxcd->d", patch, kernel)
    np.testing.assert_allclose(
        np.einsum("yxc,yxcd->d", enlarged, resized_patches(kernel, 12)), expected, rtol=1e-4
    )


def test_a_table_of_tokens_grows_behind_those_that_are_there():
    source = table(50, 8)
    found = grown(source, 60)
    np.testing.assert_array_equal(found[:50], source)
    assert found.shape == (60, 8)
    assert np.abs(found[50:].mean(0) - source.mean(0)).max() < 1.5
    assert 0.3 < found[50:].std() / source.std() < 2


def test_what_is_resized_is_logged_and_the_rest_is_refused_by_both_names(caplog):
    vit = family(rows({"position_embedding": "pos_embed", "patch_embedding": "proj", "norm": "norm"}))
    source = {"pos_embed": table(1, 17, 6), "proj.weight": table(6, 3, 4, 4), "norm.weight": table(6)}
    shapes = {
        "params": {
            "position_embedding": Leaf(1, 26, 6), "patch_embedding": {"kernel": Leaf(8, 8, 3, 6)},
            "norm": {"scale": Leaf(6)},
        }
    }  # fmt: skip
    with caplog.at_level(logging.INFO, "jaxformer"):
        found = vit.read(source, shapes)["params"]
    assert found["position_embedding"].shape == (1, 26, 6)
    assert found["patch_embedding"]["kernel"].shape == (8, 8, 3, 6)
    assert "position_embedding: [1, 17, 6] of the source is resized to [1, 26, 6]" in caplog.text
    shapes["params"]["position_embedding"] = Leaf(1, 27, 6)  # no square, whatever stands in front
    shapes["params"]["norm"]["scale"] = Leaf(8)
    with pytest.raises(UserError) as caught:
        vit.read(source, shapes)
    assert tuple(caught.value.lines) == (
        "position_embedding: pos_embed has shape (1, 17, 6); this model needs (1, 27, 6)",
        "norm/scale: norm.weight has shape (6,); this model needs (8,)",
    )
