"""Models: a name in a config -> the linen module that it names, imported when it is chosen."""

MODELS = {
    "vit": "jaxformer.models.vit:ViT",
    "mlp_mixer": "jaxformer.models.mlp_mixer:MLPMixer",
    "resnet": "jaxformer.models.resnet:ResNet",
}
