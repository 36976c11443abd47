"""Published sizes of models that join convolutions and attention, and of those that they are compared with."""

from typing import Any

from jaxformer.models.presets_cnn import resnet

# size: (stage sizes, widths, stem width). Dai et al. 2021, table 3, which counts the stem as S0, and table 2 for the
# parameters at 224 pixels in millions, here in brackets as they are with a tanh layer before the head, as in
# google-research/maxvit: 0: 25 (25.0); 1: 42 (42.2); 2: 75 (74.7); 3: 168 (167.0); 4: 275 (275.4).
COATNET_SIZES = {
    "0": ((2, 3, 5, 2), (96, 192, 384, 768), 64),
    "1": ((2, 6, 14, 2), (96, 192, 384, 768), 64),
    "2": ((2, 6, 14, 2), (128, 256, 512, 1024), 128),
    "3": ((2, 6, 14, 2), (192, 384, 768, 1536), 192),
    "4": ((2, 12, 28, 2), (192, 384, 768, 1536), 192),
}

# size: (stage sizes, widths, stem width). Tu et al. 2022, table 1; parameters at 224 pixels in millions, in brackets as
# they are here: T 31 (30.9); S 69 (68.9); B 119 (119.5); L 212 (211.8).
MAXVIT_SIZES = {
    "t": ((2, 2, 5, 2), (64, 128, 256, 512), 64),
    "s": ((2, 2, 5, 2), (96, 192, 384, 768), 64),
    "b": ((2, 6, 14, 2), (96, 192, 384, 768), 64),
    "l": ((2, 6, 14, 2), (128, 256, 512, 1024), 128),
}


# size: (stage sizes, width, heads of the first stage). Liu et al. 2021, section 3.3.
SWIN_SIZES = {
    "t": ((2, 2, 6, 2), 96, 3),
    "s": ((2, 2, 18, 2), 96, 3),
    "b": ((2, 2, 18, 2), 128, 4),
    "l": ((2, 2, 18, 2), 192, 6),
}

# size: (stage sizes, width). Liu et al. 2022, section 3.
CONVNEXT_SIZES = {
    "t": ((3, 3, 9, 3), 96),
    "s": ((3, 3, 27, 3), 96),
    "b": ((3, 3, 27, 3), 128),
    "l": ((3, 3, 27, 3), 192),
    "xl": ((3, 3, 27, 3), 256),
}

# size: (stage sizes, widths, heads). Wu et al. 2021, table 2.
CVT_SIZES = {
    "13": ((1, 2, 10), (64, 192, 384), (1, 3, 6)),
    "21": ((1, 4, 16), (64, 192, 384), (1, 3, 6)),
    "w24": ((2, 2, 20), (192, 768, 1024), (3, 12, 16)),
}

# layers: (width, heads, MLP's ratio). Hassani et al. 2021, table 1 and their code (SHI-Labs/Compact-Transformers).
CCT_SIZES = {2: (128, 2, 1), 4: (128, 2, 1), 6: (256, 4, 2), 7: (256, 4, 2), 14: (384, 6, 3)}
# Their variants: (layers, kernel size, convolutions, image size, classes).
CCT_VARIANTS = (
    (2, 3, 2, 32, 10),
    (4, 3, 2, 32, 10),
    (6, 3, 1, 32, 10),
    (6, 3, 2, 32, 10),
    (7, 3, 1, 32, 10),
    (7, 3, 2, 32, 10),
    (7, 7, 2, 224, 102),
    (14, 7, 2, 224, 1000),
    (14, 7, 2, 384, 1000),
)

# size: (width, layers, heads, image size on ADE20K). Strudel et al. 2021, table 1 and section 4.1, with its mask
# transformer of two layers (section 4.2); the ViTs are AugReg's.
SEGMENTER_SIZES = {
    "ti": (192, 12, 3, 512),
    "s": (384, 12, 6, 512),
    "b": (768, 12, 12, 512),
    "l": (1024, 24, 16, 640),
}


def hybrid_tables() -> dict[str, dict[str, Any]]:
    """Every preset's name and fields, "name" among them."""
    controls = swin_tables() | convnext_tables()
    tasks = detr_tables() | segmenter_tables()
    return coatnet_tables() | maxvit_tables() | cvt_tables() | cct_tables() | controls | tasks


