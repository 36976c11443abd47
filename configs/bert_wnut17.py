"""A small BERT from scratch that finds named entities in tweets (WNUT-17): an honest baseline without pretraining.

Command:  launch/local.sh train --config configs/bert_wnut17.py
Device:   2 cores of an AMD EPYC, shared with other work
Time:     3:52 min from command to report
Result:   entity F1 0.089 on the test split, 0.914 of the words right (seed 0); 0.42 was the best in 2017

Most entities of the test split do not occur in the 3,394 texts to train on: without pretraining few can be known.
"""

import ml_collections


def get_config():
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(name="token_classification")
    c.model = dict(
        name="bert",
        max_positions=96,
        token_types=0,
        width=128,
        depth=2,
        num_heads=4,
        mlp_dim=256,
        norm_position="pre",
        head="token",
        dropout=0.3,
    )
    c.data = dict(
        name="wnut17",
        train_split="train",
        batch_size=32,
        eval_batch_size=128,
        tokenizer=dict(name="trained", kind="wordpiece", vocab_size=4000, template="bert"),
        examples=dict(name="tagged", length=96, words_feature="tokens", tags_feature="ner"),
        buckets=[32, 56],
    )
    c.eval = dict(split="test", every="4 epochs", monitor="f1")
    c.optimizer = dict(name="adamw", learning_rate=1e-3, weight_decay=0.1, clip_norm=1.0)
    c.schedule = dict(name="cosine", warmup="10%")
    c.precision = "float32"
    c.parallel = dict(mode="jit", mesh=dict(data=-1))
    c.train = dict(total="20 epochs", ema_decay=0.99)
    c.checkpoint = dict(every="5 epochs")
    return c
