"""A whole train step of a published size, ours against transformers with PyTorch: the same work, in turns.

    python benchmarks/finetune_step.py [--quick] [--model minilm-l6|clip-vit-b32] [--batch N] [--rounds 7] [--steps 2]
                                       [--dtype float32 bfloat16] [--device cpu|gpu] [--sides jaxformer peer]
                                       [--compile BACKEND] [--json FILE]

Forward pass, backward pass and AdamW. "minilm-l6" is all-MiniLM-L6-v2 as a classifier of texts, fine-tuned as a whole
with dropout: 32 texts of 64 tokens. "clip-vit-b32" is CLIP ViT-B/32 under the softmax loss over the batch: 16 pairs of
a picture of 224 pixels and a text of 8 to 77 tokens. Weights are random. Ours is the package's own train step with its
metrics (accuracy; norms of gradients, parameters and updates), jitted, its state donated. The peer is transformers'
model with its default attention (scaled_dot_product_attention), its own loss and fused AdamW; torch.autocast is its
bfloat16. See train_step.py for how time is taken.
"""

import argparse
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import (
    Step,
    Work,
    add_compile_option,
    add_device_options,
    compare,
    our_step,
    torch_device,
    torch_step,
    use_device,
)
from flax import linen as nn

from jaxformer.analysis.flops import count_flops, training_flops
from jaxformer.config import schema
from jaxformer.models import MODELS
from jaxformer.models.presets import preset
from jaxformer.precision import in_precision
from jaxformer.tasks.contrastive import Contrastive
from jaxformer.tasks.text_classification import TextClassification
from jaxformer.weights.towers_config import CLIP
from jaxformer.weights.transformers_written import config_of

LEARNING_RATE, WEIGHT_DECAY, CLASSES = 5e-5, 0.01, 2
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Tuned:
    """What is trained."""

    task: Any
    """Our task."""
    fields: Mapping[str, Any]
    """Fields of the preset that a training sets."""
    batch: Callable[[nn.Module, int, np.random.Generator], Arrays]
    """Makes a batch of so many examples."""
    count: int
    """How many examples a batch has."""
    unit: str
    """What these are."""
    peer: Callable[[nn.Module, Arrays], tuple[Any, Callable[[Any], Any]]]
    """transformers' model of the same shape, and the loss of what `given` gives."""


def texts(model: nn.Module, count: int, random: np.random.Generator) -> Arrays:
    """Texts of 64 tokens, without padding, and a class of each."""
    tokens = random.integers(0, model.vocab_size, (count, 64), dtype=np.int32)
    labels = random.integers(0, CLASSES, count).astype(np.int32)
    return {"tokens": tokens, "token_mask": np.ones(tokens.shape, bool), "labels": labels}


def pairs(model: nn.Module, count: int, random: np.random.Generator) -> Arrays:
    """Noise, and texts that end with the last token of the vocabulary."""
    length, side = model.context_length, model.image_size
    mask = np.arange(length) < random.integers(8, length + 1, count)[:, None]
    tokens = np.where(mask, random.integers(0, model.vocab_size - 2, mask.shape), 0)
    tokens[np.arange(count), mask.sum(1) - 1] = model.vocab_size - 1
    image = random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    numbers = np.arange(count, dtype=np.int32)
    words = {"tokens": tokens.astype(np.int32), "token_mask": mask}
    return {"image": image, **words, "picture": numbers, "caption": numbers}


def bert(model: nn.Module, batch: Arrays) -> tuple[Any, Callable[[Any], Any]]:
    """transformers' classifier of texts, and its loss."""
    from transformers import BertConfig, BertForSequenceClassification

    network = BertForSequenceClassification(BertConfig(**config_of(model, "bert")))
    return (
        network,
        lambda given: (
            network(
                input_ids=given["tokens"], attention_mask=given["token_mask"], labels=given["labels"]
            ).loss
        ),
    )


def clip(model: nn.Module, batch: Arrays) -> tuple[Any, Callable[[Any], Any]]:
    """transformers' CLIP, and its loss."""
    from transformers import CLIPConfig, CLIPModel

    network = CLIPModel(CLIPConfig(**CLIP.config_of(model, ())))
    return (
        network,
        lambda given: (
            network(
                input_ids=given["tokens"],
                pixel_values=given["image"].permute(0, 3, 1, 2).float() / 127.5 - 1,
                attention_mask=given["token_mask"],
                return_loss=True,
            ).loss
        ),
    )


TUNED = {
    "minilm-l6": Tuned(
        TextClassification(), {"head": "sequence", "num_classes": CLASSES}, texts, 32, "texts", bert
    ),
    "clip-vit-b32": Tuned(Contrastive(), {}, pairs, 16, "pairs", clip),
}


def peer(tuned: Tuned, model: nn.Module, batch: Arrays, dtype: str, arguments: argparse.Namespace) -> Step:
    """The step of PyTorch."""
    import torch

    device = torch_device(arguments)
    network, loss_of = tuned.peer(model, batch)
    network.to(device).train()
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    given = {
        name: torch.from_numpy(array if name == "image" else array.astype(np.int64)).to(device)
        for name, array in batch.items()
    }
    return torch_step(network, lambda: loss_of(given).float(), optimizer, None, dtype, arguments.compile)


def report(arguments: argparse.Namespace) -> Iterator[str]:
    """Lines of the comparison, as they are measured."""
    name, tuned = arguments.model, TUNED[arguments.model]
    count = arguments.batch or tuned.count

    def model_of(dtype: str) -> nn.Module:
        return in_precision(schema.build(MODELS, preset(name, **tuned.fields), "model"), dtype)

    model = model_of("float32")
    batch = tuned.batch(model, count, np.random.default_rng(0))
    optimizer = optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    inputs = {
        key: jax.ShapeDtypeStruct(x.shape, jnp.float32 if key == "image" else x.dtype)
        for key, x in tuned.task.inputs(batch).items()
    }
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), **x), inputs)
    flops = training_flops(count_flops(lambda v, x: model.apply(v, **x), shapes, inputs))
    yield (
        f"{name}, batch {count}: {flops / 1e9:.1f} GFLOP a step; {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}; compile={arguments.compile}"
    )
    builders: dict[str, Callable[[str], Step]] = {
        "jaxformer": lambda dtype: our_step(model_of(dtype), tuned.task, batch, optimizer),
        "peer": lambda dtype: peer(tuned, model, batch, dtype, arguments),
    }
    work = Work(f"{name}, {count} {tuned.unit}", flops, count, tuned.unit)
    yield from compare(work, builders, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=list(TUNED), default="minilm-l6")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 1 step, batch 2: does it run?")
    parser.add_argument("--batch", type=int, help="examples, where not those of the model above")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2, help="counted steps in a turn")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    add_device_options(parser)
    add_compile_option(parser)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.batch, arguments.rounds, arguments.steps = 2, 2, 1
    use_device(arguments)
    for line in report(arguments):
        print(line, flush=True)


if __name__ == "__main__":
    main()
