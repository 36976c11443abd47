"""What the command line can do: a verb a file, a class each. Only here and in cli.py are there flags.

Heavy imports stand inside the verbs, so that help and mistakes answer at once.
"""

VERBS = {
    "train": "train:Train",
    "evaluate": "evaluate:Evaluate",
    "fewshot": "fewshot:Fewshot",
    "perplexity": "perplexity:Perplexity",
    "harness": "harness:Harness",
    "predict": "predict:Predict",
    "explain": "explain:Explain",
    "generate": "generate:Generate",
    "report": "report:Report",
    "describe": "describe:Describe",
    "data list": "data_list:DataList",
    "data show": "data_show:DataShow",
    "data import": "data_import:DataImport",
    "data tokenizer train": "tokenizer_train:TokenizerTrain",
    "data tokenizer show": "tokenizer_show:TokenizerShow",
    "data back-translate": "back_translate:BackTranslate",
}
