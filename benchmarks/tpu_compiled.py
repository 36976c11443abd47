"""Train steps of ours and of others, compiled by the TPU's compiler for the same slice: what each would cost there.

    python benchmarks/tpu_compiled.py [--topology v5e:2x2] [--models gpt2 vit-b16] [--depth 12] [--scan] [--quick]
                                      [--big-vision FOLDER] [--nanodo FOLDER] [--json FILE]

No TPU is needed and nothing runs: every figure is an estimate, or what the compiled program says of itself. All are
data parallel, in bfloat16 with parameters in float32, without remat, with clipping and AdamW: GPT-2 with 16 texts of
1,024 tokens a chip and ViT-B/16 with 64 images. Ours is the package's own train step; the tutorial form is that of
linen_peers.py under optax and autodiff. Checkouts of google-research/big_vision and of google-deepmind/nanodo give
their ViT and decoder, in the same plain step.

Cycles are the compiler's own estimates, summed over what runs, loops as often as they do. It has none for kernels
(custom calls of Pallas): theirs are what their products would take at 40% of the peak. Bytes are those that
instructions take and give in the chip's main memory, and those that a chip sends where the chips stand in a ring.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"  # what runs here; the compiler is asked by name

import jax
import jax.numpy as jnp
import linen_peers
import numpy as np
import optax
from common import record

from jaxformer.analysis.flops import count_flops, kernel_flops
from jaxformer.analysis.hlo import Module
from jaxformer.analysis.preflight import KERNEL_SHARE
from jaxformer.analysis.traffic import memory_bytes
from jaxformer.models.gpt import GPT
from jaxformer.models.vit import ViT
from jaxformer.observe.device import peak_flops
from jaxformer.parallel.compile import Layout, compiled
from jaxformer.parallel.mesh import make_mesh
from jaxformer.parallel.topologies import VERSIONS, topology, topology_devices
from jaxformer.state import TrainState, init_state, init_variables
from jaxformer.step import make_train_step
from jaxformer.tasks.classification import Classification
from jaxformer.tasks.language import CausalLM

Tree = Any
DTYPE = jnp.dtype("bfloat16")
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3, weight_decay=0.1))


@dataclass(frozen=True)
class Sizes:
    """Those of a model and of its batch."""

    depth: int
    scan: bool
    width: int = 768
    heads: int = 12
    length: int = 1024
    vocabulary: int = 50_304
    texts: int = 16  # a chip
    images: int = 64  # a chip
    side: int = 224


@dataclass(frozen=True)
class Form:
    """A train step to compile."""

    start: Callable[[], TrainState]
    """() -> its state; only shapes are asked for."""
    step: Callable[[TrainState, Tree], tuple[TrainState, Tree]]
    """(state, batch) -> (state, metrics)."""


def ours(model: Any, task: Any, inputs: dict[str, Any]) -> Form:
    """The package's train step."""

    def start() -> TrainState:
        return init_state(init_variables(model, task.inputs(inputs), jax.random.key(0)), OPTIMIZER)

    return Form(start, make_train_step(model, task, OPTIMIZER, seed=0))


def plain(model: Any, loss: Callable[[Any, Tree, Tree], jax.Array], example: jax.Array) -> Form:
    """A step as tutorials write it.

    Args:
      loss: (a function from inputs to logits, batch) -> the mean loss.
      example: an input of the model.
    """

    def start() -> TrainState:
        return init_state(model.init(jax.random.key(0), example), OPTIMIZER)

    def step(state: TrainState, batch: Tree) -> tuple[TrainState, jax.Array]:
        def loss_of(params: Tree) -> jax.Array:
            return loss(partial(model.apply, {"params": params}), batch)

        value, gradients = jax.value_and_grad(loss_of)(state.params)
        updates, moments = OPTIMIZER.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return state.replace(step=state.step + 1, params=params, opt_state=moments), value

    return Form(start, step)


