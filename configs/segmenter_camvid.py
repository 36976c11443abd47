"""A ResNet with a feature pyramid on CamVid at about half resolution: from scratch on a laptop's CPU.

Command:  launch/local.sh train --config configs/segmenter_camvid.py
Device:   one core of an AMD EPYC, beside other work
Time:     1:03:57 h from command to report, at 7.8 images/s; 0.447 after 8 minutes
Result:   mean IoU 0.636 on the validation split (0.654 after 60 epochs), 0.557 on the test split (seed 0)

367 pictures of streets with 11 classes (Brostow et al. 2008, in SegNet's split), CamVid's 360x480 pixels in a frame of
192x256. The rarest classes are the thinnest ones: the pixels' cross-entropy is weighted by the root of SegNet's median
frequency balancing, and the Dice loss, which counts every class of a picture alike, is added.
"""

import ml_collections

# The root of the median of the classes' frequencies over each one's, of the training split; see Eigen and Fergus 2015,
# section 4.3.2. Sky, building, pole, road, pavement, tree, sign, fence, car, pedestrian, bicyclist.
CLASS_WEIGHTS = (0.53, 0.45, 2.18, 0.39, 1.0, 0.65, 1.96, 1.41, 0.89, 2.53, 2.97)


def get_config():
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(
        name="segmentation",
        cross_entropy=1.0,
        dice=1.0,
        class_weights=CLASS_WEIGHTS,
        mean=(0.412, 0.425, 0.432),
        std=(0.301, 0.305, 0.301),
    )
    c.model = dict(
        name="segmenter",
        backbone=dict(
            name="resnet", block="basic", stage_sizes=(2, 2, 2, 2), width=32, stem="deep", num_classes=0
        ),
        decoder=dict(name="fpn", width=64),
    )
    c.data = dict(
        name="camvid",
        train_split="train",
        batch_size=8,
        eval_batch_size=8,
        examples=dict(name="segmentation", size=(192, 256), ignore_labels=(11,)),
        transforms=[
            dict(name="flip"),
            dict(name="scale_jitter", scale=(0.75, 2.0), size=(192, 256)),
            dict(name="color_jitter", brightness=0.3, contrast=0.3, saturation=0.3, hue=0.02),
        ],
        cache="memory",
    )
    c.eval = dict(split="validation", every="10 epochs", monitor="mean_iou")
    c.optimizer = dict(name="muon", learning_rate=0.01, weight_decay=0.1)
    c.schedule = dict(name="one_cycle")
    c.precision = "float32"
    c.parallel = dict(mode="jit", mesh=dict(data=-1))
    c.train = dict(total="80 epochs", accumulate=1, ema_decay=None)
    c.checkpoint = dict(every="10 epochs", keep=2)
    return c
