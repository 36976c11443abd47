"""Optimizers and schedules by name, imported when they are chosen."""

OPTIMIZERS: dict[str, str] = {
    "sgd": "jaxformer.optim.optimizers:SGD",
    "momentum": "jaxformer.optim.optimizers:Momentum",
    "adam": "jaxformer.optim.optimizers:Adam",
    "adamw": "jaxformer.optim.optimizers:AdamW",
    "adafactor": "jaxformer.optim.optimizers:Adafactor",
    "lion": "jaxformer.optim.optimizers:Lion",
    "lamb": "jaxformer.optim.optimizers:LAMB",
    "muon": "jaxformer.optim.own_rules:Muon",
    "schedule_free": "jaxformer.optim.own_rules:ScheduleFree",
    "prodigy": "jaxformer.optim.own_rules:Prodigy",
    "sophia": "jaxformer.optim.optimizers:Sophia",
}
ADAPTERS: dict[str, str] = {
    "lora": "jaxformer.optim.lora:LoRA",
    "dora": "jaxformer.optim.lora:DoRA",
    "bottleneck": "jaxformer.optim.adapters:Bottleneck",
    "prefix": "jaxformer.optim.adapters:Prefix",
    "prompt": "jaxformer.optim.adapters:Prompt",
}
SCHEDULES: dict[str, str] = {
    "constant": "jaxformer.optim.curves:Constant",
    "linear": "jaxformer.optim.curves:Linear",
    "cosine": "jaxformer.optim.curves:Cosine",
    "inverse_sqrt": "jaxformer.optim.curves:InverseSqrt",
    "wsd": "jaxformer.optim.curves:WarmupStableDecay",
    "one_cycle": "jaxformer.optim.curves:OneCycle",
    "polynomial": "jaxformer.optim.curves:Polynomial",
    "step": "jaxformer.optim.curves:Step",
    "cosine_restarts": "jaxformer.optim.curves:CosineRestarts",
}
