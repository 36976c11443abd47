"""What the command line can do: a group of verbs a file, a class each. Only here and in cli.py are there flags.

Heavy imports stand inside the verbs, so that help and mistakes answer at once.
"""

from jaxformer.launching import LAUNCHERS

VERBS = {
    "train": "train:Train",
    "evaluate": "measuring:Evaluate",
    "fewshot": "measuring:Fewshot",
    "perplexity": "measuring:Perplexity",
    "harness": "measuring:Harness",
    "probe": "probe:Probe",
    "predict": "predict:Predict",
    "explain": "predict:Explain",
    "generate": "generate:Generate",
    "replay": "debug:Replay",
    "chaos": "chaos:Chaos",
    "report": "report:Report",
    "goodput": "train:Goodput",
    "describe": "describe:Describe",
    "preflight": "preflight:Preflight",
    "cross-validate": "cross_validate:CrossValidate",
    "sweep": "sweep:Sweep",
    "sweep work": "sweep:SweepWork",
    "sweep best": "sweep_best:SweepBest",
    **{f"launch {where}": f"launch:{where}" for where in LAUNCHERS},
    "models": "models:Models",
    "models show": "models:ModelsShow",
    "weights import": "weights:WeightsImport",
    "weights export": "weights:WeightsExport",
    "weights soup": "weights:WeightsSoup",
    "data list": "data:DataList",
    "data show": "data:DataShow",
    "data import": "data:DataImport",
    "data tokenizer train": "texts:TokenizerTrain",
    "data tokenizer show": "texts:TokenizerShow",
    "data back-translate": "texts:BackTranslate",
}
