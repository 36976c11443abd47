"""Models: a name in a config -> the linen module that it names, imported when it is chosen."""

MODELS = {
    "vit": "jaxformer.models.vit:ViT",
    "mlp_mixer": "jaxformer.models.mlp_mixer:MLPMixer",
    "gpt": "jaxformer.models.gpt:GPT",
    "bert": "jaxformer.models.bert:BERT",
    "seq2seq": "jaxformer.models.seq2seq:Seq2Seq",
    "resnet": "jaxformer.models.resnet:ResNet",
}
