"""What each verb of the command line does. Each takes the parsed flags and the overrides; returns an exit code."""

from jaxformer.verbs.datasets import data
from jaxformer.verbs.evaluating import evaluate
from jaxformer.verbs.generating import generate
from jaxformer.verbs.predicting import predict
from jaxformer.verbs.training import describe, report, train

__all__ = ["data", "describe", "evaluate", "generate", "predict", "report", "train"]
