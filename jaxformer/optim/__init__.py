"""Optimizers and schedules by name, and what makes them of a config."""

from jaxformer.optim.build import make_optimizer, optimizer_problems
from jaxformer.optim.masks import decay_mask, regularization, trainable_mask
from jaxformer.optim.optimizers import OPTIMIZERS, eval_params
from jaxformer.optim.schedules import SCHEDULES, make_schedule, schedule_problems

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "decay_mask",
    "eval_params",
    "make_optimizer",
    "make_schedule",
    "optimizer_problems",
    "regularization",
    "schedule_problems",
    "trainable_mask",
]
