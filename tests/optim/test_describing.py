"""The drawn schedule and the table of rules."""

import re

import jax
import jax.numpy as jnp
from helpers.trees import flat, optimizer, schedule, stack, to_steps, vit_params

from jaxformer.analysis.optimization import describe_rules, describe_schedule
from jaxformer.models.vit import ViT
from jaxformer.optim.build import optimizer_problems
from jaxformer.optim.schedule import make_schedule

BARS = " ▁▂▃▄▅▆▇█"


def heights(text):
    """The height of each column of the plot, in eighths of a row."""
    rows = [line.split("┤")[1] for line in text.splitlines() if "┤" in line]
    width = max(map(len, rows))
    return [sum(BARS.index(row.ljust(width)[i]) for row in rows) for i in range(width)]


def test_a_drawn_schedule_has_its_shape_and_its_labels():
    rate = make_schedule(schedule("cosine", warmup="25%"), 0.003, 1000, to_steps(1000))
    text = describe_schedule(rate, 1000)
    columns = heights(text)
    assert len(columns) <= 64
    assert columns[0] == 0
    assert 14 <= columns.index(max(columns)) <= 18  # a quarter of 64
    assert max(columns) == 64
    assert columns[:16] == sorted(columns[:16])
    assert columns[20:] == sorted(columns[20:], reverse=True)
    assert "0.003 ┤" in text
    assert "0.0015 ┤" in text
    assert text.splitlines()[-1].split() == ["0", "250", "500", "749", "999"]
    assert max(map(len, text.splitlines())) <= 80


def test_a_rate_of_zero_and_a_single_step_can_be_drawn():
    assert not any(heights(describe_schedule(lambda step: jnp.float32(0), 10)))
    assert "┤" in describe_schedule(lambda step: jnp.float32(1), 1)


def rows(text):
    """Rule -> (parameters, tensors)."""
    found = {}
    for line in text.splitlines()[2:]:
        rule, *counts = re.split(r"\s{2,}", line)[:3]
        found[rule] = tuple(int(count.replace(",", "")) for count in counts)
    return found


def test_each_rule_counts_what_it_takes():
    params = stack(vit_params())
    sizes = {path: value.size for path, value in flat(params).items()}
    config = optimizer(
        "muon", weight_decay=0.1, freeze=["patch_embedding"], learning_rate_multipliers=[("head", 3.0)]
    )
    found = rows(describe_rules(config, params))
    frozen = sizes["patch_embedding/kernel"] + sizes["patch_embedding/bias"]
    assert found["frozen"] == (frozen, 2)
    trained = sum(sizes.values()) - frozen
    for pair in (
        ("by orthogonalised momentum", "by Adam"),
        ("weight decay 0.1", "no weight decay"),
        ("learning rate x 1", "learning rate x 3"),
    ):
        assert sum(found[rule][0] for rule in pair) == trained
        assert sum(found[rule][1] for rule in pair) == len(sizes) - 2
    assert found["learning rate x 3"][0] == sizes["head/kernel"] + sizes["head/bias"]
    assert found["by orthogonalised momentum"] == (
        sum(n for p, n in sizes.items() if "blocks" in p and "kernel" in p),
        3,
    )


def test_without_rules_all_is_trained():
    params = vit_params()
    assert rows(describe_rules(optimizer("sgd"), params)) == {
        "trained": (sum(x.size for x in jax.tree.leaves(params)), len(jax.tree.leaves(params)))
    }


def test_a_vits_parameters_fit_the_rules():
    def shapes(**fields):
        model = ViT(image_size=16, patch_size=8, width=16, depth=3, num_heads=2, num_classes=5, **fields)
        image = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
        return jax.eval_shape(lambda image: model.init(jax.random.key(0), image=image), image)["params"]

    fields = {"pool": "map", "registers": 2, "layer_scale": 0.1, "qk_norm": True, "representation": 8}
    config = optimizer("muon", weight_decay=0.1, layer_decay=0.5, freeze=["patch_embedding"])
    for scan in (False, True):
        params = shapes(scan=scan, **fields)
        assert not list(optimizer_problems(config, params))
        found = rows(describe_rules(config, params))
        kernels = {p: x.size for p, x in flat_shapes(params).items() if p.endswith("kernel")}
        assert found["weight decay 0.1"][0] == sum(kernels.values()) - kernels["patch_embedding/kernel"]
        matrices = sum(n for p, n in kernels.items() if not p.startswith(("patch_embedding", "head")))
        assert found["by orthogonalised momentum"][0] == matrices
        factors = {rule for rule in found if rule.startswith("learning rate")}
        blocks = {"x 0.125 to 0.5"} if scan else {"x 0.125", "x 0.25", "x 0.5"}
        assert factors == {f"learning rate {words}" for words in {"x 0.0625", "x 1"} | blocks}


def flat_shapes(tree):
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(k.key for k in path): leaf for path, leaf in leaves}
