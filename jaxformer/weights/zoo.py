"""Published models that can be imported: facts, each with its source.

Sizes, parameters and accuracies of timm's models are those of results/results-imagenet.csv of
huggingface/pytorch-image-models at aa4b5850 (top-1 on ImageNet's validation split at this size), their licences those
of the models' configs there. DINOv2's are those of the README of facebookresearch/dinov2 (a linear layer on the
features, by the authors), and their licence is by timm, too. BERT's are those of the README of google-research/bert.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from jaxformer.config.schema import did_you_mean
from jaxformer.errors import UserError

TIMM = "timm results-imagenet.csv"


@dataclass(frozen=True)
class Published:
    """A published model."""

    source: str
    """What `load_pretrained` takes."""
    preset: str
    """Our model of this size, as `create_model` takes it."""
    millions: float
    """Its parameters, in millions, as its source counts them."""
    size: str
    """What goes in."""
    license: str
    """Of its weights, as the Hub calls it."""
    figure: str
    """What its source says of how good it is."""
    by: str
    """Who says so."""


def timm(
    name: str, preset: str, millions: float, side: int, top1: float, license: str = "apache-2.0"
) -> Published:
    """A row of timm's table."""
    figure = f"ImageNet top-1 {top1:.1f}%"
    return Published(f"timm/{name}", preset, millions, f"{side} pixels", license, figure, TIMM)


def dinov2(size: str, millions: float, linear: float, registers: bool = False) -> Published:
    """A row of DINOv2's table."""
    name = f"hf:facebook/dinov2-{'with-registers-' if registers else ''}{size}"
    figure = f"ImageNet linear {linear:.1f}%"
    preset = {"small": "vit-s16", "base": "vit-b16", "large": "vit-l16"}[size]
    return Published(name, preset, millions, "518 pixels", "apache-2.0", figure, "facebookresearch/dinov2")


