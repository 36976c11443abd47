"""A small BoTNet (Srinivas et al. 2021) on CIFAR-10: attention in the place of the last stage's 3x3; 6 epochs.

Command:  launch/local.sh train --config configs/botnet_cifar10.py
Device:   one core of an AMD EPYC, beside other work
Time:     1:03:25 h from command to report, at 83 images/s
Result:   test accuracy 0.793 (seed 0)

The budget is that of vit_cifar10: 6 epochs, batches of 100, about 80 to 110 MFLOP an image forward.
"""

import ml_collections


def get_config():
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(name="classification", mean=(0.491, 0.482, 0.447), std=(0.247, 0.243, 0.262))
    c.model = dict(
        name="resnet",
        block="bottleneck",
        stage_sizes=(1, 1, 1),
        width=20,
        stem="small",
        attention=[dict(module=dict(name="botnet"), stages=(3,))],
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
    c.optimizer = dict(name="muon", learning_rate=0.02, weight_decay=0.1)
    c.schedule = dict(name="one_cycle")
    c.precision = "float32"
    c.parallel = dict(mode="jit", mesh=dict(data=-1))
    c.train = dict(total="6 epochs", accumulate=1, ema_decay=None)
    c.checkpoint = dict(every="1 epoch", keep=2)
    return c
