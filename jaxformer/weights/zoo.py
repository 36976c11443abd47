"""Published models that can be imported: facts, each with its source.

Sizes, parameters and accuracies of timm's models are those of results/results-imagenet.csv of
huggingface/pytorch-image-models at aa4b5850 (top-1 on ImageNet's validation split at this size), their licences those
of the models' configs there. DINOv2's are those of the README of facebookresearch/dinov2 (a linear layer on the
features, by the authors), and their licence is by timm, too. Those of two towers are by
docs/openclip_classification_results.csv of mlfoundations/open_clip at 05e7db49 (zero-shot). BERT's, RoBERTa's and
DETR's are those of the authors' READMEs, the others those of the papers that are named.
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


def towers(
    name: str, preset: str, millions: float, side: int, top1: float, license: str = "apache-2.0"
) -> Published:
    """A row of OpenCLIP's table."""
    figure = f"ImageNet zero-shot {100 * top1:.1f}%"
    return Published(f"hf:{name}", preset, millions, f"{side} pixels", license, figure, "OpenCLIP")


def segformer(size: int, millions: float, mean_iou: float, side: int = 512) -> Published:
    """A row of SegFormer's table, of one scale."""
    name, figure = f"hf:nvidia/segformer-b{size}-finetuned-ade-{side}-{side}", f"ADE20K mIoU {mean_iou:.1f}%"
    paper = "Xie et al. 2021, table 1"
    return Published(name, f"segformer-b{size}", millions, f"{side} pixels", "other (NVIDIA)", figure, paper)


def gpt2(size: str, millions: float, perplexity: float) -> Published:
    """A row of GPT-2's table."""
    name, paper = f"gpt2-{size}" if size else "gpt2", "Radford et al. 2019, table 3"
    figure = f"WikiText-103 perplexity {perplexity:.2f}"
    return Published(f"hf:openai-community/{name}", name, millions, "1024 tokens", "mit", figure, paper)


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
    Published("hf:FacebookAI/roberta-base", "roberta-base", 125, "512 tokens", "mit", "MNLI 87.6%", "fairseq"),
    Published("hf:FacebookAI/roberta-large", "roberta-large", 355, "512 tokens", "mit", "MNLI 90.2%", "fairseq"),
    Published("hf:distilbert/distilbert-base-uncased", "distilbert-base", 66, "512 tokens", "apache-2.0",
              "SQuAD 1.1 dev EM 77.7, F1 85.8", "Sanh et al. 2019, table 2"),
    Published("hf:sentence-transformers/all-MiniLM-L6-v2", "minilm-l6", 22.7, "256 tokens", "apache-2.0",
              "14 sentence tasks 68.06", "sbert.net"),
    Published("hf:answerdotai/ModernBERT-base", "modernbert-base", 149, "8192 tokens", "apache-2.0", "GLUE 88.4",
              "Warner et al. 2024, table 1"),
    Published("hf:answerdotai/ModernBERT-large", "modernbert-large", 395, "8192 tokens", "apache-2.0", "GLUE 90.4",
              "Warner et al. 2024, table 1"),
    gpt2("", 124, 37.50),
    gpt2("medium", 355, 26.37),
    gpt2("large", 774, 22.05),
    gpt2("xl", 1558, 17.48),
    towers("openai/clip-vit-base-patch32", "clip-vit-b32", 151.28, 224, 0.6332, "mit"),
    towers("openai/clip-vit-base-patch16", "clip-vit-b16", 149.62, 224, 0.6834, "mit"),
    towers("openai/clip-vit-large-patch14", "clip-vit-l14", 427.62, 224, 0.7554, "mit"),
    towers("openai/clip-vit-large-patch14-336", "clip-vit-l14-336", 427.94, 336, 0.7656, "mit"),
    towers("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "clip-vit-b32", 151.28, 224, 0.6656, "mit"),
    towers("laion/CLIP-ViT-B-16-laion2B-s34B-b88K", "clip-vit-b16", 149.62, 224, 0.7023, "mit"),
    towers("laion/CLIP-ViT-L-14-laion2B-s32B-b82K", "clip-vit-l14", 427.62, 224, 0.7525, "mit"),
    towers("google/siglip-base-patch16-224", "siglip-b16", 203.16, 224, 0.7604),
    towers("google/siglip-base-patch16-256", "siglip-b16-256", 203.20, 256, 0.7653),
    towers("google/siglip-base-patch16-384", "siglip-b16-384", 203.45, 384, 0.7849),
    towers("google/siglip-base-patch16-512", "siglip-b16-512", 203.79, 512, 0.7914),
    towers("google/siglip-large-patch16-256", "siglip-l16-256", 652.15, 256, 0.8045),
    towers("google/siglip-large-patch16-384", "siglip-l16-384", 652.48, 384, 0.8207),
    towers("google/siglip-so400m-patch14-224", "siglip-so400m14", 877.36, 224, 0.8203),
    segformer(0, 3.8, 37.4),
    segformer(1, 13.7, 42.2),
    segformer(2, 27.5, 46.5),
    segformer(3, 47.3, 49.4),
    segformer(4, 64.1, 50.3),
    segformer(5, 84.7, 51.0, 640),
    Published("hf:facebook/detr-resnet-50", "detr-r50", 41, "800 to 1333 pixels", "apache-2.0", "COCO AP 42.0",
              "facebookresearch/detr"),
    Published("hf:facebook/detr-resnet-101", "detr-r101", 60, "800 to 1333 pixels", "apache-2.0", "COCO AP 43.5",
              "facebookresearch/detr"),
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
