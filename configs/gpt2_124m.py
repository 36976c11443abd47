"""GPT-2 124M on OpenWebText, for GPUs and TPUs: the recipe of nanoGPT (config/train_gpt2.py).

Command:  jaxformer train --config configs/gpt2_124m.py
          (8 devices with 80 GB; with fewer or smaller ones set --config.train.accumulate)
Device:   not run here in full; the tests take two steps of it on tiny shapes.
Result:   nanoGPT reports a validation loss of 2.85 after 600,000 steps of 0.5M tokens (its README).

The dataset "openwebtext" is the user's own: `jaxformer data import text` or a TFDS dataset with a feature `text`.
"""

import ml_collections

from jaxformer.models.presets import preset


def get_config():
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(name="causal_lm")
    # 50,257 rows for the tokens, rounded up to a multiple of 128, which splits over devices and is faster.
    # Layers are not scanned over: by the compiler's estimate a step on TPUs takes 0.74 of the time (docs/preflight.md);
    # compiling takes 2.4 times as long.
    c.model = preset("gpt2", vocab_size=50_304)
    c.data = dict(
        name="openwebtext",
        train_split="train",
        batch_size=480,
        eval_batch_size=64,
        tokenizer=dict(
            name="file", path="gpt2_tokenizer", template="gpt"
        ),  # a folder of vocab.json and merges.txt
        examples=dict(name="windows", length=1024),
    )
    c.eval = dict(split="validation", every="1_000 steps", monitor="loss")
    # nanoGPT decays every matrix, the position table too.
    c.optimizer = dict(
        name="adamw",
        learning_rate=6e-4,
        b1=0.9,
        b2=0.95,
        weight_decay=0.1,
        clip_norm=1.0,
        no_decay=["[^/]*bias$", "[^/]*scale$"],
    )
    c.schedule = dict(name="cosine", warmup="2_000 steps", final=0.1)
    c.precision = "bfloat16"
    c.parallel = dict(mode="jit", mesh=dict(data=-1))
    c.train = dict(total="600_000 steps", accumulate=1)
    c.checkpoint = dict(every="1_000 steps", keep=2)
    return c
