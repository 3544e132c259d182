"""Kernels of eight bits a weight, to use a model faster and in a quarter of the memory.

A weight is a whole number of -127 to 127 times the scale of its output; an activation, one times
the scale of its token, found as it comes. Products are of whole numbers, and exact. There is no
gradient: models are trained in floats, or behind NF4 (`quant`).

Source: LLM.int8(), arXiv:2208.07339, section 3, without its outlier columns.
"""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from hybriko_jax.errors import UserError


@flax.struct.dataclass
class Int8:
    """A quantised kernel_DF; `quantize` makes it."""

    codes_FD: Any
    """int8; transposed, as fast products of bytes want it."""
    scale_F: Any
    """float32."""

    @property
    def shape(self) -> tuple[int, int]:
        """(D, F) of the kernel."""
        F, D = self.codes_FD.shape
        return D, F


def quantize(kernel_DF: Any) -> Int8:
    """A kernel in eight bits, each weight rounded to the nearest.

    Returns:
      A leaf of NumPy arrays.

    Raises:
      UserError: a weight is not finite.
    """
    kernel_FD = np.asarray(kernel_DF, np.float32).T
    absmax_F = np.abs(kernel_FD).max(axis=1)
    if not np.isfinite(absmax_F).all():
        raise UserError(
            f"A kernel of {kernel_FD.shape[1]} inputs holds NaN or infinite weights, which int8 "
            "cannot hold. The checkpoint is damaged: copy it anew."
        )
    scale_F = np.maximum(absmax_F / 127, np.finfo(np.float32).tiny)
    return Int8(np.rint(kernel_FD / scale_F[:, None]).astype(np.int8), scale_F)


def product(x_BLD: jax.Array, leaf: Int8) -> jax.Array:
    """x @ kernel.

    Args:
      x_BLD: any float dtype.

    Returns:
      y_BLF in float32.
    """
    B, L, D = x_BLD.shape
    x_XD = x_BLD.reshape(-1, D).astype(jnp.float32)
    absmax_X1 = jnp.abs(x_XD).max(axis=1, keepdims=True)
    scale_X1 = jnp.maximum(absmax_X1 / 127, jnp.finfo(jnp.float32).tiny)
    codes_XD = jnp.rint(x_XD / scale_X1).astype(jnp.int8)
    # XLA on a CPU has fast products of bytes, but not for one row.
    codes_XD = jnp.pad(codes_XD, ((0, max(0, 2 - len(x_XD))), (0, 0)))
    sums: Any = jnp.einsum("XD,FD->XF", codes_XD, leaf.codes_FD, preferred_element_type=jnp.int32)
    y_XF = sums[: len(x_XD)] * scale_X1 * leaf.scale_F
    return y_XF.reshape(B, L, -1)
