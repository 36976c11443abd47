"""A small ResNet on images of your own, whatever their sizes and however many they are: 1,000 steps from scratch.

Command:  launch/local.sh train --config configs/own_images.py --config.data.name=mine
          (after: launch/local.sh data import images my_images/ --name mine)
Device:   one core of an Intel Xeon, beside much other work
Time:     14:24 min from command to report, at 20 to 60 images/s
Result:   test accuracy 0.840 (seed 0) on 1,000 images of four classes of CIFAR-10, 800 of them to train on
"""

import ml_collections


def get_config():
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(name="classification", mean=(0.45,), std=(0.23,))  # about ImageNet's, for grey images, too
    c.model = dict(
        name="resnet", block="basic", stage_sizes=(1, 1, 1), width=32, stem="imagenet", num_classes=None
    )
    c.data = dict(
        name="mine",
        train_split="train",
        batch_size=32,
        eval_batch_size=64,
        transforms=[dict(name="random_resized_crop", size=96, scale=(0.35, 1.0)), dict(name="flip")],
        eval_transforms=[dict(name="center_crop", size=96, shorter_side=96)],
    )
    c.eval = dict(split="test", every="100 steps", monitor="accuracy")
    c.optimizer = dict(name="muon", learning_rate=0.01, weight_decay=0.1)
    c.schedule = dict(name="one_cycle")
    c.precision = "float32"
    c.parallel = dict(mode="jit", mesh=dict(data=-1))
    c.train = dict(total="1000 steps", accumulate=1, ema_decay=None)
    c.checkpoint = dict(every="100 steps", keep=2)
    return c
