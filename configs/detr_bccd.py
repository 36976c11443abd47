"""A small DETR on BCCD: red and white blood cells and platelets in 205 pictures, 60 epochs from scratch on a CPU.

Anchors, a prior around each box and denoising (models/detr.py) behind five convolutions, on pictures of 192x256, a
seventh of their pixels. Platelets are 15 pixels there, about one token, and are found least (AP50 0.38; red cells 0.75,
white ones 0.98).

Command:  launch/local.sh train --config configs/detr_bccd.py
Device:   2 cores of an AMD EPYC, shared with much other work
Time:     38:08 min from command to report
Result:   AP50 0.700 and AP 0.446 on the validation split, 0.677 and 0.420 on the test split (seed 0)
"""

import ml_collections

SIZE = (192, 256)  # of pictures of 480x640


def get_config():
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(
        name="detection",
        class_loss="focal",
        score_threshold=0.3,
        mean=(0.66, 0.64, 0.68),
        std=(0.25, 0.25, 0.25),
    )
    c.model = dict(
        name="detr",
        backbone=dict(
            name="conv_stem", channels=(24, 48, 96, 128, 128), strides=(2, 2, 2, 2, 1), num_classes=0
        ),
        width=128,
        encoder_depth=2,
        decoder_depth=3,
        num_heads=8,
        mlp_dim=256,
        num_queries=80,
        queries="anchors",
        no_object=False,
        denoising=2,
        box_noise=0.6,
        dropout=0.0,
    )
    c.data = dict(
        name="bccd",
        train_split="train",
        batch_size=8,
        examples=dict(name="detection", size=SIZE, max_objects=28),
        transforms=[
            dict(name="scale_jitter", scale=(0.7, 1.5), size=SIZE),
            dict(name="flip"),
            dict(name="flip", direction="vertical"),
            dict(name="color_jitter", brightness=0.2, contrast=0.2, saturation=0.2),
        ],
        cache="memory",
    )
    c.eval = dict(split="validation", every="5 epochs", monitor="ap50")
    c.optimizer = dict(name="adamw", learning_rate=5e-4, weight_decay=0.01, clip_norm=1.0)
    c.schedule = dict(name="cosine", warmup="5%")
    c.precision = "float32"
    c.parallel = dict(mode="jit", mesh=dict(data=-1))
    c.train = dict(total="60 epochs", accumulate=1, ema_decay=0.99)
    c.checkpoint = dict(every="5 epochs", keep=1)
    return c
