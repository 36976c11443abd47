"""Whether attention and the train step are right on a GPU, against float32 and against the CPU.

    python benchmarks/gpu/checks.py attention|step [--quick] [--device cpu|gpu] [--json FILE]

"attention": what `jaxformer.models.attention.attention` takes there in bfloat16 (cuDNN's kernel where it can be taken)
and XLA's form in bfloat16, both against XLA's form in float32 at the highest precision, forwards and backwards, with
milliseconds of both passes. An error is |x - reference| / |reference|. The kernel's may be twice that of XLA's form,
or 1%, the rounding of bfloat16.

"step": three train steps of small models in float32 at the highest precision, on the device and on the
CPU, from the same state: losses and parameters. In bfloat16 the first loss and gradient norm are within 2%.
"""

import argparse
import statistics
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

sys.path.append(str(Path(__file__).resolve().parents[1]))
from common import add_device_options, record, timed, use_device

from jaxformer.config import schema
from jaxformer.models import MODELS
from jaxformer.models.attention import attention, plain_attention
from jaxformer.models.fused import KERNELS
from jaxformer.models.masks import Mask
from jaxformer.models.placement import platform
from jaxformer.parallel.compile import Layout
from jaxformer.parallel.mesh import make_mesh
from jaxformer.precision import in_precision
from jaxformer.state import TrainState, init_state, init_variables
from jaxformer.step import make_train_step
from jaxformer.tasks.classification import Classification
from jaxformer.tasks.language import CausalLM

Tree = Any
STEPS = 3


def attention_cases(quick: bool) -> dict[str, tuple[tuple[int, ...], int, int, Mask]]:
    """A name -> the query's shape [B, H, T, Dh], the key heads, the keys and the mask."""
    rows = 2 if quick else 8
    keys = np.arange(256)[None] < np.linspace(64, 256, rows, dtype=int)[:, None]
    segments = np.sort(np.random.default_rng(0).integers(1, 5, (rows, 256)), axis=1).astype(np.int32)
    return {
        "GPT-2": ((rows, 12, 64 if quick else 1024, 64), 12, 64 if quick else 1024, Mask(causal=True)),
        "ViT-B/16": ((rows, 12, 197, 64), 12, 197, Mask()),
        "heads of 128": ((rows, 8, 256, 128), 8, 256, Mask(causal=True)),
        "heads of 80": ((rows, 4, 256, 80), 4, 256, Mask()),
        "a window": ((rows, 8, 256, 64), 8, 256, Mask(causal=True, window=32)),
        "shared key heads": ((rows, 8, 256, 64), 2, 256, Mask(causal=True)),
        "cross-attention": ((rows, 8, 96, 64), 8, 256, Mask()),
        "padding": ((rows, 8, 256, 64), 8, 256, Mask(keys=keys)),
        "segments": ((rows, 8, 256, 64), 8, 256, Mask(causal=True, segments=segments)),
    }


def check_attention(shape: tuple[int, ...], kv_heads: int, keys: int, mask: Mask) -> dict[str, Any]:
    """The result of a case."""
    random = np.random.default_rng(1)
    shapes = [shape, *[(shape[0], kv_heads, keys, shape[3])] * 2, shape]
    *operands, weight = (jnp.asarray(random.normal(size=s), jnp.bfloat16) for s in shapes)
    scale, allowed = shape[3] ** -0.5, mask.array(shape[2], keys)
    kernel = KERNELS.get(platform())
    against = list(kernel.problems(*operands[:2], None, mask)) if kernel else ["no kernel"]

    def taken(query, key, value):
        return attention(query, key, value, mask=mask, scale=scale)

    def plain(query, key, value):
        return plain_attention(query, key, value, None, allowed, scale)

    with jax.default_matmul_precision("highest"):
        exact, _ = both_passes(plain, *(x.astype(jnp.float32) for x in (*operands, weight)))
    ours, ours_seconds = both_passes(taken, *operands, weight)
    xla, xla_seconds = both_passes(plain, *operands, weight)
    errors, of_xla = (
        {name: difference(*pair) for name, *pair in zip(("out", "query", "key", "value"), found, exact)}
        for found in (ours, xla)
    )
    return {
        "ok": all(error <= max(2 * of_xla[name], 0.01) for name, error in errors.items()),
        "kernel": None if against else kernel.name,
        "why_not": against,
        "errors": errors,
        "errors_of_xla": of_xla,
        "milliseconds": 1000 * ours_seconds,
        "milliseconds_of_xla": 1000 * xla_seconds,
    }


def both_passes(attend: Callable, *arrays: Any) -> tuple[Tree, float]:
    """The result and the gradients of query, key and value for a weight of the result; and seconds of both passes."""

    @jax.jit
    def passes(query, key, value, weight):
        out, backwards = jax.vjp(attend, query, key, value)
        return out, *backwards(weight.astype(out.dtype))

    found = jax.block_until_ready(passes(*arrays))
    return found, statistics.median(timed(lambda: jax.block_until_ready(passes(*arrays))) for _ in range(9))


