"""A GPT of 4 layers of 128 that writes like Shakespeare, character by character: nanoGPT's setting for a CPU.

Command:  launch/local.sh train --config configs/gpt_shakespeare.py
          launch/local.sh generate runs/gpt_shakespeare --prompt "ROMEO:"
Device:   2 cores of an AMD EPYC, shared with other work
Time:     6:13 min from command to report
Result:   validation loss 1.593 nats a character on the last 10% of the text (seed 0)

Context 64, batches of 12, 2,000 steps. nanoGPT's own figure is 1.88, with AdamW; here it is Muon.
"""

import ml_collections


def get_config():
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(name="causal_lm")
    c.model = dict(name="gpt", context_length=64, width=128, depth=4, num_heads=4)
    c.data = dict(
        name="tiny_shakespeare",
        train_split="train",
        batch_size=12,
        eval_batch_size=128,
        tokenizer=dict(name="characters"),
        examples=dict(name="windows", length=64),
    )
    # The last 10% of the text: TFDS has them as two splits.
    c.eval = dict(split="validation+test", every="500 steps", monitor="loss")
    c.optimizer = dict(name="muon", learning_rate=4e-3, consistent_rms=0.2, weight_decay=0.1, clip_norm=1.0)
    c.schedule = dict(name="cosine", warmup="100 steps", final=0.05)
    c.precision = "float32"
    c.parallel = dict(mode="jit", mesh=dict(data=-1))
    c.train = dict(total="2_000 steps")
    c.checkpoint = dict(every="1_000 steps")
    return c
