"""Meshes, and rules that lay out every parameter of every model."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from jaxformer.analysis.hlo import Module
from jaxformer.config.schema import resolve
from jaxformer.errors import UserError
from jaxformer.models.bert import BERT
from jaxformer.models.cnn_attention import ATTENTIONS
from jaxformer.models.gpt import GPT
from jaxformer.models.mlp import Experts
from jaxformer.models.mlp_mixer import MLPMixer
from jaxformer.models.resnet import ResNet
from jaxformer.models.seq2seq import Seq2Seq
from jaxformer.models.vit import ViT
from jaxformer.parallel.compile import Layout, bytes_a_device
from jaxformer.parallel.mesh import make_mesh, mesh_shape
from jaxformer.parallel.rules import param_specs
from jaxformer.paths import leaves_by_path
from jaxformer.state import init_state, init_variables

VIT = ViT(image_size=8, patch_size=4, width=64, depth=2, num_heads=4, num_classes=16)
IMAGE = {"image": np.zeros((1, 8, 8, 3), np.float32)}
TOKENS = {"tokens": np.zeros((1, 4), np.int32)}
SIZES = {"vocab_size": 64, "width": 64, "num_heads": 4}
BOTH_TOWERS = {**SIZES, "encoder_depth": 2, "decoder_depth": 1}


def shapes(model):
    inputs = IMAGE
    if isinstance(model, GPT | BERT | Seq2Seq):
        inputs = {**TOKENS, "decoder_tokens": TOKENS["tokens"]} if isinstance(model, Seq2Seq) else TOKENS
    return jax.eval_shape(lambda: init_variables(model, inputs, jax.random.key(0)))["params"]


def test_one_size_may_be_left_open():
    assert mesh_shape({"data": -1, "tensor": 2}, 8) == {"data": 4, "fsdp": 1, "sequence": 1, "tensor": 2}


@pytest.mark.parametrize("axes", [{"data": 3}, {"data": -1, "fsdp": 3}, {"fsdp": 16}])
def test_sizes_that_do_not_make_up_the_devices(axes):
    with pytest.raises(UserError, match="does not make up the 8 devices"):
        mesh_shape(axes, 8)


def attentive(name):
    module = {"name": name, **({"num_heads": 2} if name == "botnet" else {})}
    fields = {"stage_sizes": (1, 1), "width": 16, "num_classes": 16, "block": "bottleneck"}
    model = resolve(ResNet, fields | {"attention": [{"module": module}]}, "model", errors := [])
    assert not errors
    return model


EVERY_MODEL = {
    "vit": VIT,
    "vit, all options": VIT.clone(
        scan=True, pool="map", registers=2, representation=32, layer_scale=1e-4, qk_norm=True, dropout=0.1
    ),
    "vit, sincos2d": VIT.clone(pool="average", positions="sincos2d"),
    "mixer": MLPMixer(
        image_size=8, patch_size=4, width=32, depth=2, token_mlp_dim=8, channel_mlp_dim=64, num_classes=16
    ),
    "resnet v1.5": ResNet(stage_sizes=(1, 1), width=16, num_classes=16, block="bottleneck", norm="batch"),
    "resnet v2": ResNet(stage_sizes=(1, 1), width=16, num_classes=16, block="basic", version=2, norm="group"),
    **{f"resnet, {name}": attentive(name) for name in ATTENTIONS},
    "gpt": GPT(**SIZES, depth=2),
    "gpt, as llama": GPT(
        **SIZES,
        depth=2,
        num_kv_heads=2,
        qk_norm=True,
        norm="rms",
        use_bias=False,
        activation="swiglu",
        tied=False,
    ),
    "gpt, experts": GPT(
        **SIZES, depth=2, scan=True, experts=Experts(4), activation="swiglu", positions="relative"
    ),
    "bert, mlm": BERT(**SIZES, depth=2, head="mlm"),
    "bert, sequence": BERT(**SIZES, depth=2, head="sequence", num_classes=16, norm_position="pre"),
    "bert, token": BERT(**SIZES, depth=2, head="token", num_classes=16, token_types=0, scan=True),
    "bert, span": BERT(**SIZES, depth=2, head="span"),
    "bert, none": BERT(**SIZES, depth=2, head="none"),
    "transformer": Seq2Seq(**BOTH_TOWERS),
    "t5": Seq2Seq(
        **BOTH_TOWERS, positions="relative", norm="rms", norm_position="pre", use_bias=False, scan=True
    ),
    "two tables": Seq2Seq(**BOTH_TOWERS, positions="learned", norm_position="pre", shared=False, tied=False),
}


@pytest.mark.parametrize("name", EVERY_MODEL)
def test_every_parameter_has_a_rule_of_its_rank(name):
    params = shapes(EVERY_MODEL[name])
    specs = param_specs(params, make_mesh({"data": 2, "fsdp": 2, "tensor": 2}))
    assert len(specs) == len(jax.tree.leaves(params))
    big = {path: leaf for path, leaf in leaves_by_path(params).items() if leaf.size >= 1024}
    assert all(any(axis for axis in specs[path]) for path in big), (
        "a large parameter lies whole on every device"
    )


def test_heads_and_hidden_units_go_to_tensor_and_the_width_to_fsdp():
    specs = param_specs(shapes(VIT), make_mesh({"fsdp": 4, "tensor": 2}))
    assert specs["encoder/block_0/attention/query/kernel"] == P("fsdp", "tensor", None)
    assert specs["encoder/block_0/attention/out/kernel"] == P("tensor", None, "fsdp")
    assert specs["encoder/block_1/mlp/up/kernel"] == P("fsdp", "tensor")
    stacked = param_specs(shapes(VIT.clone(scan=True)), make_mesh({"fsdp": 4, "tensor": 2}))
    assert stacked["encoder/blocks/mlp/down/kernel"] == P(None, "tensor", "fsdp")


def test_experts_and_the_width_go_to_fsdp_and_tokens_to_tensor():
    specs = param_specs(shapes(EVERY_MODEL["gpt, experts"]), make_mesh({"fsdp": 4, "tensor": 2}))
    assert specs["decoder/blocks/experts/up_kernel"] == P(None, "fsdp", None, "tensor")
    assert specs["decoder/blocks/experts/gate_kernel"] == P(None, "fsdp", None, "tensor")
    assert specs["decoder/blocks/experts/down_kernel"] == P(None, "fsdp", "tensor", None)
    assert specs["token_embedding/embedding"] == P("tensor", "fsdp")
    assert specs["relative_bias/embedding"] == P(None, "tensor")
    specs = param_specs(shapes(EVERY_MODEL["two tables"]), make_mesh({"fsdp": 4, "tensor": 2}))
    assert specs["decoder/block_0/cross_attention/query/kernel"] == P("fsdp", "tensor", None)
    assert specs["decoder_embedding/embedding"] == P("tensor", "fsdp")
    assert specs["decoder_position_embedding/embedding"] == P(None, "fsdp")
    assert specs["head/kernel"] == P("fsdp", "tensor")


def test_what_does_not_divide_is_not_split_and_the_log_says_so(caplog):
    caplog.set_level("INFO", logger="jaxformer")
    odd = VIT.clone(num_heads=1, num_classes=15)
    specs = param_specs(shapes(odd), make_mesh({"data": 4, "tensor": 2}))
    assert specs["head/kernel"] == P(None, None)
    first = "encoder/block_0/attention/key/bias: a dimension of 1 is not split by tensor=2 (and 15 more)"
    assert [r.message for r in caplog.records if "is not split" in r.message] == [first]


def test_where_the_width_does_not_divide_fsdp_takes_another_dimension():
    odd = VIT.clone(width=60, mlp_dim=256, scan=True, depth=8)
    specs = param_specs(shapes(odd), make_mesh({"fsdp": 8}))
    assert specs["encoder/blocks/mlp/up/kernel"] == P(None, None, "fsdp")  # [8, 60, 256]
    assert specs["encoder/blocks/attention/query/kernel"] == P(None, None, None, None)  # [8, 60, 4, 15]
    assert specs["encoder/blocks/norm_1/scale"] == P(None, None)  # [8, 60]
    assert specs["encoder/blocks/mlp/up/bias"] == P(None, "fsdp")  # [8, 256]
    specs = param_specs(shapes(odd), make_mesh({"fsdp": 4, "tensor": 2}))
    assert specs["encoder/blocks/mlp/up/kernel"] == P(None, "fsdp", "tensor")  # 4 divides 60
    specs = param_specs(shapes(odd.clone(width=28)), make_mesh({"fsdp": 8}))
    assert specs["encoder/blocks/mlp/down/kernel"] == P(None, "fsdp", None)  # [8, 256, 28]


def test_vectors_of_scanned_layers_are_split_and_of_others_not():
    mesh = make_mesh({"fsdp": 4, "tensor": 2})
    specs = param_specs(shapes(VIT.clone(scan=True)), mesh)
    assert specs["encoder/blocks/norm_1/scale"] == P(None, "fsdp")
    assert specs["encoder/blocks/mlp/down/bias"] == P(None, "fsdp")
    assert specs["encoder/blocks/attention/query/bias"] == P(None, "tensor", "fsdp")  # [L, H, Dh]
    assert specs["norm/scale"] == P(None)
    assert param_specs(shapes(VIT), mesh)["encoder/block_0/norm_1/scale"] == P(None)
    specs = param_specs(shapes(VIT.clone(scan=True)), make_mesh({"data": 8}))
    assert specs["encoder/blocks/norm_1/scale"] == P(None, None)


def test_a_parameter_without_a_rule_is_split_by_its_shape_and_the_log_says_so(caplog):
    caplog.set_level("INFO", logger="jaxformer")
    params = {
        "strange": {"thing": np.zeros((4, 16)), "other": np.zeros(8)},
        "conv": {"kernel": np.zeros((8, 4, 2))},
    }
    specs = param_specs(params, make_mesh({"data": 2, "fsdp": 4}))
    assert specs == {
        "strange/thing": P(None, "fsdp"),
        "strange/other": P(None),
        "conv/kernel": P("fsdp", None, None),  # of another rank than its rule
    }
    (line,) = [r.message for r in caplog.records if "no sharding rule" in r.message]
    assert "conv/kernel (and 2 more)" in line


def make_state(mesh, optimizer=None):
    layout = Layout("jit", make_mesh(mesh))

    def init():
        variables = init_variables(VIT, IMAGE, jax.random.key(0))
        return init_state(variables, optimizer or optax.adam(1e-3), with_average=True)

    return layout, init


def test_bytes_a_device_shrink_with_fsdp():
    layout, init = make_state({"data": 8})
    whole = bytes_a_device(layout.abstract(jax.eval_shape(init)))
    layout, init = make_state({"fsdp": 8})
    abstract = layout.abstract(jax.eval_shape(init))
    assert bytes_a_device(abstract) < whole / 6  # norms and biases stay whole
    assert bytes_a_device(abstract.opt_state) == pytest.approx(2 * bytes_a_device(abstract.params), rel=1e-3)


def test_the_state_is_initialised_as_the_rules_say():
    layout, init = make_state({"fsdp": 4, "tensor": 2})
    state = layout.init_sharded(init, layout.abstract(jax.eval_shape(init)))()
    held = sum(shard.data.nbytes for leaf in jax.tree.leaves(state) for shard in leaf.addressable_shards[:1])
    assert held == bytes_a_device(layout.abstract(jax.eval_shape(init)))
    kernel = state.params["encoder"]["block_0"]["mlp"]["up"]["kernel"]
    moment = state.opt_state[0].mu["encoder"]["block_0"]["mlp"]["up"]["kernel"]
    assert kernel.sharding.spec == moment.sharding.spec == P("fsdp", "tensor")
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(16, 128)}


def test_factored_moments_are_laid_out_too():
    layout, init = make_state({"fsdp": 8}, optax.adafactor(1e-3, min_dim_size_to_factor=32))
    layout.init_sharded(
        init, layout.abstract(jax.eval_shape(init))
    )()  # its factored moments have other shapes than the parameters


@pytest.mark.parametrize("model", [GPT, MLPMixer])
def test_under_fsdp_devices_exchange_parameters_and_no_activations(model):
    """Of a batch whose activations are larger than the parameters: two gathers, and a gradient's sum, at most twice."""
    layout = Layout("jit", make_mesh({"fsdp": 8}))
    if model is GPT:
        made = GPT(vocab_size=64, context_length=64, width=64, num_heads=4, depth=2, scan=True, dropout=0.0)
        inputs = {"tokens": np.zeros((128, 64), np.int32)}
    else:
        made = MLPMixer(image_size=32, patch_size=4, width=64, depth=2, num_classes=8, channel_mlp_dim=256)
        inputs = {"image": np.zeros((128, 32, 32, 3), np.float32)}
    one = {name: x[:1] for name, x in inputs.items()}
    init = jax.eval_shape(lambda: init_state(init_variables(made, one, jax.random.key(0)), optax.sgd(1.0)))
    params = layout.abstract(init).params

    def loss(params, batch):
        return (made.apply({"params": params}, **batch, deterministic=True).logits ** 2).sum()

    shapes = layout.batch_shapes({name: (x.shape[1:], x.dtype) for name, x in inputs.items()}, 128)
    given = jax.tree.map(lambda leaf: leaf.sharding, params)
    step = jax.jit(layout.on_mesh(jax.grad(loss)), out_shardings=given)
    module = Module.read(step.lower(params, shapes).compile().as_text())
    exchanged = module.collectives({"fsdp": 8})
    moved = sum(one.sent * one.times for one in exchanged)
    whole = sum(leaf.size * 4 for leaf in jax.tree.leaves(params))
    assert whole / 2 < moved < 4 * whole
    assert max(one.size for one in exchanged if one.kind == "all-gather") < whole / 2


