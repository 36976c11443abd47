"""Published sizes of CNNs."""

from typing import Any

# depth: (block, stage sizes). He et al. 2016a, table 1.
RESNET_SIZES = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}

# name: (depth, how many times as wide). Kolesnikov et al. 2020 (Big Transfer), section 3.
BIT_SIZES = {
    "r50x1": (50, 1),
    "r50x3": (50, 3),
    "r101x1": (101, 1),
    "r101x3": (101, 3),
    "r152x2": (152, 2),
    "r152x4": (152, 4),
}
BIT: dict[str, Any] = {"version": 2, "norm": "group", "standardize": "bit", "stem": "bit"}

# name: the attention of a ResNet-50.
ATTENTIVE: dict[str, tuple[dict[str, Any], ...]] = {
    "se-resnet-50": ({"module": {"name": "se"}},),  # Hu et al. 2018, table 1
    "eca-resnet-50": ({"module": {"name": "eca"}},),  # Wang et al. 2020, section 4.1
    "cbam-resnet-50": ({"module": {"name": "cbam"}},),  # Woo et al. 2018, section 4.2
    # Wang et al. 2018, section 4.1: after every other block of the two middle stages, five in all.
    "nonlocal-resnet-50": (
        {"module": {"name": "non_local"}, "stages": (2,), "blocks": (1, 3)},
        {"module": {"name": "non_local"}, "stages": (3,), "blocks": (1, 3, 5)},
    ),
    # Srinivas et al. 2021, table 1: in all blocks of the last stage.
    "botnet-50": ({"module": {"name": "botnet"}, "stages": (4,)},),
}


def resnet(depth: int, **fields: Any) -> dict[str, Any]:
    """The fields of a ResNet of one of RESNET_SIZES."""
    block, stage_sizes = RESNET_SIZES[depth]
    return {"name": "resnet", "block": block, "stage_sizes": stage_sizes, **fields}


def cnn_tables() -> dict[str, dict[str, Any]]:
    """Every preset's name and fields, "name" among them."""
    presets: dict[str, dict[str, Any]] = {}
    for depth in RESNET_SIZES:
        presets[f"resnet-{depth}"] = resnet(depth)
        presets[f"resnetv2-{depth}"] = resnet(depth, version=2)
    for name, (depth, times) in BIT_SIZES.items():
        presets[f"bit-{name}"] = resnet(depth, width=64 * times, **BIT)
    for name, attention in ATTENTIVE.items():
        presets[name] = resnet(50, attention=attention)
    return presets
