"""A small ResNet with attention to its channels on CIFAR-10, 6 epochs: SE (Hu et al. 2018), ECA, CBAM and others.

Command:  launch/local.sh train --config configs/se_resnet_cifar10.py[:eca|:cbam|:coordinate|:non_local]
Device:   one core of an AMD EPYC, beside other work
Time:     42:23 min from command to report, at 123 images/s, with SE; 42:11 min with ECA; 58:43 min with CBAM
Result:   test accuracy 0.826 with SE, 0.827 with ECA, 0.819 with CBAM (seed 0); the others were not trained

The budget is that of vit_cifar10: 6 epochs, batches of 100, about 80 to 110 MFLOP an image forward.
"""

import ml_collections

from jaxformer.errors import UserError


def get_config(attention="se"):
    known = ("se", "eca", "cbam", "coordinate", "non_local")
    if attention not in known:
        raise UserError(f"--config ...:{attention}: no such attention; there are: {', '.join(known)}")
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(name="classification", mean=(0.491, 0.482, 0.447), std=(0.247, 0.243, 0.262))
    c.model = dict(
        name="resnet",
        block="basic",
        stage_sizes=(1, 1, 1),
        width=32,
        stem="small",
        attention=[dict(module=dict(name=attention))],
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
