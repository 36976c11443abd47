"""A small ViT on CIFAR-10 whose tokens come from a CNN: a convolutional stem (Xiao et al. 2021), or a ResNet; 6 epochs.

Command:  launch/local.sh train --config configs/hybrid_cifar10.py[:resnet]
Device:   one core of an AMD EPYC, beside other work
Time:     36:21 min from command to report; 1:14 h for the last 2,805 of 3,000 steps with the ResNet, beside more work
Result:   test accuracy 0.810 with the convolutional stem, 0.805 with the ResNet (seed 0)

The budget is that of vit_cifar10: 6 epochs, batches of 100, about 80 to 110 MFLOP an image forward.
"""

import ml_collections

from jaxformer.errors import UserError


def get_config(kind="conv_stem"):
    backbones = {
        "conv_stem": (3, dict(name="conv_stem", channels=(32, 64, 64, 128), strides=(1, 2, 1, 2))),
        "resnet": (
            2,
            dict(name="resnet", block="basic", stage_sizes=(1, 1, 1), width=24, stem="small", num_classes=0),
        ),
    }
    if kind not in backbones:
        raise UserError(f"--config ...:{kind}: no such backbone; there are: {', '.join(backbones)}")
    depth, backbone = backbones[kind]
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(name="classification", mean=(0.491, 0.482, 0.447), std=(0.247, 0.243, 0.262))
    c.model = dict(
        name="vit",
        image_size=32,
        patch_size=1,
        backbone=backbone,
        width=128,
        depth=depth,
        num_heads=4,
        mlp_dim=256,
        num_classes=10,
        pool="average",
        positions="sincos2d",
    )
    c.data = dict(
        name="cifar10",
        train_split="train",
        batch_size=100,
        eval_batch_size=250,
        transforms=[dict(name="pad_and_crop", padding=4), dict(name="flip")],
        eval_transforms=[dict(name="resize", size=32)],  # for pictures of other sizes, in predict
        cache="memory",
    )
    c.eval = dict(split="test", every="2 epochs", monitor="accuracy")
    c.optimizer = dict(name="muon", learning_rate=2e-3, weight_decay=0.1, clip_norm=1.0)
    c.schedule = dict(name="cosine", warmup="5%")
    c.precision = "float32"
    c.parallel = dict(mode="jit", mesh=dict(data=-1))
    c.train = dict(total="6 epochs", accumulate=1, ema_decay=None)
    c.checkpoint = dict(every="1 epoch", keep=2)
    return c
