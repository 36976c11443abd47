"""Our CvT with transformers' weights gives its logits and gradients; the real ones have as many parameters."""

import numpy as np
import pytest
from helpers.image_parity import check_same, count_of, randomised, shapes_of, tensors_of
from helpers.parity import build
from helpers.timm_reference import timm

from jaxformer.errors import UserError
from jaxformer.weights.transformers_image import CVT

SIZE = 49  # maps of 12, 6 and 3 places a side
FIELDS = {"stage_sizes": (1, 2, 3), "widths": (8, 16, 24), "num_heads": (1, 2, 3), "num_classes": 5}


@pytest.fixture(scope="module")
def reference():
    """A model of transformers whose result is its logits, by the names of its checkpoint file."""
    timm()  # transformers' needs torchvision to import, too
    import torch
    from transformers import CvtConfig, CvtForImageClassification

    class Logits(CvtForImageClassification):
        def forward(self, pixel_values):
            return super().forward(pixel_values).logits

    config = CvtConfig(
        embed_dim=(8, 16, 24), num_heads=(1, 2, 3), depth=(1, 2, 3), num_labels=5, drop_path_rate=(0.0, 0.0, 0.0)
    )  # fmt: skip
    torch.manual_seed(0)
    return randomised(Logits(config))


@pytest.mark.parametrize("train", [False, True], ids=["running statistics", "statistics of the batch"])
def test_logits_and_gradients_are_those_of_transformers(reference, train):
    check_same(build("cvt", FIELDS), CVT, reference, SIZE, train)


def test_what_does_not_fit_is_listed(reference):
    source = tensors_of(reference)
    del source["cvt.encoder.stages.2.cls_token"]
    name = "attention.attention.convolution_projection_key.convolution_projection.normalization.running_var"
    source[f"cvt.encoder.stages.1.layers.1.{name}"] = np.ones(17, np.float32)
    with pytest.raises(UserError) as caught:
        CVT.read(source, shapes_of(build("cvt", FIELDS), SIZE))
    text = str(caught.value)
    assert len(caught.value.lines) == 2
    assert "cls_token is missing" in text
    assert "stage_2_block_1/attention/norm_key/var: " in text


# Of transformers 5.23's CvtForImageClassification with these sizes and 1000 classes: sum(p.numel() for p in
# model.parameters()). The paper has 20M, 32M and 277M.
COUNTS = {"cvt-13": 19_997_480, "cvt-21": 31_622_696, "cvt-w24": 277_196_392}


@pytest.mark.parametrize("name", COUNTS)
def test_presets_have_as_many_parameters_as_transformers(name):
    assert count_of(name) == COUNTS[name]
