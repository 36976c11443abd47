"""Rotary positions: what they are, what they keep, and what each way to stretch them does to wavelengths."""

import math

import jax
import numpy as np
import pytest

from jaxformer.models.rotary import Rotary, apply_rotary

DIM = 8


def heads(seed=0, tokens=5):
    return np.random.default_rng(seed).normal(size=(2, 3, tokens, DIM)).astype(np.float32)


def turned(x, positions, rotary):
    positions = np.broadcast_to(np.asarray(positions, np.int32), (len(x), x.shape[2]))
    return np.asarray(jax.jit(lambda x, p: apply_rotary(x, rotary.tables(p, DIM)))(x, positions))


def test_pairs_turn_as_complex_numbers():
    """Su et al. 2021, equation 12, for pairs (x_i, x_{i + d / 2})."""
    x, positions = heads(), np.array([[0, 1, 2, 3, 4], [7, 3, 0, 90, 2]])
    ours = turned(x, positions, Rotary(base=100.0))
    for i in range(DIM // 2):
        pair = x[..., i] + 1j * x[..., i + DIM // 2]
        expected = pair * np.exp(1j * positions[:, None, :] * 100.0 ** (-2 * i / DIM))
        np.testing.assert_allclose(
            ours[..., i] + 1j * ours[..., i + DIM // 2], expected, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    "rotary",
    [Rotary(), Rotary(share=0.5), Rotary(scaling="yarn", factor=4.0, original_length=16)],
    ids=["plain", "share", "yarn"],
)
def test_products_depend_on_the_distance_alone(rotary):
    query, key, positions = heads(0), heads(1), np.arange(5)

    def products(shift):
        turned_query, turned_key = (turned(x, positions + shift, rotary) for x in (query, key))
        return np.einsum("bhtd,bhsd->bhts", turned_query, turned_key)

    np.testing.assert_allclose(products(17), products(0), rtol=1e-4, atol=1e-4)
    still = np.einsum("bhtd,bhsd->bhts", query, key)
    assert np.abs(products(0) - still).max() > 0.1


def test_features_behind_the_share_have_no_position():
    x = heads()
    y = turned(x, [9, 8, 7, 6, 5], Rotary(share=0.7))  # 5.6 features: 4 apply_rotary, an even number
    np.testing.assert_array_equal(y[..., 4:], x[..., 4:])
    assert (np.abs(y[..., :4] - x[..., :4]).max(axis=(0, 1, 2)) > 1e-3).all()
    assert Rotary(share=0.25).size(64) == 16


def test_turning_keeps_lengths_and_the_dtype():
    x = heads()
    y = turned(x, [0, 1, 20, 300, 4000], Rotary())
    np.testing.assert_array_equal(y[:, :, 0], x[:, :, 0])  # at position 0 nothing turns
    np.testing.assert_allclose(np.linalg.norm(y, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-5)
    assert turned(x.astype("bfloat16"), range(5), Rotary()).dtype == "bfloat16"


def test_linear_scaling_divides_positions():
    positions, long = np.arange(5)[None], 4 * np.arange(5)[None]
    expected = Rotary().tables(positions, DIM)
    for ours, plain in zip(Rotary(scaling="linear", factor=4.0).tables(long, DIM), expected):
        np.testing.assert_allclose(ours, plain, rtol=1e-6, atol=1e-6)


def test_ntk_scaling_stretches_the_longest_wavelength_by_the_factor_and_the_shortest_not():
    plain, ntk = (r.frequencies(64) for r in (Rotary(), Rotary(scaling="ntk", factor=8.0)))
    assert ntk[0] == plain[0] == 1
    assert ntk[-1] == pytest.approx(plain[-1] / 8)
    assert (np.diff(plain / ntk) > 0).all()


def test_yarn_divides_what_turns_seldom_and_leaves_what_turns_often():
    """Peng et al. 2023, section 3.2, with the bounds of its code, which are whole pairs."""
    length, factor = 1024, 16.0
    plain = Rotary().frequencies(64)
    yarn = Rotary(scaling="yarn", factor=factor, original_length=length).frequencies(64)
    turns = length * plain / (2 * math.pi)
    np.testing.assert_allclose(yarn[turns > 1.4 * 32], plain[turns > 1.4 * 32], rtol=1e-12)
    np.testing.assert_allclose(yarn[turns < 1 / 1.4], plain[turns < 1 / 1.4] / factor, rtol=1e-12)
    between = (turns < 31) & (turns > 1.1)
    assert between.any()
    assert ((yarn < plain) & (yarn > plain / factor))[between].all()


def test_yarn_sharpens_attention():
    rotary = Rotary(scaling="yarn", factor=16.0, original_length=64)
    assert rotary.sharpening == pytest.approx(0.1 * math.log(16) + 1)
    cosine, sine = rotary.tables(np.arange(5)[None], DIM)
    np.testing.assert_allclose(cosine**2 + sine**2, rotary.sharpening**2, rtol=1e-5)
    for other in (Rotary(scaling="linear", factor=16.0), Rotary(scaling="yarn"), Rotary()):
        assert other.sharpening == 1


def test_llama3_divides_long_wavelengths_keeps_short_ones_and_goes_between():
    """The bounds of Llama 3.1: wavelengths of 8192 / 4 and 8192 / 1."""
    rotary = Rotary(500_000.0, scaling="llama3", factor=8.0, original_length=8192)
    plain, ours = Rotary(500_000.0).frequencies(128), rotary.frequencies(128)
    wavelength = 2 * math.pi / plain
    for i, length in enumerate(wavelength):
        smooth = (8192 / length - 1) / (4 - 1)
        expected = plain[i] if length < 2048 else plain[i] / 8
        if 2048 <= length <= 8192:
            expected = (1 - smooth) * plain[i] / 8 + smooth * plain[i]
        assert ours[i] == pytest.approx(expected, rel=1e-12)
    assert ((wavelength > 2048) & (wavelength < 8192)).any()
