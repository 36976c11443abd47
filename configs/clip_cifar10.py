"""Two towers on CIFAR-10 and prompts made of its classes: a picture is classified by the text that is nearest to it.

Command:  launch/local.sh train --config configs/clip_cifar10.py
          launch/local.sh train --config configs/clip_cifar10.py:classifier    (the same image tower, as a classifier)
Device:   TODO
Time:     TODO
Result:   TODO
"""

import ml_collections

PROMPTS = ("a photo of a {}.", "a small photo of the {}.", "a blurry photo of a {}.", "there is a {} in it.")
TOWER = dict(name="resnet", block="basic", stage_sizes=(1, 1, 1), width=32, stem="small")


def get_config(which="towers"):
    c = ml_collections.ConfigDict()
    c.seed = 0
    view = dict(mean=(0.491, 0.482, 0.447), std=(0.247, 0.243, 0.262))
    c.data = dict(
        name="cifar10",
        train_split="train",
        batch_size=100,
        eval_batch_size=250,
        transforms=[dict(name="pad_and_crop", padding=4), dict(name="flip")],
        eval_transforms=[dict(name="resize", size=32)],  # for pictures of other sizes, in predict
        cache="memory",
    )
    if which == "classifier":
        c.task = dict(name="classification", **view)
        c.model = dict(num_classes=10, **TOWER)
    else:
        # Many pictures of a batch have equal captions: all of these are right.
        c.task = dict(name="contrastive", loss_name="softmax", same="text", **view)
        text = dict(name="gpt", width=64, depth=2, num_heads=2, context_length=40)
        c.model = dict(name="two_towers", image=dict(num_classes=0, **TOWER), text=text, embedding=64)
        c.data.examples = dict(name="captions", length=40, prompts=PROMPTS)
        c.data.tokenizer = dict(name="bytes", template="gpt")
    c.eval = dict(
        split="test",
        every="2 epochs",
        monitor="accuracy" if which == "classifier" else "zero_shot_accuracy",
    )
    c.optimizer = dict(name="muon", learning_rate=0.02, weight_decay=0.1)
    c.schedule = dict(name="one_cycle")
    c.precision = "float32"
    c.parallel = dict(mode="jit", mesh=dict(data=-1))
    c.train = dict(total="2 epochs", accumulate=1, ema_decay=None)
    c.checkpoint = dict(every="1 epoch", keep=2)
    return c
