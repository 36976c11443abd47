"""Questions about coloured shapes: a decoder reads the picture by cross-attention, and answers.

Command:  launch/local.sh train --config configs/vqa_shapes.py
          (after captioner_shapes, whose backbone sees the pictures; or vqa_shapes.py:RUN, with that run's folder)
Device:   2 cores of an AMD EPYC, shared with several other programs
Time:     16:58 min from command to report, 892 s of a core
Result:   0.951 of the answers to all 6,135 questions of the test split exactly right; each picture shows a colour with
          a shape that training never shows (seed 0); 0.827, 0.875, 0.937 after 1,000, 2,000, 3,000 of the 4,500 steps

All questions of a picture are asked, 5 to 7 of each: how many, is there one, how large, what colour, what shape, what
is beside it.
"""

import ml_collections


def get_config(captioner="runs/captioner_shapes"):
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(name="captioning", beams=1, max_new_tokens=8)
    c.model = dict(
        name="captioner",
        backbone=dict(pretrained=f"{captioner}#backbone"),
        reads="cross",
        width=64,
        depth=3,
        num_heads=4,
        word_dropout=0.5,
        context_length=20,
    )
    c.data = dict(
        name="shapes",
        train_split="train",
        batch_size=100,
        eval_batch_size=250,
        tokenizer=dict(name="trained", kind="bpe", vocab_size=400, template="seq2seq"),
        examples=dict(name="captions", length=20, caption_feature="answers", prompt_feature="questions"),
        transforms=[],
        cache="memory",
    )
    c.eval = dict(split="test", every="500 steps", monitor="exact_match")
    c.optimizer = dict(name="muon", learning_rate=5e-3, weight_decay=0.1, freeze=["backbone/.*"])
    c.schedule = dict(name="cosine", warmup="5%")
    c.precision = "float32"
    c.parallel = dict(mode="jit", mesh=dict(data=-1))
    c.train = dict(total="4500 steps")
    c.checkpoint = dict(every="500 steps", keep=2)
    return c
