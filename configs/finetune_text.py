"""A pretrained encoder, fine-tuned on texts of your own: a table with a column of texts and one of labels.

Command:  launch/local.sh train --config configs/finetune_text.py --workdir runs/reviews \
              --config.data.name=csv:reviews.csv --config.model.pretrained=path/of/all-MiniLM-L6-v2
          launch/local.sh predict runs/reviews "a text of several words"
Variants: finetune_text.py:head trains the head alone, finetune_text.py:lora low-rank changes (docs/transfer.md)
Result:   as good as your texts; minilm_sst2.py has what these recipes reach on SST-2

Reads "jsonl:reviews.jsonl" as well, and datasets by name. Columns called otherwise than text and label are named by
--config.data.examples.features="['words']" and --config.data.examples.label_feature=stars. A fifth of the rows is held
out to evaluate on, always the same. The model is anything that docs/weights.md lists; its folder gives the tokenizer.
"""

import ml_collections
from ml_collections.config_dict import placeholder


def get_config(arg="full"):
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(name="text_classification")
    c.model = dict(pretrained=placeholder(str), head="sequence")
    c.data = dict(
        name="csv:reviews.csv",
        train_split="train",
        batch_size=32,
        eval_batch_size=128,
        examples=dict(name="sequences", length=128, features=["text"]),
        buckets=[24, 40, 64],
    )
    c.eval = dict(split="test", every="1 epoch", monitor="accuracy")
    # The rates that Devlin et al. (2019, appendix A.3) search over are 2e-5, 3e-5 and 5e-5.
    c.optimizer = dict(name="adamw", learning_rate=5e-5, weight_decay=0.01, clip_norm=1.0)
    c.schedule = dict(name="linear", warmup="10%")
    c.precision = "float32"
    c.train = dict(total="3 epochs")
    c.checkpoint = dict(every="1 epoch")
    if arg == "head":
        c.optimizer = dict(name="adamw", learning_rate=1e-2, clip_norm=1.0, train_only=["head", "pooler"])
    elif arg == "lora":
        c.adapter = dict(name="lora", kernels=["attention/(query|key|value|out)", "mlp"], rank=8, alpha=16.0)
        c.optimizer.update(learning_rate=5e-4, weight_decay=0.0)
    elif arg != "full":
        raise ValueError(f"{arg!r}: expected full, head or lora")
    return c
