"""CCT, CvT, MiT, ConvNeXt and Swin as backbones: what they give, also without a head, and the rules by path."""

from functools import partial

import jax
import numpy as np
import pytest
from helpers.tiny import images

from jaxformer.config import schema
from jaxformer.models.cct import CCT
from jaxformer.models.convnext import ConvNeXt
from jaxformer.models.cvt import CvT
from jaxformer.models.mit import MiT
from jaxformer.models.swin import Swin
from jaxformer.optim.masks import NO_DECAY, layer_indices, path_mask
from jaxformer.parallel.mesh import make_mesh
from jaxformer.parallel.rules import param_specs
from jaxformer.paths import leaves_by_path

SIZE = 32
CCT_TINY = CCT(image_size=SIZE, conv_layers=2, stem_width=8, width=16, depth=2, num_heads=2, num_classes=5)
CVT_TINY = CvT(stage_sizes=(1, 2), widths=(8, 16), num_heads=(1, 2), num_classes=5)
CVT_TINY = CVT_TINY.clone(embedding_kernels=(7, 3), embedding_strides=(4, 2))
MIT_TINY = MiT((1, 2), (8, 16), (1, 2), (2, 1), (7, 3), (4, 2), num_classes=5)
CONVNEXT_TINY = ConvNeXt(stage_sizes=(1, 2), width=8, num_classes=5)
SWIN_TINY = Swin(stage_sizes=(2, 2), num_heads=(1, 2), width=8, window=4, num_classes=5)
HIERARCHIES = [(2, 8, 8, 8), (2, 4, 4, 16)]
# The shapes of maps, tokens and features.
MODELS = {
    "cct": (CCT_TINY, [(2, 8, 8, 16)], (2, 64, 16), (2, 16)),
    "cvt": (CVT_TINY, HIERARCHIES, (2, 17, 16), (2, 16)),
    "mit": (MIT_TINY, HIERARCHIES, (2, 16, 16), (2, 16)),
    "convnext": (CONVNEXT_TINY, HIERARCHIES, (2, 4, 4, 16), (2, 16)),
    "swin": (SWIN_TINY, HIERARCHIES, (2, 16, 16), (2, 16)),
}


def shapes_of(model):
    return jax.eval_shape(model.init_with_output, jax.random.key(0), images(2, SIZE))


def random_variables(model):
    """Around those that training would have; variances are positive."""
    generator = np.random.default_rng(0)
    variables = shapes_of(model)[1]
    return jax.tree.map(
        lambda s: np.abs(0.3 * generator.normal(size=s.shape) + 0.1).astype(s.dtype), variables
    )


@pytest.mark.parametrize("name", MODELS)
def test_shapes_and_a_model_without_a_head(name):
    model, maps, tokens, features = MODELS[name]
    outputs, variables = shapes_of(model)
    assert outputs.logits.shape == (2, 5)
    assert [x.shape for x in outputs.maps] == maps
    assert outputs.tokens.shape == tokens
    assert outputs.features.shape == features
    headless, without = shapes_of(model.clone(num_classes=0))
    assert headless.logits is None
    params = dict(variables["params"])
    del params["head"]
    assert jax.tree.structure(without["params"]) == jax.tree.structure(params)
    assert not list(schema.problems(model.clone(num_classes=0)))


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_has_a_rule(name):
    params = shapes_of(MODELS[name][0])[1]["params"]
    specs = param_specs(params, make_mesh({"data": 2, "fsdp": 2, "tensor": 2}))
    split = {path for path, spec in specs.items() if any(spec)}
    assert {path for path in specs if path.endswith("up/kernel")} <= split
    undecayed = {path for path, taken in leaves_by_path(path_mask(NO_DECAY, params)).items() if taken}
    kernels = {path for path in specs if path.endswith("kernel")}
    assert undecayed == set(specs) - kernels


@pytest.mark.parametrize("name", MODELS)
def test_layers_are_counted_from_the_stem_to_the_head(name):
    params = shapes_of(MODELS[name][0])[1]["params"]
    layers, lasts = layer_indices(params)
    assert {layer for path, layer in layers.items() if "stem" in path or path == "position_embedding"} == {0}
    depth = len({path.split("/")[0 if path.startswith("stage") else 1] for path in layers if "block" in path})
    assert lasts["head/kernel"] == layers["head/kernel"] == depth + 1
    assert sorted(set(layers.values())) == list(range(depth + 2))


@pytest.mark.parametrize("name", MODELS)
def test_paths_are_dropped_in_training_alone(name):
    model = MODELS[name][0].clone(drop_path=0.5)
    variables = random_variables(model)
    rest = [key for key in variables if key != "params"]

    @partial(jax.jit, static_argnums=0)
    def run(deterministic, seed):
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply(variables, images(2, SIZE), deterministic, rngs=rngs, mutable=rest)[0].logits

    trained = [run(False, seed) for seed in range(4)]
    np.testing.assert_array_equal(run(True, 0), run(True, 1))
    assert len({x.tobytes() for x in map(np.asarray, trained)}) > 1


@pytest.mark.parametrize(
    ("name", "layers", "shapes"),
    [("cct", 3, {(2, 2, 64, 64), (2, 1, 1, 64)}), ("cvt", 3, None), ("mit", 3, None), ("swin", 4, None)],
    ids=["cct", "cvt", "mit", "swin"],
)
def test_attention_weights_are_sown_when_asked_for(name, layers, shapes):
    """CCT's of its pooling, too."""
    model = MODELS[name][0]
    variables = random_variables(model)
    plain = jax.jit(model.apply)(variables, images(2, SIZE))
    asked = jax.jit(lambda v, x: model.apply(v, x, mutable=["attention_maps"]))
    outputs, sown = asked(variables, images(2, SIZE))
    weights = jax.tree.leaves(sown["attention_maps"])
    assert len(weights) == layers
    for x in weights:
        np.testing.assert_allclose(x.sum(axis=-1), np.ones(x.shape[:-1]), rtol=1e-5)
    assert shapes is None or {x.shape for x in weights} == shapes
    np.testing.assert_allclose(outputs.logits, plain.logits, rtol=1e-4, atol=1e-5)


def test_cct_without_a_table_takes_images_of_any_size():
    model = CCT_TINY.clone(positions="sinusoidal", pool="average", scan=True)
    variables = jax.eval_shape(model.init, jax.random.key(0), images(2, SIZE))
    outputs = jax.eval_shape(model.apply, variables, images(2, 2 * SIZE))
    assert outputs.maps[0].shape == (2, 16, 16, 16)
    assert "position_embedding" not in variables["params"]
