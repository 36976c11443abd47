"""Questions about coloured shapes: the picture's tokens and the question stand in front of the answer, from scratch.

Command:  launch/local.sh train --config configs/vqa_shapes.py
Device:   -
Time:     -
Result:   not measured yet

All questions of a picture are asked, 5 to 7 of each: how many, is there one, how large, what colour, what shape, what
is beside it. Those of the test split are about colours with shapes that training never shows.
"""

import ml_collections


def get_config():
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(name="captioning", beams=1, max_new_tokens=8)
    c.model = dict(
        name="captioner",
        backbone=dict(name="conv_stem", channels=[16, 32, 64], strides=[1, 2, 2]),
        reads="prefix",
        width=64,
        depth=3,
        num_heads=4,
        context_length=20,
    )
    c.data = dict(
        name="shapes",
        train_split="train",
        batch_size=200,
        eval_batch_size=250,
        tokenizer=dict(name="trained", kind="bpe", vocab_size=400, template="seq2seq"),
        examples=dict(name="captions", length=20, caption_feature="answers", prompt_feature="questions"),
        transforms=[dict(name="color_jitter", brightness=0.4, contrast=0.4, saturation=0.9)],
        cache="memory",
    )
    c.eval = dict(split="test", every="1 epoch", monitor="exact_match")
    c.optimizer = dict(name="muon", learning_rate=5e-3, weight_decay=0.1)
    c.schedule = dict(name="cosine", warmup="5%")
    c.precision = "float32"
    c.parallel = dict(mode="jit", mesh=dict(data=-1))
    c.train = dict(total="3 epochs")
    c.checkpoint = dict(every="1 epoch", keep=2)
    return c
