"""A modern GPT of 4 layers of 192 on Shakespeare, in tokens of a byte-level BPE that is trained on the text itself.

Command:  launch/local.sh train --config configs/gpt_shakespeare_bpe.py
          launch/local.sh generate runs/gpt_shakespeare_bpe --prompt "ROMEO:"
Device:   2 cores of an AMD EPYC, shared with other work
Time:     6:30 min from command to report
Result:   validation loss 3.395 nats a token, perplexity 29.8, on the last 10% of the text after 4 epochs (seed 0)

RMSNorm, SwiGLU, rotary positions, 6 query heads on 2 key heads, QK-norm. It has not converged yet.
"""

import ml_collections


def get_config():
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(name="causal_lm")
    c.model = dict(
        name="gpt",
        context_length=128,
        width=192,
        depth=4,
        num_heads=6,
        num_kv_heads=2,
        mlp_dim=512,
        activation="swiglu",
        norm="rms",
        use_bias=False,
        qk_norm=True,
        positions="rotary",
        dropout=0.2,
    )
    c.data = dict(
        name="tiny_shakespeare",
        train_split="train",
        batch_size=16,
        eval_batch_size=64,
        tokenizer=dict(name="trained", kind="bpe", vocab_size=1024, template="gpt"),
        examples=dict(name="windows", length=128),
    )
    c.eval = dict(split="validation+test", every="1 epoch", monitor="loss", restore_best=True)
    c.optimizer = dict(name="muon", learning_rate=2e-3, consistent_rms=0.2, weight_decay=0.1, clip_norm=1.0)
    c.schedule = dict(name="cosine", warmup="5%", final=0.1)
    c.precision = "float32"
    c.parallel = dict(mode="jit", mesh=dict(data=-1))
    c.train = dict(total="4 epochs")
    c.checkpoint = dict(every="1 epoch")
    return c
