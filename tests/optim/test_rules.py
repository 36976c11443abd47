"""Rules by parameter path: decay, freezing, multipliers, layer-wise decay, clipping, regularisation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.trees import LAYERS, flat, optimizer, quadratic, stack, train, update, vit_params

from jaxformer.optim import OPTIMIZERS
from jaxformer.optim.base import is_pattern
from jaxformer.optim.build import make_optimizer, optimizer_problems
from jaxformer.optim.masks import decay_mask, regularization, trainable_mask

LAYOUTS = {"unrolled": lambda tree: tree, "stacked": stack}


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return LAYOUTS[request.param]


def zeros(params):
    return jax.tree.map(jnp.zeros_like, params)


def ratios(config, params, gradients):
    """Path -> the update over minus the gradient, for each layer, under SGD at rate 1."""
    updates, gradients = flat(update(config, params, gradients)), flat(gradients)
    found = {}
    for path in updates:
        ratio = -updates[path] / gradients[path]
        layers = ratio.reshape(LAYERS, -1) if "blocks/" in path else ratio.reshape(1, -1)
        assert np.allclose(layers, layers[:, :1], rtol=1e-5), path
        for i, value in enumerate(layers[:, 0]):
            found[path.replace("blocks/", f"block_{i}/")] = float(value)
    return found


def test_only_kernels_decay(layout):
    params = layout(vit_params())
    updates = flat(update(optimizer("sgd", learning_rate=0.5, weight_decay=0.2), params, zeros(params)))
    for path, weight in flat(params).items():
        share = 0.1 if path.endswith("kernel") else 0.0
        np.testing.assert_allclose(updates[path], -share * weight, rtol=1e-6, err_msg=path)
    mask = flat(decay_mask(optimizer("sgd"), params))
    assert {path for path, decays in mask.items() if decays} == {p for p in mask if p.endswith("kernel")}


def test_no_decay_is_the_configs():
    params = vit_params()
    mask = flat(decay_mask(optimizer("sgd", no_decay=["head", "encoder/block_1"]), params))
    assert {path for path, decays in mask.items() if not decays} == {
        path for path in mask if path.startswith(("head/", "encoder/block_1/"))
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_parameters_stay_and_have_no_state(name, layout):
    params = layout(vit_params())
    frozen = ("patch_embedding", "encoder", "class_token")
    config = optimizer(name, freeze=frozen)
    tx = make_optimizer(config, optax.constant_schedule(0.1), params)
    trained = {path: value for path, value in params.items() if path not in frozen}
    alone = make_optimizer(optimizer(name), optax.constant_schedule(0.1), trained)

    def size(state):
        return sum(x.nbytes for x in jax.tree.leaves(state))

    assert size(tx.init(params)) == size(alone.init(trained))
    updates = jax.jit(lambda p: tx.update(p, tx.init(p), p, obj_fn=quadratic)[0])(params)
    moved = {path.split("/")[0] for path, value in flat(updates).items() if value.any()}
    assert moved == set(trained)


def test_sophias_loss_gets_frozen_parameters_too():
    params = {"encoder": {"kernel": jnp.array([3.0])}, "head": {"kernel": jnp.array([2.0])}}
    config = optimizer("sophia", b2=0.0, freeze=["encoder"])
    tx = make_optimizer(config, optax.constant_schedule(0.1), params)

    def loss(p):
        return jnp.sum(p["encoder"]["kernel"] ** 2 * p["head"]["kernel"] ** 2) / 2

    state = tx.update(jax.grad(loss)(params), tx.init(params), params, obj_fn=loss)[1]
    np.testing.assert_allclose(optax.tree.get(state, "nu")["head"]["kernel"], [9.0], rtol=1e-6)


def test_trainable_mask(layout):
    mask = flat(trainable_mask(optimizer("sgd", freeze=["encoder", r"[^/]*bias"]), layout(vit_params())))
    assert {path for path, trains in mask.items() if trains} == {
        "patch_embedding/kernel",
        "class_token",
        "position_embedding",
        "norm/scale",
        "head/kernel",
    }


def test_frozen_parameters_do_not_count_in_the_norm():
    params = {"head": {"kernel": jnp.array([3.0, 4.0])}, "encoder": {"kernel": jnp.array([1e6])}}
    config = optimizer("sgd", learning_rate=1.0, clip_norm=1.0, freeze=["encoder"])
    np.testing.assert_allclose(update(config, params, params)["head"]["kernel"], [-0.6, -0.8], rtol=1e-6)


def test_multipliers_first_pattern_counts(layout):
    params, gradients = layout(vit_params(0)), layout(vit_params(1))
    config = optimizer(
        "sgd",
        learning_rate=1.0,
        learning_rate_multipliers=[("encoder/block_1/mlp", 0.25), ("encoder/block_[12]", 0.5), ("head", 10)],
    )
    for path, ratio in ratios(config, params, gradients).items():
        expected = 10.0 if path.startswith("head") else 1.0
        if path.startswith(("encoder/block_1", "encoder/block_2")):
            expected = 0.25 if path.startswith("encoder/block_1/mlp") else 0.5
        assert ratio == pytest.approx(expected, rel=1e-5), path


def test_layer_decay(layout):
    params, gradients = layout(vit_params(0)), layout(vit_params(1))
    config = optimizer(
        "sgd", learning_rate=1.0, layer_decay=0.5, learning_rate_multipliers=[("head/kernel", 3.0)]
    )
    layers = {"patch_embedding": 0, "class_token": 0, "position_embedding": 0, "norm": 4, "head": 4}
    for path, ratio in ratios(config, params, gradients).items():
        parts = path.split("/")
        layer = int(parts[1][-1]) + 1 if parts[0] == "encoder" else layers[parts[0]]
        expected = 0.5 ** (4 - layer) * (3 if path == "head/kernel" else 1)
        assert ratio == pytest.approx(expected, rel=1e-5), path


def test_layer_decay_of_a_residual_network_counts_blocks_over_stages():
    names = (
        "conv_stem",
        "stage_1_block_0/conv_1",
        "stage_2_block_0/conv_1",
        "stage_2_block_1/conv_1",
        "head",
    )
    params = {}
    for name in names:
        node = params
        for part in name.split("/"):
            node = node.setdefault(part, {})
        node["kernel"] = jnp.ones((1, 1, 2, 2))
    found = flat(update(optimizer("sgd", learning_rate=1.0, layer_decay=0.5), params, params))
    assert [float(-found[f"{name}/kernel"].max()) for name in names] == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]


def test_multipliers_scale_the_decay_too():
    params = {"head": {"kernel": jnp.ones((2, 2))}}
    config = optimizer("adamw", weight_decay=0.5, learning_rate_multipliers=[("head", 0.1)])
    found = update(config, params, zeros(params))["head"]["kernel"]
    np.testing.assert_allclose(found, -0.1 * 0.1 * 0.5 * np.ones((2, 2)), rtol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_stacked_layers_move_as_unrolled_ones(name):
    """With every rule on: what is measured by parameter is measured by layer."""
    fields = {
        "clip_norm": 2.0,
        "clip_value": 0.5,
        "agc": 0.1,
        "layer_decay": 0.7,
        "learning_rate_multipliers": [("encoder/block_0/norm_1", 2.0)],
        **({} if name == "adam" else {"weight_decay": 0.1}),
        **({"min_dim_size_to_factor": 4} if name == "adafactor" else {}),
    }
    config, params = optimizer(name, **fields), vit_params(layers=2)
    params = {"head": params["head"], "encoder": params["encoder"]}
    for block in params["encoder"].values():
        block["attention"] = {"query": {"kernel": block["attention"]["query"]["kernel"]}}
    unrolled, _ = train(config, params, quadratic, steps=2)
    stacked, _ = train(config, stack(params), quadratic, steps=2)
    unrolled, stacked = flat(stack(unrolled)), flat(stacked)
    for path, value in unrolled.items():
        np.testing.assert_allclose(stacked[path], value, rtol=1e-4, atol=1e-5, err_msg=path)
        assert np.abs(value - flat(stack(params))[path]).max() > 0, path


def test_clipping_by_value_then_by_norm():
    gradient = {"a": np.array([3.0, -0.5], "f4"), "b": np.array([[-7.0]], "f4")}
    config = optimizer("sgd", learning_rate=1.0, clip_value=2.0, clip_norm=1.5)
    clipped = np.array([2.0, -0.5, -2.0])
    clipped *= min(1, 1.5 / np.linalg.norm(clipped))
    found = update(config, gradient, gradient)
    np.testing.assert_allclose([*found["a"], *found["b"][0]], -clipped, rtol=1e-6)
    small = jax.tree.map(lambda x: 0.01 * x, gradient)
    np.testing.assert_allclose(update(config, gradient, small)["a"], -small["a"], rtol=1e-6)


def test_adaptive_clipping_by_unit(layout):
    """The norm of what feeds one output, of one row of a table, or of a whole vector (Brock et al. 2021)."""
    params, gradients = layout(vit_params(0)), layout(vit_params(1))
    found = flat(update(optimizer("sgd", learning_rate=1.0, agc=0.3), params, gradients))
    clipped = 0
    for path, g in flat(gradients).items():
        w, g = flat(params)[path].astype(np.float64), g.astype(np.float64)
        first = 1 if "blocks/" in path else 0
        axes = tuple(range(first, g.ndim))
        if path.startswith(("class_token", "position_embedding")):
            axes = axes[-1:]
        elif path.endswith("query/kernel"):
            axes = axes[:1]
        elif path.endswith("kernel"):
            axes = axes[:-1]
        norms = [np.sqrt((x**2).sum(axis=axes, keepdims=True)) for x in (g, w)]
        most = 0.3 * np.maximum(norms[1], 1e-3)
        expected = g if path.startswith("head") else np.where(norms[0] > most, g * most / norms[0], g)
        clipped += not np.allclose(expected, g)
        np.testing.assert_allclose(found[path], -expected, rtol=1e-4, err_msg=path)
    assert clipped >= 10


def test_regularization_is_a_loss_on_what_decays_and_moves(layout):
    params = layout(vit_params())
    config = optimizer("sgd", l1=0.1, l2=0.2, freeze=["patch_embedding"])
    kernels = [w for p, w in flat(params).items() if p.endswith("kernel") and "patch" not in p]
    losses = jax.jit(lambda p: regularization(config, p))(params)
    assert float(losses["l1"]) == pytest.approx(0.1 * sum(np.abs(w).sum() for w in kernels), rel=1e-5)
    assert float(losses["l2"]) == pytest.approx(0.1 * sum((w**2).sum() for w in kernels), rel=1e-5)
    gradient = flat(jax.grad(lambda p: regularization(config, p)["l2"])(params))
    for path, weight in flat(params).items():
        share = 0.2 if path.endswith("kernel") and "patch" not in path else 0.0
        np.testing.assert_allclose(gradient[path], share * weight, rtol=1e-5, err_msg=path)
    assert regularization(optimizer("sgd"), params) == {}


PROBLEMS = [
    ({"freeze": ["haed"]}, "freeze: 'haed' takes no parameter; nearest: head"),
    (
        {"no_decay": ["bias", "encoder/blok_1"]},
        "no_decay: 'encoder/blok_1' takes no parameter; nearest: encoder/block_1",
    ),
    (
        {"freeze": ["zzz"]},
        "freeze: 'zzz' takes no parameter; there are: class_token, encoder, head, norm, patch",
    ),
    (
        {"learning_rate_multipliers": [("encoder/block_9", 0.5)]},
        "learning_rate_multipliers: 'encoder/block_9' takes no parameter; nearest: encoder/block_",
    ),
    ({"freeze": [".*"]}, "freeze=('.*',): takes every parameter, nothing is left to train; freeze less"),
]


@pytest.mark.parametrize(("fields", "message"), PROBLEMS)
def test_rules_that_take_nothing(fields, message, layout):
    problems = list(optimizer_problems(optimizer("sgd", **fields), layout(vit_params())))
    assert len(problems) == 1
    assert problems[0].startswith(message)


def test_defaults_need_not_take_anything(layout):
    for name in OPTIMIZERS:
        assert list(optimizer_problems(optimizer(name), layout(vit_params()))) == []
        assert list(optimizer_problems(optimizer(name), {"head": {"kernel": jnp.ones((2, 2))}})) == []


def test_a_stack_cannot_be_frozen_in_part():
    config = optimizer("sgd", freeze=["encoder/block_[01]"])
    assert list(optimizer_problems(config, vit_params())) == []
    assert list(optimizer_problems(config, stack(vit_params()))) == [
        "freeze: takes some layers of the stack encoder/blocks/attention/out/bias and leaves others; "
        "take all of them, or set model.scan=False"
    ]


def test_layer_decay_needs_blocks():
    problems = list(
        optimizer_problems(optimizer("sgd", layer_decay=0.5), {"head": {"kernel": jnp.ones((2, 2))}})
    )
    assert problems == [
        "layer_decay=0.5: the model has no blocks (encoder/block_0, ...) to go by; set layer_decay=None"
    ]


FIELD_PROBLEMS = [
    ("sgd", {"learning_rate": -1.0}, "learning_rate=-1.0"),
    ("sgd", {"weight_decay": -0.1}, "weight_decay=-0.1"),
    ("sgd", {"clip_norm": 0.0}, "clip_norm=0.0"),
    ("sgd", {"agc": -1.0}, "agc=-1.0"),
    ("sgd", {"layer_decay": 1.5}, "layer_decay=1.5"),
    ("sgd", {"freeze": ["head("]}, 'freeze[0]="head(": expected a regular expression'),
    ("sgd", {"learning_rate_multipliers": [("head", -1.0)]}, "learning_rate_multipliers[0][1]=-1.0"),
    ("momentum", {"momentum": 1.0}, "momentum=1.0"),
    ("adam", {"weight_decay": 0.1}, "weight_decay=0.1: expected 0: adam has none; use name="),
    ("adamw", {"b2": 1.0}, "b2=1.0"),
    ("adafactor", {"clipping_threshold": 0.5}, "clipping_threshold=0.5"),
    ("muon", {"ns_steps": 0}, "ns_steps=0"),
    ("schedule_free", {"b1": 0.0}, "b1=0"),
    ("prodigy", {"estimate": 0.0}, "estimate=0.0"),
    ("sophia", {"update_interval": 0}, "update_interval=0"),
]


@pytest.mark.parametrize(("name", "fields", "message"), FIELD_PROBLEMS)
def test_values_that_cannot_be(name, fields, message):
    with pytest.raises(AssertionError) as caught:
        optimizer(name, **fields)
    assert f"x.{message}" in str(caught.value)


@pytest.mark.parametrize("pattern", ["(", "[[a]", "[a--b]", "a{99999999999999}", "(" * 5000 + ")" * 5000])
def test_what_python_does_not_read_as_a_pattern_or_warns_of_is_none(pattern):
    assert not is_pattern(pattern)
