"""Mixup and CutMix on the device: every example is mixed with the one before it in the batch.

Both are a weighted sum of an image and its partner. The weights, [H, W], are drawn once a batch, as in
big_vision and in timm's (and so DeiT's) mode="batch": mixup's are all alike, CutMix's 0 in a box and else 1.
"""

import jax
import jax.numpy as jnp

Weights = tuple[jax.Array, jax.Array]


def mixup_weights(key: jax.Array, alpha: float, height: int, width: int) -> Weights:
    """Mixup (Zhang et al. 2018, equation 1): lambda from Beta(alpha, alpha).

    As in big_vision's `get_mixup`, an example's own weight is the larger of lambda and 1 - lambda: pairs are
    mixed in the same proportions, and `labels` are those that weigh more.

    Returns:
      An image's own weight at each pixel, float32 [height, width], and its label's, float32 [].
    """
    weight = jax.random.beta(key, alpha, alpha, dtype=jnp.float32)
    weight = jnp.maximum(weight, 1 - weight)
    return jnp.full((height, width), weight), weight


def cutmix_weights(key: jax.Array, alpha: float, height: int, width: int) -> Weights:
    """CutMix (Yun et al. 2019, section 3.1): a box of the partner, of the share 1 - lambda of the image.

    Lambda is from Beta(alpha, alpha). The box has the image's proportions and its centre anywhere; what
    sticks out is cut off, and the label's weight is the share of pixels that are left (timm's `correct_lam`).

    Returns:
      An image's own weight at each pixel, 0 or 1, float32 [height, width], and its label's, float32 [].
    """
    share_key, row_key, column_key = jax.random.split(key, 3)
    side = jnp.sqrt(1 - jax.random.beta(share_key, alpha, alpha, dtype=jnp.float32))

    def inside(key: jax.Array, length: int) -> jax.Array:
        centre = jax.random.randint(key, (), 0, length)
        half = (side * length).astype(jnp.int32) // 2
        position = jnp.arange(length)
        return (position >= centre - half) & (position < centre + half)

    box = inside(row_key, height)[:, None] & inside(column_key, width)[None, :]  # [height, width]
    pasted = jnp.sum(box, dtype=jnp.float32)
    return 1 - box.astype(jnp.float32), 1 - pasted / (height * width)


def draw_weights(
    key: jax.Array, height: int, width: int, *, mixup: float, cutmix: float, cutmix_share: float
) -> Weights:
    """Draws whichever is on.

    Args:
      key: a random key.
      height: of the images, in pixels.
      width: likewise.
      mixup: alpha of mixup; 0 is off.
      cutmix: alpha of CutMix; 0 is off, but not both may be.
      cutmix_share: where both are on, the probability that it is CutMix (timm's `switch_prob`).

    Returns:
      As `mixup_weights` and `cutmix_weights`.
    """
    choice_key, key = jax.random.split(key)
    if cutmix == 0:
        return mixup_weights(key, mixup, height, width)
    cut = cutmix_weights(key, cutmix, height, width)
    if mixup == 0:
        return cut
    is_cut = jax.random.bernoulli(choice_key, cutmix_share)
    whole = mixup_weights(key, mixup, height, width)
    return jnp.where(is_cut, cut[0], whole[0]), jnp.where(is_cut, cut[1], whole[1])


def mix_images(image: jax.Array, weights: jax.Array) -> jax.Array:
    """weights * image + (1 - weights) * partner.

    Args:
      image: uint8 or float [B, H, W, C]; 0..255 stays 0..255.
      weights: float32 [H, W].

    Returns:
      float32 [B, H, W, C].
    """
    image = image.astype(jnp.float32)
    weights = weights[None, :, :, None]
    return weights * image + (1 - weights) * jnp.roll(image, 1, axis=0)
