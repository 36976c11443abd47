"""Images as `write_samples` takes them, with attention from nowhere."""

import numpy as np

from jaxformer.observe.samples import Shown


def attention_of(count, layers=4, heads=3, patches=16, prefix=1, seed=0):
    """Softmax weights [count, layers, heads, T, T] of random scores."""
    tokens = patches + prefix
    scores = np.random.default_rng(seed).normal(size=(count, layers, heads, tokens, tokens)) * 2
    weights = np.exp(scores)
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def said_of(label, probabilities, names):
    """What image classification says of an example."""
    order = np.argsort(-probabilities, kind="stable")[:5]
    top = [{"class": names[k], "probability": round(float(probabilities[k]), 6)} for k in order]
    return {"label": names[label], "correct": bool(order[0] == label), "top": top}


def shown_images(images, labels, probabilities, names=None, attention=None):
    """Images as `write_samples` takes them."""
    names = names or [str(k) for k in range(probabilities.shape[-1])]
    maps = attention if attention is not None else [None] * len(images)
    return [
        Shown(said_of(label, p, names), image, weights)
        for image, label, p, weights in zip(images, labels, probabilities, maps, strict=True)
    ]
