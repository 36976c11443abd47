"""Each optimizer's steps against PyTorch's or NumPy's, and that it learns."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from helpers.trees import flat, optimizer, quadratic, stack, train, update, vit_params

from jaxformer.optim import OPTIMIZERS
from jaxformer.optim.build import make_optimizer

STEPS = 6
RATES = [0.1, 0.08, 0.06, 0.04, 0.02, 0.01]  # a schedule


def rate(step):
    return jnp.asarray(RATES)[step]


def small(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "mlp": {
            "up": {"kernel": rng.normal(size=(3, 4)).astype("f4"), "bias": rng.normal(size=4).astype("f4")}
        },
        "norm": {"scale": rng.normal(size=4).astype("f4")},
    }


def decays(path):
    return path.endswith("kernel")


def gradient_list(count=STEPS):
    return [small(seed) for seed in range(1, count + 1)]


def run(config, params, gradients, rate=rate):
    """The parameters (path -> array) after a step for each of `gradients`."""
    tx = make_optimizer(config, rate, params)

    @jax.jit
    def step(params, state, gradient):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for gradient in gradients:
        params, state = step(params, state, gradient)
    return flat(params), state


def torch_run(make, params, gradients):
    """The same with a PyTorch optimizer made from [{"params": decayed}, {"params": the rest}]."""
    tensors = {path: torch.tensor(value, requires_grad=True) for path, value in flat(params).items()}
    groups = [
        {"params": [t for path, t in tensors.items() if decays(path)]},
        {"params": [t for path, t in tensors.items() if not decays(path)], "weight_decay": 0.0},
    ]
    torch_optimizer = make(groups)
    for gradient, rate in zip(gradients, RATES):
        for path, value in flat(gradient).items():
            tensors[path].grad = torch.tensor(value)
        for group in torch_optimizer.param_groups:
            group["lr"] = rate
        torch_optimizer.step()
    return {path: tensor.detach().numpy() for path, tensor in tensors.items()}


def assert_same(found, expected, rtol=1e-5):
    assert found.keys() == expected.keys()
    for path in expected:
        np.testing.assert_allclose(found[path], expected[path], rtol=rtol, atol=5e-6, err_msg=path)


TORCH = {
    "sgd": ({}, lambda groups: torch.optim.SGD(groups, weight_decay=0.0)),
    "sgd, decay": ({"weight_decay": 0.3}, lambda groups: torch.optim.SGD(groups, weight_decay=0.3)),
    "momentum": ({"momentum": 0.8}, lambda groups: torch.optim.SGD(groups, momentum=0.8)),
    "momentum, nesterov": (
        {"nesterov": True},
        lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True),
    ),
    "adam": (
        {"b1": 0.8, "b2": 0.9, "eps": 1e-3},
        lambda groups: torch.optim.Adam(groups, betas=(0.8, 0.9), eps=1e-3),
    ),
    "adamw, decay": ({"weight_decay": 0.3}, lambda groups: torch.optim.AdamW(groups, weight_decay=0.3)),
}


@pytest.mark.parametrize("case", TORCH)
def test_an_optimizer_is_pytorchs(case):
    fields, make = TORCH[case]
    found, _ = run(optimizer(case.split(",")[0], **fields), small(), gradient_list())
    assert_same(found, torch_run(make, small(), gradient_list()))


def test_momentum_decays_decoupled_and_l2_is_pytorchs_weight_decay():
    params, gradients = small(), gradient_list()
    # By hand: m = 0.9 m + g; w -= lr (m + 0.3 w).
    expected = {}
    for path, w in flat(params).items():
        m = np.zeros_like(w)
        for gradient, lr in zip(gradients, RATES):
            m = 0.9 * m + flat(gradient)[path]
            w = w - lr * (m + (0.3 * w if decays(path) else 0))
        expected[path] = w
    assert_same(run(optimizer("momentum", weight_decay=0.3), params, gradients)[0], expected)


def by_hand(step, gradients=None):
    """Parameters after stepping each leaf by itself: step(state, w, g, t, lr, decayed) -> (w, state)."""
    gradients = gradients or gradient_list()
    result = {}
    for path, w in flat(small()).items():
        w, state = w.astype(np.float64), None
        for t, (gradient, lr) in enumerate(zip(gradients, RATES), 1):
            w, state = step(state, w, flat(gradient)[path].astype(np.float64), t, lr, decays(path))
        result[path] = w
    return result


def test_lion_by_hand():
    def step(m, w, g, t, lr, decayed):
        m = np.zeros_like(w) if m is None else m
        direction = np.sign(0.9 * m + 0.1 * g)
        return w - lr * (direction + 0.3 * w * decayed), 0.99 * m + 0.01 * g

    assert_same(run(optimizer("lion", weight_decay=0.3), small(), gradient_list())[0], by_hand(step))


def test_lamb_by_hand():
    def step(state, w, g, t, lr, decayed):
        m, v = state or (np.zeros_like(w), np.zeros_like(w))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        u = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6) + 0.3 * w * decayed
        return w - lr * u * np.linalg.norm(w) / np.linalg.norm(u), (m, v)

    assert_same(
        run(optimizer("lamb", weight_decay=0.3), small(), gradient_list())[0], by_hand(step), rtol=1e-4
    )


def test_adafactor_by_hand():
    """Shazeer and Stern 2018, algorithm 4, factored where there are two axes."""

    def step(state, w, g, t, lr, decayed):
        keep = 1 - t**-0.8
        square = g**2 + 1e-30
        if w.ndim == 2:
            r, c = state or (0, 0)
            r, c = keep * r + (1 - keep) * square.mean(1), keep * c + (1 - keep) * square.mean(0)
            state, second = (r, c), np.outer(r, c) / r.mean()
        else:
            state = second = keep * (0 if state is None else state) + (1 - keep) * square
        u = g / np.sqrt(second)
        u /= max(1, np.sqrt(np.mean(u**2)))
        u *= max(1e-3, np.sqrt(np.mean(w**2)))
        return w - lr * (u + 0.3 * w * decayed), state

    config = optimizer("adafactor", weight_decay=0.3, min_dim_size_to_factor=2)
    found, state = run(config, small(), gradient_list())
    assert_same(found, by_hand(step), rtol=1e-4)
    assert optax.tree.get(state, "v_row")["mlp"]["up"]["kernel"].size < 12


def test_schedule_free_sgd_by_hand():
    """Defazio et al. 2024, equations 3 to 5, weights lr^2."""
    constant = optax.constant_schedule(0.1)
    config = optimizer("schedule_free", base="sgd", weight_decay=0.3, b1=0.8)
    params, gradients = small(), gradient_list()
    found, state = run(config, params, gradients, constant)
    trained, averaged = {}, {}
    for path, w in flat(params).items():
        x = y = z = w
        for t, gradient in enumerate(gradients, 1):
            z = z - 0.1 * (flat(gradient)[path] + 0.3 * y * decays(path))
            x = (1 - 1 / t) * x + z / t
            y = 0.2 * z + 0.8 * x
        trained[path], averaged[path] = y, x
    assert_same(found, trained)
    nested = jax.tree.unflatten(jax.tree.structure(params), [found[path] for path in flat(params)])
    assert_same(flat(config.eval_params(state, nested)), averaged)


def test_prodigy_by_hand():
    """Mishchenko and Defazio 2024, algorithm 4; one estimate for all parameters."""
    params, gradients = flat(small()), gradient_list()
    start, w = params, {path: value.astype(np.float64) for path, value in params.items()}
    m, v, s = ({path: np.zeros_like(value) for path, value in w.items()} for _ in range(3))
    d, d0, numerator, b3 = 1e-2, 1e-2, 0.0, 0.999**0.5
    for t, (gradient, lr) in enumerate(zip(gradients, RATES), 1):
        g = flat(gradient)
        rate = d * lr * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        numerator = b3 * numerator + d / d0 * rate * sum((g[p] * (start[p] - w[p])).sum() for p in w)
        for p in w:
            m[p] = 0.9 * m[p] + 0.1 * d * g[p]
            v[p] = 0.999 * v[p] + 0.001 * (d * g[p]) ** 2
            s[p] = b3 * s[p] + rate * d * g[p] / d0
        d = max(d, numerator / sum(np.abs(s[p]).sum() for p in w))
        for p in w:
            w[p] = w[p] - rate * (m[p] / (np.sqrt(v[p]) + d * 1e-8) + 0.3 * w[p] * decays(p))
    found, state = run(optimizer("prodigy", estimate=1e-2, weight_decay=0.3), small(), gradients)
    assert_same(found, w, rtol=1e-4)
    assert float(optax.tree.get(state, "estim_lr")) == pytest.approx(d, rel=1e-4)


def test_prodigy_survives_a_first_rate_of_zero():
    config = optimizer("prodigy", learning_rate=1.0)
    params, _ = train(
        config, {"w": jnp.ones(3)}, quadratic, 200, rate=lambda step: jnp.minimum(step / 10, 1.0)
    )
    assert float(jnp.abs(params["w"]).max()) < 0.5


def test_sophia_by_hand():
    """Of a quadratic, whose Hessian is diagonal, Hutchinson's estimate is exact."""
    curvature = jnp.asarray([0.1, 1.0, 40.0])

    def loss(params):
        return jnp.sum(curvature * params["w"] ** 2) / 2

    config = optimizer("sophia", b1=0.5, b2=0.8, gamma=2.0, update_interval=2)
    start = np.array([1.0, -2.0, 3.0])
    found, _ = train(config, {"w": jnp.asarray(start, jnp.float32)}, loss, steps=4, rate=rate)
    w, m, h = start, 0, np.zeros(3)
    for t in range(1, 5):
        g = np.asarray(curvature) * w
        m = 0.5 * m + 0.5 * g
        # optax steps by the last estimate before it takes the next one.
        direction = np.clip(m / (1 - 0.5**t) / np.maximum(2.0 * h, 1e-8), -1, 1)
        if t % 2 == 1:
            h = 0.8 * h + 0.2 * np.asarray(curvature)
        w = w - RATES[t - 1] * direction
    np.testing.assert_allclose(found["w"], w, rtol=1e-5)


