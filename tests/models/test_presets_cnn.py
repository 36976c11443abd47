"""Every CNN's preset has the published number of parameters (1000 classes, 224 pixels; shapes alone are computed)."""

import math

import jax
import jax.numpy as jnp
import pytest

from jaxformer.config.schema import resolve
from jaxformer.models.presets import PRESETS, preset
from jaxformer.models.resnet import ResNet

RESNET_50 = 25_557_032  # torchvision's num_params, as all of the first five
# A non-local block of C channels: query, key, value and output with their biases, and the norm.
NON_LOCAL = {
    channels: 2 * channels**2 + 3 * channels // 2 + channels + 2 * channels for channels in (512, 1024)
}
COUNTS = {
    "resnet-18": 11_689_512,
    "resnet-34": 21_797_672,
    "resnet-50": RESNET_50,
    "resnet-101": 44_549_160,
    "resnet-152": 60_192_808,
    # The norm of the stem is that of the end, and shortcuts have none: resnetv2_50 and so on of timm.
    "resnetv2-18": 11_687_720,
    "resnetv2-34": 21_795_880,
    "resnetv2-50": 25_549_352,
    "resnetv2-101": 44_541_480,
    "resnetv2-152": 60_185_128,
    # timm: resnetv2_50x1_bit and so on, with 1000 classes (Kolesnikov et al. 2020 name no numbers)
    "bit-r50x1": 25_549_352,
    "bit-r50x3": 217_319_080,
    "bit-r101x1": 44_541_480,
    "bit-r101x3": 387_934_888,
    "bit-r152x2": 236_335_208,
    "bit-r152x4": 936_533_224,
    # timm: seresnet50; 28.1 million in Hu et al. 2018, table 2
    "se-resnet-50": 28_088_024,
    # A kernel of 5 (256 to 1024 channels) or 7 (2048) in each of 3 + 4 + 6 and 3 blocks (Wang et al. 2020, equation 12)
    "eca-resnet-50": RESNET_50 + 13 * 5 + 3 * 7,
    # Woo et al. 2018, table 4: 28.09 million. timm's, 28_073_576, has no biases in its 16 MLPs (C / 16 + C each).
    "cbam-resnet-50": 28_073_576
    + sum(n * (c // 16 + c) for n, c in ((3, 256), (4, 512), (6, 1024), (3, 2048))),
    "nonlocal-resnet-50": RESNET_50 + 2 * NON_LOCAL[512] + 3 * NON_LOCAL[1024],
    # Srinivas et al. 2021, table 7: 20.8 million. Three 3x3 of 512 channels are three 1x1 and the tables of positions,
    # 14 x 14 in the first block and 7 x 7 in the others, of heads of 128.
    "botnet-50": RESNET_50 - 3 * 6 * 512**2 + 2 * 128 * (27 + 13 + 13),
}


def test_no_preset_is_left_out():
    assert {name for name, fields in PRESETS.items() if fields["name"] == "resnet"} == set(COUNTS)


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_number_of_parameters(name):
    fields, errors = preset(name), []
    fields.pop("name")
    model = resolve(ResNet, fields, "model", errors)
    assert not errors
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == COUNTS[name]
