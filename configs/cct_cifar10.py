"""A compact convolutional Transformer (Hassani et al. 2021) on CIFAR-10: 6 epochs from scratch on a laptop's CPU.

Command:  launch/local.sh train --config configs/cct_cifar10.py
Device:   one core of an AMD EPYC, beside other work
Time:     30:40 min from command to report, at 169 images/s; 312 images/s on two cores
Result:   test accuracy 0.790 (seed 0)

The budget is that of vit_cifar10: 6 epochs, batches of 100, about 80 to 110 MFLOP an image forward.
"""

import ml_collections


def get_config():
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(name="classification", mean=(0.491, 0.482, 0.447), std=(0.247, 0.243, 0.262))
    c.model = dict(
        name="cct",
        image_size=32,
        conv_layers=2,
        kernel_size=3,
        stem_width=64,
        width=128,
        depth=2,
        num_heads=4,
        mlp_dim=256,
        num_classes=10,
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
