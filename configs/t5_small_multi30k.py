"""T5's blocks at a size for a laptop, from scratch on Multi30k (en-de); `:small` is T5-small's own size, for a GPU.

Command:  launch/local.sh train --config configs/t5_small_multi30k.py
Device:   2 cores of an AMD EPYC, shared with other work
Time:     7:20 min from command to report
Result:   BLEU 17.8 greedy, chrF 38.7, cased and detokenised, on test_2016_flickr after 4 epochs (seed 0);
          nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0

It is still far from converged; `transformer_multi30k` is the one to translate with. T5-small itself was not run.
"""

import ml_collections

from jaxformer.errors import UserError
from jaxformer.models.presets import preset


def get_config(arg=None):
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(name="translation", label_smoothing=0.1, beams=1)
    if arg not in (None, "small"):
        raise UserError(f"t5_small_multi30k has no argument {arg!r}; there is: small")
    c.model = preset("t5-small", vocab_size=None, context_length=64, dropout=0.1)
    if arg is None:
        laptop = dict(width=128, num_heads=4, head_dim=32, mlp_dim=256, encoder_depth=2, decoder_depth=2)
        c.model.update(laptop)
    c.data = dict(
        name="multi30k",
        train_split="train",
        batch_size=128,
        eval_batch_size=128,
        tokenizer=dict(name="trained", kind="unigram", vocab_size=6000, template="t5"),
        examples=dict(name="pairs", length=56, source_feature="en", target_feature="de"),
        buckets=[16, 20, 28],
    )
    c.eval = dict(split="test", every="2 epochs", monitor="bleu")
    c.optimizer = dict(name="adafactor", learning_rate=1e-2)
    c.schedule = dict(name="inverse_sqrt", warmup="10%")
    c.precision = "float32"
    c.parallel = dict(mode="jit", mesh=dict(data=-1))
    c.train = dict(total="4 epochs")
    c.checkpoint = dict(every="2 epochs")
    return c