@cache
def muon_updates(name, consistent_rms=None):
    """Muon's first updates by path, of two layers."""
    params, gradients = vit_params(0, layers=2), vit_params(1, layers=2)
    if name == "stacked":
        params, gradients = stack(params), stack(gradients)
    config = optimizer("muon", learning_rate=1.0, consistent_rms=consistent_rms, adam_b1=0.9, adam_b2=0.999)
    return flat(update(config, params, gradients))


def matrix_of(name, path, rows, **fields):
    """The matrix [..., rows, columns] of Muon's update of a stacked or unrolled parameter."""
    value = muon_updates(name, **fields)[path]
    return value.reshape(*(value.shape[:1] if name == "stacked" else ()), rows, -1)


MATRICES = [
    ("unrolled", "encoder/block_1/attention/query/kernel", 8),
    ("unrolled", "encoder/block_1/attention/out/kernel", 8),
    ("unrolled", "encoder/block_1/mlp/up/kernel", 8),
    ("stacked", "encoder/blocks/attention/query/kernel", 8),
    ("stacked", "encoder/blocks/attention/out/kernel", 8),
    ("stacked", "encoder/blocks/mlp/up/kernel", 8),
]


@pytest.mark.parametrize(("name", "path", "rows"), MATRICES)
def test_muons_matrices_are_orthogonal(name, path, rows):
    matrix = matrix_of(name, path, rows)
    matrix = matrix / max(1.0, matrix.shape[-1] / matrix.shape[-2]) ** 0.5
    values = np.linalg.svd(matrix, compute_uv=False)
    assert values.shape[:-1] == ((2,) if name == "stacked" else ())
    # Five Newton-Schulz steps leave singular values between about 0.7 and 1.2 (Jordan 2024).
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_muons_update_points_along_the_polar_factor():
    matrix = matrix_of("unrolled", "encoder/block_0/mlp/up/kernel", 8)
    gradient = flat(vit_params(1, layers=2))["encoder/block_0/mlp/up/kernel"].astype(np.float64)
    u, _, vt = np.linalg.svd(gradient, full_matrices=False)
    cosine = -(matrix * (u @ vt)).sum() / np.linalg.norm(matrix) / np.linalg.norm(u @ vt)
    assert cosine > 0.97


