"""Rotary position embedding."""

import jax
import jax.numpy as jnp

from hybriko_jax.errors import UserError


def rope_angles(positions_BL: jax.Array, head_size: int, theta: float = 1e4) -> jax.Array:
    """Rotation angles of every position.

    Args:
      positions_BL: distance from the document's start, in tokens.
      head_size: K, even.
      theta: base; pair e turns theta^(-2e/K) radians a token.

    Returns:
      angles_BLE in radians, float32, with E = K / 2.

    Raises:
      UserError: head_size is odd, so channels cannot be paired.

    Source: RoFormer, arXiv:2104.09864, section 3.2.2.
    """
    if head_size % 2:
        raise UserError(f"head_size={head_size} must be even: RoPE turns channels in pairs.")
    frequency_E = theta ** (-jnp.arange(0, head_size, 2, dtype=jnp.float32) / head_size)
    return positions_BL[..., None].astype(jnp.float32) * frequency_E


def rotate_part(x_BLHK: jax.Array, angles_BLE: jax.Array) -> jax.Array:
    """`rotate` of the first 2 E channels of every head; the others stay as they are."""
    size = 2 * angles_BLE.shape[-1]
    return jnp.concatenate([rotate(x_BLHK[..., :size], angles_BLE), x_BLHK[..., size:]], axis=-1)


def rotate(x_BLHK: jax.Array, angles_BLE: jax.Array) -> jax.Array:
    """x turned by the angles; channel e is paired with channel e + K / 2 (the GPT-NeoX order)."""
    cos_BL1E = jnp.cos(angles_BLE)[:, :, None]
    sin_BL1E = jnp.sin(angles_BLE)[:, :, None]
    left_BLHE, right_BLHE = jnp.split(x_BLHK, 2, axis=-1)
    return jnp.concatenate(
        [
            left_BLHE * cos_BL1E - right_BLHE * sin_BL1E,
            right_BLHE * cos_BL1E + left_BLHE * sin_BL1E,
        ],
        axis=-1,
    )
