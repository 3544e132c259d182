"""Causal depthwise convolution over time."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from hybriko_jax.sharding import declare


class TemporalConv(nn.Module):
    """y_t = sum_c kernel_c x_{t-c}, never reaching across a document's start.

    Source: Griffin, arXiv:2402.19427, section 2.3.
    """

    width: int
    """C, taps."""

    @nn.compact
    def __call__(
        self, x_BLW: jax.Array, positions_BL: jax.Array, before_BCW: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Args: before_BCW holds the C - 1 inputs before x. Returns y_BLW and the last C - 1."""
        init = nn.initializers.normal(self.width**-0.5)
        kernel_CW = declare(self, "kernel", init, ("C", "W"), (self.width, x_BLW.shape[-1]))
        length, past = x_BLW.shape[1], self.width - 1
        x_BXW = jnp.concatenate([before_BCW, x_BLW], axis=1)
        y_BLW = jnp.zeros_like(x_BLW)
        for c in range(self.width):
            tap_BLW = x_BXW[:, past - c : past - c + length]
            y_BLW += jnp.where((positions_BL >= c)[..., None], tap_BLW, 0) * kernel_CW[c]
        return y_BLW, x_BXW[:, length:]