def difference(x: Tree, y: Tree) -> float:
    """|x - y| / |y| over all leaves."""
    leaves = [[np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)] for tree in (x, y)]
    apart = sum(np.sum((mine - theirs) ** 2) for mine, theirs in zip(*leaves))
    return float(np.sqrt(apart / sum(np.sum(theirs**2) for theirs in leaves[1])))


def step_cases(quick: bool) -> dict[str, tuple[dict[str, Any], Any, dict[str, np.ndarray]]]:
    """A name -> a model's fields, its task and a batch."""
    random = np.random.default_rng(0)
    tokens = random.integers(0, 256, (4, 129)).astype(np.int32)
    texts = {"tokens": tokens[:, :-1], "targets": tokens[:, 1:]}
    images = {
        "image": random.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8),
        "labels": random.integers(0, 10, 8).astype(np.int32),
    }
    small = {"width": 128, "depth": 2, "num_heads": 2}
    vit = {"name": "vit", **small, "mlp_dim": 256, "num_classes": 10, "image_size": 64, "patch_size": 8}
    resnet = {"name": "resnet", "stage_sizes": (1, 1), "num_classes": 10}
    hybrid = vit | {"patch_size": 1, "backbone": resnet | {"num_classes": 0, "norm": "group"}}
    cases = {
        "gpt": ({"name": "gpt", **small, "vocab_size": 256, "context_length": 128}, CausalLM(), texts),
        "hybrid": (hybrid, Classification(), images),
        "vit, scanned": (vit | {"scan": True}, Classification(), images),
        "resnet": (resnet, Classification(), images),
    }
    return {name: cases[name] for name in list(cases)[: 1 if quick else None]}


def take_steps(
    device: Any, fields: dict[str, Any], task: Any, batch: dict[str, np.ndarray], dtype: str
) -> tuple[list[dict[str, float]], Tree]:
    """The metrics of some steps on a device, and the parameters after them."""
    cpu = jax.devices("cpu")[0]
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9))
    layout, here = (Layout("jit", make_mesh({"data": 1}, [where])) for where in (device, cpu))
    build = partial(schema.build, MODELS, fields, "model")

    def init() -> TrainState:
        return init_state(init_variables(build(), task.inputs(batch), jax.random.key(0)), optimizer)

    with jax.default_device(cpu):  # both start alike
        state = jax.device_get(jax.jit(here.on_mesh(init))())
    shapes = layout.abstract(jax.eval_shape(lambda: state))
    state = jax.tree.map(lambda x, shape: jax.device_put(x, shape.sharding), state, shapes)
    step = layout.train_step(make_train_step(in_precision(build(), dtype), task, optimizer, seed=0), shapes)
    rows, metrics = layout.shard_batch(batch), []
    for _ in range(STEPS):
        state, each = step(state, rows)
        metrics.append({name: float(each[name]) for name in ("loss", "gradient_norm")})
    return metrics, jax.device_get(state.params)


def check_step(fields: dict[str, Any], task: Any, batch: dict[str, np.ndarray]) -> dict[str, Any]:
    """The result of a case."""
    device, cpu = jax.devices()[0], jax.devices("cpu")[0]
    with jax.default_matmul_precision("highest"):
        there, here = (take_steps(where, fields, task, batch, "float32") for where in (device, cpu))
    short = take_steps(device, fields, task, batch, "bfloat16")[0][0]
    error = difference(there[1], here[1])
    losses = difference([m["loss"] for m in there[0]], [m["loss"] for m in here[0]])
    rounded = max(abs(short[name] / here[0][0][name] - 1) for name in short)
    return {
        "ok": error < 1e-4 and losses < 1e-4 and rounded < 0.02,
        "error_of_parameters": error,
        "error_of_losses": losses,
        "error_of_bfloat16": rounded,
        "losses": [m["loss"] for m in there[0]],
    }


def result_or_error(check: Callable[..., dict[str, Any]], case: tuple[Any, ...]) -> dict[str, Any]:
    """The result of a case, or how it failed: the next ones are tried all the same."""
    try:
        return check(*case)
    except Exception as error:
        traceback.print_exc()
        return {"ok": False, "error": f"{type(error).__name__}: {error}"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["attention", "step"])
    parser.add_argument("--quick", action="store_true", help="few or small cases: does it run?")
    add_device_options(parser)
    arguments = parser.parse_args()
    use_device(arguments)
    attends = arguments.what == "attention"
    check, cases = (
        (check_attention, attention_cases(arguments.quick))
        if attends
        else (check_step, step_cases(arguments.quick))
    )
    found = []
    for name, case in cases.items():
        result = {"case": name, **result_or_error(check, case)}
        found.append(result["ok"])
        print(result, flush=True)
        record(arguments.json, work=f"check of the {arguments.what}", **result)
    return 0 if all(found) else 1


if __name__ == "__main__":
    sys.exit(main())