def coatnet_tables() -> dict[str, dict[str, Any]]:
    """CoAtNet-0 to 4, and timm's own form of the first, of which it has weights."""
    presets: dict[str, dict[str, Any]] = {}
    for size, (stage_sizes, widths, stem) in COATNET_SIZES.items():
        presets[f"coatnet-{size}"] = {
            "name": "coatnet", "stage_sizes": stage_sizes, "widths": widths, "stem_widths": (stem, stem),
            "representation": widths[-1],
        }  # fmt: skip
    presets["coatnet-0-rw"] = {
        "name": "coatnet", "stage_sizes": (2, 3, 7, 2), "stem_widths": (32, 64), "representation": None,
        "attention_width": "in", "shortcut_bias": False,
        "mbconv": {
            "expand": "in", "stride_at": "pool", "activation": "silu", "first_activation": True,
            "squeeze_activation": "relu", "squeeze_early": True, "use_bias": False,
        },
    }  # fmt: skip
    return presets


def maxvit_tables() -> dict[str, dict[str, Any]]:
    """MaxViT-T to L."""
    presets: dict[str, dict[str, Any]] = {}
    for size, (stage_sizes, widths, stem) in MAXVIT_SIZES.items():
        presets[f"maxvit-{size}"] = {
            "name": "maxvit", "stage_sizes": stage_sizes, "widths": widths, "stem_widths": (stem, stem),
            "representation": widths[-1],
        }  # fmt: skip
    return presets


def swin_tables() -> dict[str, dict[str, Any]]:
    """Swin-T to L, for windows of 7."""
    return {
        f"swin-{size}": {
            "name": "swin", "stage_sizes": stage_sizes, "width": width,
            "num_heads": tuple(heads * 2**stage for stage in range(4)),
        }
        for size, (stage_sizes, width, heads) in SWIN_SIZES.items()
    }  # fmt: skip


def convnext_tables() -> dict[str, dict[str, Any]]:
    """ConvNeXt-T to XL."""
    return {
        f"convnext-{size}": {"name": "convnext", "stage_sizes": stage_sizes, "width": width}
        for size, (stage_sizes, width) in CONVNEXT_SIZES.items()
    }


def cvt_tables() -> dict[str, dict[str, Any]]:
    """CvT-13, 21 and W24."""
    return {
        f"cvt-{size}": {"name": "cvt", "stage_sizes": stage_sizes, "widths": widths, "num_heads": heads}
        for size, (stage_sizes, widths, heads) in CVT_SIZES.items()
    }


def cct_tables() -> dict[str, dict[str, Any]]:
    """CCTs, named after their layers, their convolutions' size and number, and the images' size."""
    presets: dict[str, dict[str, Any]] = {}
    for layers, kernel, convolutions, image_size, classes in CCT_VARIANTS:
        width, heads, ratio = CCT_SIZES[layers]
        presets[f"cct-{layers}-{kernel}x{convolutions}-{image_size}"] = {
            "name": "cct", "image_size": image_size, "conv_layers": convolutions, "kernel_size": kernel,
            "stride": max(1, kernel // 2 - 1), "width": width, "depth": layers, "num_heads": heads,
            "mlp_dim": ratio * width, "num_classes": classes,
        }  # fmt: skip
    return presets


def detr_tables() -> dict[str, dict[str, Any]]:
    """DETR with a ResNet, for COCO's 91 class ids (Carion et al. 2020, table 1); the rest are the model's defaults."""
    return {
        f"detr-r{depth}": {"name": "detr", "backbone": resnet(depth, num_classes=0), "num_classes": 91}
        for depth in (50, 101)
    }


def segmenter_tables() -> dict[str, dict[str, Any]]:
    """Segmenter with a ViT of patches of 16 pixels and the mask transformer, for ADE20K's 150 classes."""
    presets: dict[str, dict[str, Any]] = {}
    for size, (width, depth, heads, image_size) in SEGMENTER_SIZES.items():
        tokens = {"width": width, "num_heads": heads}
        presets[f"segmenter-{size}16"] = {
            "name": "segmenter",
            "backbone": {"name": "vit", "image_size": image_size, "depth": depth, **tokens, "num_classes": 0},
            "decoder": {"name": "mask_transformer", **tokens},
            "num_classes": 150,
            "window": (image_size, image_size),
        }
    return presets
