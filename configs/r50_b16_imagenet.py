"""R50+ViT-B/16 on ImageNet-1k (Dosovitskiy et al. 2021, section 3.1, "Hybrid"), with the recipe of vit_s16_imagenet.

98,659,112 parameters, as in google-research/vision_transformer. For training on ImageNet-1k alone, by this recipe, no
figure is published.

Command:  jaxformer train --config configs/r50_b16_imagenet.py   (TPU or GPU; prepare imagenet2012 first)
Result:   not measured here
"""

import ml_collections

from jaxformer.models.presets import preset


def get_config():
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(name="classification", mixup=0.2, mean=(0.5,), std=(0.5,))
    c.model = preset("r50-vit-b16", image_size=224, num_classes=1000, scan=True)
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
