"""The matrix product of the project, and the dense layer: a 2-D kernel (in, out)."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hybriko_jax.int8 import Int8
from hybriko_jax.int8 import product as int8_product
from hybriko_jax.lora import LoRA
from hybriko_jax.quant import NF4
from hybriko_jax.quant import product as nf4_product
from hybriko_jax.sharding import declare


def einsum(subscripts: str, x: jax.Array, y: jax.Array, dtype: str) -> jax.Array:
    """jnp.einsum of two arrays, with operands in `dtype` and a float32 sum.

    The gradient's two products take operands in `dtype` and sum in float32 too, which plain
    autodiff would not do: it would round the sums to the operands' type, which is less exact, and
    slow on a CPU.

    Args:
      subscripts: explicit, "x,y->out"; every letter of an operand stands in the other or in out.
      dtype: "float32" or "bfloat16".

    Returns:
      out in float32.
    """
    return _einsum(subscripts, x, y, dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def _einsum(subscripts, x, y, dtype) -> Any:
    return _forward(subscripts, x, y, dtype)[0]


def _product(subscripts, x, y):
    return jnp.einsum(subscripts, x, y, preferred_element_type=jnp.float32)


def _forward(subscripts, x, y, dtype):
    x, y = x.astype(dtype), y.astype(dtype)
    return _product(subscripts, x, y), (x, y)


def _backward(subscripts, dtype, residuals, g):
    x, y = residuals
    g = g.astype(dtype)
    operands, out = subscripts.split("->")
    x_axes, y_axes = operands.split(",")
    dx = _product(f"{out},{y_axes}->{x_axes}", g, y)
    dy = _product(f"{x_axes},{out}->{y_axes}", x, g)
    return dx, dy


_einsum.defvjp(_forward, _backward)


class Linear(nn.Module):
    """y = x @ kernel + bias.

    The kernel may be an `NF4` or `Int8` leaf. The collection "lora" may hold a `LoRA` leaf for it.
    """

    features: int
    axes: tuple[str, str]
    dtype: str = "float32"
    init_scale: float = 1.0
    """Variance of the kernel's initial values, times the number of inputs."""
    use_bias: bool = False

    @nn.compact
    def __call__(self, x_BLD: jax.Array) -> jax.Array:
        # Linen's self.param would refuse a leaf that is no array.
        quantized = self.has_variable("params", "kernel") and self.get_variable("params", "kernel")
        if isinstance(quantized, NF4):
            y_BLF = nf4_product(x_BLD, quantized, self.dtype, self.axes)
        elif isinstance(quantized, Int8):
            y_BLF = int8_product(x_BLD, quantized)
        else:
            init = nn.initializers.variance_scaling(self.init_scale, "fan_in", "truncated_normal")
            kernel_DF = declare(self, "kernel", init, self.axes, (x_BLD.shape[-1], self.features))
            y_BLF = einsum("BLD,DF->BLF", x_BLD, kernel_DF, self.dtype)
        if self.use_bias:
            zeros = nn.initializers.zeros
            y_BLF += declare(self, "bias", zeros, self.axes[1:], (self.features,))
        if self.has_variable("lora", "kernel"):
            y_BLF += self._adapted(x_BLD, self.get_variable("lora", "kernel"))
        return y_BLF

    def _adapted(self, x_BLD: jax.Array, lora: LoRA) -> jax.Array:
        if lora.dropout and self.has_rng("dropout"):
            keep = jax.random.bernoulli(self.make_rng("dropout"), 1 - lora.dropout, x_BLD.shape)
            x_BLD = jnp.where(keep, x_BLD / (1 - lora.dropout), 0)
        x_BLR = einsum("BLD,DR->BLR", x_BLD, lora.a_DR, self.dtype)
        return lora.scale * einsum("BLR,RF->BLF", x_BLR, lora.b_RF, self.dtype)
