"""GPT-3's eight sizes (Brown et al. 2020, table 2.1), to describe rather than to train.

Command:  jaxformer describe --config configs/gpt3_presets.py:gpt3-175b --mesh data=8,fsdp=64,tensor=8 --no-compile
Device:   any: nothing is computed.
Result:   parameters, bytes a device and FLOPs a step of each size; batches, rates and schedule are the paper's.

The argument is a preset's name, gpt3-125m if there is none. Alternating dense and locally banded sparse layers, as
the paper has them, are `--config.model.window=256 --config.model.window_every=2` (the paper does not give the band).
"""

import ml_collections

from jaxformer.config.schema import did_you_mean
from jaxformer.errors import UserError
from jaxformer.models.presets import preset

# name: tokens in a batch, learning rate (table 2.1).
RECIPES = {
    "gpt3-125m": (0.5e6, 6.0e-4),
    "gpt3-350m": (0.5e6, 3.0e-4),
    "gpt3-760m": (0.5e6, 2.5e-4),
    "gpt3-1.3b": (1e6, 2.0e-4),
    "gpt3-2.7b": (1e6, 1.6e-4),
    "gpt3-6.7b": (2e6, 1.2e-4),
    "gpt3-13b": (2e6, 1.0e-4),
    "gpt3-175b": (3.2e6, 0.6e-4),
}
LENGTH = 2048  # tokens in a text (section 2.1)


def get_config(arg=None):
    name = arg or "gpt3-125m"
    if name not in RECIPES:
        raise UserError(f"gpt3_presets has no argument {name!r}; {did_you_mean(name, RECIPES)}")
    tokens, rate = RECIPES[name]
    batch = (
        round(tokens / LENGTH / 64) * 64
    )  # the paper's 3.2M tokens are 1,562.5 texts: here a multiple of 64
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.task = dict(name="causal_lm")
    c.model = preset(name, scan=True, remat="full")
    c.data = dict(
        name="openwebtext",
        batch_size=batch,
        tokenizer=dict(name="file", path="gpt2_tokenizer", template="gpt"),
        examples=dict(name="windows", length=LENGTH),
    )
    c.eval = dict(split="validation", every="1_000 steps", monitor="loss")
    # Appendix B: Adam with b1 0.9, b2 0.95, epsilon 1e-8, gradients clipped at 1, weight decay 0.1; a warm-up over 375M
    # tokens, then a cosine to 10% over 260B of 300B tokens.
    c.optimizer = dict(
        name="adamw", learning_rate=rate, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.1, clip_norm=1.0
    )
    steps = round(300e9 / (batch * LENGTH))
    c.schedule = dict(name="cosine", warmup=f"{round(375e6 / (batch * LENGTH))} steps", final=0.1)
    c.precision = "bfloat16"
    c.train = dict(total=f"{steps} steps")
    return c
