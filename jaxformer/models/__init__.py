"""Models: a name in a config -> the linen module that it names, imported when it is chosen."""

# Image models: classifiers, and backbones of whatever needs feature maps (`ImageOutputs.maps`).
BACKBONES = {
    "cct": "jaxformer.models.cct:CCT",
    "coatnet": "jaxformer.models.coatnet:CoAtNet",
    "conv_stem": "jaxformer.models.conv_stem:ConvStem",
    "convnext": "jaxformer.models.convnext:ConvNeXt",
    "cvt": "jaxformer.models.cvt:CvT",
    "efficientnet": "jaxformer.models.efficientnet:EfficientNet",
    "maxvit": "jaxformer.models.maxvit:MaxViT",
    "mit": "jaxformer.models.mit:MiT",
    "mlp_mixer": "jaxformer.models.mlp_mixer:MLPMixer",
    "resnet": "jaxformer.models.resnet:ResNet",
    "swin": "jaxformer.models.swin:Swin",
    "vit": "jaxformer.models.vit:ViT",
}

# Models that read a text for another one.
TEXT_ENCODERS = {"bert": "jaxformer.models.bert:BERT", "gpt": "jaxformer.models.gpt:GPT"}

CONTRACT = "jaxformer.models.base:Model"  # of models of the user's own

MODELS = {
    **BACKBONES,
    **TEXT_ENCODERS,
    "captioner": "jaxformer.models.captioner:Captioner",
    "coca": "jaxformer.models.coca:CoCa",
    "detr": "jaxformer.models.detr:DETR",
    "segmenter": "jaxformer.models.segmenter:Segmenter",
    "seq2seq": "jaxformer.models.seq2seq:Seq2Seq",
    "text_pairs": "jaxformer.models.text_pairs:TextPairs",
    "two_towers": "jaxformer.models.two_towers:TwoTowers",
}
