"""Kinds of examples: a name in a config -> the class that it names, imported when it is chosen."""

KINDS: dict[str, str] = {
    "detection": "jaxformer.data.kinds.detection:Detection",
    "documents": "jaxformer.data.kinds.documents:Documents",
    "images": "jaxformer.data.kinds.images:Images",
    "pairs": "jaxformer.data.kinds.pairs:Pairs",
    "segmentation": "jaxformer.data.kinds.segmentation:Segmentation",
    "sequences": "jaxformer.data.kinds.sequences:Sequences",
    "spans": "jaxformer.data.kinds.spans:Spans",
    "tagged": "jaxformer.data.kinds.tagged:Tagged",
    "windows": "jaxformer.data.kinds.windows:Windows",
}
