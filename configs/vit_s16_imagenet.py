"""ViT-S/16 on ImageNet-1k, the plain recipe: 90 epochs to 76.5% (Beyer et al. 2022, "Better plain ViT baselines").

Figures as in big_vision's configs/vit_s16_i1k.py: batch 1024, Adam at 1e-3, decoupled weight decay of 1e-4 a step at
the peak (0.1 here, where it is multiplied by the learning rate), 10,000 steps of warm-up, cosine, RandAugment(2, 10),
mixup 0.2, sincos2d positions, average pooling, clipping at 1.0.

Command:  jaxformer train --config configs/vit_s16_imagenet.py   (TPU or GPU; prepare imagenet2012 with TFDS first)
Result:   not measured here; the paper reports 76.5% after 90 epochs
"""

import ml_collections

from jaxformer.models.presets import preset


def get_config():
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(name="classification", mixup=0.2, mean=(0.5,), std=(0.5,))
    c.model = preset(
        "vit-s16", image_size=224, num_classes=1000, pool="average", positions="sincos2d", scan=True
    )
    c.data = dict(
        name="imagenet2012",
        train_split="train[:99%]",
        batch_size=1024,
        transforms=[
            dict(name="random_resized_crop", size=224),
            dict(name="flip"),
            dict(name="randaugment", num_layers=2, magnitude=10),
        ],
        eval_transforms=[dict(name="center_crop", size=224, shorter_side=256)],
    )
    c.eval = dict(split="validation", every="5 epochs", monitor="accuracy")
    c.optimizer = dict(name="adamw", learning_rate=1e-3, weight_decay=0.1, clip_norm=1.0)
    c.schedule = dict(name="cosine", warmup="10_000 steps")
    c.precision = "bfloat16"
    c.parallel = dict(mode="jit", mesh=dict(data=-1))
    c.train = dict(total="90 epochs", accumulate=1, ema_decay=None)
    c.checkpoint = dict(every="1 epoch", keep=2)
    return c