def test_a_step_gathers_the_vectors_of_scanned_layers_once():
    """In the loop over layers there are gathers of kernels alone."""
    layout, made = Layout("jit", make_mesh({"fsdp": 8})), VIT.clone(scan=True, depth=3)

    def init():
        return init_state(init_variables(made, IMAGE, jax.random.key(0)), optax.sgd(1.0))

    def step(state, batch):
        def loss(params):
            return (made.apply({"params": params}, **batch, deterministic=True).logits ** 2).sum()

        params = jax.tree.map(jnp.subtract, state.params, jax.grad(loss)(state.params))
        return state.replace(params=params), {}

    state = layout.abstract(jax.eval_shape(init))
    batch = layout.batch_shapes({"image": ((8, 8, 3), np.float32)}, 64)
    module = Module.read(layout.train_step(step, state).lower(state, batch).compile().as_text())
    gathers = [one for one in module.collectives({"fsdp": 8}) if one.kind == "all-gather"]
    smallest_kernel = 64 * 64 * 4
    assert {one.times for one in gathers if one.size < smallest_kernel} == {1}
    assert any(one.times == 3 for one in gathers)


def test_a_batch_is_split_over_data_and_fsdp():
    layout = Layout("jit", make_mesh({"data": 2, "fsdp": 2, "tensor": 2}))
    batch = layout.shard_batch({"image": np.arange(8 * 3).reshape(8, 3)})
    assert {shard.data.shape for shard in batch["image"].addressable_shards} == {(2, 3)}
    np.testing.assert_array_equal(batch["image"], np.arange(8 * 3).reshape(8, 3))
