"""RMSNorm and LayerNorm."""

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


class LayerNorm(nn.Module):
    """(x - mean(x)) / std(x) * scale + bias, in float32. Source: arXiv:1607.06450."""

    eps: float = 1e-5

    @nn.compact
    def __call__(self, x_BLD: jax.Array) -> jax.Array:
        shape = x_BLD.shape[-1:]
        scale_D = declare(self, "scale", nn.initializers.ones, (None,), shape)
        bias_D = declare(self, "bias", nn.initializers.zeros, (None,), shape)
        x_BLD = x_BLD.astype(jnp.float32)
        x_BLD -= jnp.mean(x_BLD, axis=-1, keepdims=True)
        variance_BL1 = jnp.mean(jnp.square(x_BLD), axis=-1, keepdims=True)
        return x_BLD * jax.lax.rsqrt(variance_BL1 + self.eps) * scale_D + bias_D
