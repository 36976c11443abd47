"""Tiny models of images of every family, with random variables, and what can be seen inside them."""

from functools import partial

import jax
import numpy as np

from jaxformer.inference.attention_layers import attention_layers, calls_of
from jaxformer.models.base import replaced
from jaxformer.models.cct import CCT
from jaxformer.models.cnn_attention import BottleneckAttention, NonLocal, Placement
from jaxformer.models.coatnet import CoAtNet
from jaxformer.models.convnext import ConvNeXt
from jaxformer.models.cvt import CvT
from jaxformer.models.detr import DETR
from jaxformer.models.layouts import unstack_layers
from jaxformer.models.maxvit import MaxViT
from jaxformer.models.mit import MiT
from jaxformer.models.mlp_mixer import MLPMixer
from jaxformer.models.resnet import ResNet
from jaxformer.models.segmentation_decoders import MaskTransformer
from jaxformer.models.segmenter import Segmenter
from jaxformer.models.swin import Swin
from jaxformer.models.vit import ViT

SIZE, CLASSES = 32, 5
vit = partial(
    ViT, image_size=SIZE, patch_size=8, width=16, depth=2, num_heads=2, mlp_dim=16, num_classes=CLASSES
)
resnet = partial(ResNet, stage_sizes=(1, 2), width=8, num_classes=CLASSES, stem="small")
swin = partial(Swin, (2, 2), (1, 2), width=8, window=3, num_classes=CLASSES)
MAPS = ResNet((1, 1, 1), block="basic", width=8, num_classes=0, stem="small")
MODELS = {
    "vit": vit(),
    "registers": vit(registers=2, distillation_token=True),
    "average": vit(pool="average", registers=1),
    "pooled": vit(pool="map"),
    "scanned": vit(scan=True, remat="full"),
    "hybrid": vit(patch_size=(4, 2), levels=(-2, -1), backbone=MAPS),
    "cct": CCT(
        image_size=SIZE, conv_layers=2, stem_width=8, width=16, depth=2, num_heads=2, num_classes=CLASSES
    ),
    "cvt": CvT(
        stage_sizes=(1, 2),
        widths=(8, 16),
        num_heads=(1, 2),
        embedding_kernels=(7, 3),
        embedding_strides=(4, 2),
        num_classes=CLASSES,
    ),
    "mit": MiT(
        stage_sizes=(1, 2),
        widths=(8, 16),
        num_heads=(1, 2),
        reductions=(2, 1),
        embedding_kernels=(7, 3),
        embedding_strides=(4, 2),
        num_classes=CLASSES,
    ),
    "convnext": ConvNeXt(stage_sizes=(1, 2), width=8, num_classes=CLASSES),
    "swin": swin(),
    "coatnet": CoAtNet(
        stage_sizes=(1, 1, 2, 1),
        widths=(8, 8, 16, 16),
        stem_widths=(8, 8),
        image_size=SIZE,
        head_dim=8,
        num_classes=CLASSES,
    ),
    "maxvit": MaxViT(
        stage_sizes=(1, 1), widths=(8, 16), stem_widths=(8, 8), window=3, head_dim=8, num_classes=CLASSES
    ),
    "mixer": MLPMixer(SIZE, 8, width=16, depth=2, token_mlp_dim=8, channel_mlp_dim=16, num_classes=CLASSES),
    "botnet": resnet(
        attention=(Placement(BottleneckAttention(num_heads=2), (2,), (1,)), Placement(NonLocal(), (1,)))
    ),
    "resnet": resnet(version=2),
    "segmenter": Segmenter(
        vit(num_classes=0), MaskTransformer(width=16, depth=1, num_heads=2), num_classes=CLASSES
    ),
    "detr": DETR(resnet(num_classes=0), CLASSES, (-1,), 16, 1, 2, 2, mlp_dim=16, num_queries=7),
}


def random_variables(model, *inputs):
    """Around those that training would have; variances are positive. Nothing is computed."""
    generator = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)

    def drawn(path, leaf):
        values = 0.3 * generator.normal(size=leaf.shape)
        return (np.abs(values) + 0.1 if "batch_stats" in str(path) else values).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(drawn, shapes)


def picture(size=SIZE):
    """float32 [1, size, size, 3]."""
    return np.random.default_rng(1).normal(size=(1, size, size, 3)).astype(np.float32)


def look_inside(model, image):
    """The unrolled model's (function without arguments, calls, layers)."""
    variables = random_variables(model, image)
    variables = {**variables, "params": unstack_layers(variables["params"])}
    plain = replaced(model, scan=False, remat="none")

    def run():
        return plain.apply(variables, image, mutable=["attention_maps"])

    calls, (_, maps) = calls_of(run)
    return plain, run, calls, attention_layers(plain, calls, maps.get("attention_maps", {}))
