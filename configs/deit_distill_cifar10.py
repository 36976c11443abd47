"""A small ViT with DeiT's distillation token (Touvron et al. 2021) on CIFAR-10, taught by a CNN; 6 epochs.

Command:  launch/local.sh train --config configs/deit_distill_cifar10.py[:TEACHER_RUN]
Device:   one core of an AMD EPYC, beside other work
Time:     1:03 h for the last 2,606 of 3,000 steps
Result:   test accuracy 0.723 (seed 0)

The teacher is a run of configs/resnet_cifar10.py; another one's folder stands behind a colon.
"""

import ml_collections


def get_config(teacher="runs/resnet_cifar10"):
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(
        name="classification",
        mean=(0.491, 0.482, 0.447),
        std=(0.247, 0.243, 0.262),
        distillation=dict(run=teacher, kind="hard", weight=0.5),
    )
    c.model = dict(
        name="vit",
        image_size=32,
        patch_size=4,
        width=128,
        depth=4,
        num_heads=4,
        mlp_dim=256,
        num_classes=10,
        pool="cls",
        distillation_token=True,
        positions="learned",
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