def test_muon_has_a_consistent_root_mean_square():
    for _, path, rows in MATRICES[:3]:
        matrix = matrix_of("unrolled", path, rows, consistent_rms=0.2)
        assert np.sqrt(np.mean(matrix**2)) == pytest.approx(0.2, rel=0.2)


def test_muon_leaves_embeddings_head_norms_and_biases_to_adam():
    muon = muon_updates("unrolled")
    adam = flat(
        update(optimizer("adam", learning_rate=1.0), vit_params(0, layers=2), vit_params(1, layers=2))
    )
    same = {path for path in muon if np.allclose(muon[path], adam[path], rtol=1e-5)}
    assert same == {
        path for path in muon if not path.endswith("kernel") or path.startswith(("patch_embedding", "head"))
    }


def test_schedule_free_parameters_for_evaluation_converge_and_differ():
    config = optimizer("schedule_free", learning_rate=0.3)
    start = {"mlp": {"up": {"kernel": jnp.full((4, 4), 2.0)}}}
    noise = jax.random.normal(jax.random.key(0), (4, 4))

    def loss(params):
        return quadratic(jax.tree.map(lambda x: x - noise, params))

    params, state = train(config, start, loss, steps=150)
    averaged = config.eval_params(state, params)
    assert float(jnp.abs(params["mlp"]["up"]["kernel"] - averaged["mlp"]["up"]["kernel"]).max()) > 1e-5
    assert float(loss(averaged)) < 0.01 * float(loss(start))


