"""`train --debug` finds planted faults, and finds nothing in configs that are right."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.planted import doubled

from jaxformer import cli
from jaxformer.config import files
from jaxformer.config.sections import resolve
from jaxformer.debugging.checks import debug
from jaxformer.debugging.finite import first_not_finite, module_of
from jaxformer.debugging.gradients import check_gradient, wrong_functions
from jaxformer.debugging.labels import labels_shifted, targets_shifted
from jaxformer.models.resampling import max_pool

CONFIG = """
import ml_collections

from jaxformer.config.files import read

def get_config():
    c = read("vit_digits")
    c["model"] = {"name": "helpers.planted:Model"}
    c["optimizer"] = {"name": "adamw", "learning_rate": 3e-3}
    c["data"] = {"name": "digits", "data_dir": "DIGITS"}
    return ml_collections.ConfigDict(c)
"""


@pytest.fixture
def config(tmp_path, digits_dir, monkeypatch):
    """The file of a config of a small model of one's own."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    path = tmp_path / "mine.py"
    path.write_text(CONFIG.replace("DIGITS", str(digits_dir)))
    return str(path)


def wrong(config, **overrides):
    """What `debug` finds wrong, and all that it says."""
    findings = list(
        debug(resolve(files.read(config, {k.replace("__", "."): v for k, v in overrides.items()})))
    )
    return [f.text for f in findings if f.verdict == "wrong"], [f.text for f in findings]


def test_nothing_is_wrong_with_a_config_that_is_right(config, capsys):
    assert cli.main(["train", "--config", config, "--debug"]) == 0
    out = capsys.readouterr().out
    assert "below 5% of its first loss" in out
    assert "in float64" in out
    assert "labels follow" in out
    assert out.splitlines()[-1].startswith("nothing wrong")


def test_a_layer_that_no_gradient_reaches(config, capsys):
    command = ["train", "--config", config, "--debug", "--config.model.fault=frozen"]
    assert cli.main(command) == 1
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  wrong")]
    assert "no gradient reaches them" in line
    assert "block_3/up/bias, block_3/up/kernel" in line


def test_a_layer_that_is_frozen_by_a_rule(config):
    found, said = wrong(config, optimizer__freeze=["block_2"])
    assert found == []
    [line] = [text for text in said if "optimizer.freeze" in text]
    assert "block_2/up/bias, block_2/up/kernel" in line


def test_a_config_in_which_nothing_moves(config):
    found, _ = wrong(config, optimizer__learning_rate_multipliers=[[".*", 0.0]])
    assert "one batch is not learnt by heart" in found[0]
    assert "their learning rate is 0" in found[1]


@pytest.mark.parametrize("block", [0, 3])
def test_the_first_nan(config, block):
    [found], _ = wrong(config, model__fault="nan", model__faulty=block)
    assert f"comes from block_{block} (forwards, operation log, planted.py:" in found


def test_a_gradient_that_is_not_finite_though_the_loss_is(config):
    [found], _ = wrong(config, model__fault="nan backwards")
    assert "comes from block_3 (backwards, operation div, planted.py:" in found


def test_a_derivative_of_ones_own_that_is_wrong(config):
    found, _ = wrong(config, model__fault="gradient", model__faulty=2)
    [line] = [text for text in found if "float64" in text]
    assert "block_2, planted.py:" in line
    assert "block_3" not in line


def test_labels_of_the_next_examples(config):
    found, _ = wrong(config, data__examples={"name": "helpers.planted:Shifted"})
    assert any("labels are shifted: they fit the example 1 behind theirs" in text for text in found)


def test_debugging_keeps_no_run(config, tmp_path, capsys):
    assert cli.main(["train", "--config", config, "--debug", "--workdir", str(tmp_path / "run")]) == 2
    assert "leave --workdir out" in capsys.readouterr().err


# The parts


def test_targets_that_are_not_the_next_tokens():
    tokens = np.random.default_rng(0).integers(0, 50, (4, 33))
    batch = {"tokens": tokens[:, :-1], "targets": tokens[:, 1:]}
    assert targets_shifted(batch) is None
    assert "the very token that it is given (100%)" in targets_shifted(batch | {"targets": tokens[:, :-1]})
    two = np.concatenate([tokens[:, 2:], np.full((4, 1), -1)], 1)
    assert "the token 2 places on (100%)" in targets_shifted(batch | {"targets": two})
    assert targets_shifted(batch | {"targets": np.random.default_rng(1).integers(0, 50, (4, 32))}) is None


