"""FLOPs against counts by hand."""

import jax
import jax.numpy as jnp
import pytest

from jaxformer.analysis.flops import count_flops
from jaxformer.models.conv import Conv
from jaxformer.models.vit import ViT
from jaxformer.state import init_variables


def zeros(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_a_product():
    assert count_flops(jnp.dot, zeros(3, 5), zeros(5, 7)) == 2 * 3 * 5 * 7


def test_batched_products_in_a_scan_count_every_iteration():
    def looped(x):
        return jax.lax.scan(lambda c, _: (jnp.einsum("bij,bjk->bik", c, c), None), x, length=6)[0]

    assert count_flops(looped, zeros(4, 5, 5)) == 6 * 4 * 2 * 5**3


def test_a_grouped_convolution():
    def convolve(x, kernel):
        dims = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=dims, feature_group_count=4
        )

    assert count_flops(convolve, zeros(2, 8, 8, 8), zeros(3, 3, 2, 12)) == 2 * (2 * 4 * 4 * 12) * (3 * 3 * 2)


def test_the_larger_branch_counts():
    def either(x):
        return jax.lax.cond(x.sum() > 0, lambda y: y @ y, lambda y: (y @ y) @ y, x)

    assert count_flops(either, zeros(4, 4)) == 2 * 2 * 4**3


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("remat", ["none", "full"])
def test_a_vit(scan, remat):
    width, mlp, depth, tokens, patch = 32, 64, 3, 17, 4
    model = ViT(image_size=16, patch_size=patch, width=width, depth=depth, num_heads=4, mlp_dim=mlp, num_classes=10,
                pool="cls", scan=scan, remat=remat)  # fmt: skip
    image = {"image": zeros(1, 16, 16, 3)}
    variables = jax.eval_shape(
        lambda: init_variables(model, {"image": jnp.zeros((1, 16, 16, 3))}, jax.random.key(0))
    )
    block = 4 * tokens * width * width + 2 * tokens * tokens * width + 2 * tokens * width * mlp
    products = 16 * patch * patch * 3 * width + depth * block + width * 10
    found = count_flops(lambda v, x: model.apply(v, **x, deterministic=True), variables, image)
    assert found == 2 * products


def test_the_published_gflops_of_vit_b16():
    """17.6 GFLOPs, counted as multiply-adds, at 224 pixels: Touvron et al. 2021 (DeiT), table 5, and timm."""
    model = ViT(
        image_size=224, patch_size=16, width=768, depth=12, num_heads=12, num_classes=1000, pool="cls"
    )
    image = {"image": zeros(1, 224, 224, 3)}
    variables = jax.eval_shape(
        lambda: init_variables(model, {"image": jnp.zeros((1, 224, 224, 3))}, jax.random.key(0))
    )
    found = count_flops(lambda v, x: model.apply(v, **x, deterministic=True), variables, image)
    assert found / 2e9 == pytest.approx(17.58, abs=0.05)


def test_a_depthwise_convolution_counts_on_every_platform():
    model = Conv(6, 3, 2, depthwise=True)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 6))))
    assert count_flops(model.apply, variables, zeros(2, 8, 8, 6)) == 2 * (2 * 4 * 4 * 6) * (3 * 3)