LEARNS = {
    "lamb": 0.02,
    "lion": 0.02,
    "muon": 0.05,
    "prodigy": 1.0,
    "sgd": 0.3,
    "momentum": 0.1,
    "sophia": 0.02,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_learns(name):
    """Logistic regression with a hidden layer."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(64, 6)), jnp.float32)
    labels = jnp.asarray((x[:, 0] * x[:, 1] > 0).astype(int))
    params = {
        "mlp": {
            "up": {"kernel": jnp.asarray(rng.normal(size=(6, 16)) / 2, jnp.float32), "bias": jnp.zeros(16)}
        },
        "head": {"kernel": jnp.asarray(rng.normal(size=(16, 2)) / 4, jnp.float32), "bias": jnp.zeros(2)},
    }

    def loss(params):
        up, head = params["mlp"]["up"], params["head"]
        hidden = jnp.tanh(x @ up["kernel"] + jnp.broadcast_to(up["bias"], (64, 16)))
        logits = hidden @ head["kernel"] + jnp.broadcast_to(head["bias"], (64, 2))
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    config = optimizer(name, learning_rate=LEARNS.get(name, 0.02))
    trained, state = train(config, params, loss, steps=150)
    trained = config.eval_params(state, trained)
    assert float(loss(trained)) < 0.5 * float(loss(params))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_shapes_are_enough_to_make_an_optimizer(name):
    params = vit_params()
    shapes = jax.eval_shape(lambda: params)
    config = optimizer(name, freeze=["patch_embedding"], layer_decay=0.5)
    from_shapes = make_optimizer(config, optax.constant_schedule(0.1), shapes)
    from_values = make_optimizer(config, optax.constant_schedule(0.1), params)
    state = jax.eval_shape(from_shapes.init, shapes)
    assert jax.tree.structure(state) == jax.tree.structure(from_values.init(params))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_may_be_donated_with_the_state(name):
    """No state holds the parameters' own buffers."""
    config = optimizer(name)
    params = {"mlp": {"up": {"kernel": jnp.ones((4, 4))}}}
    tx = make_optimizer(config, optax.constant_schedule(0.1), params)

    def step(params, state):
        updates, state = tx.update(jax.grad(quadratic)(params), state, params, obj_fn=quadratic)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    params, state = jax.jit(step, donate_argnums=(0, 1))(params, state)
    assert np.isfinite(params["mlp"]["up"]["kernel"]).all()


MOMENTS = {"momentum": 1, "adam": 1, "adamw": 1, "lion": 1, "lamb": 1, "muon": 1, "sophia": 1}


@pytest.mark.parametrize("name", MOMENTS)
def test_a_bfloat16_moment_takes_half_the_bytes(name):
    params = vit_params()
    count = sum(x.size for x in jax.tree.leaves(params))

    def size(**fields):
        tx = make_optimizer(optimizer(name, **fields), optax.constant_schedule(0.1), params)
        return sum(x.nbytes for x in jax.tree.leaves(tx.init(params)))

    assert size() - size(mu_dtype="bfloat16") == 2 * count
