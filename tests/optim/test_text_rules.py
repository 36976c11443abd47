"""Rules by path for what only models of text have: token tables, biases by distance, experts, two towers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.stacking import stack_layers
from helpers.trees import flat, optimizer, update

from jaxformer.models.bert import BERT
from jaxformer.models.gpt import GPT
from jaxformer.models.mlp import Experts
from jaxformer.models.seq2seq import Seq2Seq
from jaxformer.optim.masks import decay_mask, multipliers
from jaxformer.paths import leaves_by_path

SIZES = {"vocab_size": 9, "width": 8, "num_heads": 2, "mlp_dim": 12}
EXPERTS = GPT(
    **SIZES,
    depth=2,
    context_length=6,
    experts=Experts(3),
    activation="swiglu",
    positions="relative",
    tied=False,
)
TOWERS = {**SIZES, "context_length": 6, "encoder_depth": 3, "decoder_depth": 1}
MODELS = {
    "gpt": GPT(**SIZES, depth=2, context_length=6),
    "experts": EXPERTS,
    "bert": BERT(**SIZES, depth=2, max_positions=6),
    "two tables": Seq2Seq(**TOWERS, positions="learned", norm_position="pre", shared=False),
    "t5": Seq2Seq(**TOWERS, positions="relative", norm="rms", norm_position="pre"),
}


def params_of(model, seed=0):
    tokens = np.zeros((1, 4), np.int32)
    both = (tokens, tokens) if isinstance(model, Seq2Seq) else (tokens,)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *both)["params"]
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda s: jnp.asarray(generator.normal(size=s.shape), jnp.float32), shapes)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("layout", [lambda p: p, stack_layers], ids=["unrolled", "stacked"])
def test_matrices_and_tables_of_tokens_decay(name, layout):
    """And no norm, no bias (by distance neither), no table of positions."""
    mask = leaves_by_path(decay_mask(optimizer("adamw"), layout(params_of(MODELS[name]))))
    tables = ("token_embedding/embedding", "decoder_embedding/embedding", "type_embedding/embedding")
    expected = {path for path in mask if path.endswith(("kernel", "experts/router", *tables))}
    assert {path for path, decays in mask.items() if decays} == expected
    still = {path.split("/")[-1] for path, decays in mask.items() if not decays}
    assert still <= {"bias", "scale", "embedding", "mlm_bias"}


def test_muon_takes_every_expert_for_a_matrix_of_its_own():
    """And what is no matrix between layers goes to Adam: tables, the router, the head."""
    params, gradients = params_of(EXPERTS), params_of(EXPERTS, seed=1)
    config = optimizer("muon", learning_rate=1.0, consistent_rms=None, adam_b1=0.9, adam_b2=0.999)
    for layout in (lambda p: p, stack_layers):
        moved = flat(update(config, layout(params), layout(gradients)))
        adam = flat(update(optimizer("adam", learning_rate=1.0), layout(params), layout(gradients)))
        for path, value in moved.items():
            if path.endswith("kernel") and not path.startswith("head"):
                joined = path.endswith(("query/kernel", "key/kernel", "value/kernel"))
                inputs = 8 if joined or "experts" not in path else value.shape[-2]
                lead = value.shape[:-2] if "experts" in path else value.shape[: int("blocks/" in path)]
                matrix = value.reshape(*lead, inputs, -1)
                values = np.linalg.svd(matrix, compute_uv=False)
                values = values / max(1.0, matrix.shape[-1] / matrix.shape[-2]) ** 0.5
                assert values.min() > 0.5, path
                assert values.max() < 1.3, path
            else:
                np.testing.assert_allclose(value, adam[path], rtol=1e-4, err_msg=path)


def test_adaptive_clipping_looks_at_every_experts_units():
    params, gradients = params_of(EXPERTS), params_of(EXPERTS, seed=1)
    found = flat(update(optimizer("sgd", learning_rate=1.0, agc=0.3), params, gradients))
    rows = ("token_embedding/embedding", "relative_bias/embedding")
    for path, axis in (
        *((f"decoder/block_0/experts/{n}_kernel", 1) for n in ("up", "down")),
        *((r, -1) for r in rows),
    ):
        weight, gradient = flat(params)[path].astype(np.float64), flat(gradients)[path].astype(np.float64)
        norms = [np.sqrt((x**2).sum(axis=axis, keepdims=True)) for x in (gradient, weight)]
        most = 0.3 * np.maximum(norms[1], 1e-3)
        assert (norms[0] > most).any()
        expected = np.where(norms[0] > most, gradient * most / norms[0], gradient)
        np.testing.assert_allclose(found[path], -expected, rtol=1e-4, err_msg=path)


def test_layer_decay_counts_each_tower_for_itself():
    """3 blocks of the encoder, 1 of the decoder; what stands before both is layer 0, what is behind is last."""
    factors = multipliers(optimizer("sgd", layer_decay=0.5), params_of(MODELS["two tables"]))
    expected = {
        "token_embedding/embedding": 1 / 16,
        "decoder_embedding/embedding": 1 / 16,
        "decoder_position_embedding/embedding": 1 / 16,
        "encoder/block_0/mlp/up/kernel": 1 / 8,
        "encoder/block_2/mlp/up/kernel": 1 / 2,
        "decoder/block_0/cross_attention/out/kernel": 1 / 2,
        "encoder_norm/scale": 1,
        "decoder_norm/scale": 1,
    }
    assert {path: float(factors[path]) for path in expected} == expected


@pytest.mark.parametrize("name", ["adafactor", "lamb", "muon"])
def test_optimizers_move_every_parameter_of_a_mixture(name):
    params = params_of(EXPERTS)
    moved = optax.apply_updates(params, update(optimizer(name), params, params_of(EXPERTS, seed=1)))
    for path, value in flat(moved).items():
        assert np.isfinite(value).all()
        assert np.abs(value - flat(params)[path]).max() > 0, path