def mean_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean cross-entropy, in float32."""
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels).mean()


def loss_of_texts(apply: Callable, batch: Tree) -> jax.Array:
    """That of the next tokens."""
    return mean_loss(apply(batch["tokens"]), batch["targets"])


def loss_of_images(apply: Callable, batch: Tree) -> jax.Array:
    """That of the classes; images come as bytes, as ours do."""
    logits = apply(batch["image"].astype(jnp.float32) / 127.5 - 1)
    return mean_loss(logits[0] if isinstance(logits, tuple) else logits, batch["labels"])


def gpt_forms(sizes: Sizes, arguments: argparse.Namespace) -> dict[str, Form]:
    """Decoders by name."""
    width, depth, heads = sizes.width, sizes.depth, sizes.heads
    tokens = np.zeros((1, sizes.length), np.int32)
    model = GPT(
        vocab_size=sizes.vocabulary,
        context_length=sizes.length,
        width=width,
        depth=depth,
        num_heads=heads,
        scan=sizes.scan,
        dtype=DTYPE,
    )
    tutorial = linen_peers.GPT(sizes.vocabulary, sizes.length, width, depth, heads, sizes.scan, DTYPE)
    forms = {
        "jaxformer": ours(model, CausalLM(), {"tokens": tokens, "targets": tokens}),
        "tutorial": plain(tutorial, loss_of_texts, tokens),
    }
    if arguments.nanodo:
        sys.path.insert(0, str(arguments.nanodo))
        from nanodo.model import DoConfig, TransformerDo

        fields = {
            "D": width,
            "H": heads,
            "L": sizes.length,
            "N": depth,
            "V": sizes.vocabulary,
            "F": 4 * width,
        }
        config = DoConfig(**fields, dtype=DTYPE, fsdp_enabled=False)
        forms["nanodo"] = plain(TransformerDo(config), loss_of_texts, tokens)
    return forms


def vit_forms(sizes: Sizes, arguments: argparse.Namespace) -> dict[str, Form]:
    """Vision Transformers by name."""
    width, depth, heads, classes = sizes.width, sizes.depth, sizes.heads, 1000
    image, labels = np.zeros((1, sizes.side, sizes.side, 3), np.uint8), np.zeros(1, np.int32)
    model = ViT(
        image_size=sizes.side,
        patch_size=16,
        width=width,
        depth=depth,
        mlp_dim=4 * width,
        num_heads=heads,
        num_classes=classes,
        scan=sizes.scan,
        dtype=DTYPE,
    )
    pixels = np.zeros(image.shape, np.float32)
    tutorial = linen_peers.ViT(16, width, depth, heads, 4 * width, classes, sizes.scan, DTYPE)
    forms = {
        "jaxformer": ours(model, Classification(), {"image": image, "labels": labels}),
        "tutorial": plain(tutorial, loss_of_images, pixels),
    }
    if arguments.big_vision:
        sys.path.insert(0, str(arguments.big_vision))
        sys.modules["big_vision.utils"] = ModuleType("utils")  # it reads checkpoints, by TensorFlow
        from big_vision.models.vit import Model

        fields = {
            "width": width,
            "depth": depth,
            "num_heads": heads,
            "mlp_dim": 4 * width,
            "pool_type": "tok",
        }
        theirs = Model(
            num_classes=classes, patch_size=(16, 16), **fields, scan=sizes.scan, dtype_mm="bfloat16"
        )
        forms["big_vision"] = plain(theirs, loss_of_images, pixels)
    return forms


def batch_of(name: str, sizes: Sizes, chips: int) -> tuple[dict[str, Any], int]:
    """A batch's arrays, as shapes and dtypes of an example, and how many examples it has."""
    if name == "gpt2":
        text = ((sizes.length,), np.dtype("int32"))
        return {"tokens": text, "targets": text}, sizes.texts * chips
    image = ((sizes.side, sizes.side, 3), np.dtype("uint8"))
    return {"image": image, "labels": ((), np.dtype("int32"))}, sizes.images * chips


def figures(form: Form, layout: Layout, batch: Tree) -> dict[str, Any]:
    """What the compiled step says of itself."""
    state = layout.abstract(jax.eval_shape(form.start))
    start = time.perf_counter()
    traced = layout.train_step(form.step, state).trace(state, batch)
    program = compiled(traced.lower(), layout.mesh)
    seconds = time.perf_counter() - start
    module, memory = Module.read(program.as_text()), program.memory_analysis()
    exchanged = module.collectives(dict(layout.mesh.shape))
    return {
        "temporaries_bytes": memory.temp_size_in_bytes,
        "estimated_cycles": module.cycles(),
        "memory_bytes": memory_bytes(module),
        "collectives": sum(each.times for each in exchanged),
        "sent_bytes": sum(each.sent * each.times for each in exchanged),
        "kernels": module.kernels(),
        "kernel_flops": kernel_flops(traced.jaxpr.jaxpr),
        "compile_seconds": seconds,
    }


