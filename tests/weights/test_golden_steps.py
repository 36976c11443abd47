"""Two of our train steps are two of PyTorch's, family by family: the same weights, batch, loss, clipping and AdamW.

The references are the models of transformers and timm, with PyTorch's own losses and optimizer.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
import pytest
import test_timm_maxxvit
from flax.traverse_util import flatten_dict
from helpers.image_parity import channels_first, randomised, tensors_of
from helpers.image_parity import shapes_of as image_shapes_of
from helpers.parity import build, shapes_of, text
from helpers.timm_reference import timm

from jaxformer.models.resnet import ResNet
from jaxformer.models.vit import ViT
from jaxformer.state import init_state
from jaxformer.step import make_train_step
from jaxformer.tasks.classification import Classification
from jaxformer.tasks.language import CausalLM, MaskedLM
from jaxformer.tasks.text_classification import TextClassification
from jaxformer.tasks.translation import Translation
from jaxformer.weights.timm import CONVNEXT as CONVNEXT
from jaxformer.weights.timm import MAXXVIT as MAXXVIT
from jaxformer.weights.timm import RESNET as RESNET
from jaxformer.weights.timm import SWIN as SWIN
from jaxformer.weights.timm import VIT
from jaxformer.weights.transformers_config import family_of, model_of

# A large epsilon: a first step of Adam's is the sign of the gradient, and rounding decides the sign of zeros.
RATE, EPSILON, DECAY, CLIP, STEPS = 1e-2, 1e-2, 0.1, 0.3, 2
VOCAB, CLASSES, SIZE = 41, 5, 16
TOKENS, MASK = text(3, 11, VOCAB, (11, 7, 9))
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
LABELS = np.array([0, 3, 4], np.int32)


@dataclass
class Case:
    """A family's model and its reference."""

    model: Any
    task: Any
    batch: dict
    reference: Any
    loss: Any
    """() -> the loss of the reference, a scalar of PyTorch."""
    read: Any
    """() -> the reference's variables as ours."""


def targets_of(mask):
    """A token to predict at most places, -1 at the others and on padding."""
    rng = np.random.default_rng(5)
    targets = rng.integers(3, VOCAB, size=mask.shape)
    return np.where(mask & (rng.random(mask.shape) < 0.8), targets, -1).astype(np.int32)


def of_transformers(name, config, task, batch, inputs, their_loss):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    config = getattr(transformers, config[0])(**config[1])
    torch.manual_seed(0)
    reference = getattr(transformers, name)(config).eval()
    config = {**config.to_dict(), "architectures": [name]}
    model, family = build(*model_of(config)), family_of(config)
    shapes = shapes_of(model, task.inputs(batch))

    def read():
        source = {key: value.detach().numpy().copy() for key, value in reference.state_dict().items()}
        return family.read(source, shapes)

    arguments = {key: torch.from_numpy(value.copy()) for key, value in inputs.items()}
    return Case(model, task, batch, reference, lambda: their_loss(reference(**arguments).logits), read)


def cross_entropy(labels):
    """Of PyTorch: the mean over what is not -1."""

    def loss(logits):
        import torch

        wanted = torch.from_numpy(labels.astype(np.int64)).reshape(-1)
        return torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), wanted, ignore_index=-1
        )

    return loss