def test_labels_that_belong_to_other_examples():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 300)
    features = rng.normal(size=(5, 20))[labels] + rng.normal(size=(300, 20)) * 0.1
    assert labels_shifted(features, labels)[0] is True
    assert "the example 2 before theirs" in labels_shifted(features, np.roll(labels, 2))[1]
    assert labels_shifted(features, rng.permutation(labels))[0] is None
    alike = np.sort(labels)
    assert labels_shifted(features[np.argsort(labels, kind="stable")], alike)[0] is True


def test_masks_of_infinity_are_no_fault():
    def loss(x, seen):
        return (
            jax.nn.softmax(jnp.where(seen, x, -jnp.inf)).max()
            + jnp.where(x > 0, jnp.log(jnp.abs(x)), 0).sum()
        )

    x = jnp.array([0.0, 1.0, 2.0])
    assert first_not_finite(loss, x, jnp.array([True, False, True])) is None
    place = first_not_finite(loss, x, jnp.array([False, False, False]))
    assert (place.module, place.operation, place.backwards) == ("", "sub", False)


def test_a_scan_names_the_iteration():
    def loss(x, scales):
        def layer(x, scale):
            with jax.named_scope("blocks"):
                return jnp.log(x * scale), None

        return jax.lax.scan(layer, x, scales)[0]

    place = first_not_finite(loss, jnp.float32(100.0), jnp.array([1.0, 1.0, -1.0, 1.0]))
    assert (place.module, place.operation) == ("block_2", "log")


@pytest.mark.parametrize(
    ("stack", "module", "backwards"),
    [
        ("jvp(ViT)/encoder/block_0/mlp/up", "encoder/block_0/mlp/up", False),
        ("transpose(jvp(ViT))/norm/jvp(ViT)/norm", "norm", True),
        (
            "transpose(jvp(GPT))/decoder/blocks/checkpoint/rematted_computation/mlp",
            "decoder/blocks/mlp",
            True,
        ),
        ("jvp()", "", False),
    ],
)
def test_the_module_in_a_name_stack(stack, module, backwards):
    assert module_of(stack) == (module, backwards)


def test_the_gradient_of_scans_branches_and_loops_is_right():
    def loss(params):
        def layer(x, w):
            return jnp.tanh(x @ w), x.sum()

        x, sums = jax.lax.scan(layer, jnp.ones((2, 4)), params["layers"])
        x = jax.lax.cond(x.sum() > 100, jnp.sin, jnp.cos, x)
        count = jax.lax.while_loop(lambda i: i < 3, lambda i: i + 1, 0)
        return (jax.nn.relu(x) * count).sum() + jax.nn.logsumexp(sums) + params["unused"].sum() * 0

    params = {"layers": jax.random.normal(jax.random.key(0), (3, 4, 4)), "unused": jnp.ones(2)}
    found = check_gradient(loss, params)
    assert found.right
    assert found.zero == {"unused"}


def test_what_no_parameter_decides_is_computed_as_it_was():
    """In float32, 10 * 0.7 is 7; the float32 nearest to 0.7, in float64, gives a bit less."""

    def loss(table):
        buckets = jnp.floor(jnp.arange(11.0) * 0.7).astype(jnp.int32)
        return (table[buckets] * jnp.arange(11.0)).sum()

    assert jax.grad(loss)(jnp.zeros(8))[7] == 10
    assert check_gradient(loss, jax.random.normal(jax.random.key(0), (8,))).error < 1e-5


def test_an_error_of_float32_is_told_from_a_wrong_program():
    """The numbers differ by less than float32 has digits for, so that their spread and its gradient are noise."""
    weights = jax.random.normal(jax.random.key(1), (16,))

    def loss(x):
        z = 1000 + 1e-4 * x
        return (weights * (z - z.mean()) / jnp.std(z)).sum()

    found = check_gradient(loss, jax.random.normal(jax.random.key(0), (16,)))
    assert (found.right, found.wrong, found.rounding) == (False, (), True)
    found = check_gradient(lambda x: jnp.sin(doubled(x)).sum(), jnp.arange(16.0))
    assert (found.right, len(found.wrong), found.rounding) == (False, 1, False)


def test_a_maximum_of_equals_is_not_to_blame():
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))
    weights = jax.random.normal(jax.random.key(1), (2, 3, 3, 3))

    def loss(x, pool):
        return (pool(jax.nn.relu(x)) * weights).sum()

    @jax.custom_vjp
    def halved(x):
        return max_pool(x)

    halved.defvjp(lambda x: jax.vjp(max_pool, x), lambda pull, g: (pull(g)[0] / 2,))
    assert wrong_functions(partial(loss, pool=max_pool), x, np.random.default_rng(0)) == []
    assert len(wrong_functions(partial(loss, pool=halved), x, np.random.default_rng(0))) == 1
