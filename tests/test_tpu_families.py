"""A tiny model of each family with attention, forwards and backwards, by the TPU's compiler for devices that are not
here: the kernels are in place where they apply, and programs fit on meshes of data, fsdp, sequence and tensor."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from helpers.tiny_models import tiny_model

from jaxformer.models import fused
from jaxformer.models.attention import attention
from jaxformer.parallel import topologies
from jaxformer.parallel.compile import Layout, compiled
from jaxformer.parallel.mesh import make_mesh
from jaxformer.parallel.topologies import topology_devices
from jaxformer.precision import in_precision

pytestmark = pytest.mark.skipif(
    topologies.find_spec("libtpu") is None,
    reason='libtpu, the TPU\'s compiler, is not installed: pip install "jaxformer[aot]"',
)
WIDTH = {"width": 128, "num_heads": 4, "mlp_dim": 128}
VIT = {**WIDTH, "name": "vit", "image_size": 64, "patch_size": 8, "depth": 1, "num_classes": 5}
COATNET = {"image_size": 64, "widths": [32, 128], "stem_widths": [16, 16], "head_dim": 32}
BACKBONE = VIT | {"num_classes": 0}
DETR = {**WIDTH, "backbone": BACKBONE, "num_queries": 40}  # one encoder block, two decoder blocks
BOTH = {"fsdp": 2, "tensor": 2}
MASKED = ("tokens", "token_mask")
TEXTS = ("tokens", "token_mask", "decoder_tokens")
# The family, what makes its model large enough for the kernels, its inputs, a mesh, and its layers of attention.
FAMILIES = [
    ("vit", VIT, ("image",), BOTH, 1),
    ("gpt", {**WIDTH, "depth": 1, "context_length": 64}, ("tokens",), {"data": 4}, 1),
    ("gpt", {**WIDTH, "depth": 1, "context_length": 64}, ("tokens",), {"tensor": 4}, 1),
    ("bert", {**WIDTH, "depth": 1, "max_positions": 64}, MASKED, {"fsdp": 4}, 1),
    # A device's queries are attended to in halves, so that all devices work as long.
    ("gpt", {**WIDTH, "depth": 1, "context_length": 512}, ("tokens",), {"data": 2, "sequence": 2}, 2),
    ("seq2seq", {**WIDTH, "positions": "relative", "context_length": 64}, TEXTS, BOTH, 3),
    ("segmenter", {"backbone": BACKBONE, "decoder": {"name": "linear"}}, ("image",), BOTH, 1),
    pytest.param(
        *("bert", {**WIDTH, "depth": 1, "max_positions": 64}, MASKED, {"data": 2, "sequence": 2}, 1),
        marks=pytest.mark.slow,
    ),
    pytest.param("detr", DETR, ("image",), BOTH, 6, marks=pytest.mark.slow),
    pytest.param("coatnet", COATNET, ("image",), BOTH, 1, marks=pytest.mark.slow),
]


@struct.dataclass
class Variables:
    """As much of a train state as tells where its arrays lie."""

    params: Any
    batch_stats: Any


def program(name, fields, inputs, axes):
    """A model's loss and gradients in bfloat16, compiled for four TPUs."""
    model = in_precision(tiny_model(name, **{k: v for k, v in fields.items() if k != "name"}), "bfloat16")
    layout = Layout("jit", make_mesh({"data": 1} | axes, topology_devices("v5e:2x2")))
    kinds = {"image": ((64, 64, 3), jnp.float32), "token_mask": ((64,), jnp.bool_)}
    if fields.get("image_size"):
        kinds["image"] = ((fields["image_size"], fields["image_size"], 3), jnp.float32)
    text = (fields.get("context_length", 64),)
    specs = {each: kinds.get(each, (text, jnp.int32)) for each in inputs}
    batch = {each: jax.ShapeDtypeStruct((8, *shape), dtype) for each, (shape, dtype) in specs.items()}
    variables = jax.eval_shape(lambda key, batch: model.init(key, **batch), jax.random.key(0), batch)
    state = Variables(variables["params"], variables.get("batch_stats", {}))

    def loss(state, batch):
        outputs = model.apply({"params": state.params, "batch_stats": state.batch_stats}, **batch)
        seen = [getattr(outputs, field, None) for field in ("logits", "boxes")]
        return sum(jnp.sum(jnp.sin(x.astype(jnp.float32))) for x in seen if x is not None)

    given = (layout.shardings(state), dict.fromkeys(batch, layout.batch_sharding))
    step = jax.jit(layout.on_mesh(jax.grad(loss)), in_shardings=given, out_shardings=given[0])
    return compiled(step.lower(state, batch), layout.mesh)


@pytest.mark.parametrize(("name", "fields", "inputs", "axes", "layers"), FAMILIES)
def test_every_layer_has_a_kernel_forwards_and_one_backwards(name, fields, inputs, axes, layers):
    with fused.choices() as taken:
        text = program(name, fields, inputs, axes).as_text()
    assert text.count('custom_call_target="tpu_custom_call"') == 2 * layers, sorted(taken)


LARGE = (16, 4, 197, 64)  # rows, heads, tokens and the head's size


@pytest.mark.parametrize("axes", [{"data": 4}, {"tensor": 4}, BOTH], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_a_kernel_leaves_nothing_of_the_size_of_the_weights(axes, bias):
    """XLA's form has [B, H, T, S] in memory; the kernel has none, forwards and backwards."""
    layout = Layout("jit", make_mesh({"data": 1} | axes, topology_devices("v5e:2x2")))
    rows, all_rows = layout.batch_sharding, layout.replicated
    shapes = [jax.ShapeDtypeStruct(LARGE, jnp.bfloat16, sharding=rows)] * 3
    shapes += [jax.ShapeDtypeStruct((1, 4, 197, 197), jnp.float32, sharding=all_rows)] * bias

    def attend(query, key, value, bias=None):
        return jnp.sum(attention(query, key, value, bias=bias, scale=0.1).astype(jnp.float32))

    step = jax.jit(layout.on_mesh(jax.grad(attend, argnums=tuple(range(len(shapes))))))
    memory = compiled(step.lower(*shapes), layout.mesh).memory_analysis()
    weights = math.prod((16, 4, 197, 197)) * np.dtype(np.float16).itemsize // 4
    assert memory.temp_size_in_bytes < weights
