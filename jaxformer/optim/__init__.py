"""Optimizers and schedules by name, and what makes them of a config."""

from jaxformer.optim.build import make_optimizer, optimizer_problems
from jaxformer.optim.masks import decay_mask, regularization, trainable_mask
from jaxformer.optim.schedule import make_schedule, schedule_problems

OPTIMIZERS: dict[str, str] = {
    "sgd": "jaxformer.optim.momentum:SGD",
    "momentum": "jaxformer.optim.momentum:Momentum",
    "adam": "jaxformer.optim.adam:Adam",
    "adamw": "jaxformer.optim.adam:AdamW",
    "adafactor": "jaxformer.optim.adam:Adafactor",
    "lion": "jaxformer.optim.momentum:Lion",
    "lamb": "jaxformer.optim.adam:LAMB",
    "muon": "jaxformer.optim.muon:Muon",
    "schedule_free": "jaxformer.optim.tuning_free:ScheduleFree",
    "prodigy": "jaxformer.optim.tuning_free:Prodigy",
    "sophia": "jaxformer.optim.momentum:Sophia",
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

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "decay_mask",
    "make_optimizer",
    "make_schedule",
    "optimizer_problems",
    "regularization",
    "schedule_problems",
    "trainable_mask",
]
