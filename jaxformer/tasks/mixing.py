"""Mixup and CutMix on the device: each example is mixed with the one before it in the batch."""

import jax
import jax.numpy as jnp


def mixup(key: jax.Array, image: jax.Array, alpha: float) -> tuple[jax.Array, jax.Array]:
    """weight * image + (1 - weight) * partner (Zhang et al. 2018), one weight a batch, as in big_vision.

    Args:
      key: a random key.
      image: [B, H, W, C], any dtype; 0..255 stays 0..255.
      alpha: the weight is drawn from Beta(alpha, alpha).

    Returns:
      The mixed images, float32 [B, H, W, C], and each one's own weight, float32 [].
    """
    weight = jax.random.beta(key, alpha, alpha).astype(jnp.float32)
    image = image.astype(jnp.float32)
    return weight * image + (1 - weight) * jnp.roll(image, 1, axis=0), weight


def cutmix(key: jax.Array, image: jax.Array, alpha: float) -> tuple[jax.Array, jax.Array]:
    """Pastes a box of the partner (Yun et al. 2019, algorithm 1), one box a batch.

    Args:
      key: a random key.
      image: [B, H, W, C], any dtype.
      alpha: the share of the image that is kept is drawn from Beta(alpha, alpha).

    Returns:
      The mixed images, float32 [B, H, W, C], and each one's own weight, float32 []: the share of pixels that are
      its own, exactly, also where the box was cut off at the border.
    """
    share_key, row_key, column_key = jax.random.split(key, 3)
    _, height, width, _ = image.shape
    side = jnp.sqrt(1 - jax.random.beta(share_key, alpha, alpha))

    def inside(key: jax.Array, length: int) -> jax.Array:
        centre = jax.random.randint(key, (), 0, length)
        half = (side * length / 2).astype(jnp.int32)
        position = jnp.arange(length)
        return (position >= centre - half) & (position < centre + half)

    box = inside(row_key, height)[:, None] & inside(column_key, width)[None, :]  # [H, W]
    image = image.astype(jnp.float32)
    pasted = jnp.broadcast_to(box[None, :, :, None], image.shape)
    return jnp.where(pasted, jnp.roll(image, 1, axis=0), image), 1 - jnp.mean(box, dtype=jnp.float32)


def mix(
    key: jax.Array, image: jax.Array, *, mixup_alpha: float, cutmix_alpha: float, cutmix_share: float
) -> tuple[jax.Array, jax.Array]:
    """Mixup or CutMix, whichever is on (alpha over 0); where both are, CutMix in `cutmix_share` of the batches.

    Returns:
      The mixed images, float32 [B, H, W, C], and each one's own weight, float32 [].
    """
    choice_key, mix_key = jax.random.split(key)
    if mixup_alpha > 0 and cutmix_alpha > 0:
        cut = jax.random.bernoulli(choice_key, cutmix_share)
        return jax.lax.cond(
            cut,
            lambda: cutmix(mix_key, image, cutmix_alpha),
            lambda: mixup(mix_key, image, mixup_alpha),
        )
    if cutmix_alpha > 0:
        return cutmix(mix_key, image, cutmix_alpha)
    return mixup(mix_key, image, mixup_alpha)
