"""BERT: what a token sees and what must not matter to it, tables, heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_text import VOCAB, close, jitted, params_of, texts

from jaxformer.models.bert import BERT

TINY = {
    "vocab_size": VOCAB, "max_positions": 12, "width": 16, "depth": 2, "num_heads": 4, "mlp_dim": 24,
    "dropout": 0.0, "attention_dropout": 0.0, "num_classes": 3,
}  # fmt: skip
ROBERTA = {"token_types": 0, "position_offset": 2, "norm_epsilon": 1e-5}
MODELS = {"bert": BERT(**TINY), "pre": BERT(**TINY, norm_position="pre"), "roberta": BERT(**TINY, **ROBERTA)}


@pytest.mark.parametrize("name", MODELS)
def test_padding_packing_and_neighbours_do_not_matter(name):
    model, (first, second) = MODELS[name], (texts(6), texts(3, seed=1))
    apply = jitted(model, params_of(model, first[None]))
    alone = [apply(text[None]).logits[0] for text in (first, second)]
    batch, mask = texts(3, 8, seed=2), np.zeros((3, 8), bool)
    for row, (text, start) in enumerate(((first, 0), (second, 0), (second, 4))):
        batch[row, start : start + len(text)] = text
        mask[row, start : start + len(text)] = True
    logits = apply(batch, mask).logits
    close(logits[0, :6], alone[0])
    close(logits[1, :3], alone[1])
    close(logits[2, 4:7], alone[1])
    assert np.abs(apply(batch).logits[0, :6] - alone[0]).max() > 1e-3  # without the mask it does

    packed = np.concatenate([second, first])[None]
    places = np.concatenate([np.arange(3), np.arange(6)])[None].astype(np.int32)
    logits = apply(packed, segment_ids=np.repeat([[1, 2]], [3, 6], axis=1), positions=places).logits
    close(logits[0, :3], alone[1])
    close(logits[0, 3:], alone[0])


def test_a_token_sees_all_others_and_no_padding():
    model = BERT(**{**TINY, "depth": 1})
    tokens = np.arange(7, dtype=np.int32)[None]
    mask = np.array([[True] * 5 + [False] * 2])
    params = params_of(model, tokens)
    # The head is left out: it is the token table, too.
    model = model.clone(head="none", pooler="none")

    def states(table):
        replaced = {**params, "token_embedding": {"embedding": table}}
        return jnp.sum(jnp.sin(model.apply({"params": replaced}, tokens, mask).tokens[0]), axis=-1)

    jacobian = jax.jit(jax.jacrev(states))(params["token_embedding"]["embedding"])
    seen = np.any(jacobian[:, tokens[0]] != 0, axis=-1)
    assert seen[:5, :5].all()
    assert not seen[:5, 5:].any()


@pytest.mark.parametrize("offset", [0, 2])
def test_rows_of_the_position_table(offset):
    model = BERT(**TINY, position_offset=offset)
    assert model.context_length == 12 - offset
    tokens = texts(1, 5)
    params = params_of(model, tokens)

    def loss(table):
        replaced = {**params, "position_embedding": {"embedding": table}}
        return jnp.sum(jnp.sin(model.apply({"params": replaced}, tokens).logits))

    gradient = jax.jit(jax.grad(loss))(params["position_embedding"]["embedding"])
    taken = np.abs(gradient).max(axis=1) > 1e-6
    np.testing.assert_array_equal(np.flatnonzero(taken), np.arange(5) + offset)


def test_token_types_matter_where_there_are_any():
    tokens, types = texts(1, 5), np.array([[0, 0, 1, 1, 1]])
    bert, roberta = MODELS["bert"], MODELS["roberta"]
    apply = jitted(bert, params_of(bert, tokens))
    expected = apply(tokens).logits
    close(apply(tokens, token_types=np.zeros_like(types)).logits, expected)
    assert np.abs(apply(tokens, token_types=types).logits - expected).max() > 1e-2
    params = params_of(roberta, tokens)
    assert "type_embedding" not in params
    apply = jitted(roberta, params)
    np.testing.assert_array_equal(apply(tokens, token_types=types).logits, apply(tokens).logits)


@pytest.mark.parametrize(
    ("fields", "logits", "parameters"),
    [
        ({"head": "mlm"}, (2, 5, VOCAB), {"mlm_dense", "mlm_norm", "mlm_bias"}),
        ({"head": "sequence"}, (2, 3), {"pooler", "head"}),
        ({"head": "sequence", "pooler": "relu", "num_classes": 1}, (2, 1), {"pooler", "head"}),
        ({"head": "sequence", "pooler": "none"}, (2, 3), {"head"}),
        ({"head": "token"}, (2, 5, 3), {"head"}),
        ({"head": "span", "num_classes": None}, (2, 5, 2), {"head"}),
        ({"head": "none"}, (2, 5, 16), {"pooler"}),
        ({"head": "none", "pooler": "none", "norm_position": "pre"}, (2, 5, 16), {"norm"}),
    ],
)
def test_heads(fields, logits, parameters):
    model = BERT(**{**TINY, **fields})
    outputs, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), texts(2, 5))
    assert outputs.logits.shape == logits
    assert outputs.tokens.shape == (2, 5, 16)
    assert outputs.features.shape == (2, 16)
    common = {"token_embedding", "position_embedding", "type_embedding", "embedding_norm", "encoder"}
    assert set(variables["params"]) == common | parameters


@pytest.mark.parametrize(("pooler", "activation"), [("tanh", np.tanh), ("relu", lambda x: np.maximum(x, 0))])
def test_a_text_is_its_first_tokens(pooler, activation):
    model = BERT(**TINY, head="sequence", pooler=pooler)
    tokens = texts(2, 5)
    params = params_of(model, tokens)
    outputs = jitted(model, params)(tokens)
    layer, head = params["pooler"], params["head"]
    features = activation(np.asarray(outputs.tokens)[:, 0] @ layer["kernel"] + layer["bias"])
    close(outputs.features, features)
    close(outputs.logits, features @ head["kernel"] + head["bias"])


@pytest.mark.parametrize("head", ["mlm", "sequence"])
def test_bfloat16_computes_nearly_the_same(head):
    model, tokens = BERT(**TINY, head=head), texts(2, 6)
    params = params_of(model, tokens)
    expected = jitted(model, params)(tokens).logits
    half = jitted(model.clone(dtype=jnp.bfloat16), params)(tokens)
    assert half.logits.dtype == jnp.float32
    assert half.tokens.dtype == jnp.bfloat16
    error = np.abs(half.logits - expected).max() / np.abs(expected).max()
    assert 0 < error < 0.05