def gpt2():
    targets = targets_of(MASK)
    batch = {"tokens": TOKENS.astype(np.int32), "token_mask": MASK, "targets": targets}
    sizes = {"vocab_size": VOCAB, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_inner": 20, "n_positions": 17}
    inputs = {"input_ids": TOKENS, "attention_mask": MASK.astype(np.int64)}
    config = ("GPT2Config", {**sizes, "bos_token_id": 1, "eos_token_id": 2, **NO_DROPOUT})
    return of_transformers("GPT2LMHeadModel", config, CausalLM(), batch, inputs, cross_entropy(targets))


def llama():
    targets = targets_of(MASK)
    batch = {"tokens": TOKENS.astype(np.int32), "token_mask": MASK, "targets": targets}
    sizes = {
        "vocab_size": VOCAB, "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 17,
    }  # fmt: skip
    inputs = {"input_ids": TOKENS, "attention_mask": MASK.astype(np.int64)}
    config = ("LlamaConfig", sizes)
    return of_transformers("LlamaForCausalLM", config, CausalLM(), batch, inputs, cross_entropy(targets))


BERT = {
    "vocab_size": VOCAB, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 20, "max_position_embeddings": 17, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


def bert_masked():
    targets = targets_of(MASK)
    types = np.random.default_rng(2).integers(0, 2, size=TOKENS.shape)
    batch = {"tokens": TOKENS.astype(np.int32), "token_mask": MASK, "targets": targets}
    batch["token_types"] = types.astype(np.int32)
    inputs = {"input_ids": TOKENS, "attention_mask": MASK.astype(np.int64), "token_type_ids": types}
    config = ("BertConfig", BERT)
    return of_transformers("BertForMaskedLM", config, MaskedLM(), batch, inputs, cross_entropy(targets))


def bert_classes():
    batch = {"tokens": TOKENS.astype(np.int32), "token_mask": MASK, "labels": LABELS}
    batch["token_types"] = np.zeros_like(batch["tokens"])
    inputs = {"input_ids": TOKENS, "attention_mask": MASK.astype(np.int64)}
    config = ("BertConfig", {**BERT, "num_labels": CLASSES})
    name, loss = "BertForSequenceClassification", cross_entropy(LABELS)
    return of_transformers(name, config, TextClassification(), batch, inputs, loss)


def t5():
    decoder_tokens, decoder_mask = text(3, 8, VOCAB, (8, 5, 8))
    targets = targets_of(decoder_mask)
    batch = {
        "tokens": TOKENS.astype(np.int32), "token_mask": MASK, "targets": targets,
        "decoder_tokens": decoder_tokens.astype(np.int32),
    }  # fmt: skip
    inputs = {
        "input_ids": TOKENS,
        "attention_mask": MASK.astype(np.int64),
        "decoder_input_ids": decoder_tokens,
    }
    sizes = {
        "vocab_size": VOCAB, "d_model": 24, "d_kv": 10, "d_ff": 20, "num_layers": 2, "num_decoder_layers": 2,
        "num_heads": 6, "feed_forward_proj": "relu", "tie_word_embeddings": True, "dropout_rate": 0.0,
    }  # fmt: skip
    task = Translation(label_smoothing=0.0)
    name, config = "T5ForConditionalGeneration", ("T5Config", sizes)
    return of_transformers(name, config, task, batch, inputs, cross_entropy(targets))


def of_timm(model, reference, read, train, size=SIZE):
    image = np.random.default_rng(0).integers(0, 256, size=(3, size, size, 3)).astype(np.uint8)
    normalised = channels_first(((image / 255 - 0.5) / 0.5).astype(np.float32))
    loss = cross_entropy(LABELS)
    reference = randomised(reference).train(train)
    shapes = image_shapes_of(model, size)
    batch = {"image": image, "labels": LABELS}
    return Case(
        model,
        Classification(),
        batch,
        reference,
        lambda: loss(reference(normalised)),
        lambda: read(tensors_of(reference), shapes),
    )


def vit():
    timm()
    from timm.models.vision_transformer import VisionTransformer

    sizes = {"patch_size": 4, "depth": 2, "num_heads": 4, "num_classes": CLASSES}
    model = ViT(image_size=SIZE, width=32, mlp_dim=128, activation="gelu_erf", **sizes)
    reference = VisionTransformer(img_size=SIZE, embed_dim=32, **sizes)
    return of_timm(model, reference, partial(read_from, VIT), train=False)


def resnet():
    timm()
    import torch
    from timm.models import resnet

    reference = resnet.ResNet(resnet.Bottleneck, (1, 1), num_classes=CLASSES, channels=(64, 128))
    reference.layer3, reference.layer4 = torch.nn.Identity(), torch.nn.Identity()
    model = ResNet(stage_sizes=(1, 1), num_classes=CLASSES)
    return of_timm(model, reference, partial(read_from, RESNET), train=True)


def swin():
    timm()
    from timm.models.swin_transformer import SwinTransformer

    sizes = {"num_heads": (1, 2), "num_classes": CLASSES}
    reference = SwinTransformer(
        img_size=32, window_size=4, depths=(2, 2), embed_dim=8, drop_path_rate=0, **sizes
    )
    model = build("swin", {"stage_sizes": (2, 2), "width": 8, "window": 4, **sizes})
    return of_timm(model, reference, partial(read_from, SWIN), train=False, size=32)


def convnext():
    timm()
    from timm.models.convnext import ConvNeXt

    reference = ConvNeXt(depths=(1, 2, 1, 1), dims=(8, 16, 32, 64), num_classes=CLASSES)
    model = build("convnext", {"stage_sizes": (1, 2, 1, 1), "width": 8, "num_classes": CLASSES})
    return of_timm(model, reference, partial(read_from, CONVNEXT), train=False, size=35)


def coatnet():
    return of_maxxvit(*test_timm_maxxvit.coatnet())


def maxvit():
    return of_maxxvit(*test_timm_maxxvit.maxvit())


def of_maxxvit(fields, config):
    size, reference = test_timm_maxxvit.SIZE, test_timm_maxxvit.reference_of(config)
    model = test_timm_maxxvit.build({**fields, "drop_path": 0.0})
    return of_timm(model, reference, partial(read_from, MAXXVIT), train=True, size=size)


def read_from(family, tensors, shapes):
    return family.read(tensors, shapes)


@pytest.mark.parametrize(
    "family",
    [
        *(gpt2, llama, bert_masked, bert_classes, t5, vit, resnet, swin, convnext, coatnet),
        pytest.param(maxvit, marks=pytest.mark.slow),  # test_timm_maxxvit.py compares its gradients
    ],
    ids=lambda f: f.__name__,
)
def test_two_steps_are_those_of_pytorch(family):
    case = family()
    import torch

    variables = case.read()
    theirs = torch.optim.AdamW(case.reference.parameters(), lr=RATE, eps=EPSILON, weight_decay=DECAY)
    expected = []
    for _ in range(STEPS):
        theirs.zero_grad()
        loss = case.loss()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(case.reference.parameters(), CLIP)
        theirs.step()
        expected.append((loss.item(), norm.item()))
    assert expected[0][1] > CLIP  # or clipping is not tried

    optimizer = optax.chain(
        optax.clip_by_global_norm(CLIP), optax.adamw(RATE, eps=EPSILON, weight_decay=DECAY)
    )
    state = init_state(variables, optimizer)
    step = jax.jit(make_train_step(case.model, case.task, optimizer, seed=0))
    found = []
    for _ in range(STEPS):
        state, metrics = step(state, case.batch)
        found.append((float(metrics["loss"]), float(metrics["gradient_norm"])))
    np.testing.assert_allclose(found, expected, rtol=2e-4)
    after = flatten_dict(case.read()["params"], sep="/")
    before = flatten_dict(variables["params"], sep="/")
    for path, ours in flatten_dict(state.params, sep="/").items():
        moved = np.abs(np.asarray(after[path]) - np.asarray(before[path])).max()
        np.testing.assert_allclose(ours, after[path], rtol=1e-4, atol=2e-2 * moved + 1e-7, err_msg=path)
