"""Metrics against scikit-learn, and calibration against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as reference

from jaxformer.errors import UserError
from jaxformer.tasks import metrics

B, K = 200, 8


@pytest.fixture(scope="module")
def examples():
    """Logits that know the label a little; class 6 does not occur at all, class 7 is never predicted."""
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 2, 3, 4, 5, 7], B, p=[0.3, 0.3, 0.1, 0.1, 0.1, 0.05, 0.05]).astype(np.int32)
    logits = rng.normal(size=(B, K)) + 2 * np.eye(K)[labels]
    logits[:, 6:] -= 20
    return logits.astype(np.float32), labels, rng.random(B) < 0.8


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_is_scikit_learns(examples, k):
    logits, labels, mask = examples
    found = np.asarray(jax.jit(metrics.correct, static_argnums=2)(logits, labels, k))[mask]
    expected = reference.top_k_accuracy_score(labels[mask], logits[mask], k=k, labels=np.arange(K))
    assert found.mean() == pytest.approx(expected)


def test_top_k_with_ties_is_jaxs_top_k():
    rng = np.random.default_rng(1)
    logits = rng.integers(0, 3, (500, 6)).astype(np.float32)
    labels = rng.integers(0, 6, 500)
    for k in (1, 2, 5):
        _, highest = jax.lax.top_k(jnp.asarray(logits), k)
        expected = (np.asarray(highest) == labels[:, None]).any(-1)
        np.testing.assert_array_equal(metrics.correct(jnp.asarray(logits), labels, k), expected)


def test_top_k_of_fewer_classes_is_always_right():
    logits = jnp.asarray(np.random.default_rng(2).normal(size=(20, 3)), jnp.float32)
    assert metrics.correct(logits, jnp.arange(20) % 3, 5).all()


def test_nan_and_labels_that_are_no_class_are_never_right():
    logits = jnp.asarray([[jnp.nan, 0, 1], [0, jnp.nan, 1], [jnp.nan] * 3, [3, 2, 1], [3, 2, 1]])
    assert not metrics.correct(logits, jnp.asarray([0, 2, 0, 3, -1])).any()


def test_the_confusion_matrix_is_scikit_learns(examples):
    logits, labels, mask = examples
    found = jax.jit(metrics.confusion_matrix)(logits, labels, mask)
    predicted = logits.argmax(-1)
    expected = reference.confusion_matrix(labels[mask], predicted[mask], labels=np.arange(K))
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(expected, expected.T)  # or rows and columns could be exchanged


def test_the_table_of_classes_is_scikit_learns(examples):
    logits, labels, _ = examples
    predicted = logits.argmax(-1)
    table = reference.confusion_matrix(labels, predicted, labels=np.arange(K)).astype(np.float64)
    found = metrics.per_class(table)
    expected = reference.classification_report(
        labels, predicted, labels=np.arange(K), output_dict=True, zero_division=0
    )
    for column, name in (("precision",) * 2, ("recall",) * 2, ("f1", "f1-score"), ("support",) * 2):
        np.testing.assert_allclose(
            np.nan_to_num(found[column]), [expected[str(c)][name] for c in range(K)], err_msg=column
        )
    assert metrics.mean(found["f1"]) == pytest.approx(
        reference.f1_score(labels, predicted, average="macro", zero_division=0)
    )
    occurring = np.isin(predicted, labels)  # scikit-learn warns of predictions of classes without examples
    there = reference.confusion_matrix(labels[occurring], predicted[occurring], labels=np.arange(K))
    assert metrics.mean(metrics.per_class(there)["recall"]) == pytest.approx(
        reference.balanced_accuracy_score(labels[occurring], predicted[occurring])
    )


def test_nothing_at_all_is_zero_and_not_nan():
    nothing = metrics.per_class(np.zeros((3, 3)))
    assert [metrics.mean(nothing[name]) for name in ("f1", "recall", "iou")] == [0, 0, 0]
    assert metrics.accuracy(np.zeros((3, 3))) == 0
    bins = dict.fromkeys(("confidence", "correct", "count"), np.zeros(15))
    assert (metrics.calibration_error(bins), metrics.calibration_table(bins)) == (0, [])


def calibration_by_definition(probabilities, labels):
    """Guo et al. 2017, equation 3, bin by bin."""
    confidence, right = probabilities.max(-1), probabilities.argmax(-1) == labels
    error, bins = 0.0, []
    for m in range(15):
        inside = (confidence > m / 15) & (confidence <= (m + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
            bins.append((confidence[inside].mean(), right[inside].mean(), inside.sum()))
    return error, bins


def test_calibration_is_its_definition(examples):
    logits, labels, mask = examples
    probabilities = np.asarray(jax.nn.softmax(3 * logits))
    sums = jax.device_get(jax.jit(metrics.calibration_sums)(probabilities, labels, mask))
    error, bins = calibration_by_definition(probabilities[mask].astype(np.float64), labels[mask])
    assert error > 0.05
    assert metrics.calibration_error(sums) == pytest.approx(error, rel=1e-5)
    table = metrics.calibration_table(sums)
    found = [(row["confidence"], row["accuracy"], row["count"]) for row in table]
    np.testing.assert_allclose(found, bins, rtol=1e-5)


@pytest.mark.parametrize(("confidence", "number"), [(1.0, 14), (0.2, 2), (0.21, 3), (1e-9, 0), (0.0, 0)])
def test_bins_are_closed_above(confidence, number):
    sums = metrics.calibration_sums(jnp.asarray([[confidence, 0.0]]), jnp.asarray([0]), jnp.asarray([True]))
    assert int(np.argmax(sums["count"])) == number


def test_a_perfectly_calibrated_model_has_no_error():
    rng = np.random.default_rng(3)
    p = rng.uniform(0.5, 1, 200_000).astype(np.float32)
    labels = (rng.random(p.size) > p).astype(np.int32)
    sums = metrics.calibration_sums(jnp.stack([p, 1 - p], -1), jnp.asarray(labels), jnp.ones(p.size, bool))
    assert metrics.calibration_error(jax.device_get(sums)) < 0.005


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 10], "the labels must be 0 to 9, a batch has 0 to 10; set model.num_classes=11 or more"),
        ([-1, 3], "a batch has -1 to 3; leave examples without a label out"),
    ],
)
def test_labels_that_are_no_class_are_refused(labels, message):
    with pytest.raises(UserError, match=message):
        metrics.check_labels(10, np.array(labels))


def test_labels_that_are_classes_pass():
    metrics.check_labels(10, np.arange(10))
    metrics.check_labels(10, np.zeros(0, np.int32))
