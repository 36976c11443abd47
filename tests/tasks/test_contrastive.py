"""The contrastive task: losses against transformers', in pieces; retrieval against an oracle; what does not fit."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers.tiny_tasks import SIDE, captions, towers

from jaxformer.models.outputs import PairOutputs
from jaxformer.parallel.compile import Layout
from jaxformer.parallel.mesh import make_mesh
from jaxformer.tasks import comparing, retrieval
from jaxformer.tasks.contrastive import Contrastive

TOTALS = {"softmax": comparing.softmax_total, "sigmoid": comparing.sigmoid_total}


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def vectors(rows=12, size=6, seed=0):
    rng = np.random.default_rng(seed)
    return unit(rng.normal(size=(rows, size))), unit(rng.normal(size=(rows, size)))


def value_and_gradient(name, image, text, scale, bias, axis=None, **options):
    """Of the mean over all rows, by image, text, scale and bias."""

    def loss(image, text, scale, bias):
        rows = image.shape[:1]
        outputs = PairOutputs(image, text, jnp.broadcast_to(scale, rows), jnp.broadcast_to(bias, rows), axis)
        return TOTALS[name](outputs, {"example_mask": jnp.ones(rows, bool)}, **options) / len(image)

    return jax.value_and_grad(loss, argnums=(0, 1, 2, 3))(image, text, jnp.float32(scale), jnp.float32(bias))


def of_torch(name, image, text, scale, bias):
    """The loss of transformers' CLIP, and what its SiglipModel computes (there it is no function)."""
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss

    given = [torch.tensor(x, requires_grad=True) for x in (image, text, np.float32(scale), np.float32(bias))]
    logits = given[1] @ given[0].T * given[2] + given[3]  # per text
    signs = 2 * torch.eye(len(image)) - 1
    if name == "softmax":
        loss = image_text_contrastive_loss(logits)
    else:
        loss = -torch.nn.functional.logsigmoid(signs * logits).sum(dim=-1).mean()
    loss.backward()
    return loss.item(), [x.grad.numpy() for x in given]