FT = "augreg_in21k_ft_in1k"
PUBLISHED = (
    timm(f"vit_tiny_patch16_224.{FT}", "vit-ti16", 5.72, 224, 75.452),
    timm(f"vit_small_patch16_224.{FT}", "vit-s16", 22.05, 224, 81.402),
    timm(f"vit_base_patch32_224.{FT}", "vit-b32", 88.22, 224, 80.732),
    timm(f"vit_base_patch16_224.{FT}", "vit-b16", 86.57, 224, 84.534),
    timm(f"vit_large_patch16_224.{FT}", "vit-l16", 304.33, 224, 85.856),
    timm(f"vit_tiny_r_s16_p8_224.{FT}", "r-vit-ti16", 6.34, 224, 71.800),
    timm(f"vit_small_r26_s32_224.{FT}", "r26-vit-s32", 36.43, 224, 81.856),
    timm(f"vit_large_r50_s32_224.{FT}", "r50-vit-l32", 328.99, 224, 84.434),
    timm("deit_tiny_patch16_224.fb_in1k", "deit-ti16", 5.72, 224, 72.190),
    timm("deit_small_patch16_224.fb_in1k", "deit-s16", 22.05, 224, 79.856),
    timm("deit_base_patch16_224.fb_in1k", "deit-b16", 86.57, 224, 81.980),
    timm("deit_tiny_distilled_patch16_224.fb_in1k", "deit-ti16-distilled", 5.91, 224, 74.538),
    timm("deit_small_distilled_patch16_224.fb_in1k", "deit-s16-distilled", 22.44, 224, 81.204),
    timm("deit_base_distilled_patch16_224.fb_in1k", "deit-b16-distilled", 87.34, 224, 83.384),
    timm("resnet18.a1_in1k", "resnet-18", 11.69, 224, 71.504),
    timm("resnet34.a1_in1k", "resnet-34", 21.80, 224, 76.420),
    timm("resnet50.a1_in1k", "resnet-50", 25.56, 224, 80.382),
    timm("resnet101.a1_in1k", "resnet-101", 44.55, 224, 81.494),
    timm("resnet152.a1_in1k", "resnet-152", 60.19, 224, 81.998),
    timm("seresnet50.ra2_in1k", "se-resnet-50", 28.09, 224, 80.260),
    timm("resnetv2_50x1_bit.goog_in21k_ft_in1k", "bit-r50x1", 25.55, 448, 80.386),
    timm("resnetv2_101x1_bit.goog_in21k_ft_in1k", "bit-r101x1", 44.54, 448, 82.332),
    timm("convnext_tiny.fb_in1k", "convnext-t", 28.59, 224, 82.066),
    timm("convnext_small.fb_in1k", "convnext-s", 50.22, 224, 83.144),
    timm("convnext_base.fb_in1k", "convnext-b", 88.59, 224, 83.838),
    timm("convnext_large.fb_in1k", "convnext-l", 197.77, 224, 84.304),
    timm("swin_tiny_patch4_window7_224.ms_in1k", "swin-t", 28.29, 224, 81.388, "mit"),
    timm("swin_small_patch4_window7_224.ms_in1k", "swin-s", 49.61, 224, 83.228, "mit"),
    timm("swin_base_patch4_window7_224.ms_in1k", "swin-b", 87.77, 224, 83.604, "mit"),
    timm("swin_large_patch4_window7_224.ms_in22k_ft_in1k", "swin-l", 196.53, 224, 86.320, "mit"),
    timm("coatnet_0_rw_224.sw_in1k", "coatnet-0-rw", 27.44, 224, 82.396),
    timm("maxvit_tiny_tf_224.in1k", "maxvit-t", 30.92, 224, 83.426),
    timm("maxvit_small_tf_224.in1k", "maxvit-s", 68.93, 224, 84.452),
    timm("maxvit_base_tf_224.in1k", "maxvit-b", 119.47, 224, 84.884),
    timm("maxvit_large_tf_224.in1k", "maxvit-l", 211.79, 224, 84.938),
    timm("tf_efficientnet_lite0.in1k", "efficientnet-lite0", 4.65, 224, 74.846),
    timm("tf_efficientnet_lite1.in1k", "efficientnet-lite1", 5.42, 240, 76.674),
    timm("tf_efficientnet_lite2.in1k", "efficientnet-lite2", 6.09, 260, 77.470),
    timm("tf_efficientnet_lite3.in1k", "efficientnet-lite3", 8.20, 300, 79.808),
    timm("tf_efficientnet_lite4.in1k", "efficientnet-lite4", 13.01, 380, 81.540),
    dinov2("small", 21, 81.1),
    dinov2("base", 86, 84.5),
    dinov2("large", 300, 86.3),
    dinov2("small", 21, 80.9, registers=True),
    dinov2("base", 86, 84.6, registers=True),
    dinov2("large", 300, 86.7, registers=True),
    Published("hf:google-bert/bert-base-uncased", "bert-base", 110, "512 tokens", "apache-2.0",
              "SQuAD 1.1 dev EM 81.2, F1 88.4", "google-research/bert"),
    Published("hf:google-bert/bert-large-uncased", "bert-large", 340, "512 tokens", "apache-2.0",
              "SQuAD 1.1 dev EM 84.4, F1 90.9", "google-research/bert"),
)  # fmt: skip


def published(pattern: str = "*") -> list[Published]:
    """The models whose source or preset a glob matches."""
    return [
        each for each in PUBLISHED if any(fnmatchcase(name, pattern) for name in (each.source, each.preset))
    ]


def find(name: str) -> Published:
    """The model of a source.

    Raises:
      UserError: there is none in the table.
    """
    known = {each.source: each for each in PUBLISHED}
    if name not in known:
        raise UserError(f"there is no published model {name!r} in the table; {did_you_mean(name, known)}")
    return known[name]
