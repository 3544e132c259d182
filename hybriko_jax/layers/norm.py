"""RMSNorm."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from hybriko_jax.sharding import declare


class RMSNorm(nn.Module):
    """x / rms(x) * scale, in float32. Source: arXiv:1910.07467."""

    eps: float = 1e-6

    @nn.compact
    def __call__(self, x_BLD: jax.Array) -> jax.Array:
        scale_D = declare(self, "scale", nn.initializers.ones, (None,), (x_BLD.shape[-1],))
        x_BLD = x_BLD.astype(jnp.float32)
        mean_square_BL1 = jnp.mean(jnp.square(x_BLD), axis=-1, keepdims=True)
        return x_BLD * jax.lax.rsqrt(mean_square_BL1 + self.eps) * scale_D
