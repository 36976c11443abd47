"""LoRA and DoRA: what is trained, what stays, and what the model is applied with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxformer.config.schema import problems
from jaxformer.optim.lora import DoRA, LoRA, of_model

SHAPES = {
    "encoder/block_0/attention/query/kernel": (6, 2, 3),
    "encoder/block_0/attention/query/bias": (2, 3),
    "encoder/block_0/attention/out/kernel": (2, 3, 6),
    "encoder/block_0/mlp/up/kernel": (6, 12),
    "experts/up_kernel": (4, 6, 12),
    "conv/kernel": (3, 3, 5, 7),
    "encoder/blocks/mlp/down/kernel": (2, 12, 6),
}
RANK, ALPHA = 2, 3.0


def nested(leaves):
    tree = {}
    for path, leaf in leaves.items():
        *above, name = path.split("/")
        place = tree
        for part in above:
            place = place.setdefault(part, {})
        place[name] = leaf
    return tree


def random_params(seed=0):
    rng = np.random.default_rng(seed)
    return nested({path: jnp.asarray(rng.normal(size=shape), jnp.float32) for path, shape in SHAPES.items()})


def moved(lora, seed=1):
    """Parameters with A and B, all of them random."""
    added = flatten_dict(lora.added(random_params(), jax.random.key(0)), sep="/")
    rng = np.random.default_rng(seed)
    return nested(
        {
            path: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32) if "_lora_" in path else leaf
            for path, leaf in added.items()
        }
    )


@pytest.mark.parametrize("adapter", [LoRA, DoRA])
def test_at_first_the_model_is_what_it_was(adapter):
    lora = adapter(kernels=("encoder", "experts", "conv"), rank=RANK)
    params = random_params()
    added = lora.added(params, jax.random.key(0))
    merged = flatten_dict(lora.merged(added), sep="/")
    assert merged.keys() == SHAPES.keys()
    for path, leaf in flatten_dict(params, sep="/").items():
        np.testing.assert_allclose(merged[path], leaf, rtol=1e-6, err_msg=path)
    assert flatten_dict(of_model(added), sep="/").keys() == SHAPES.keys()


def test_a_product_of_thin_matrices_is_added_to_each_kernel():
    lora = LoRA(kernels=("encoder", "experts", "conv"), rank=RANK, alpha=ALPHA)
    params = moved(lora)
    leaves, merged = (flatten_dict(tree, sep="/") for tree in (params, lora.merged(params)))
    scale = ALPHA / RANK

    def change(path):
        a, b = np.asarray(leaves[f"{path}_lora_a"]), np.asarray(leaves[f"{path}_lora_b"])
        return np.asarray(merged[path] - leaves[path]), scale * a, b

    found, a, b = change("encoder/block_0/attention/query/kernel")
    np.testing.assert_allclose(found, (a @ b).reshape(6, 2, 3), atol=1e-5)
    found, a, b = change("encoder/block_0/attention/out/kernel")
    np.testing.assert_allclose(found, np.einsum("hdr,rf->hdf", a.reshape(2, 3, RANK), b), atol=1e-5)
    for each in ("experts/up_kernel", "encoder/blocks/mlp/down/kernel"):  # one for each expert, each layer
        found, a, b = change(each)
        np.testing.assert_allclose(found, np.einsum("eir,ero->eio", a, b), atol=1e-5)
    found, a, b = change("conv/kernel")
    np.testing.assert_allclose(found, (a @ b).reshape(3, 3, 5, 7), atol=1e-5)


def test_dora_gives_every_column_its_own_length():
    lora = DoRA(kernels=("mlp/up",), rank=RANK, alpha=ALPHA)
    params = moved(lora)
    leaves = flatten_dict(params, sep="/")
    merged = lora.merged(params)["encoder"]["block_0"]["mlp"]["up"]["kernel"]
    lengths = leaves["encoder/block_0/mlp/up/kernel_lora_magnitude"]
    np.testing.assert_allclose(np.linalg.norm(merged, axis=0), np.abs(lengths), rtol=1e-5)
    np.testing.assert_array_equal(leaves["conv/kernel"], lora.merged(params)["conv"]["kernel"])


def test_dora_is_pefts():
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    lora = DoRA(kernels=("mlp/up",), rank=RANK, alpha=ALPHA)
    leaves = flatten_dict(moved(lora), sep="/")
    path = "encoder/block_0/mlp/up/kernel"
    kernel, a, b = (np.asarray(leaves[path + end]) for end in ("", "_lora_a", "_lora_b"))
    module = torch.nn.Sequential(torch.nn.Linear(6, 12, bias=False))
    with torch.no_grad():
        module[0].weight.copy_(torch.from_numpy(kernel.T.copy()))
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["0"], use_dora=True)
    theirs = peft.get_peft_model(module, config)
    layer = theirs.base_model.model[0]
    with torch.no_grad():
        layer.lora_A["default"].weight.copy_(torch.from_numpy(a.T.copy()))
        layer.lora_B["default"].weight.copy_(torch.from_numpy(b.T.copy()))
        magnitude = torch.from_numpy(np.array(leaves[f"{path}_lora_magnitude"]))
        layer.lora_magnitude_vector["default"].weight.copy_(magnitude)
        x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
        expected = theirs(x).numpy()
    merged = lora.merged(moved(lora))["encoder"]["block_0"]["mlp"]["up"]["kernel"]
    np.testing.assert_allclose(x.numpy() @ np.asarray(merged), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("lora", "line"),
    [
        ({"kernels": ("atention/query",)}, "kernels: 'atention/query' takes no kernel; nearest: attention/query"),
        ({"kernels": ("bias",)}, "kernels: 'bias' takes no kernel"),
        ({"rank": 7, "kernels": ("query",)}, "rank=7: encoder/block_0/attention/query/kernel has no more than 6"),
        ({"kernels": ("encoder/block_1/mlp/down",)}, "takes some layers of the stack encoder/blocks/mlp/down/kernel"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_model_is_refused(lora, line):
    found = list(LoRA(**lora).problems_with(random_params()))
    assert any(line in each for each in found), found


def test_fields_are_checked():
    assert "kernels[0]" in problems(LoRA(kernels=("(",)))[0]
    assert "rank=0" in problems(LoRA(rank=0))[0]
    assert "kernels=[]: expected at least one pattern" in problems(LoRA(kernels=()))[0]