FORMS = {"gpt2": gpt_forms, "vit-b16": vit_forms}
HEADER = (
    "form",
    "estimated cycles, M",
    "of them kernels",
    "over ours",
    "temporaries, MiB",
    "read and written, GiB",
    "sent, MiB (collectives)",
    "compiling, s",
)


def row(form: str, found: dict[str, Any], cycles: dict[str, float], a_cycle: float) -> str:
    """A line of a table.

    Args:
      found: the form's figures.
      cycles: those of the forms before it, to which its own are added.
      a_cycle: FLOPs that a chip has in a cycle.
    """
    kernels = found["kernel_flops"] / KERNEL_SHARE / a_cycle
    cycles[form] = found["estimated_cycles"] + kernels
    cells = (
        form,
        f"{cycles[form] / 1e6:,.1f}",
        f"{kernels / 1e6:,.1f} ({found['kernels']})" if found["kernels"] else "none",
        f"{cycles[form] / cycles['jaxformer']:.2f}",
        f"{found['temporaries_bytes'] / 2**20:,.0f}",
        f"{found['memory_bytes'] / 2**30:,.1f}",
        f"{found['sent_bytes'] / 2**20:,.0f} ({found['collectives']})",
        f"{found['compile_seconds']:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def report(arguments: argparse.Namespace) -> Iterator[str]:
    """Lines of tables, as programs are compiled."""
    sizes = Sizes(arguments.depth, arguments.scan)
    if arguments.quick:
        sizes = replace(
            sizes, depth=2, width=128, heads=2, length=128, vocabulary=512, texts=2, images=2, side=64
        )
    devices = topology_devices(arguments.topology)
    layout = Layout("jit", make_mesh({"data": -1}, devices))
    peak = peak_flops(devices[0].device_kind, DTYPE.name)
    assert peak is not None, "every TPU has a peak"
    a_cycle = peak / VERSIONS[topology(arguments.topology)[0]].figures.clock
    for name in arguments.models:
        spec, examples = batch_of(name, sizes, len(devices))
        batch = layout.batch_shapes(spec, examples)
        forms = FORMS[name](sizes, arguments)
        plainest = forms["tutorial"]
        flops = count_flops(plainest.step, jax.eval_shape(plainest.start), batch) / len(devices)
        layers = f"{sizes.depth} layers, {'scanned' if sizes.scan else 'unrolled'}"
        a_chip = f"{examples // len(devices)} examples a chip of {arguments.topology}"
        yield f"\n{name}, {layers}, {a_chip}; its products take {flops / a_cycle / 1e6:,.1f} M cycles at the peak:\n"
        yield f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}"
        cycles: dict[str, float] = {}
        for form, made in forms.items():
            found = figures(made, layout, batch)
            yield row(form, found, cycles, a_cycle)
            about = {"work": name, "form": form, "topology": arguments.topology, "depth": sizes.depth}
            record(arguments.json, **about, scan=sizes.scan, flops_a_chip=flops, **found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topology", default="v5e:2x2", help="a slice of TPUs: v5e:4x4, v5p-32")
    parser.add_argument("--models", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--depth", type=int, default=12, help="layers; 12 unrolled ones take minutes")
    parser.add_argument("--scan", action="store_true", help="all scan over their layers; nanodo cannot")
    parser.add_argument("--quick", action="store_true", help="tiny models: does it run?")
    parser.add_argument("--big-vision", type=Path, help="a checkout of google-research/big_vision")
    parser.add_argument("--nanodo", type=Path, help="a checkout of google-deepmind/nanodo")
    parser.add_argument("--json", type=Path, metavar="FILE", help="a file to which a line a form is added")
    for line in report(parser.parse_args()):
        print(line, flush=True)


if __name__ == "__main__":
    main()
