"""Tasks: a name in a config -> the class that it names."""

TASKS = {
    "captioning": "jaxformer.tasks.captioning:Captioning",
    "classification": "jaxformer.tasks.classification:Classification",
    "coca": "jaxformer.tasks.coca:Coca",
    "contrastive": "jaxformer.tasks.contrastive:Contrastive",
    "detection": "jaxformer.tasks.detection:Detection",
    "causal_lm": "jaxformer.tasks.language:CausalLM",
    "masked_lm": "jaxformer.tasks.language:MaskedLM",
    "segmentation": "jaxformer.tasks.segmentation:Segmentation",
    "text_classification": "jaxformer.tasks.text_classification:TextClassification",
    "text_pairs": "jaxformer.tasks.text_pairs:TextPairs",
    "text_regression": "jaxformer.tasks.text_classification:TextRegression",
    "token_classification": "jaxformer.tasks.tagging:TokenClassification",
    "span_qa": "jaxformer.tasks.spans:SpanQA",
    "translation": "jaxformer.tasks.translation:Translation",
}