@pytest.mark.parametrize("chunks", [1, 4])
@pytest.mark.parametrize("name", TOTALS)
def test_losses_and_gradients_are_those_of_transformers(name, chunks):
    given = (*vectors(), 10.0, -3.0)
    loss, gradients = jax.jit(lambda: value_and_gradient(name, *given, chunks=chunks))()
    expected, of_theirs = of_torch(name, *given)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    for found, wanted in zip(gradients, of_theirs):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_a_collapsed_model_finds_nothing():
    same = np.ones((8, 4), np.float32) / 2
    outputs = PairOutputs(same, same, np.full(8, 10, np.float32), np.zeros(8, np.float32))
    batch = {"example_mask": np.ones(8, bool), "caption": np.arange(8)}
    assert not comparing.found(outputs, batch, chunks=2).any()
    assert comparing.found(outputs, {**batch, "caption": np.zeros(8)}).all()  # all texts are equal
    pairs = np.stack([np.arange(8)] * 2, axis=1)
    assert (retrieval.ranks(same, same, pairs) == 7).all()


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_pieces_need_a_quarter_of_the_memory(mode):
    """8,192 x 512 on 8 devices, compiled only."""
    rows, size, layout = 8192, 512, Layout("jit", make_mesh({"data": -1}, jax.devices()[:8]))

    def temporaries(chunks):
        if mode == "pmap":
            step = jax.pmap(
                lambda i, t: value_and_gradient("sigmoid", i, t, 10, -10, "x", chunks=chunks), "x"
            )
            shape = jax.ShapeDtypeStruct((8, rows // 8, size), jnp.float32)
        else:
            sharding = layout.batch_sharding
            step = jax.jit(
                layout.on_mesh(lambda i, t: value_and_gradient("sigmoid", i, t, 10, -10, chunks=chunks)),
                out_shardings=(layout.replicated, (sharding, sharding, layout.replicated, layout.replicated)),
            )
            shape = jax.ShapeDtypeStruct((rows, size), jnp.float32, sharding=sharding)
        return step.lower(shape, shape).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(8) <= temporaries(1) / 4


def oracle(queries, candidates, right):
    """Sorts all candidates of each query, wrong ones first where they are as near: one by one."""
    found = []
    for query, vector in enumerate(queries):
        order = sorted(
            range(len(candidates)), key=lambda c: (-float(vector @ candidates[c]), (query, c) in right)
        )
        found.append(next(place for place, c in enumerate(order) if (query, c) in right))
    return np.array(found)


def test_retrieval_is_that_of_an_oracle():
    """Several texts a picture, and texts of several pictures."""
    rng = np.random.default_rng(3)
    picture, caption = rng.integers(0, 20, 60), rng.integers(0, 30, 60)
    image, text = unit(rng.normal(size=(20, 3))), unit(rng.normal(size=(30, 3)))
    text[7] = text[3]
    rows = {"image": image[picture], "text": text[caption], "picture": 5 * picture, "caption": 2 * caption}
    seen = retrieval.gallery(rows)
    np.testing.assert_array_equal(seen.picture, 5 * np.unique(picture))
    right = {tuple(pair) for pair in seen.pairs.tolist()}
    assert {(seen.picture[p], seen.caption[c]) for p, c in right} == set(zip(5 * picture, 2 * caption))
    for queries, candidates, pairs in (
        (seen.image, seen.text, seen.pairs),
        (seen.text, seen.image, seen.swapped),
    ):
        ranks = retrieval.ranks(queries, candidates, pairs)
        np.testing.assert_array_equal(ranks, oracle(queries, candidates, set(map(tuple, pairs.tolist()))))
        assert retrieval.recalls(ranks)[5] == np.mean(ranks < 5)
        orders = [
            rng.permuted(np.tile(np.arange(len(candidates)), (len(queries), 1)), axis=1) for _ in range(800)
        ]
        truth = np.zeros((len(queries), len(candidates)), bool)
        truth[tuple(pairs.T)] = True
        drawn = [np.take_along_axis(truth, order[:, :5], 1).any(1).mean() for order in orders]
        assert retrieval.chance(pairs, len(queries), len(candidates))[5] == pytest.approx(
            np.mean(drawn), abs=0.01
        )


def test_an_evaluation_counts_what_was_not_shown():
    """Zero-shot classes are the means of their texts; a picture that cannot be read is missed."""
    rng = np.random.default_rng(0)
    labels, prompt = np.arange(12) % 3, np.arange(12) // 6
    caption = 3 * prompt + labels
    text = unit(rng.normal(size=(6, 4)))
    centre = unit(np.stack([text[k] + text[3 + k] for k in range(3)]))
    image = centre[labels]
    image[0] = centre[1]  # wrong
    rows = {
        "image": image,
        "text": text[caption],
        "picture": np.arange(12),
        "caption": caption,
        "labels": labels,
    }

    class Source:
        def __len__(self):
            return 13

        def truth(self, index):
            return {"picture": index, "caption": 3 * (index // 6) + index % 3}

        def text_of(self, index):
            return f"text {self.truth(index)['caption']}"

    data = SimpleNamespace(source=Source())
    sums = {"loss": np.float64(6), "accuracy": np.float64(3), "count": np.float64(12)}
    found = Contrastive().summarize(sums, {**rows, "index": np.arange(12)}, data)
    assert found.metrics["zero_shot_accuracy"] == 11 / 13
    assert found.baseline["zero_shot_accuracy"] == 4 / 12
    assert found.metrics["loss"] == 0.5
    assert set(found.metrics) == set(Contrastive.metric_names)


def data_of(batch_size=8, side=SIDE, length=8):
    arrays = {name: (x.shape[1:], x.dtype) for name, x in captions(np.random.default_rng(0), 2).items()}
    arrays |= {"image": ((side, side, 3), np.dtype(np.uint8)), "tokens": ((length,), np.dtype(np.int32))}
    return SimpleNamespace(
        element_spec=arrays, batch_size=batch_size, class_names=None, tokenizer=None, source=None
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (data_of(batch_size=1), "data.batch_size=1: a pair alone"),
        (data_of(side=16), "model.image_size=8: the training images are 16x16"),
        (data_of(length=9), "data.examples.length=9: the model takes 8 tokens"),
    ],
    ids=["one", "size", "length"],
)
def test_what_does_not_fit_is_one_line(data, words):
    (line,) = Contrastive().fits(towers(), data, data)
    assert words in line
    assert not list(Contrastive().fits(towers(), data_of(), data_of()))
