"""A DETR on a pretrained EfficientNet-Lite0 finds red and white blood cells and platelets in BCCD's pictures.

Command:  launch/local.sh train --config configs/effnet_bccd.py
Device:   2 cores of an AMD EPYC, shared with a few other programs
Time:     28:56 min from command to report, 39 min of a core
Result:   AP50 0.694 and AP 0.433 on the validation split after 40 epochs (seed 0); 0.648 after 25

No better than the same Transformer on five convolutions, from scratch, with smaller pictures and 60 epochs
(`detr_bccd`, 0.700), and still rising. The Transformer, the data and their augmentation are those of `detr_bccd`. The
docstring of `effnet_camvid` says how the file of weights is made.
"""

import ml_collections

MODEL = "weights/efficientnet_lite0.safetensors"
SIZE = (240, 320)  # of pictures of 480x640


def get_config():
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(name="detection", class_loss="focal", score_threshold=0.3)
    c.model = dict(
        name="detr",
        backbone=dict(pretrained=MODEL, norm="frozen"),
        levels=(-2,),  # a sixteenth of the picture's size
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
    c.optimizer = dict(
        name="adamw",
        learning_rate=5e-4,
        weight_decay=0.01,
        clip_norm=1.0,
        learning_rate_multipliers=[("backbone", 0.3)],
    )
    c.schedule = dict(name="cosine", warmup="5%")
    c.precision = "float32"
    c.parallel = dict(mode="jit", mesh=dict(data=-1))
    c.train = dict(total="40 epochs", accumulate=1, ema_decay=0.99)
    c.checkpoint = dict(every="5 epochs", keep=1)
    return c
